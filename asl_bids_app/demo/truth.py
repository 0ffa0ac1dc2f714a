"""What is true of a simulated dataset: maps, labels, motion; and its top-level files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

from asl_bids_app import __version__
from asl_bids_app.demo.cases import Case
from asl_bids_app.demo.gkm import Physics
from asl_bids_app.demo.scanner import Grid, View

BIDS_VERSION: Final = "1.10.0"
TISSUE_LABELS: Final = {1: "grey matter", 2: "white matter", 3: "CSF"}
LESION_LABELS: Final = {4: "lesion core", 5: "penumbra or rim"}


def write_truth(folder: Path, case: Case, still: View, grid: Grid, physics: Physics) -> None:
    """Write the true maps of a case and its labels."""
    base = folder / f"sub-{case.label}"
    dseg = still.segmentation()
    common = {
        "Physics": asdict(physics),
        "LabelingEfficiency": {run.scheme: run.effective_efficiency for run in case.runs},
        "SkullStripped": True,
    }
    inside = dseg > 0
    save_image(f"{base}_cbf.nii.gz", np.where(inside, still.cbf, 0), grid)
    save_json(f"{base}_cbf.json", {"Description": "True CBF", "Units": "mL/100 g/min", **common})
    save_image(f"{base}_att.nii.gz", np.where(inside, still.att, 0), grid)
    save_json(
        f"{base}_att.json", {"Description": "True arterial transit time", "Units": "s", **common}
    )
    save_image(f"{base}_dseg.nii.gz", dseg, grid)
    save_json(
        f"{base}_dseg.json",
        {
            "Description": "Tissue with the largest fraction, and lesions",
            "Labels": {str(k): v for k, v in (TISSUE_LABELS | LESION_LABELS).items()},
            "SkullStripped": True,
        },
    )


def write_motion(path: Path, poses: np.ndarray) -> None:
    """Write how a head moved, one row for each volume."""
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    rows = ["\t".join(f"{value:.4f}" for value in pose) for pose in poses]
    path.write_text("\t".join(names) + "\n" + "\n".join(rows) + "\n")
    units = {name: {"Units": "mm" if name.startswith("trans") else "deg"} for name in names}
    save_json(path.with_suffix(".json"), units)


def write_top_level(out: Path, cases: Sequence[Case]) -> None:
    """Write the files at the top of the dataset and of its truth."""
    generated = [{"Name": "asl-bids-app demo", "Version": __version__}]
    out.mkdir(parents=True, exist_ok=True)
    raw = {
        "Name": "Simulated multi-delay ASL",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "Authors": ["ASL BIDS app", "Simulation"],
        "GeneratedBy": generated,
    }
    save_json(out / "dataset_description.json", raw)
    titles = "\n".join(f"- sub-{case.label}: {case.title}" for case in cases)
    (out / "README.md").write_text(
        "# Simulated multi-delay ASL\n\n"
        "No person was measured: anatomy from the MNI tissue atlas, invented perfusion and\n"
        "transit times, simulated images with noise. The truth is in `derivatives/truth`.\n\n"
        f"{titles}\n"
    )
    (out / "participants.tsv").write_text(
        "participant_id\n" + "".join(f"sub-{case.label}\n" for case in cases)
    )
    ignored = [pattern for case in cases for pattern in case.bidsignore]
    if ignored:
        (out / ".bidsignore").write_text("\n".join(ignored) + "\n")
    truth = out / "derivatives" / "truth"
    truth.mkdir(parents=True)
    derivative = {**raw, "Name": "Truth of the simulated ASL", "DatasetType": "derivative"}
    save_json(truth / "dataset_description.json", derivative)
    # cbf, att and perf masks are no BIDS names; nor are motion tables outside func.
    (truth / ".bidsignore").write_text("*_cbf.*\n*_att.*\n*_dseg.*\n*_timeseries.*\n")


def save_image(
    path: str, data: np.ndarray, grid: Grid, repetition_time: float | None = None
) -> None:
    """Write an image."""
    if data.dtype != np.uint8:
        data = data.astype(np.float32)
    image = nib.Nifti1Image(data, grid.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(grid.affine, 1)
    image.set_sform(grid.affine, 1)
    if repetition_time is not None:
        image.header.set_zooms((*grid.voxel, repetition_time))
    nib.save(image, path)


def save_json(path: Path | str, content: dict[str, Any]) -> None:
    """Write a sidecar."""
    Path(path).write_text(json.dumps(content, indent=2) + "\n")
