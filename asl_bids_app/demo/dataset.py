"""Write simulated cases as a BIDS dataset, with the truth beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.demo.cases import CASES, DEFAULT_CASES, Case, Run
from asl_bids_app.demo.gkm import Physics
from asl_bids_app.demo.scanner import (
    Grid,
    View,
    acquire,
    blur,
    magnitude,
    motion,
    noise_sd,
    shading,
    slice_times,
    view,
    volume_order,
)
from asl_bids_app.demo.simulated_head import Head, make_head
from asl_bids_app.demo.truth import (
    save_image,
    save_json,
    write_motion,
    write_top_level,
    write_truth,
)
from asl_bids_app.errors import InputError

GRID_3D: Final = Grid((52, 64, 24), (3.5, 3.5, 6.0))
GRID_2D: Final = Grid((64, 64, 22), (3.4375, 3.4375, 6.0))
M0_REPETITION_TIME: Final = {"separate": 10.0, "included": 8.0}
ECHO_TIME: Final = 0.014


def simulate(
    out_dir: Path | str,
    cases: Sequence[str] = DEFAULT_CASES,
    *,
    seed: int = 1,
    snr: float = 10.0,
    voxel_scale: float = 1.0,
    head_motion: bool = True,
    physics: Physics | None = None,
) -> Path:
    """Write a simulated BIDS dataset and, under ``derivatives/truth``, what is true of it.

    Parameters
    ----------
    out_dir
        A new or empty folder.
    cases
        Names from `CASES`.
    seed
        Of anatomy, perfusion, motion and noise.
    snr
        Mean grey-matter ΔM of the strongest measurement over the standard deviation of an
        averaged measurement; ``inf`` for no noise.
    voxel_scale
        Makes the voxels larger and the images smaller; 2 is meant for tests.
    head_motion
        False keeps every head still.
    physics
        Constants of the simulated world; by default those that the app assumes at 3 T.

    Returns
    -------
    Path
        `out_dir`.

    Raises
    ------
    InputError
        If the folder isn't empty, a case is unknown, or a number is out of range.
    """
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(out, "", "files", "a new or empty folder", "remove it or name another")
    unknown = [name for name in cases if name not in CASES]
    if unknown or not cases:
        raise InputError("command line", "--cases", ", ".join(unknown) or "none", ", ".join(CASES))
    if not snr > 0:
        raise InputError("command line", "--snr", f"{snr:g}", "a number > 0")
    if not 0.5 <= voxel_scale <= 4:
        raise InputError("command line", "--voxel-scale", f"{voxel_scale:g}", "0.5 to 4")
    physics = physics or Physics()
    chosen = [CASES[name] for name in dict.fromkeys(cases)]
    out.parent.mkdir(parents=True, exist_ok=True)
    # The dataset appears whole or not at all.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=out.parent) as beside:
        unfinished = Path(beside) / out.name
        write_top_level(unfinished, chosen)
        for case in chosen:
            _write_case(unfinished, case, seed, snr, voxel_scale, head_motion, physics)
        unfinished.replace(out)
    return out


def _write_case(
    out: Path,
    case: Case,
    seed: int,
    snr: float,
    voxel_scale: float,
    head_motion: bool,
    physics: Physics,
) -> None:
    rng = np.random.default_rng([seed, int(case.label)])
    two_d = any(run.two_d for run in case.runs)
    grid = _coarser(GRID_2D if two_d else GRID_3D, voxel_scale)
    coarseness = 2 if voxel_scale >= 2 else 1
    head = blur(make_head(int(rng.integers(2**31)), case.lesion, coarseness), grid)
    still = view(head, grid)
    folder = out / f"sub-{case.label}" / "perf"
    folder.mkdir(parents=True)
    truth = out / "derivatives" / "truth" / f"sub-{case.label}" / "perf"
    truth.mkdir(parents=True)
    write_truth(truth, case, still, grid, physics)

    sd = 0.0
    for run in case.runs:
        poses = None
        if run.motion and head_motion:
            poses = motion(len(volume_order(run)), rng)
            write_motion(truth / f"{_name(case, run)}_desc-motion_timeseries.tsv", poses)
        sd = noise_sd(run, still, grid, snr, physics)
        _write_run(folder, case, run, head, grid, poses, sd, physics, rng)
    separate = [run for run in case.runs if not run.m0_included]
    if separate:
        _write_m0scan(folder, case, separate, still, grid, sd, rng)


def _coarser(grid: Grid, scale: float) -> Grid:
    shape = tuple(max(8, 2 * round(n / scale / 2)) for n in grid.shape)
    voxel = tuple(size * n / m for size, n, m in zip(grid.voxel, grid.shape, shape, strict=True))
    return Grid(shape, voxel)  # type: ignore[arg-type]


def _name(case: Case, run: Run) -> str:
    return f"sub-{case.label}" + (f"_acq-{run.acq}" if run.acq else "")


def _write_run(
    folder: Path,
    case: Case,
    run: Run,
    head: Head,
    grid: Grid,
    poses: np.ndarray | None,
    sd: float,
    physics: Physics,
    rng: np.random.Generator,
) -> None:
    base = folder / _name(case, run)
    order = volume_order(run)
    volumes = acquire(run, head, grid, poses, sd, M0_REPETITION_TIME["included"], physics, rng)
    data = np.stack(list(volumes), axis=-1)
    save_image(f"{base}_asl.nii.gz", data, grid, _repetition_time(run))
    save_json(f"{base}_asl.json", _sidecar(run, grid))
    Path(f"{base}_aslcontext.tsv").write_text(
        "volume_type\n" + "".join(f"{kind}\n" for kind, _ in order)
    )


def _repetition_time(run: Run) -> float:
    """Return seconds that hold the label, the longest delay and the readout."""
    labels = run.durations if run.scheme == "PCASL" else (0.0,) * len(run.durations)
    longest = max(d + w for d, w in zip(labels, run.delays, strict=True))
    return float(np.ceil((longest + 1.0) * 10) / 10)


def _sidecar(run: Run, grid: Grid) -> dict[str, Any]:
    order = volume_order(run)

    def per_volume(values: Sequence[float], m0: float = 0.0) -> list[float]:
        return [m0 if i < 0 else values[i] for _, i in order]

    repetition_time = _repetition_time(run)
    sidecar: dict[str, Any] = {
        "Manufacturer": "simulated",
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "2D" if run.two_d else "3D",
        "EchoTime": ECHO_TIME,
        "FlipAngle": 90,
        "RepetitionTimePreparation": repetition_time,
        **run.metadata,
        "PostLabelingDelay": per_volume(run.delays),
        "M0Type": "Included" if run.m0_included else "Separate",
        "TotalAcquiredPairs": len(run.delays) * run.repeats,
        "BackgroundSuppression": run.pulses > 0,
        "VascularCrushing": False,
        "LookLocker": False,
        "AcquisitionVoxelSize": [round(size, 4) for size in grid.voxel],
    }
    if run.m0_included:
        times = [repetition_time] * len(run.delays)
        sidecar["RepetitionTimePreparation"] = per_volume(times, M0_REPETITION_TIME["included"])
    if run.pulses:
        sidecar["BackgroundSuppressionNumberPulses"] = run.pulses
    if run.scheme == "PCASL":
        constant = len(set(run.durations)) == 1 and not run.m0_included
        sidecar["LabelingDuration"] = run.durations[0] if constant else per_volume(run.durations)
    if run.two_d:
        sidecar["SliceTiming"] = [round(float(t), 4) for t in slice_times(run, grid)]
    return sidecar


def _write_m0scan(
    folder: Path,
    case: Case,
    runs: Sequence[Run],
    still: View,
    grid: Grid,
    sd: float,
    rng: np.random.Generator,
) -> None:
    time = M0_REPETITION_TIME["separate"]
    base = folder / f"sub-{case.label}_m0scan"
    save_image(
        f"{base}.nii.gz", magnitude(still.magnetisation(time) * shading(grid), sd, rng), grid
    )
    sidecar = {
        "Manufacturer": "simulated",
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "3D",
        "EchoTime": ECHO_TIME,
        "FlipAngle": 90,
        "RepetitionTimePreparation": time,
        "AcquisitionVoxelSize": [round(size, 4) for size in grid.voxel],
        "IntendedFor": [
            f"bids::sub-{case.label}/perf/{_name(case, run)}_asl.nii.gz" for run in runs
        ],
    }
    save_json(f"{base}.json", sidecar)
