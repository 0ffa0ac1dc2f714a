"""Regions on the grid of a series: tissues and halves of the brain, and those of atlases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from asl_bids_app.anatomy.atlases import UserAtlas
from asl_bids_app.anatomy.records import TISSUES, Head
from asl_bids_app.anatomy.regions import TISSUE_ATLAS, Regions
from asl_bids_app.anatomy.resampling import resample_labels
from asl_bids_app.anatomy.routes import Routes
from asl_bids_app.anatomy.spaces import NATIVE
from asl_bids_app.atlas import load_atlas
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.tissue import resample_to

PURE: Final = 0.7
"""Fraction of a voxel from which it counts as grey or white matter."""
MOST_PAD: Final = 80
"""Voxels by which a field of view is widened at most."""
DEEP: Final = (
    ((12.0, -18.0, 8.0), (12.0, 16.0, 11.0)),
    ((13.0, 10.0, 10.0), (8.0, 16.0, 14.0)),
    ((26.0, 2.0, 1.0), (9.0, 18.0, 12.0)),
)
"""Middles and half axes, MNI152 mm, of ellipsoids around thalamus, caudate, and putamen with
pallidum; the template's grey matter inside them is deep. By geometry: no anatomical atlas."""
DEEP_GREY: Final = 0.4


class Layout:
    """Lays regions on a series' grid, widened so that all of the head's brain is on it.

    Parameters
    ----------
    routes
        From the series to spaces.
    shape, affine
        Grid of the series.
    head
        The T1w, if there is one; else the packaged template is the head.
    """

    def __init__(
        self, routes: Routes, shape: tuple[int, ...], affine: np.ndarray, head: Head | None
    ) -> None:
        self.routes, self.shape, self.head = routes, shape, head
        brain, of_brain = (
            (head.brain, head.affine)
            if head is not None
            else (load_atlas().brain, load_atlas().affine)
        )
        points = np.argwhere(brain)[::17]
        world = of_brain[:3, :3] @ points.T + of_brain[:3, 3:]
        pull = np.linalg.inv(affine) @ np.linalg.inv(routes.matrix)
        index = pull[:3, :3] @ world + pull[:3, 3:]
        low = np.clip(np.ceil(-index.min(axis=1)), 0, MOST_PAD).astype(int)
        high = np.ceil(index.max(axis=1) - np.array(shape) + 1)
        high = np.clip(high, 0, MOST_PAD).astype(int)
        self.low = low
        self.wide = tuple(int(n) for n in np.array(shape) + low + high)
        self.affine = np.array(affine, float)
        self.affine[:3, 3] -= self.affine[:3, :3] @ low

    def of_atlas(self, atlas: UserAtlas) -> Regions:
        """Return the regions of an atlas.

        Raises
        ------
        InputError
            If the atlas's space can't be reached, or lies beside the brain.
        """
        from asl_bids_app.anatomy.transforms import move_points

        space = atlas.space
        offsets = np.stack(np.meshgrid(*[(-0.25, 0.25)] * 3, indexing="ij"), -1).reshape(-1, 3)
        parts = []
        for offset in offsets:
            grid = self.affine.copy()
            grid[:3, 3] += grid[:3, :3] @ offset
            if space in NATIVE:
                index = np.stack(np.meshgrid(*map(np.arange, self.wide), indexing="ij"), -1)
                parts.append(index @ grid[:3, :3].T + grid[:3, 3])
            else:
                parts.append(move_points(self.routes.from_asl(space), self.wide, grid))
        labels = resample_labels(atlas.labels, atlas.affine, parts)
        indices = tuple(atlas.names)
        where = np.stack([labels == k for k in indices])
        if not where.any():
            raise InputError(
                atlas.source, "labels", "none on the brain of the run", f"labels in {space}"
            )
        return self._regions(atlas.name, tuple(atlas.names.values()), indices, where)

    def tissues(self) -> Regions:
        """Return grey and white matter, their halves, hemispheres and deep grey matter."""
        gm, wm, _ = self._fractions()
        where = {"GM": gm >= PURE, "WM": wm >= PURE}
        mni_space = self.routes.mni_space()
        if mni_space is not None:
            from asl_bids_app.anatomy.transforms import move_points

            points = move_points(self.routes.from_asl(mni_space), self.wide, self.affine)
            right = points[..., 0] > 0
            deep = _in_deep_grey_matter(points) & (gm + wm >= 0.5)
            where["DeepGM"] = deep
            where |= {
                f"{side}-{key}": mask & half
                for key, mask in (
                    ("GM", where["GM"]),
                    ("WM", where["WM"]),
                    ("DeepGM", deep),
                    ("Hemisphere", gm + wm >= 0.5),
                )
                for side, half in (("Left", ~right), ("Right", right))
            }
        return self._regions(
            TISSUE_ATLAS,
            tuple(where),
            tuple(range(1, len(where) + 1)),
            np.stack([*where.values()]),
        )

    def _fractions(self) -> np.ndarray:
        """Return the tissues of the head in the widened grid's voxels, (3, X, Y, Z)."""
        if self.head is not None:
            maps: Iterable[np.ndarray] = self.head.tissue()
            affine = self.head.affine
        else:
            atlas = load_atlas()
            maps, affine = [getattr(atlas, key) for key in TISSUES], atlas.affine
        placed = np.linalg.inv(self.routes.matrix) @ affine
        return np.stack(
            [np.nan_to_num(resample_to(m, placed, self.wide, self.affine)) for m in maps]
        )

    def _regions(
        self, name: str, names: tuple[str, ...], indices: tuple[int, ...], where: np.ndarray
    ) -> Regions:
        volume = where.sum(axis=(1, 2, 3))
        inner = tuple(slice(a, a + n) for a, n in zip(self.low.tolist(), self.shape, strict=True))
        return Regions(name, names, indices, where[(slice(None), *inner)].copy(), volume)


def _in_deep_grey_matter(points: np.ndarray) -> np.ndarray:
    """Say which MNI152 points lie in the template's deep grey matter."""
    inside = np.zeros(points.shape[:3], bool)
    mirrored = np.abs(points[..., 0])
    for middle, axes in DEEP:
        away = ((mirrored - middle[0]) / axes[0]) ** 2
        for k in (1, 2):
            away = away + ((points[..., k] - middle[k]) / axes[k]) ** 2
        inside |= away <= 1
    atlas = load_atlas()
    labels = (np.asarray(atlas.gm) > DEEP_GREY).astype(np.int32)
    return inside & (resample_labels(labels, atlas.affine, [points]) > 0)
