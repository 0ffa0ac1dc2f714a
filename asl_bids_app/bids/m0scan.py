"""Where the equilibrium magnetisation of a run comes from, and the M0 scan that belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from asl_bids_app.bids import scaling
from asl_bids_app.bids.acquisition import M0Input, M0Kind
from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.files import DataFile
from asl_bids_app.bids.grids import check_grid
from asl_bids_app.bids.images import Header, read_header
from asl_bids_app.bids.layout import RunFiles
from asl_bids_app.bids.m0_match import find_m0scan, is_intended, is_m0
from asl_bids_app.bids.timing import repetition_times
from asl_bids_app.notices import Notice

ECHO_TOLERANCE: Final = 2e-4
"""Seconds by which echo times may differ without a warning."""
FLIP_TOLERANCE: Final = 1.0
"""Degrees."""
GIVE_M0: Final = "give an M0 scan (Separate, Included) or the M0 of blood (Estimate, M0Estimate)"
COVERED: Final = 0.9
"""An M0 that covers less of the ASL image than this is worth a warning."""


def read(
    fields: Fields, kinds: Sequence[str] | None, run: RunFiles, header: Header | None
) -> M0Input | None:
    """Settle the M0 of a run by its `M0Type`, and check that the files agree with it.

    Parameters
    ----------
    fields
        The sidecar of the run.
    kinds
        Its volume types; None if nobody knows them.
    run
        Its files.
    header
        Of its image; None if nobody can read it.

    Returns
    -------
    M0Input or None
        None if faults are in the notes of the fields.

    Raises
    ------
    InputError
    """
    key = "M0Type"
    rows = [i for i, volume in enumerate(kinds or ()) if volume == "m0scan"]
    kind = None
    with fields.collect():
        kind = M0Kind(fields.choice(key, tuple(M0Kind)))
    scans = [scan for scan in run.m0scans if is_m0(scan)]
    meant = [scan for scan in scans if is_intended(scan, run)]
    if kind is None:
        # What is wrong with the M0 that there is can be reported in the same round.
        if "M0Estimate" in fields:
            fields.number("M0Estimate", "the M0 of blood, one number above 0")
        if meant or (scans and not rows):
            _separate(fields, run, header)
        return None
    if kinds is not None:
        _check_kind(fields, kind, rows, meant, run)
    if kind is M0Kind.SEPARATE:
        return _separate(fields, run, header)
    if kind is M0Kind.ESTIMATE:
        value = fields.number("M0Estimate", "the M0 of blood, one number above 0")
        return M0Input(kind, None, (), value)
    if kind is M0Kind.ABSENT:
        _check_suppression(fields)
    if kinds is None:
        return None
    if kind is M0Kind.ABSENT:
        _check_absent(fields, kinds, run)
        rows = [i for i, volume in enumerate(kinds) if volume == "control"]
    times = repetition_times(fields, kinds)
    return M0Input(kind, None, tuple(times[rows].tolist()))


def _check_kind(
    fields: Fields, kind: M0Kind, rows: list[int], meant: list[DataFile], run: RunFiles
) -> None:
    """Check an `M0Type` against the volumes and files that there are."""
    key = "M0Type"
    if kind is M0Kind.INCLUDED and not rows:
        cure = 'with an M0 file write "Separate"' if meant else "mark the M0 volumes m0scan"
        raise fields.fault(
            key, "Included without m0scan volumes", "m0scan in aslcontext.tsv", cure
        )
    if kind is M0Kind.ABSENT and (rows or meant):
        found = f"Absent with {'m0scan volumes' if rows else meant[0].name}"
        cure = f'write "{"Included" if rows else "Separate"}"'
        raise fields.fault(key, found, "the type that fits the files", cure)
    if kind is not M0Kind.INCLUDED and rows:
        if kind is M0Kind.SEPARATE and not any(is_m0(scan) for scan in run.m0scans):
            found = "Separate without an M0 file but with m0scan volumes"
            raise fields.fault(key, found, "the type that fits the files", 'write "Included"')
        outcome = "these volumes are not used"
        fields.warn(key, f"{kind.value} beside m0scan volumes", "Included", outcome)
    if kind in {M0Kind.INCLUDED, M0Kind.ESTIMATE} and meant:
        fields.warn(
            key, f"{kind.value} beside {meant[0].name}", "Separate", "that file is not used"
        )


def _check_suppression(fields: Fields) -> None:
    if fields.get("BackgroundSuppression") is True:
        found = "Absent with BackgroundSuppression true"
        expected = "an M0, for suppressed controls can't stand in"
        raise fields.fault("M0Type", found, expected, GIVE_M0)


def _check_absent(fields: Fields, kinds: Sequence[str], run: RunFiles) -> None:
    key = "M0Type"
    if "control" not in kinds:
        raise fields.fault(key, "Absent without control volumes", "an M0", GIVE_M0)
    fields.notes.inferred["m0"] = "the mean control volume stands in for the M0"
    fields.warn(key, "Absent", "an M0 scan", "the mean control volume stands in")
    for scan in run.m0scans:
        if is_m0(scan) and scan.entities.get("ses") == run.entities.get("ses"):
            outcome = f"{scan.name} is not used, for it isn't intended for this run"
            fields.warn(key, "Absent beside an M0 scan of the session", "Separate", outcome)


def _separate(fields: Fields, run: RunFiles, header: Header | None) -> M0Input | None:
    scan = find_m0scan(run, fields)
    for problem in scan.problems:
        fields.notes.faults.add(problem)
    fields.notes.warnings.extend(scan.remarks)
    m0_header = None
    with fields.collect():
        m0_header = read_header(scan.path, scan.name)
        fields.notes.warnings.extend(m0_header.warnings)
        if header is not None:
            grid = check_grid(m0_header, header)
            fields.notes.inferred["m0_grid"] = grid.statement
            if grid.overlap < COVERED or grid.guessed:
                fields.notes.warnings.append(Notice(scan.name, found=grid.statement))
    if not scan.readable:
        return None
    own = Fields(scan, fields.notes, fields.lenient)
    times = None
    with own.collect():
        own.check_reviewed()
    with own.collect():
        times = repetition_times(own, ["m0scan"] * (m0_header.n_volumes if m0_header else 1))
    with own.collect():
        if own.flag_or("LookLocker", default=False):
            raise own.not_modelled("LookLocker", "true", "an M0 of one readout: not modelled")
    with own.collect():
        if own.flag_or("BackgroundSuppression", default=False):
            outcome = "used all the same; CBF will be too high if it is true"
            own.warn("BackgroundSuppression", "true", "false in an M0", outcome)
    echo_time = None
    with own.collect():
        own.demand("EchoTime", "the echo time in seconds")
        if "EchoTime" in own:
            echo_time = float(own.numbers("EchoTime", "the echo time in seconds")[0])
    with own.collect():
        _compare(own, fields, "EchoTime", "s", ECHO_TOLERANCE, "differ in T2* weighting")
    with own.collect():
        _compare(own, fields, "FlipAngle", "degrees", FLIP_TOLERANCE, "differ in scale")
    factor = None
    with own.collect():
        factor = scaling.compare(fields, own)
    if times is None:
        return None
    return M0Input(M0Kind.SEPARATE, scan.path, tuple(times.tolist()), None, factor, echo_time)


def _compare(m0: Fields, asl: Fields, key: str, unit: str, tolerance: float, how: str) -> None:
    """Warn if the M0 and the ASL image were made with different settings."""
    if key not in m0 or key not in asl:
        return
    first = np.array(m0.numbers(key, f"a number in {unit}"))
    second = np.array(asl.numbers(key, f"a number in {unit}"))
    if np.abs(first[:, None] - second).max() > tolerance:
        found = f"{first[0]:g} {unit}"
        expected = f"{second[0]:g} {unit} as in {asl.file.path.name}"
        m0.warn(key, found, expected, f"M0 and ASL {how}, which scales CBF")
