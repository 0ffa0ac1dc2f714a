"""What each volume is: `aslcontext.tsv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from asl_bids_app.bids import marks
from asl_bids_app.bids.files import shown
from asl_bids_app.bids.layout import RunFiles
from asl_bids_app.bids.spans import find_near_word
from asl_bids_app.bids.unfetched import unfetched
from asl_bids_app.errors import Faults, InputError
from asl_bids_app.notices import Notice
from asl_bids_app.wording import seconds

VOLUME_TYPES: Final = ("control", "label", "deltam", "m0scan", "cbf", "noRF", "n/a")
PERFUSION: Final = frozenset({"control", "label", "deltam"})
"""Volumes that have a delay."""

NICKNAMES: Final = MappingProxyType(
    {"tag": "label", "m0": "m0scan", "m0image": "m0scan", "perfusion": "deltam", "na": "n/a"}
)


def read(run: RunFiles, n_volumes: int | None) -> tuple[str, ...]:
    """Read the type of every volume.

    Parameters
    ----------
    run
        The run.
    n_volumes
        Number of volumes of its image, for messages (None if unknown); see `check_rows`.

    Raises
    ------
    InputError
        If there is no table, no such column or an unknown type.
    """
    if run.aslcontext is None:
        stem = run.path.name.partition(".")[0].removesuffix("_asl")
        place = shown(run.path.with_name(f"{stem}_aslcontext.tsv"), run.root)
        volumes = f"of the {n_volumes} volumes" if n_volumes else "volume"
        expected = f"a table that names the type of each {volumes}"
        raise InputError(place, "", "no such file", expected, "write it from the protocol")
    name = shown(run.aslcontext, run.root)
    rows = _rows(run.aslcontext, name)
    faults = Faults()
    if _marked(run.aslcontext):
        cure = f"check each row, then remove the column {marks.COLUMN}"
        faults.add(
            InputError(name, marks.COLUMN, marks.found(["volume_type"]), marks.EXPECTED, cure)
        )
    for kind, number in Counter(rows).items():
        if kind not in VOLUME_TYPES:
            word = meant(kind)
            cure = f"write {word}" if word else ""
            row = rows.index(kind) + 1
            found = f"{kind!r} in row {row}" if kind else f"an empty row {row}"
            found += f" and {number - 1} more" if number > 1 else ""
            expected = "one of " + ", ".join(VOLUME_TYPES)
            faults.add(InputError(name, "volume_type", found, expected, cure))
    faults.check()
    return tuple(rows)


def meant(kind: str) -> str:
    """Return the volume type that a word most likely stands for; empty if unclear."""
    nickname = NICKNAMES.get(kind.strip().casefold())
    return nickname or find_near_word(kind, VOLUME_TYPES)


def words(run: RunFiles) -> list[str]:
    """Return the rows of the table as they are; an empty list if it can't be read."""
    try:
        return _rows(run.aslcontext, name_of(run)) if run.aslcontext else []
    except InputError:
        return []


def _marked(path: Path) -> bool:
    """Tell whether a table is a proposal that nobody has reviewed."""
    header, _, rest = path.read_text(encoding="utf-8-sig").partition("\n")
    cells = header.rstrip("\r").split("\t")
    if marks.COLUMN not in cells:
        return False
    column = cells.index(marks.COLUMN)
    rows = [line.rstrip("\r").split("\t") for line in rest.split("\n")]
    return any(column < len(row) and row[column].strip() for row in rows)


def check_rows(kinds: Sequence[str], run: RunFiles, n_volumes: int) -> None:
    """Check that the table has a row for each volume.

    Raises
    ------
    InputError
    """
    if len(kinds) != n_volumes:
        expected = f"{n_volumes}, the number of volumes of {run.path.name}"
        cure = "add or remove rows so that each volume has one"
        if len(kinds) < n_volumes and "m0scan" not in kinds:
            cure += "; are M0 volumes in the image that have no row"
        raise InputError(name_of(run), "volume_type", f"{len(kinds)} rows", expected, cure)


def _rows(path: Path, name: str) -> list[str]:
    expected = "a table with the column volume_type"
    if placeholder := unfetched(path, name):
        raise InputError(name, "", placeholder.found, expected, placeholder.cure)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(name, "", found, expected) from error
    except UnicodeDecodeError as error:
        raise InputError(name, "", "bytes that are no UTF-8 text", "a table") from error
    cells = [line.rstrip("\r").split("\t") for line in lines]
    while cells and not "".join(cells[-1]).strip():
        cells.pop()
    if not cells:
        raise InputError(name, "", "an empty file", expected)
    header = [cell.strip() for cell in cells[0]]
    if "volume_type" not in header:
        looks_headless = header[0] in VOLUME_TYPES
        cure = "put the line volume_type first" if looks_headless else ""
        raise InputError(name, "header", repr(header[0]), "volume_type", cure)
    column = header.index("volume_type")
    return [row[column].strip() if column < len(row) else "" for row in cells[1:]]


def name_of(run: RunFiles) -> str:
    """Return the table of a run as messages show it."""
    return shown(run.aslcontext, run.root) if run.aslcontext else run.name


def settle(kinds: tuple[str, ...], run: RunFiles, warnings: list[Notice]) -> tuple[str, ...]:
    """Decide which volumes are quantified where a run holds the same thing twice.

    Control-label pairs win over `deltam`, and both over `cbf`; the rest becomes ``n/a``.

    Raises
    ------
    InputError
        If nothing is left that can be quantified.
    """
    name = name_of(run)
    present = set(kinds)
    if not present & PERFUSION:
        if "cbf" in present:
            units = "" if "Units" in run.metadata else ", in unknown Units"
            found = f"a run that holds only a CBF map made by another program{units}"
            cure = "give the control and label (or deltam) volumes that it was made from"
        else:
            found, cure = "no control, label or deltam volume", ""
        raise InputError(name, "volume_type", found, "volumes to quantify", cure)
    drop = {"cbf"} & present
    if present & {"control", "label"}:
        drop |= {"deltam"} & present
    for kind in sorted(drop):
        kept = "deltam" if "deltam" in present - drop else "control and label"
        units = " (and have no Units)" if kind == "cbf" and "Units" not in run.metadata else ""
        found = f"found {kind} beside {kept} volumes"
        outcome = f"the {kind} volumes{units} are left out"
        warnings.append(Notice(name, "volume_type", found, outcome=outcome))
    return tuple("n/a" if kind in drop else kind for kind in kinds)


def check_pairs(
    kinds: Sequence[str], delay: np.ndarray, duration: np.ndarray, name: str, sidecar: str
) -> None:
    """Check that each combination of delay and duration has as many controls as labels.

    Parameters
    ----------
    kinds
        Volume types.
    delay, duration : array, shape (n_volumes,)
        Seconds.
    name, sidecar
        What messages call the table and the sidecar.

    Raises
    ------
    InputError
    """
    count = Counter(kinds)
    if count["control"] != count["label"]:
        found = f"{count['control']} control and {count['label']} label volumes"
        cure = "mark a volume without partner n/a"
        raise InputError(name, "volume_type", found, "as many of both", cure)
    by_timing: dict[tuple[float, float], Counter[str]] = {}
    for kind, *timing in zip(kinds, delay.tolist(), duration.tolist(), strict=True):
        if kind in {"control", "label"}:
            key = (round(timing[0], 6), round(timing[1], 6))
            by_timing.setdefault(key, Counter())[kind] += 1
    for (pld, length), n in by_timing.items():
        if n["control"] != n["label"]:
            raise InputError(
                sidecar,
                "PostLabelingDelay",
                f"{n['control']} control and {n['label']} label volumes with a delay of {pld:g} s "
                f"and a duration of {seconds(length)}",
                "as many of both",
                "give the two volumes of a pair the same times; check the order of the volumes",
            )
