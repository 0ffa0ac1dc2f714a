"""The pose of a series on its T1w as files, and the T1w's tissues in the series' voxels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asl_bids_app.anatomy.records import TISSUES, Head
from asl_bids_app.anatomy.request import UnitMaps
from asl_bids_app.anatomy.spaces import T1W
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.wording import title_of


def pose_file(
    folder: Path, entities: Mapping[str, str], start: str = T1W, end: str = "aslref"
) -> Path:
    """Return the file of a series' pose on its T1w, as ITK has it."""
    title = title_of(entities)
    return folder / f"{title}_from-{start}_to-{end}_mode-image_xfm.txt"


def write_pose(folder: Path, unit: UnitMaps, matrix: np.ndarray, head: Head) -> list[Path]:
    """Write a pose as ITK's transforms, both ways, and as FSL's flirt has it, M0 to T1w.

    Parameters
    ----------
    folder
        The `perf` folder.
    unit
    matrix : array, shape (4, 4)
        Takes points of the series (mm, RAS) to those of the T1w.
    head

    Returns
    -------
    list of Path
    """
    from asl_bids_app.anatomy.transforms import affine_transform, write_transform
    from asl_bids_app.bids.derivatives import write_text

    written = []
    for (start, end), way in {
        ("aslref", T1W): np.linalg.inv(matrix),
        (T1W, "aslref"): matrix,
    }.items():
        path = pose_file(folder, unit.entities, start, end)
        write_transform(path, affine_transform(way))
        written.append(path)
    asl, t1w = _fsl(unit.mask.shape, unit.affine), _fsl(head.t1w.shape, head.affine)
    flirt = t1w @ matrix @ np.linalg.inv(asl)
    path = folder / f"{unit.title}_from-aslref_to-T1w_mode-image_desc-flirt_xfm.mat"
    write_text(path, "\n".join("  ".join(f"{v:.10g}" for v in row) for row in flirt) + "\n")
    return [*written, path]


def fractions(
    head: Head, matrix: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> dict[str, np.ndarray]:
    """Return a head's tissues in the voxels of a series, averaged over them."""
    from asl_bids_app.preprocess.tissue import resample_to

    placed = np.linalg.inv(matrix) @ head.affine
    return {
        key: np.nan_to_num(resample_to(getattr(head, key), placed, shape, affine))
        for key in TISSUES
    }


def _fsl(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return what takes world points to FSL's: scaled voxels, the first axis running left."""
    sizes = voxel_sizes(affine)
    scale = np.diag([*sizes, 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        scale[0, 0], scale[0, 3] = -sizes[0], (shape[0] - 1) * sizes[0]
    return scale @ np.linalg.inv(affine)
