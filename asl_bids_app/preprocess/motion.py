"""Head motion: rigid, volume to reference, made for what ASL does to contrast.

Two things go wrong when ASL volumes are registered like those of fMRI, and both reach CBF:

- *Delays differ in contrast*, most of all with background suppression. So volumes are
  registered among volumes of their own delay, and only the clean averages of the delays are
  registered across delays, by local contrast. What remains of a contrast's own pull is taken
  out by continuity: from one volume to the next the head hardly moves.
- *Label and control differ by the signal that is measured.* A registration can trade a part
  of it for motion, the same at every label volume. That systematic part is taken out
  (Wang 2012, doi:10.1016/j.mri.2012.05.004).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from asl_bids_app.preprocess.continuity import remove_alternation, steady_offsets
from asl_bids_app.preprocess.geometry import resample, to_matrix, to_parameters
from asl_bids_app.preprocess.registration import (
    COARSE,
    FINE,
    MIDDLE,
    RegistrationError,
    normalise,
    register,
    smooth,
)

FD_RADIUS_MM: Final = 50.0
"""A rotation counts as the arc it makes on this sphere (Power 2012)."""
FEWEST: Final = 4
"""Pairs from which the difference between label and control is told from motion."""
LIMIT_MM: Final = 30.0
"""A larger movement of the head in the coil is a failure of the registration."""
ALIKE: Final = 0.2
"""Least correlation of a registered volume with its reference, both normalised."""
CONFOUNDS: Final = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the head was in each volume.

    Attributes
    ----------
    matrices : array, shape (N, 4, 4)
        Take world points (mm, RAS) of the reference to those of the volume.
    parameters : array, shape (N, 6)
        Translation x, y, z in mm and rotation about x, y, z in radians, about `centre`; NaN
        for a volume that was not estimated.
    centre : array, shape (3,)
        Middle of the brain, mm.
    reference : str
        What the others were moved onto.
    method : str
        What was done, in a sentence.
    warnings : tuple of str
        A sentence for each volume that could not be registered and was left where it was.
    """

    matrices: np.ndarray
    parameters: np.ndarray
    centre: np.ndarray
    reference: str
    method: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Group:
    """Volumes of one contrast."""

    name: str
    volumes: tuple[int, ...]


def _groups(
    kinds: Sequence[str], delay: np.ndarray | None, duration: np.ndarray | None
) -> list[_Group]:
    """Sort volumes by contrast; differences and maps show no anatomy to register."""
    members: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        if kind in {"control", "label"}:
            parts = [
                f"{word} {float(values[index]):g} s"
                for word, values in (("delay", delay), ("duration", duration))
                if values is not None
            ]
            members.setdefault(", ".join(parts) or "control and label", []).append(index)
        elif kind == "m0scan":
            members.setdefault("M0", []).append(index)
    return [_Group(name, tuple(volumes)) for name, volumes in members.items()]


def estimate_motion(
    data: np.ndarray,
    affine: np.ndarray,
    volume_types: Sequence[str],
    post_labeling_delay: np.ndarray | None = None,
    label_duration: np.ndarray | None = None,
    *,
    mask: np.ndarray | None = None,
    n_procs: int = 1,
) -> Motion:
    """Estimate the head's motion through a run.

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
    affine : array, shape (4, 4)
    volume_types
        As in `aslcontext.tsv`. `control`, `label` and `m0scan` volumes are estimated.
    post_labeling_delay, label_duration : array, shape (N,)
        Seconds; volumes of different delays differ in contrast. Without them all perfusion
        volumes are taken for one contrast.
    mask : array of bool, shape (X, Y, Z)
        The brain, roughly; by default found in the M0 or the controls.
    n_procs
        Threads. The result does not depend on it.

    Returns
    -------
    Motion
    """
    kinds = list(volume_types)
    count = data.shape[3]
    groups = _groups(kinds, post_labeling_delay, label_duration)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    if not groups:
        nothing = np.full((count, 6), np.nan)
        told = "none (difference images show no anatomy to register)"
        return Motion(matrices, nothing, np.zeros(3), "", told)
    where = _compared(data, affine, groups, kinds, mask)
    centre = (np.asarray(affine) @ [*np.argwhere(where).mean(axis=0), 1.0])[:3]

    with ThreadPoolExecutor(max_workers=max(1, n_procs)) as pool:
        inside = _Aligner(data, affine, where, centre, pool.map)
        found = inside.within(groups)
        path = np.array([to_parameters(m, centre) for m in found])
        path = remove_alternation(path, kinds, [g.volumes for g in groups], FEWEST)
        averages = inside.averages(groups, [to_matrix(p, centre) for p in path])
        main = _reference(groups, averages, where)
        between = inside.between(averages, main)

    offsets = np.array([to_parameters(m, centre) for m in between])
    offsets = steady_offsets(path, [g.volumes for g in groups], offsets, main)
    estimated = np.zeros(count, bool)
    for group, offset in zip(groups, offsets, strict=True):
        for index in group.volumes:
            matrices[index] = to_matrix(path[index], centre) @ to_matrix(offset, centre)
            estimated[index] = index not in inside.failed
    parameters = np.array([to_parameters(m, centre) for m in matrices])
    parameters[~estimated] = np.nan
    return Motion(
        matrices,
        parameters,
        centre,
        groups[main].name,
        f"rigid, SimpleITK, {len(groups)} contrasts, onto the average of {groups[main].name}",
        tuple(
            f"volume {index} (counted from 0): {why}; left where it was"
            for index, why in sorted(inside.failed.items())
        ),
    )


class _Aligner:
    """Registers the volumes of one run; remembers those that failed."""

    def __init__(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        mask: np.ndarray,
        centre: np.ndarray,
        run: Callable[..., Iterable[Any]],
    ) -> None:
        self.data, self.affine, self.mask, self.centre, self.run = data, affine, mask, centre, run
        self.failed: dict[int, str] = {}

    def within(self, groups: Sequence[_Group]) -> np.ndarray:
        """Register each volume to the average of its group, twice; (N, 4, 4)."""
        found = np.tile(np.eye(4), (self.data.shape[3], 1, 1))
        several = [g for g in groups if len(g.volumes) > 1]
        # A median is a cleaner start than a mean while volumes may still be apart.
        targets = [np.median(self.data[..., list(g.volumes)], axis=3) for g in several]
        for levels in ((COARSE, MIDDLE), (FINE,)):
            jobs = [
                (index, target, found[index], levels)
                for group, target in zip(several, map(self._normal, targets), strict=True)
                for index in group.volumes
                if target is not None
            ]
            self.failed = {}
            for (index, *_), result in zip(jobs, self.run(self._one, jobs), strict=True):
                if isinstance(result, str):
                    self.failed[index] = result
                found[index] = np.eye(4) if isinstance(result, str) else result
            targets = self.averages(several, found)
        return found

    def _normal(self, volume: np.ndarray) -> np.ndarray | None:
        try:
            return normalise(volume, self.affine)
        except RegistrationError:
            return None

    def _one(self, job: tuple[int, np.ndarray, np.ndarray, tuple]) -> np.ndarray | str:
        index, target, start, levels = job
        try:
            volume = normalise(self.data[..., index], self.affine)
            matrix = register(
                target,
                self.affine,
                volume,
                self.affine,
                mask=self.mask,
                start=start,
                levels=levels,
            )
        except RegistrationError as error:
            return str(error)
        return _doubt(target, volume, self.affine, matrix, self.mask, self.centre) or matrix

    def averages(
        self, groups: Sequence[_Group], matrices: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Average the volumes of each group where they have been moved to."""

        def average(group: _Group) -> np.ndarray:
            good = [i for i in group.volumes if i not in self.failed] or group.volumes
            total, number = np.zeros(self.mask.shape), np.zeros(self.mask.shape)
            for index in good:
                moved = resample(self.data[..., index], self.affine, matrices[index])
                total += np.nan_to_num(moved)
                number += np.isfinite(moved)
            return total / np.maximum(number, 1)

        return list(self.run(average, groups))

    def between(self, averages: Sequence[np.ndarray], main: int) -> list[np.ndarray]:
        """Register the average of each group to that of the main one."""
        normal = [self._normal(a) for a in averages]

        def one(index: int) -> np.ndarray:
            if index == main or normal[index] is None or normal[main] is None:
                return np.eye(4)
            try:
                matrix = register(
                    normal[main], self.affine, normal[index], self.affine, mask=self.mask
                )
            except RegistrationError:
                return np.eye(4)
            far = _doubt(
                normal[main], normal[index], self.affine, matrix, self.mask, self.centre, alike=0.0
            )
            return np.eye(4) if far else matrix

        return list(self.run(one, range(len(averages))))


def _doubt(
    target: np.ndarray,
    volume: np.ndarray,
    affine: np.ndarray,
    matrix: np.ndarray,
    mask: np.ndarray,
    centre: np.ndarray,
    alike: float = ALIKE,
) -> str:
    """Say why a registration can't be trusted; empty if it can."""
    moved = to_parameters(matrix, centre)
    size = float(np.abs(moved * [1, 1, 1, *[FD_RADIUS_MM] * 3]).max())
    if size > LIMIT_MM:
        return f"a movement of {size:.0f} mm, more than a head can do in a coil"
    level = FINE.smooth_mm
    there = resample(smooth(volume, affine, level), affine, matrix, order=1)
    both = mask & np.isfinite(there)
    if both.sum() < 0.5 * mask.sum():
        return "less than half of the brain in common with the other volumes"
    if alike > 0:
        likeness = np.corrcoef(smooth(target, affine, level)[both], there[both])[0, 1]
        if not likeness > alike:
            return f"no anatomy in common with the other volumes (correlation {likeness:.2f})"
    return ""


def _compared(
    data: np.ndarray,
    affine: np.ndarray,
    groups: Sequence[_Group],
    kinds: Sequence[str],
    mask: np.ndarray | None,
) -> np.ndarray:
    """Return the voxels that registrations look at: the brain and its rim."""
    from scipy import ndimage

    from asl_bids_app.preprocess.mask import MaskError, brain_mask

    if mask is None:
        names = [g.name for g in groups]
        kind = "M0" if "M0" in names else "control"
        chosen = [i for i, k in enumerate(kinds) if k == {"M0": "m0scan"}.get(kind, kind)]
        chosen = chosen or list(groups[0].volumes)
        mean = np.nan_to_num(data[..., chosen]).mean(axis=3)
        try:
            mask = brain_mask(mean, affine)
        except MaskError:
            mask = mean > 0.2 * np.percentile(mean, 98)
    if not np.any(mask):
        mask = np.ones(data.shape[:3], bool)
    return ndimage.binary_dilation(mask, iterations=1)


def _reference(groups: Sequence[_Group], averages: Sequence[np.ndarray], mask: np.ndarray) -> int:
    """Choose the group with most volumes, of equals the one with the strongest signal."""
    ranks = [
        (len(g.volumes), float(a[mask].mean())) for g, a in zip(groups, averages, strict=True)
    ]
    return ranks.index(max(ranks))


def apply_motion(
    data: np.ndarray, affine: np.ndarray, motion: Motion, *, n_procs: int = 1
) -> np.ndarray:
    """Move every volume to the reference, interpolating once (cubic B-spline).

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
    affine : array, shape (4, 4)
    motion
        Of the N volumes.
    n_procs
        Threads.

    Returns
    -------
    array of float32, shape (X, Y, Z, N)
        Where a volume has no data because its field of view ended there, it holds the value
        at the border; `covered` tells where that matters.
    """
    from asl_bids_app.preprocess.geometry import resample_filled

    moved = np.empty(data.shape, np.float32)

    def one(index: int) -> None:
        moved[..., index] = resample_filled(data[..., index], affine, motion.matrices[index])

    with ThreadPoolExecutor(max_workers=max(1, n_procs)) as pool:
        list(pool.map(one, range(data.shape[3])))
    return moved


def covered(
    shape: tuple[int, int, int], affine: np.ndarray, motion: Motion, share: float = 0.75
) -> np.ndarray:
    """Say which voxels lay inside the field of view in enough of the volumes.

    Parameters
    ----------
    shape, affine
        The grid.
    motion
    share
        Of the volumes.

    Returns
    -------
    array of bool, shape `shape`
    """
    from asl_bids_app.preprocess.geometry import in_field_of_view

    total = np.zeros(shape, np.int32)
    for matrix in motion.matrices:
        total += in_field_of_view(shape, affine, matrix)
    return total >= share * len(motion.matrices)


def framewise_displacement(motion: Motion) -> np.ndarray:
    """Compute how far the head moved since the volume before.

    The sum of the absolute changes of the six parameters, rotations as arcs on a sphere of
    50 mm (Power 2012, doi:10.1016/j.neuroimage.2011.10.018).

    Returns
    -------
    array, shape (N,)
        mm; NaN for the first volume and where motion was not estimated.
    """
    millimetres = motion.parameters * np.array([1.0] * 3 + [FD_RADIUS_MM] * 3)
    steps = np.abs(np.diff(millimetres, axis=0)).sum(axis=1)
    return np.concatenate([[np.nan], steps])


def confounds_table(motion: Motion) -> dict[str, np.ndarray]:
    """Return the columns of the confounds table: mm, radians, mm.

    NaN stands for n/a.
    """
    columns = dict(zip(CONFOUNDS, motion.parameters.T, strict=True))
    return {**columns, "framewise_displacement": framewise_displacement(motion)}
