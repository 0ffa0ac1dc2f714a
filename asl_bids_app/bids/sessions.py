"""Which runs are quantified together, and under which name.

PCASL (or CASL) and VSASL of one session share CBF and the transit time from the same
labelling plane; that is what a joint fit uses. The transit time of PASL counts from the edge
of its slab and is another quantity, so PASL runs are never joined.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.scheme_fields import JointPart
from asl_bids_app.schemes import SCHEMES
from asl_bids_app.wording import title_of

if TYPE_CHECKING:
    from asl_bids_app.calibration import Calibration

MODES: Final = ("auto", "off", "both")
ORDER: Final = ("sub", "ses", "acq", "rec", "dir", "run", "echo", "part")
JOINT_LABEL: Final = "joint"


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run that is understood, with its constants.

    Attributes
    ----------
    acquisition : Acquisition
    calibration : Calibration
    warnings : tuple of Notice
        Of both.
    """

    acquisition: Acquisition
    calibration: Calibration
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, eq=False)
class Unit:
    """One or two runs that give one set of maps.

    Attributes
    ----------
    acquisitions : tuple of Acquisition
        The continuous run first in a joint unit.
    entities : mapping
        Those that output names bear, in file-name order: of a joint unit the ones common to
        its runs, else those of the run.
    joint : bool
    warnings : tuple of Notice
        Of the grouping alone.
    runs : tuple of PlannedRun
        The acquisitions with their constants; empty until `with_constants`.
    """

    acquisitions: tuple[Acquisition, ...]
    entities: Mapping[str, str]
    joint: bool
    warnings: tuple[Notice, ...] = ()
    runs: tuple[PlannedRun, ...] = ()

    def with_constants(self, planned: Mapping[Path, PlannedRun]) -> Unit:
        """Return the unit with its runs as they are planned, by the path of each."""
        return replace(self, runs=tuple(planned[run.path] for run in self.acquisitions))

    @property
    def name(self) -> str:
        """The entities as a file name has them, e.g. ``sub-01_acq-pcasl``."""
        return title_of(self.entities)


def group(acquisitions: Sequence[Acquisition], mode: str = "auto") -> tuple[Unit, ...]:
    """Group the runs of one or more participants into units.

    Within a session a continuous and a velocity-selective run belong together if they are
    the only ones, or if they alone agree in all entities but ``acq``.

    Parameters
    ----------
    acquisitions
        Runs that could be understood.
    mode
        ``auto``: joint where possible, each run once. ``off``: every run alone. ``both``:
        every run alone, and joint units besides.

    Returns
    -------
    tuple of Unit
        No two with the same name: a joint unit whose common entities are already the name
        of another unit gets ``acq-joint``.

    Raises
    ------
    InputError
        If two runs have the same entities.
    ValueError
        If the mode is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r}, expected one of {', '.join(MODES)}")
    seen: dict[tuple[tuple[str, str], ...], Acquisition] = {}
    for run in acquisitions:
        key = tuple(sorted(run.entities.items()))
        if key in seen:
            found = f"the entities of {seen[key].path.name}"
            raise InputError(str(run.path), "file name", found, "a name of its own")
        seen[key] = run
    by_session: dict[tuple[str | None, ...], list[Acquisition]] = defaultdict(list)
    for run in acquisitions:
        by_session[run.entities.get("sub"), run.entities.get("ses")].append(run)

    units: list[Unit] = []
    for runs in by_session.values():
        pairs, warnings = ([], ()) if mode == "off" else _pairs(runs)
        joined = {id(run) for pair in pairs for run in pair}
        alone = [
            Unit((run,), dict(run.entities), False, _warnings_of(run, warnings))
            for run in runs
            if mode == "both" or id(run) not in joined
        ]
        units += alone
        taken = {unit.name for unit in alone}
        for pair in pairs:
            unit = _join(pair, taken)
            taken.add(unit.name)
            units.append(unit)
    return tuple(units)


def _pairs(
    runs: Sequence[Acquisition],
) -> tuple[list[tuple[Acquisition, Acquisition]], tuple[Notice, ...]]:
    """Find the runs of one session that belong together."""
    continuous = [run for run in runs if SCHEMES[run.scheme].joint is JointPart.CONTINUOUS]
    selective = [run for run in runs if SCHEMES[run.scheme].joint is JointPart.SELECTIVE]
    if not continuous or not selective:
        return [], ()
    if len(continuous) == len(selective) == 1:
        return [(continuous[0], selective[0])], ()

    def rest(run: Acquisition) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(item for item in run.entities.items() if item[0] != "acq"))

    pairs = []
    for first in continuous:
        partners = [run for run in selective if rest(run) == rest(first)]
        rivals = [run for run in continuous if rest(run) == rest(first)]
        if len(partners) == len(rivals) == 1:
            pairs.append((first, partners[0]))
    joined = {id(run) for pair in pairs for run in pair}
    left = [run.path.name for run in (*continuous, *selective) if id(run) not in joined]
    warning = Notice(
        left,
        found="no one-to-one pairs of PCASL and VSASL by run, rec and dir",
        outcome="quantified alone (name them by the same run- label, or choose by "
        "--bids-filter-file)",
    )
    return pairs, (warning,) if left else ()


def _warnings_of(run: Acquisition, warnings: tuple[Notice, ...]) -> tuple[Notice, ...]:
    return tuple(warning for warning in warnings if warning.concerns(run.path.name))


def _join(pair: tuple[Acquisition, Acquisition], taken: set[str]) -> Unit:
    first, second = pair
    common = {k: v for k, v in first.entities.items() if second.entities.get(k) == v}
    unit = Unit(pair, common, True)
    if unit.name not in taken:
        return unit
    order = {key: i for i, key in enumerate(ORDER)}
    for number in range(1, len(taken) + 2):
        label = JOINT_LABEL + (str(number) if number > 1 else "")
        labelled = sorted(
            (common | {"acq": label}).items(), key=lambda item: order.get(item[0], len(ORDER))
        )
        warning = Notice(
            unit.name,
            found="the name of another result",
            outcome=f"the joint one bears acq-{label}",
        )
        other = Unit(pair, dict(labelled), True, (warning,))
        if other.name not in taken:
            return other
    raise AssertionError("more names than units")
