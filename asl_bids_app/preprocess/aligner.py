"""The registrations behind motion correction: within contrasts, and across them.

Within a contrast volumes follow their average by Gauss-Newton (`gauss_newton`). Averages of
different contrasts, and volumes that least squares does not find, are registered by mutual
information (`registration`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from asl_bids_app.preprocess.contrasts import Group
from asl_bids_app.preprocess.gauss_newton import Found, Views, follow, locate
from asl_bids_app.preprocess.geometry import in_field_of_view, resample
from asl_bids_app.preprocess.registration import COARSE as ROUGH
from asl_bids_app.preprocess.registration import MIDDLE as CLOSE
from asl_bids_app.preprocess.registration import RegistrationError, normalise, register
from asl_bids_app.preprocess.target import COARSE, FAR, FINE, MIDDLE, Level, Target, make_target
from asl_bids_app.preprocess.trust import likeness_found, why_not_trusted, why_too_far
from asl_bids_app.progress_callback import OnProgress, no_progress

FIRST: Final = (FAR, COARSE, MIDDLE)
SECOND: Final = (FINE,)
"""Levels of the two passes: to a rough average, and to one of volumes in place."""
ACROSS: Final = (ROUGH, CLOSE)
"""Levels across contrasts: a contrast's own pull is larger than what a finer one would add."""
HEAD: Final = 0.25
"""A volume less like its group's median than this share of the likeliest one shows no head."""
NEAR: Final = 0.9
"""Correlation from which what the last level finds by itself is not looked for further off."""
LESS_ALIKE: Final = 0.8
"""A volume whose correlation is less than this share of its group's median is tried again ..."""
NEIGHBOURS: Final = 2
"""... from the places of so many volumes near in time, and by another method."""


@dataclass(frozen=True, eq=False)
class _Job:
    """A volume to be registered: from where, and to what of its group."""

    index: int
    starts: tuple[np.ndarray, ...]
    group: Group
    targets: tuple[Target, ...]
    image: np.ndarray


class Aligner:
    """Registers the volumes of one run; remembers those that failed."""

    def __init__(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        mask: np.ndarray,
        centre: np.ndarray,
        run: Callable[..., Iterable[Any]],
        tell: OnProgress = no_progress,
    ) -> None:
        self.data, self.affine, self.mask, self.centre, self.run = data, affine, mask, centre, run
        self.tell = tell
        self.views = [Views(data[..., index], affine) for index in range(data.shape[3])]
        self.failed: dict[int, str] = {}

    def within(self, groups: Sequence[Group]) -> np.ndarray:
        """Register each volume to the average of its group, twice; (N, 4, 4)."""
        found = np.tile(np.eye(4), (self.data.shape[3], 1, 1))
        several = [g for g in groups if len(g.volumes) > 1]
        images = [self.data[..., index] for index in self._typical(several)]
        for word, levels in (("volume", FIRST), ("second pass, volume", SECOND)):
            if levels is SECOND:
                images = self.averages(several, found)
            targets = list(self.run(self._targets, images, [levels] * len(images)))
            jobs = [
                _Job(index, (found[index],), group, targets[number], images[number])
                for number, group in enumerate(several)
                for index in group.volumes
                if targets[number]
            ]
            results = []
            for done, result in enumerate(self.run(self._locate_volume, jobs), 1):
                self.tell(word, done, len(jobs))
                results.append(result)
            self.failed = {}
            for job, result in zip(jobs, self._retry_unconvincing(jobs, results), strict=True):
                why = result if isinstance(result, str) else why_not_trusted(result, self.centre)
                if why or isinstance(result, str):
                    self.failed[job.index] = why
                    found[job.index] = np.eye(4)
                else:
                    found[job.index] = result.matrix
        return found

    def _typical(self, groups: Sequence[Group]) -> list[int]:
        """Choose a volume of each group to start from, all of about one time.

        Not the median: where the head lay in two places, it shows two heads, and a volume of
        either is at home in it. But no volume that shows no head.
        """
        chosen: list[int] = []
        compared = self.data[self.mask]
        for group in groups:
            inside = np.nan_to_num(compared[:, list(group.volumes)], posinf=0, neginf=0)
            typical = np.median(inside, axis=1)
            inside = inside - inside.mean(axis=0)
            size = np.linalg.norm(inside, axis=0)
            alike = (typical - typical.mean()) @ inside / np.where(size > 0, size, np.inf)
            good = np.array(group.volumes)[alike >= HEAD * alike.max()]
            near = chosen[0] if chosen else group.volumes[int(np.argmax(alike))]
            chosen.append(int(good[np.abs(good - near).argmin()]))
        return chosen

    def _targets(self, image: np.ndarray, levels: Sequence[Level]) -> tuple[Target, ...]:
        """Prepare the average of a group; nothing if it shows nothing."""
        try:
            return tuple(
                make_target(image, self.affine, self.mask, self.centre, level) for level in levels
            )
        except RegistrationError:
            return ()

    def _locate_volume(self, job: _Job) -> Found | str:
        views, fine = self.views[job.index], job.targets[-1]
        try:
            if len(job.targets) > 1 and len(job.starts) == 1:
                # Most volumes lie close by, where the last level alone finds them.
                near = follow(views.of(fine.level), fine, job.starts)
                if near.settled and near.likeness >= NEAR:
                    return near
            return locate(views, job.targets, job.starts)
        except RegistrationError as error:
            return str(error)
        finally:
            # The first pass ends with the view that the second one needs.
            self.views[job.index].keep_only(SECOND[-1])

    def _retry_unconvincing(
        self, jobs: Sequence[_Job], results: Sequence[Found | str]
    ) -> list[Found | str]:
        """Try what does not convince from where its neighbours are, then by SimpleITK."""
        alike: dict[Group, list[float]] = {}
        for job, result in zip(jobs, results, strict=True):
            if not isinstance(result, str):
                alike.setdefault(job.group, []).append(result.likeness)
        least = {group: LESS_ALIKE * float(np.median(found)) for group, found in alike.items()}

        def convinces(job: _Job, result: Found) -> bool:
            return result.settled and result.likeness >= least[job.group]

        good = [
            (job.index, result.matrix)
            for job, result in zip(jobs, results, strict=True)
            if not isinstance(result, str) and convinces(job, result)
        ]

        def retry(job: _Job, result: Found | str) -> Found | str:
            if isinstance(result, str) or convinces(job, result):
                return result
            beside = sorted(good, key=lambda one: abs(one[0] - job.index))[:NEIGHBOURS]
            tried = self._locate_volume(
                replace(job, starts=(result.matrix, *(matrix for _, matrix in beside)))
            )
            best = result if isinstance(tried, str) else max((result, tried), key=likeness_found)
            return best if convinces(job, best) else self._align_by_information(job, best)

        return list(self.run(retry, jobs, results))

    def _align_by_information(self, job: _Job, best: Found) -> Found:
        """Let mutual information look for what least squares did not find; keep the likelier."""
        views = self.views[job.index]
        try:
            still = normalise(job.image, self.affine)
            matrix = register(still, self.affine, views.normal(), self.affine, mask=self.mask)
        except RegistrationError:
            return best
        fine = job.targets[-1]
        return max((best, follow(views.of(fine.level), fine, (matrix,))), key=likeness_found)

    def averages(
        self, groups: Sequence[Group], matrices: Sequence[np.ndarray] | np.ndarray
    ) -> list[np.ndarray]:
        """Average the volumes of each group where they have been moved to.

        Nothing is drawn from them but registrations, which smooth: linear interpolation does.
        """

        def average(group: Group) -> np.ndarray:
            good = [i for i in group.volumes if i not in self.failed] or group.volumes
            total, number = np.zeros(self.mask.shape), np.zeros(self.mask.shape)
            for index in good:
                moved = resample(self.data[..., index], self.affine, matrices[index], order=1)
                total += np.nan_to_num(moved)
                number += np.isfinite(moved)
            return total / np.maximum(number, 1)

        return list(self.run(average, groups))

    def between(self, averages: Sequence[np.ndarray], main: int) -> list[np.ndarray]:
        """Register the average of each group to that of the main one."""
        views = [Views(average, self.affine) for average in averages]

        def register_to_main(index: int) -> np.ndarray:
            if index == main:
                return np.eye(4)
            try:
                matrix = register(
                    views[main].normal(),
                    self.affine,
                    views[index].normal(),
                    self.affine,
                    mask=self.mask,
                    levels=ACROSS,
                    smooth_slopes=False,
                )
            except RegistrationError:
                return np.eye(4)
            overlap = self.mask & in_field_of_view(self.mask.shape, self.affine, matrix)
            common = overlap.sum() / self.mask.sum()
            return np.eye(4) if why_too_far(matrix, self.centre, common) else matrix

        return list(self.run(register_to_main, range(len(averages))))
