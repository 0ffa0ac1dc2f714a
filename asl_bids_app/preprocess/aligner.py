"""The registrations behind motion correction: within contrasts, and across them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from asl_bids_app.preprocess.continuity import ARC_MM
from asl_bids_app.preprocess.geometry import resample, to_parameters
from asl_bids_app.preprocess.registration import (
    COARSE,
    FINE,
    MIDDLE,
    RegistrationError,
    normalise,
    register,
    smooth,
)
from asl_bids_app.tell import Tell, nobody
from asl_bids_app.wording import seconds

LIMIT_MM: Final = 30.0
"""A larger movement of the head in the coil is a failure of the registration."""
ALIKE: Final = 0.2
"""Least correlation of a registered volume with its reference, both normalised."""


@dataclass(frozen=True)
class Group:
    """Volumes of one contrast."""

    name: str
    volumes: tuple[int, ...]


def contrast_groups(
    kinds: Sequence[str], delay: np.ndarray | None, duration: np.ndarray | None
) -> list[Group]:
    """Sort volumes by contrast; differences and maps show no anatomy to register."""
    members: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        if kind in {"control", "label"}:
            parts = [
                f"{word} {seconds(float(values[index]))}"
                for word, values in (("delay", delay), ("duration", duration))
                if values is not None
            ]
            members.setdefault(", ".join(parts) or "control and label", []).append(index)
        elif kind == "m0scan":
            members.setdefault("M0", []).append(index)
    return [Group(name, tuple(volumes)) for name, volumes in members.items()]


class Aligner:
    """Registers the volumes of one run; remembers those that failed."""

    def __init__(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        mask: np.ndarray,
        centre: np.ndarray,
        run: Callable[..., Iterable[Any]],
        tell: Tell = nobody,
    ) -> None:
        self.data, self.affine, self.mask, self.centre, self.run = data, affine, mask, centre, run
        self.tell = tell
        self.failed: dict[int, str] = {}

    def within(self, groups: Sequence[Group]) -> np.ndarray:
        """Register each volume to the average of its group, twice; (N, 4, 4)."""
        found = np.tile(np.eye(4), (self.data.shape[3], 1, 1))
        several = [g for g in groups if len(g.volumes) > 1]
        # A median is a cleaner start than a mean while volumes may still be apart.
        targets = [np.median(self.data[..., list(g.volumes)], axis=3) for g in several]
        for word, levels in (("volume", (COARSE, MIDDLE)), ("finely, volume", (FINE,))):
            jobs = [
                (index, target, found[index], levels)
                for group, target in zip(several, map(self._normal, targets), strict=True)
                for index in group.volumes
                if target is not None
            ]
            self.failed = {}
            results = self.run(self._one, jobs)
            for done, ((index, *_), result) in enumerate(zip(jobs, results, strict=True), 1):
                self.tell(word, done, len(jobs))
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
        self, groups: Sequence[Group], matrices: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Average the volumes of each group where they have been moved to."""

        def average(group: Group) -> np.ndarray:
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
    size = float(np.abs(moved * [1, 1, 1, *[ARC_MM] * 3]).max())
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


def compared_voxels(
    data: np.ndarray,
    affine: np.ndarray,
    groups: Sequence[Group],
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


def main_group(groups: Sequence[Group], averages: Sequence[np.ndarray], mask: np.ndarray) -> int:
    """Choose the group with most volumes, of equals the one with the strongest signal."""
    ranks = [
        (len(g.volumes), float(a[mask].mean())) for g, a in zip(groups, averages, strict=True)
    ]
    return ranks.index(max(ranks))
