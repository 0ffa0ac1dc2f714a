"""Which M0 scan belongs to a run: by IntendedFor, by name, or as the only one of the session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asl_bids_app.bids.fields import Fields, Notes
from asl_bids_app.bids.files import DataFile
from asl_bids_app.bids.layout import RunFiles
from asl_bids_app.bids.spans import show
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice


def find_m0scan(run: RunFiles, fields: Fields) -> DataFile:
    """Find the M0 scan of a run: by IntendedFor, by name, or as the only one of the session.

    Raises
    ------
    InputError
        If there is none, or two are equally good.
    """
    scans = [scan for scan in run.m0scans if is_m0(scan)]
    session = [s for s in scans if s.entities.get("ses") == run.entities.get("ses")]
    namesakes = [s for s in session if s.entities == run.entities]
    intended = [s for s in scans if is_intended(s, run)]
    for name, rule in (("intended for it", intended), ("of the same name", namesakes)):
        # Of several M0 scans that are meant for a run the one with its very name is the best.
        best = [s for s in rule if s in namesakes] or rule
        if len(best) > 1:
            raise _ambiguous(run, best, name)
        if best:
            if rule is not intended:
                _note_rule(best[0], run, fields.notes, "by its name")
            return best[0]
    if len(session) > 1:
        raise _ambiguous(run, session, "of the session")
    if session:
        _note_rule(session[0], run, fields.notes, "as the only one of the session")
        return session[0]
    fieldmaps = [s.name for s in run.m0scans if not is_m0(s)]
    cure = "add the M0 scan, or correct M0Type"
    if fieldmaps:
        cure += f" ({fieldmaps[0]} is a field map of its own phase encoding and can't serve)"
    raise fields.fault("M0Type", "Separate, but no m0scan file", "an m0scan file in perf/", cure)


def _note_rule(scan: DataFile, run: RunFiles, notes: Notes, rule: str) -> None:
    targets = _targets(scan)
    found = "nothing"
    if targets:
        absent = [t for t in targets if not _resolve(t, scan).exists()]
        found = f"{targets[0]!r}" + (", a file that doesn't exist" if absent else "")
    key = "IntendedFor"
    notes.inferred["m0"] = f"{scan.name}, taken {rule}"
    outcome = f"the M0 scan is taken for this run {rule}"
    notes.warnings.append(Notice(scan.cite(key), key, found, f"bids::{run.name}", outcome))


def _ambiguous(run: RunFiles, scans: Sequence[DataFile], rule: str) -> InputError:
    names = " and ".join(scan.name for scan in scans[:4])
    return InputError(
        run.name,
        "M0 scan",
        f"{len(scans)} candidates {rule}: {names}",
        "one",
        f'set "IntendedFor": "bids::{run.name}" in the sidecar of the right one alone',
    )


def is_m0(scan: DataFile) -> bool:
    """Tell an M0 from a field map, which has a phase encoding of its own."""
    return scan.path.parent.name == "perf"


def _targets(scan: DataFile) -> list[str]:
    value = scan.metadata.get("IntendedFor", [])
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, str):
            expected = "a BIDS URI or path, or a list of them"
            raise InputError(scan.cite("IntendedFor"), "IntendedFor", show(each), expected)
    return values


def is_intended(scan: DataFile, run: RunFiles) -> bool:
    """Tell whether an M0 scan says that it is meant for a run."""
    try:
        targets = _targets(scan)
    except InputError:
        if scan.entities.get("ses") == run.entities.get("ses"):
            raise
        # What is wrong with another session's scan is a fault of that session.
        return False
    return any(_resolve(target, scan) == run.path for target in targets)


def _resolve(target: str, scan: DataFile) -> Path:
    """Return the file that an IntendedFor means.

    A BIDS URI counts from the dataset's root whichever name the dataset has, a plain path
    from the participant's folder (deprecated); one that repeats ``sub-`` from the root.
    """
    if target.startswith("bids:"):
        path = scan.root / target.split(":", 2)[-1].lstrip("/")
    elif target.removeprefix("./").startswith("sub-"):
        path = scan.root / target
    else:
        path = scan.root / f"sub-{scan.entities.get('sub', '')}" / target.lstrip("/")
    return Path(*path.parts)
