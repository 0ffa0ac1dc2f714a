"""Slices through a registration, kept for the report: three planes, all images on one frame.

The page is made again from the derivatives alone, perhaps long after, and where the T1w is no
longer at hand. So what is to be looked at is cut out when the images are there, and kept in
``sub-*/figures``, where NiPreps have their figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.slice_frame import Frame, canonical, frame_of
from asl_bids_app.preprocess.geometry import voxel_sizes

if TYPE_CHECKING:
    from asl_bids_app.anatomy.request import UnitMaps
    from asl_bids_app.anatomy.routes import Routes

FINE_MM: Final = 1.0
"""Pixels of the T1w in the picture."""
REGISTRATION: Final = "registration"
TEMPLATE: Final = "template"
T1W: Final = "T1w"
"""Names of views, and of the layers of the T1w's and of the template's own image."""
WHITE: Final = "wm"
TISSUE: Final = "tissue"
"""Layers whose one half is drawn as a line: white matter, and grey and white together."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: images that cover the same rectangle, with pixels of their own.

    Attributes
    ----------
    axis : int
        Through which it is cut: 0 to the right, 1 to the front, 2 up.
    number : int
        Of the voxels along the axis.
    size_mm : (float, float)
        Width and height of the rectangle.
    layers : mapping of str to array, shape (columns, rows)
        By name; rows run up or to the front. Bytes where only the look counts, numbers
        (NaN outside the image) of CBF, M0 and mean ΔM.
    """

    axis: int
    number: int
    size_mm: tuple[float, float]
    layers: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Views:
    """Slices of one registration.

    Attributes
    ----------
    slices : tuple of Slice
    about : mapping
        What the page says of it: ``base`` (layer beneath), ``space``.
    """

    slices: tuple[Slice, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


def template_head() -> Head:
    """Return the packaged template in the place of a T1w."""
    from asl_bids_app.atlas import load_atlas

    atlas = load_atlas()
    return Head(atlas.t1w, atlas.affine, atlas.brain, atlas.gm, atlas.wm, atlas.csf)


def registration_views(unit: UnitMaps, head: Head, matrix: np.ndarray, base: str = T1W) -> Views:
    """Cut slices of an ASL series with a head laid on it, in the series' own planes.

    Parameters
    ----------
    unit
        Whose images are shown as they are: M0, CBF and mean ΔM.
    head
        The T1w, or the template in its place.
    matrix : array, shape (4, 4)
        Takes points of the series to those of the head; that of a rejected pose, too.
    base
        Name of the layer that the head's image is.
    """
    affine, turn = canonical(unit.affine, unit.mask.shape)
    mask = turn(unit.mask)
    pull = np.linalg.inv(affine) @ np.linalg.inv(matrix) @ head.affine
    brain = np.argwhere(head.brain)[::37]
    frame = frame_of(affine, np.argwhere(mask), brain @ pull[:3, :3].T + pull[:3, 3])
    images = {name: turn(np.asarray(image, np.float32)) for name, image in unit.images.items()}
    # The whole head of the M0: what the mask lost is to be seen.
    images = {
        name: image if name == "M0" else np.where(mask, image, np.nan)
        for name, image in images.items()
    }
    fine = FINE_MM / voxel_sizes(affine)

    def layers(axis: int, number: int) -> dict[str, np.ndarray]:
        shape, grid = frame.grid(axis, number, fine)
        found = {name: frame.cut(image, axis, number) for name, image in images.items()}
        to_head = np.linalg.inv(head.affine) @ matrix @ grid
        return found | _of_head(head, _places(shape, to_head), shape, axis, base)

    return _views(frame, layers, {"base": base})


def template_views(unit: UnitMaps, head: Head, space: str, routes: Routes) -> Views:
    """Cut slices of the packaged template with the T1w and CBF laid on it.

    Parameters
    ----------
    unit
    head
        The T1w.
    space
        One of the MNI152 spaces, which share their millimetres within a voxel or two.
    routes
        With the transform of the space.
    """
    from asl_bids_app.anatomy.resampling import resample_maps
    from asl_bids_app.anatomy.transforms import move_points
    from asl_bids_app.atlas import load_atlas

    atlas = load_atlas()
    affine, turn = canonical(atlas.affine, atlas.gm.shape)
    frame = frame_of(affine, np.argwhere(turn(atlas.brain)))
    model = {
        TEMPLATE: _bytes(turn(atlas.t1w), float(atlas.t1w[atlas.brain].max())),
        WHITE: _bytes(turn(atlas.wm)),
        TISSUE: _bytes(turn(atlas.gm + atlas.wm)),
    }
    to_head, to_asl = routes.to_hub(space), routes.to_asl(space)
    usable = unit.mask & ~unit.failed
    inverse = np.linalg.inv(head.affine)

    def layers(axis: int, number: int) -> dict[str, np.ndarray]:
        shape, grid = frame.grid(axis, number, FINE_MM / voxel_sizes(affine))
        points = move_points(to_head, shape, grid).reshape(-1, 3)
        places = (points @ inverse[:3, :3].T + inverse[:3, 3]).T
        found = {T1W: _of_head(head, places, shape, axis, T1W)[T1W]}
        shape, grid = frame.grid(axis, number, np.ones(3))
        laid = resample_maps({"cbf": unit.maps["cbf"]}, {}, usable, unit.affine,
                   move_points(to_asl, shape, grid))  # fmt: skip
        cbf = np.where(laid.inside, laid.maps["cbf"], np.nan)
        found["CBF"] = np.take(cbf, 0, axis=axis).astype(np.float32)
        for name, volume in model.items():
            found[name] = np.nan_to_num(frame.cut(volume, axis, number)).astype(np.uint8)
        return found

    return _views(frame, layers, {"base": TEMPLATE, "space": space})


def _views(
    frame: Frame, layers: Callable[[int, int], dict[str, np.ndarray]], about: Mapping[str, Any]
) -> Views:
    slices = [
        Slice(axis, number, frame.size_mm(axis), layers(axis, number))
        for axis, number in frame.numbers()
    ]
    return Views(tuple(slices), about)


def _places(shape: Sequence[int], pull: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    return pull[:3, :3] @ index + pull[:3, 3:]


def _of_head(
    head: Head, places: np.ndarray, shape: Sequence[int], axis: int, base: str
) -> dict[str, np.ndarray]:
    """Read a head at places in its voxels (3, n), as a slice of bytes for each layer."""
    # White matter light grey, so that it isn't one white area.
    top = 1.15 * float(np.percentile(head.t1w[head.brain], 99)) if head.brain.any() else 1.0

    def read(volume: np.ndarray, top: float) -> np.ndarray:
        values = ndimage.map_coordinates(
            np.asarray(volume, np.float32), places, order=1, mode="constant"
        )
        return np.take(_bytes(values, top).reshape(shape), 0, axis=axis)

    return {base: read(head.t1w, top), WHITE: read(head.wm, 1), TISSUE: read(head.gm + head.wm, 1)}


def _bytes(values: np.ndarray, top: float = 1.0) -> np.ndarray:
    scaled = np.clip(255 * np.nan_to_num(values) / (top if top > 0 else 1.0), 0, 255)
    return np.rint(scaled).astype(np.uint8)
