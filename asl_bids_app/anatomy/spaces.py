"""Output spaces in the NiPreps' syntax, and their grids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from asl_bids_app.errors import COMMAND_LINE, InputError
from asl_bids_app.preprocess.geometry import voxel_sizes

PACKAGED: Final = "MNI152NLin2009aSym"
"""The template that the packaged atlas is of, by its BIDS name."""
T1W: Final = "T1w"
NATIVE: Final = frozenset({"asl", "aslref", "func", "native", "run", "orig"})
"""Words by which NiPreps call the space that the maps are written in anyway."""
GRIDS: Final = MappingProxyType(
    {
        PACKAGED: ((197, 233, 189), (-98.0, -134.0, -72.0), 1),
        "MNI152NLin2009cAsym": ((193, 229, 193), (-96.0, -132.0, -78.0), 1),
        "MNI152NLin6Asym": ((182, 218, 182), (90.0, -126.0, -72.0), -1),
    }
)
"""Shape and origin of the 1 mm grids of TemplateFlow, and the sign of their first axis."""
DEFAULT_RES: Final = "2"


@dataclass(frozen=True)
class Space:
    """A space in which maps are asked for.

    Attributes
    ----------
    name : str
        Such as ``T1w`` or ``MNI152NLin2009cAsym``.
    res : str
        Resolution as asked for: ``1``, ``2``, ``native`` or empty.
    """

    name: str
    res: str = ""

    def __str__(self) -> str:
        return f"{self.name}:res-{self.res}" if self.res else self.name

    @property
    def entities(self) -> dict[str, str]:
        """The entities of file names."""
        return {"space": self.name, **({"res": self.res} if self.res else {})}


def read_space(text: str) -> Space:
    """Read a space as the command line has it.

    Examples
    --------
    >>> read_space("MNI152NLin2009cAsym:res-2")
    Space(name='MNI152NLin2009cAsym', res='2')

    Raises
    ------
    InputError
        If it isn't written so.
    """
    name, *modifiers = text.split(":")
    found = {}
    for modifier in modifiers:
        key, _, value = modifier.partition("-")
        found[{"resolution": "res"}.get(key, key)] = value
    ok = re.fullmatch(r"[A-Za-z0-9]+", name) and set(found) <= {"res"}
    res = found.get("res", "").lstrip("0") if found.get("res", "") != "native" else "native"
    if not ok or (found and not re.fullmatch(r"[1-9][0-9]?|native", res)):
        raise InputError(
            COMMAND_LINE,
            "--output-spaces",
            repr(text),
            "T1w or a template, with a resolution if wanted (MNI152NLin2009cAsym:res-2)",
        )
    return Space(name, res)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an output lie.

    Attributes
    ----------
    shape : tuple of int
    affine : array, shape (4, 4)
    """

    shape: tuple[int, ...]
    affine: np.ndarray


def with_voxels(shape: tuple[int, ...], affine: np.ndarray, size_mm: np.ndarray) -> Grid:
    """Return a grid over the same field of view with voxels of another size.

    The field's corner stays.
    """
    sizes = voxel_sizes(affine)
    new = np.broadcast_to(np.asarray(size_mm, float), 3)
    count = np.maximum(np.ceil(np.array(shape[:3]) * sizes / new - 1e-3), 1).astype(int)
    grid = np.array(affine, float)
    grid[:3, :3] = grid[:3, :3] / sizes * new
    corner = np.asarray(affine)[:3, :3] @ np.full(3, -0.5) + np.asarray(affine)[:3, 3]
    grid[:3, 3] = corner + grid[:3, :3] @ np.full(3, 0.5)
    return Grid(tuple(int(n) for n in count), grid)


def grid_of(
    space: Space,
    voxel_mm: np.ndarray,
    t1w: Grid | None,
    template_dir: Path | None,
    of_field: Grid | None,
) -> Grid:
    """Return the grid of a space.

    TemplateFlow's own image counts first, then the grids that this program knows, then that of
    the transform's field.

    Parameters
    ----------
    space
    voxel_mm : array, shape (3,)
        Of the ASL image: of ``T1w``, and of ``res-native``.
    t1w
        Grid of the T1w, for its space.
    template_dir
        ``TEMPLATEFLOW_HOME``.
    of_field
        Grid of the transform's field.

    Raises
    ------
    InputError
        If nothing says where the template's voxels lie.
    """
    if space.name == T1W:
        if t1w is None:
            raise InputError(COMMAND_LINE, "--output-spaces", "T1w without a T1w", "a T1w image")
        sizes = voxel_sizes(t1w.affine) if space.res == "native" else np.full(3, voxel_mm.min())
        sizes = np.full(3, float(space.res)) if space.res.isdigit() else sizes
        return with_voxels(t1w.shape, t1w.affine, sizes)
    whole = _find_known(space.name) or of_field
    if (path := template_file(template_dir, space.name, "1")) is not None:
        whole = _grid_of_file(path)
    if whole is None:
        raise InputError(
            COMMAND_LINE,
            "--output-spaces",
            f"{space.name}, of which no grid is at hand",
            f"one of {', '.join([T1W, *GRIDS])}, or its folder in TEMPLATEFLOW_HOME",
        )
    if space.res == "native":
        return with_voxels(whole.shape, whole.affine, voxel_mm)
    res = space.res or DEFAULT_RES
    if (path := template_file(template_dir, space.name, res)) is not None:
        return _grid_of_file(path)
    if space.name == PACKAGED and res == "2":
        from asl_bids_app.atlas import load_atlas

        atlas = load_atlas()
        return Grid(atlas.gm.shape, np.array(atlas.affine))
    if space.name in GRIDS:
        step = float(res)
        affine = np.array(whole.affine, float)
        affine[:3, :3] *= step
        return Grid(tuple(int(-(-n // step)) for n in whole.shape), affine)
    return with_voxels(whole.shape, whole.affine, np.full(3, float(res)))


def _find_known(name: str) -> Grid | None:
    if name not in GRIDS:
        return None
    shape, origin, sign = GRIDS[name]
    affine = np.diag([float(sign), 1.0, 1.0, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def template_file(
    folder: Path | None, name: str, res: str, suffix: str = "T1w", desc: str = ""
) -> Path | None:
    """Return an image of a template in TemplateFlow's folder, or None."""
    if folder is None:
        return None
    label = f"_desc-{desc}" if desc else ""
    for written in (f"_res-{int(res):02d}" if res.isdigit() else "", f"_res-{res}", ""):
        path = folder / f"tpl-{name}" / f"tpl-{name}{written}{label}_{suffix}.nii.gz"
        # A DataLad or S3 stub that was never fetched is a broken link or an empty file.
        if path.is_file() and path.stat().st_size > 0:
            return path
    return None


def _grid_of_file(path: Path) -> Grid:
    import nibabel as nib

    image = nib.load(path)
    return Grid(tuple(int(n) for n in image.shape[:3]), np.array(image.affine))
