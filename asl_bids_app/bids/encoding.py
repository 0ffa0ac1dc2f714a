"""Time-encoded runs: what `TimeEncodedMatrixSize` and its like say, or a refusal in one line.

No version of BIDS has keys for time encoding. `TimeEncodedMatrixSize` (4, 8 or 12; 0 for none),
`TimeEncodedMatrixType` (Hadamard or Walsh) and `TimeEncodedMatrix` (the matrix itself) are what
converters for ASL write. A run is decoded here if its volumes come in whole cycles of which one
volume is all control (or all label) and the times of the sub-boli follow from the sidecar. Its
volumes are no pairs, so nothing else may quantify them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.bids.context import PERFUSION
from asl_bids_app.bids.encoding_times import sub_bolus_times
from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.spans import show
from asl_bids_app.errors import InputError
from asl_bids_app.hadamard import SIZES, Order, is_hadamard
from asl_bids_app.schemes import SCHEMES, Scheme

SIZE: Final = "TimeEncodedMatrixSize"
TYPE: Final = "TimeEncodedMatrixType"
MATRIX: Final = "TimeEncodedMatrix"
TYPES: Final = ("Hadamard", "Walsh")
TEXTS: Final = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
HINT: Final = re.compile(r"hadamard|time[-_ ]?encod|(?<![a-z])had[-_ ]?0?(4|8|12)(?!\d)", re.I)
"""Names of time-encoded protocols."""
CURE: Final = (
    "decode the volumes first and store them as deltam, with a PostLabelingDelay and a "
    "LabelingDuration for each; don't mark volumes n/a, what is left is no pair"
)


@dataclass(frozen=True, eq=False)
class Encoding:
    """How the volumes of a run encode sub-boli.

    Attributes
    ----------
    size : int
        N, volumes of a cycle.
    word : str
        Hadamard or Walsh.
    cycles : tuple of tuple of int
        Volumes of each cycle, in the order of the scanner.
    uniform : int
        Place in the cycle of the volume whose sub-boli are all alike.
    sign : int
        +1 if those are control, -1 if they are label.
    post_labeling_delay, label_duration : array, shape (N - 1,)
        Seconds, of each sub-bolus, the one that is labelled first first.
    orders : tuple of Order
        The matrix (or the two readings of it) if the sidecar gives it; empty otherwise.
    """

    size: int
    word: str
    cycles: tuple[tuple[int, ...], ...]
    uniform: int
    sign: int
    post_labeling_delay: np.ndarray
    label_duration: np.ndarray
    orders: tuple[Order, ...] = ()

    def of_volumes(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return delay and duration of the whole label by volume, (count,), seconds."""
        last = float(self.post_labeling_delay[-1])
        delay, duration = np.full(count, np.nan), np.full(count, np.nan)
        used = [volume for cycle in self.cycles for volume in cycle]
        delay[used], duration[used] = last, float(self.label_duration.sum())
        return delay, duration

    def measurements(self) -> list[tuple[float, float, int]]:
        """Return delay, duration and repeats of each sub-bolus, the latest first."""
        times = zip(self.post_labeling_delay, self.label_duration, strict=True)
        return sorted((float(w), float(t), len(self.cycles)) for w, t in times)


def read(fields: Fields, scheme: Scheme, kinds: Sequence[str]) -> Encoding | None:
    """Read how a run is time-encoded; None if its volumes are pairs or differences.

    Raises
    ------
    InputError
        If it is time-encoded and can't be decoded without guessing.
    """
    raw = "control" in kinds or "label" in kinds
    size = _size(fields, kinds)
    if size is None:
        if raw and SIZE not in fields:
            _check_hints(fields, kinds)
        return None
    if not raw:
        _check_decoded(fields, kinds)
        return None
    if not SCHEMES[scheme].continuous:
        raise _refusal(fields, f"with {scheme.value}")
    if size not in SIZES:
        raise _refusal(fields, f"of size {size:g}; 4, 8 and 12 can be decoded here")
    word, size = _word(fields), int(size)
    cycles, uniform, sign = _cycles(fields, kinds, size)
    orders = _matrix(fields, size, uniform) if MATRIX in fields else ()
    delay, duration = sub_bolus_times(fields, kinds, cycles, uniform)
    times = ", ".join(f"{w:g}" for w in delay)
    long = ", ".join(f"{t:g}" for t in dict.fromkeys(duration.round(6).tolist()))
    fields.notes.inferred["time_encoding"] = (
        f"{word}, size {size}, cycles of {size} volumes: {len(cycles)}; sub-boli of {long} s with "
        f"delays of {times} s, decoded here; the order of the rows is "
        + (f"that of {MATRIX}" if orders else "looked for in the data")
    )
    return Encoding(size, word, cycles, uniform, sign, delay, duration, orders)


def _refusal(fields: Fields, why: str, key: str = "", cure: str = CURE) -> InputError:
    key = key or next((k for k in (SIZE, TYPE, MATRIX) if k in fields), SIZE)
    found = f"time-encoded volumes that are not decoded, {why}"
    return fields.fault(key, found, "one difference for each sub-bolus, or what decodes it", cure)


def _size(fields: Fields, kinds: Sequence[str]) -> float | None:
    """Return the size of the matrix; None where nothing is encoded."""
    if SIZE in fields:
        value = fields[SIZE]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise fields.fault(SIZE, show(value), "a number, 4, 8 or 12; 0 for no time encoding")
        # A matrix of 2 is the usual pair of control and label.
        return None if value in {0, 1, 2} else value
    if MATRIX in fields and isinstance(fields[MATRIX], list) and fields[MATRIX]:
        return len(fields[MATRIX])
    if MATRIX in fields or TYPE in fields:
        if {"control", "label"} & set(kinds):
            key = MATRIX if MATRIX in fields else TYPE
            cure = f"give {SIZE}; or {CURE}"
            raise _refusal(fields, f"of unknown {SIZE}", key, cure)
        return 0
    return None


def _word(fields: Fields) -> str:
    if TYPE not in fields:
        if MATRIX in fields:
            return TYPES[0]
        cure = f"give {TYPE} (Hadamard or Walsh) if it is one; or {CURE}"
        raise _refusal(fields, f"by a matrix of unknown kind ({TYPE} is missing)", SIZE, cure)
    value = fields[TYPE]
    named = {t.casefold(): t for t in TYPES}
    if not isinstance(value, str) or value.strip().casefold() not in named:
        raise _refusal(fields, f"by a matrix of another kind ({show(value)})", TYPE)
    return named[value.strip().casefold()]


def _check_decoded(fields: Fields, kinds: Sequence[str]) -> None:
    """Check that differences made by the scanner have times of their own."""
    count = sum(kind in PERFUSION for kind in kinds)
    alone = True
    for key in ("PostLabelingDelay", "LabelingDuration"):
        values = fields.get(key)
        if isinstance(values, list) and len(values) == len(kinds):
            used = [v for v, kind in zip(values, kinds, strict=True) if kind in PERFUSION]
            alone &= all(v == used[0] for v in used)
    if count > 1 and alone:
        raise fields.fault(
            "PostLabelingDelay",
            f"one delay and one duration for {count} deltam volumes of time-encoded data",
            "the times of each sub-bolus",
            f"give one of both for each volume of the image; or {SIZE} 0 if they are repeats",
        )
    fields.notes.inferred["time_encoding"] = "decoded before: the run holds deltam volumes"


def _check_hints(fields: Fields, kinds: Sequence[str]) -> None:
    """Refuse pairs that look time-encoded though no key says so."""
    cure = f"give {SIZE} and {TYPE}, {SIZE} 0 if the volumes are no such thing; or {CURE}"
    for key in TEXTS:
        text = fields.get(key)
        if isinstance(text, str) and HINT.search(text):
            raise _refusal(fields, f"by the name {show(text)}", key, cure)
    for one, rest in (("control", "label"), ("label", "control")):
        few, many = list(kinds).count(one), list(kinds).count(rest)
        # Sizes of Hadamard matrices above 2 are multiples of 4.
        if few and many % few == 0 and many > few and (many // few + 1) % 4 == 0:
            found = f"by their number ({many // few} {rest} to one {one}, as a matrix gives them)"
            raise _refusal(fields, found, SIZE, cure)


def _cycles(
    fields: Fields, kinds: Sequence[str], size: int
) -> tuple[tuple[tuple[int, ...], ...], int, int]:
    """Find the cycles, the place of the uniform volume in each and its sign."""
    used = [i for i, kind in enumerate(kinds) if kind in {"control", "label"}]
    table = [[kinds[i] for i in used[k : k + size]] for k in range(0, len(used), size)]
    cycles = tuple(tuple(used[k : k + size]) for k in range(0, len(used), size))
    first = table[0]
    lone = next((k for k in ("control", "label") if first.count(k) == 1), None)
    broken = any(
        kinds[i] in {"n/a", "noRF"} for cycle in cycles for i in range(cycle[0], cycle[-1])
    )
    if len(first) != size or any(row != first for row in table) or lone is None or broken:
        expected = f"one control and {size - 1} label volumes"
        cure = f"complete the cycles in aslcontext.tsv, or mark whole cycles n/a; or {CURE}"
        counted = f"{sum(kinds[i] == 'control' for i in used)} control and "
        counted += f"{sum(kinds[i] == 'label' for i in used)} label"
        raise _refusal(fields, f"in {counted} volumes, no whole cycles of {expected}", SIZE, cure)
    return cycles, first.index(lone), 1 if lone == "control" else -1


def _matrix(fields: Fields, size: int, uniform: int) -> tuple[Order, ...]:
    """Read the matrix: a row a volume; of a square one the transposed reading counts too."""
    expected = f"{size} rows of {size - 1} sub-boli (or {size}, with a column of one value), ±1"
    try:
        values = np.array(fields[MATRIX], dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape not in {(size, size), (size, size - 1)}:
        raise fields.fault(MATRIX, show(fields[MATRIX]), expected)
    readings: dict[bytes, Order] = {}
    for name, reading in (("of the sidecar", values), ("of the sidecar, transposed", values.T)):
        if reading.shape[0] != size:
            continue
        signs = np.where(reading == reading[uniform, 0], 1, -1)
        if len(np.unique(reading)) != 2 or not (signs[uniform] == 1).all():
            continue
        if reading.shape[1] == size:
            same = np.flatnonzero((signs == signs[:1]).all(axis=0))
            if len(same) != 1:
                continue
            signs = np.delete(signs, same[0], axis=1)
        blocks = np.delete(signs, uniform, axis=0)
        if is_hadamard(blocks):
            readings.setdefault(blocks.tobytes(), Order(name, blocks))
    if not readings:
        found = "no Hadamard matrix, or its uniform row is not where aslcontext.tsv has it"
        raise fields.fault(MATRIX, found, expected, CURE)
    return tuple(readings.values())
