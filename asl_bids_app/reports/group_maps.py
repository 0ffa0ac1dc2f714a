"""Mean and standard deviation over a cohort of the maps in each standard space."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from asl_bids_app.bids.files import shown
from asl_bids_app.errors import one_line
from asl_bids_app.notices import Notice
from asl_bids_app.reports.cohort import Cohort
from asl_bids_app.reports.group_map_files import GroupMap, Kind, Source, find_maps

FEWEST: Final = 2
"""Participants from which there are maps of a cohort."""
_CURE: Final = "process the participant again"


class Moments:
    """Mean and variance of maps that come one after the other (Welford 1962).

    Parameters
    ----------
    shape
        Of the maps.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        # In the order of images on disk, for speed.
        self.count = np.zeros(shape, np.int16, order="F")
        self.mean = np.zeros(shape, order="F")
        self._squares = np.zeros(shape, order="F")

    def add(self, values: np.ndarray, where: np.ndarray) -> None:
        """Add a map; only where it has values."""
        self.count[where] += 1
        mean, new = self.mean[where], values[where].astype(float)
        change = new - mean
        mean += change / self.count[where]
        self.mean[where] = mean
        self._squares[where] += change * (new - mean)

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of the sample, n - 1; 0 of fewer than two values."""
        return np.sqrt(self._squares / np.maximum(self.count - 1, 1)) * (self.count > 1)


def make_group_maps(
    output_dir: Path, cohort: Cohort
) -> Iterator[tuple[GroupMap | None, dict[str, list[Notice]]]]:
    """Average the maps of a cohort, kind by kind.

    The runs of a participant are averaged first. Series whose maps can't be believed are left
    out, and so are maps that can't be read or lie on another grid than most.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    cohort

    Yields
    ------
    GroupMap or None, dict of str to list of Notice
        None of fewer participants than `FEWEST`; and what is wrong with files, by participant.
    """
    found = find_maps(cohort)
    for kind in sorted(found, key=lambda kind: kind.order):
        averaging = _Averaging(kind, output_dir)
        yield averaging.run(found[kind]), averaging.damage


class _Averaging:
    """Averages the maps of one kind, and keeps what it left out."""

    def __init__(self, kind: Kind, root: Path) -> None:
        self.kind, self.root = kind, root
        self.left_out: dict[str, str] = {}
        self.damage: dict[str, list[Notice]] = {}
        self.grids: dict[Path, tuple[tuple[int, ...], bytes]] = {}

    def run(self, sources: Sequence[Source]) -> GroupMap | None:
        """Average the maps; None of fewer participants than `FEWEST`."""
        usable = [source for source in sources if self._usable(source)]
        if not usable:
            return None
        common, _ = Counter(self.grids[source.path] for source in usable).most_common(1)[0]
        shape = common[0]
        affine = np.frombuffer(common[1]).reshape(4, 4)
        moments, participants, used = Moments(shape), 0, list[str]()
        for label in dict.fromkeys(source.row.participant for source in usable):
            runs = []
            for source in usable:
                if source.row.participant != label:
                    continue
                if self.grids[source.path] != common:
                    self.left_out[source.row.title] = "on another grid than most"
                elif (read := self._read(source)) is not None:
                    used.append(shown(source.path, self.root))
                    runs.append(read)
            values, inside = _mean_of_runs(runs) if runs else (np.empty(0), np.zeros(0, bool))
            if inside.any():
                participants += 1
                moments.add(values, inside)
        if participants < FEWEST:
            return None
        return GroupMap(
            self.kind,
            moments.mean,
            moments.sd,
            moments.count,
            np.array(affine),
            participants,
            tuple(used),
            self.left_out,
        )

    def _usable(self, source: Source) -> bool:
        """Tell whether a map can be averaged, by the metrics of its series and its header."""
        import nibabel as nib

        if source.row.plausibility:
            self.left_out[source.row.title] = f"not believed: {source.row.plausibility[0]}"
            return False
        try:
            image = nib.load(source.path)
        except broken_image() as error:
            self._lose(source, source.path, error)
            return False
        place = np.round(np.asarray(image.affine, float), 4) + 0.0
        self.grids[source.path] = (image.shape, place.tobytes())
        return True

    def _read(self, source: Source) -> tuple[np.ndarray, np.ndarray] | None:
        """Read a map, and where it has values; None of one that is damaged."""
        import nibabel as nib

        path = source.path
        try:
            values = nib.load(path).get_fdata(dtype=np.float32, caching="unchanged")
            # Outside the brain maps hold 0, which is no measurement.
            inside = values != 0
            if source.mask.exists():
                path = source.mask
                brain = np.asanyarray(nib.load(path).dataobj) > 0
                # The flow of one tissue is 0 where a voxel holds hardly any of it.
                inside = brain & inside if self.kind.desc else brain
            return values, inside & np.isfinite(values)
        except broken_image() as error:
            self._lose(source, path, error)
            return None

    def _lose(self, source: Source, path: Path, error: Exception) -> None:
        found = one_line(str(error)) or type(error).__name__
        notice = Notice(shown(path, self.root), "", found, "an image that can be read", _CURE)
        self.damage.setdefault(source.row.participant, []).append(notice)
        self.left_out[source.row.title] = f"damaged: {path.name}"


def _mean_of_runs(
    runs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Average the maps of one participant; in each voxel those that have a value."""
    if len(runs) == 1:
        return runs[0]
    number = sum(inside.astype(np.int16) for _, inside in runs)
    total = sum(np.where(inside, values, 0.0) for values, inside in runs)
    return total / np.maximum(number, 1), np.asarray(number) > 0


def broken_image() -> tuple[type[Exception], ...]:
    """Return the errors by which reading an image shows that it is damaged."""
    from nibabel.filebasedimages import ImageFileError

    return OSError, EOFError, ValueError, zlib.error, ImageFileError
