"""Completed sidecars and tables for a run with faults: for review, never used by a run.

Values under a converter's names are put under those of BIDS, and what is missing is guessed
where something tells it (`asl_bids_app.bids.guessers`, `asl_bids_app.bids.volume_guess`).
Every such value is marked with what it rests on; what nobody can guess is null. A run
refuses a file with such marks (`asl_bids_app.bids.marks`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.bids import context, marks
from asl_bids_app.bids.evidence import Evidence
from asl_bids_app.bids.fields import Fields, Notes
from asl_bids_app.bids.files import DataFile, shown
from asl_bids_app.bids.images import load, read_header
from asl_bids_app.bids.labelling import scheme_of
from asl_bids_app.bids.layout import RunFiles
from asl_bids_app.bids.m0_match import find_m0scan
from asl_bids_app.bids.proposal import Note, Proposal, complete
from asl_bids_app.bids.volume_guess import UNKNOWN, guess_kinds
from asl_bids_app.bids.words import Guess
from asl_bids_app.errors import Cause, InputError

ROUNDS: Final = 4
"""A guess may bring up what could not be seen without it; more rounds than that don't."""

Examine = Callable[[RunFiles], Sequence[InputError]]


def propose(run: RunFiles, examine: Examine) -> list[Proposal]:
    """Propose files for a run that has faults.

    Parameters
    ----------
    run
        The run.
    examine
        Tells the faults of a run.

    Returns
    -------
    list of Proposal
        Empty if nothing of it is a matter of sidecars and tables.
    """
    if not run.readable:
        return []
    guesses, fresh = _kinds(run)
    kinds = tuple(guess.value for guess in guesses)
    known = () if UNKNOWN in kinds else kinds
    scan = _scan(run)
    evidence = Evidence(
        run.metadata,
        scheme_of(run),
        known,
        scan.path.name if scan and "m0scan" not in kinds else "",
        _brightness(run, known, scan),
    )
    stem = run.path.name.partition(".")[0]
    path = run.path.with_name(f"{stem}.json")
    notes: dict[str, Note] = {}
    of_m0: list[InputError] = []
    with tempfile.TemporaryDirectory() as folder:
        table = run.aslcontext
        if fresh:
            table = Path(folder) / f"{stem}_aslcontext.tsv"
            table.write_text("\n".join(["volume_type", *kinds]), encoding="utf-8")
        for _ in range(ROUNDS):
            metadata = {k: v for k, v in evidence.metadata.items() if v is not None}
            trial = replace(
                run,
                sidecars=run.sidecars or (path,),
                metadata=metadata,
                aslcontext=table if known else None,
            )
            faults = [fault for fault in examine(trial) if fault.cause is Cause.INPUT]
            of_m0 += [f for f in faults if scan and f.file in _names(scan)]
            reported = {marks.KEY, *notes}
            mine = [f for f in faults if f.file in _names(trial) and f.field not in reported]
            if not mine:
                break
            content, found = complete(replace(evidence, metadata=metadata), mine)
            evidence = replace(evidence, metadata=content)
            notes |= found
    proposals = []
    if notes:
        proposals.append(_sidecar(path, run.root, {**evidence.metadata, **_nulls(notes)}, notes))
    if fresh:
        table = run.path.with_name(f"{stem.removesuffix('_asl')}_aslcontext.tsv")
        proposals.append(_table(table.relative_to(run.root), guesses))
    if of_m0 and scan is not None and scan.readable:
        proposals.append(_m0_sidecar(scan, run, of_m0))
    return proposals


def may_complete(run: RunFiles, faults: Sequence[InputError]) -> bool:
    """Tell whether any fault is of a kind that a completed sidecar or table can mend."""
    return run.readable and any(
        fault.cause is Cause.INPUT and fault.field and fault.file.endswith((".json", ".tsv"))
        for fault in faults
    )


def _nulls(notes: Mapping[str, Note]) -> dict[str, None]:
    """Return the keys that nobody could guess and that hold nothing."""
    return {key: None for key, note in notes.items() if note.blank}


def _names(file: DataFile) -> set[str]:
    """Return the sidecars of a file as faults cite them."""
    return {file.sidecar, *(shown(path, file.root) for path in file.sidecars)}


def _sidecar(
    path: Path, root: Path, content: Mapping[str, Any], notes: Mapping[str, Note]
) -> Proposal:
    # Marks of an earlier proposal stay: nobody has reviewed those values either.
    review = {marks.HOW: marks.INSTRUCTION, **marks.marked(content)}
    review |= {key: note.why for key, note in notes.items()}
    content = {key: value for key, value in content.items() if key != marks.KEY}
    first = {key: content[key] for key in notes if key in content}
    return Proposal(
        path.relative_to(root),
        {marks.KEY: review} | first | content,
        tuple(key for key, note in notes.items() if note.value is not None),
        tuple(key for key, note in notes.items() if note.value is None),
    )


def _m0_sidecar(scan: DataFile, run: RunFiles, faults: Sequence[InputError]) -> Proposal:
    content, notes = complete(Evidence(scan.metadata), faults)
    # A scan of another name may serve several runs.
    if "IntendedFor" not in scan.metadata and scan.entities == run.entities:
        content["IntendedFor"] = f"bids::{run.name}"
        notes["IntendedFor"] = Note(content["IntendedFor"], "guessed: the M0 of this run")
    path = scan.path.with_name(f"{scan.path.name.partition('.')[0]}.json")
    return _sidecar(path, scan.root, content, notes)


def _table(path: Path, guesses: Sequence[Guess]) -> Proposal:
    rows = [str(i + 1) for i, guess in enumerate(guesses) if guess.value == UNKNOWN]
    done = tuple(str(i + 1) for i, g in enumerate(guesses) if g.why and g.value != UNKNOWN)
    return Proposal(path, tuple(guesses), done, tuple(rows))


def _kinds(run: RunFiles) -> tuple[list[Guess], bool]:
    """Return the type of each volume, and whether a table has to be proposed for them."""
    try:
        n_volumes = read_header(run.path, run.name).n_volumes
    except InputError:
        return [], False
    rows = context.words(run)
    if len(rows) == n_volumes:
        guesses = [_word(row) for row in rows]
        if not any(guess.value == UNKNOWN for guess in guesses):
            return guesses, any(guess.why for guess in guesses)
    try:
        data = load(run.path, name=run.name, may_be_empty=range(n_volumes)).data
    except InputError:
        return [], False
    data = data.reshape(*data.shape[:3], -1)
    return [
        Guess(guess.value, guess.why if guess.value == UNKNOWN else f"guessed: {guess.why}")
        for guess in guess_kinds(data, run.metadata)
    ], True


def _word(row: str) -> Guess:
    if row in context.VOLUME_TYPES:
        return Guess(row, "")
    meant = context.meant(row)
    return Guess(meant, f"guessed: the table says {row!r}") if meant else Guess(UNKNOWN, "")


def _scan(run: RunFiles) -> DataFile | None:
    """Return the M0 scan that a run would take."""
    try:
        return find_m0scan(run, Fields(run, Notes()))
    except InputError:
        return None


def _brightness(run: RunFiles, kinds: Sequence[str], scan: DataFile | None) -> float | None:
    """Return the signal of the controls as a fraction of the M0, in the head."""
    if "BackgroundSuppression" in run.metadata or "control" not in kinds:
        return None
    try:
        data = load(run.path, name=run.name, may_be_empty=range(len(kinds))).data
        if "m0scan" in kinds:
            m0 = data[..., np.array(kinds) == "m0scan"].mean(axis=3)
        elif scan is not None:
            m0 = load(scan.path, name=scan.name).data
            m0 = m0 if m0.ndim == 3 else m0.mean(axis=3)
        else:
            return None
    except InputError:
        return None
    control = data[..., np.array(kinds) == "control"].mean(axis=3)
    if m0.shape != control.shape:
        return None
    head = m0 > 0.2 * np.percentile(m0, 98)
    return float(control[head].mean() / m0[head].mean()) if head.any() else None
