"""Little BIDS datasets with ASL for tests: valid as they are made, spoilt on purpose after that.

    dataset = FakeDataset(tmp_path)
    run = dataset.add("01", acq="pcasl")        # 3D PCASL, 3 delays x 2 repeats, separate M0
    run.edit(PostLabelingDelay=1800)            # plant a fault in the sidecar ...
    run.edit(LabelingDuration=None)             # ... None removes a key
    run.edit_m0(IntendedFor="bids::nowhere")    # the same for the sidecar of the M0
    run.context(["control", "label"])           # rewrite aslcontext.tsv
    run.image(np.zeros((4, 4, 4, 12)))          # rewrite the image
    run.asl.write_bytes(b"")                    # all files are plain paths

The images hold a ball of tissue whose signal follows the consensus equations (written out
below, apart from the package's own kinetics), so a whole run of the app can be checked
against `CBF` and `ATT`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

CBF = 60.0  # mL/100 g/min
ATT = 1.2  # s
M0 = 1000.0
T1_BLOOD = 1.65  # s
T1_TISSUE = 1.607  # s; of the static signal only
LAMBDA = 0.9  # mL/g

LABELLING = {
    "PCASL": {"ArterialSpinLabelingType": "PCASL", "PCASLType": "balanced"},
    "CASL": {"ArterialSpinLabelingType": "CASL"},
    "PASL": {
        "ArterialSpinLabelingType": "PASL",
        "PASLType": "FAIR",
        "BolusCutOffFlag": True,
        "BolusCutOffTechnique": "QUIPSSII",
    },
    "VSASL": {
        "ArterialSpinLabelingType": "PASL",
        "PASLType": "VSI",
        "BolusCutOffFlag": False,
        "LabelingEfficiency": 0.56,
    },
}
EFFICIENCY = {"PCASL": 0.85, "CASL": 0.68, "PASL": 0.98, "VSASL": 0.56}
DELAYS = {
    "PCASL": (1.0, 1.5, 2.0),
    "CASL": (1.0, 1.5, 2.0),
    "PASL": (1.2, 1.7, 2.2),
    "VSASL": (0.9, 1.4, 1.9),
}
DURATION = {"PCASL": 1.8, "CASL": 1.8, "PASL": 0.7, "VSASL": np.inf}


def delta_m(scheme, delay, duration, cbf=CBF, att=ATT):
    """ΔM/M0 by the single-compartment equations with T1 of tissue equal to that of blood."""
    scale = 2 * EFFICIENCY[scheme] * cbf / 6000 / LAMBDA
    if scheme in {"PCASL", "CASL"}:
        late = np.exp(-np.maximum(delay, att) / T1_BLOOD)
        early = np.exp(-np.maximum(delay + duration, att) / T1_BLOOD)
        return scale * T1_BLOOD * (late - early)
    if scheme == "PASL":
        return scale * np.exp(-delay / T1_BLOOD) * np.clip(delay - att, 0, duration)
    return scale * np.exp(-delay / T1_BLOOD) * np.minimum(np.minimum(delay, att), duration)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def edit_json(path: Path, changes: dict[str, Any]) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    write_json(path, {key: value for key, value in content.items() if value is not None})


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)


def runs_of(root: Path, subject: str = "01") -> tuple:
    """Return the runs of a participant as `find_runs` does, without the cost of an index."""
    from asl_bids_app.bids.layout import assemble

    def all_of(pattern: str) -> list[Path]:
        return sorted(path for path in root.rglob(pattern) if "derivatives" not in path.parts)

    tables = [*all_of("*.json"), *all_of("*.tsv")]
    return assemble(root, all_of("*_asl.nii*"), all_of("*_m0scan.nii*"), tables)[subject]


@dataclass(frozen=True)
class FakeRun:
    """The files of one run."""

    asl: Path
    sidecar: Path
    aslcontext: Path
    m0scan: Path | None
    m0_sidecar: Path | None
    affine: np.ndarray
    mask: np.ndarray

    def edit(self, **changes: Any) -> FakeRun:
        """Change keys of the sidecar; None removes one."""
        edit_json(self.sidecar, changes)
        return self

    def edit_m0(self, **changes: Any) -> FakeRun:
        """Change keys of the sidecar of the M0 scan; None removes one."""
        edit_json(self.m0_sidecar, changes)
        return self

    def context(self, types: list[str]) -> FakeRun:
        """Rewrite aslcontext.tsv."""
        self.aslcontext.write_text("\n".join(["volume_type", *types]) + "\n")
        return self

    def image(self, data: np.ndarray, affine: np.ndarray | None = None) -> FakeRun:
        """Rewrite the ASL image."""
        save(self.asl, data, self.affine if affine is None else affine)
        return self

    def image_m0(self, data: np.ndarray, affine: np.ndarray | None = None) -> FakeRun:
        """Rewrite the M0 image."""
        save(self.m0scan, data, self.affine if affine is None else affine)
        return self


class FakeDataset:
    """A BIDS dataset that grows by `add`."""

    def __init__(self, root: Path, **description: Any) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        content = {
            "Name": "Fake ASL",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["A. Nobody", "B. Nobody"],
        }
        write_json(self.root / "dataset_description.json", content | description)
        (self.root / "README").write_text("Simulated arterial spin labelling for tests. " * 5)

    def add(
        self,
        subject: str = "01",
        *,
        session: str | None = None,
        acq: str | None = None,
        run: str | None = None,
        scheme: str = "PCASL",
        delays: tuple[float, ...] | None = None,
        label_duration: float | None = None,
        repeats: int = 2,
        order: tuple[str, ...] = ("control", "label"),
        blocked: bool = False,
        m0: str = "Separate",
        shape: tuple[int, int, int] = (12, 12, 6),
        zooms: tuple[float, float, float] = (12.0, 12.0, 18.0),
        slice_step: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        extension: str = ".nii.gz",
        **metadata: Any,
    ) -> FakeRun:
        """Write one run.

        Parameters
        ----------
        scheme
            PCASL, CASL, PASL or VSASL (in the form that the validator accepts).
        order
            Volumes of one repeat of one delay: ("control", "label"), ("label", "control")
            or ("deltam",).
        blocked
            All repeats of a delay before the next delay, rather than in cycles.
        m0
            Separate (a file for this run alone), Included (first volume), Estimate, Absent.
        slice_step
            Seconds from slice to slice of a 2D readout; 0 is a 3D readout.
        noise
            Standard deviation as a fraction of M0.
        metadata
            Keys of the sidecar to add or change; None removes one.
        """
        delays = DELAYS[scheme] if delays is None else delays
        duration = DURATION[scheme] if label_duration is None else label_duration
        cycle = [d for d in delays for _ in range(repeats)] if blocked else list(delays) * repeats
        volumes = [(kind, delay) for delay in cycle for kind in order]
        if m0 == "Included":
            volumes.insert(0, ("m0scan", 0.0))
        kinds = [kind for kind, _ in volumes]
        times = [delay for _, delay in volumes]

        entities = {"ses": session, "acq": acq, "run": run}
        stem = "_".join([f"sub-{subject}"] + [f"{k}-{v}" for k, v in entities.items() if v])
        relative = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []), "perf")
        folder = self.root / relative
        folder.mkdir(parents=True, exist_ok=True)

        sidecar = {
            **LABELLING[scheme],
            "PostLabelingDelay": times if len(set(times)) > 1 else times[0],
            "BackgroundSuppression": False,
            "M0Type": m0,
            "TotalAcquiredPairs": len(cycle),
            "RepetitionTimePreparation": 5.0,
            "MagneticFieldStrength": 3.0,
            "MRAcquisitionType": "2D" if slice_step else "3D",
            "EchoTime": 0.012,
            "FlipAngle": 90,
            "VascularCrushing": False,
            "Manufacturer": "Fake",
            "AcquisitionVoxelSize": list(zooms),
        }
        if scheme in {"PCASL", "CASL"}:
            sidecar["LabelingDuration"] = duration
        elif np.isfinite(duration):
            sidecar["BolusCutOffFlag"] = True
            sidecar["BolusCutOffDelayTime"] = duration
            sidecar.setdefault("BolusCutOffTechnique", "VSS")
        slice_time = slice_step * np.arange(shape[2])
        if slice_step:
            sidecar["SliceTiming"] = slice_time.round(6).tolist()
        if m0 == "Estimate":
            sidecar["M0Estimate"] = M0 / LAMBDA
        m0_time = 10.0
        m0_content = {
            "IntendedFor": f"bids::{relative.as_posix()}/{stem}_asl{extension}",
            "RepetitionTimePreparation": m0_time,
            **{
                key: sidecar[key]
                for key in (
                    "EchoTime",
                    "FlipAngle",
                    "MRAcquisitionType",
                    "MagneticFieldStrength",
                    "SliceTiming",
                    "Manufacturer",
                )
                if key in sidecar
            },
        }
        sidecar.update(metadata)

        grid = np.stack(
            np.meshgrid(*((np.arange(n) - (n - 1) / 2) / n for n in shape), indexing="ij")
        )
        mask = (grid**2).sum(axis=0) < 0.4**2
        affine = np.diag([*zooms, 1.0])
        affine[:3, 3] = -np.array(zooms) * (np.array(shape) - 1) / 2
        rng = np.random.default_rng(seed)

        def recovered(seconds: float) -> np.ndarray:
            return M0 * (1 - np.exp(-seconds / T1_TISSUE)) * mask

        def volume(kind: str, delay: float) -> np.ndarray:
            signal = M0 * delta_m(scheme, delay + slice_time, duration) * mask
            static = recovered(5.0)
            value = {"label": static - signal, "deltam": signal}.get(kind, static)
            return value + noise * M0 * rng.standard_normal(shape)

        asl = folder / f"{stem}_asl{extension}"
        save(asl, np.stack([volume(*v) for v in volumes], axis=-1), affine)
        made = FakeRun(
            asl,
            folder / f"{stem}_asl.json",
            folder / f"{stem}_aslcontext.tsv",
            folder / f"{stem}_m0scan{extension}" if m0 == "Separate" else None,
            folder / f"{stem}_m0scan.json" if m0 == "Separate" else None,
            affine,
            mask,
        )
        write_json(made.sidecar, {k: v for k, v in sidecar.items() if v is not None})
        made.context(kinds)
        if made.m0scan is not None:
            save(made.m0scan, recovered(m0_time), affine)
            write_json(made.m0_sidecar, m0_content)
        return made
