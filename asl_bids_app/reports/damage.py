"""Reading what earlier runs wrote when some of it is damaged: what can't be used is reported.

A cut-off copy, a hand that edited a table, another program's file of the same name: each is the
fault of one participant, whose row is marked, and of no other.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from asl_bids_app.bids.jsonfile import read_json
from asl_bids_app.errors import InputError, one_line
from asl_bids_app.notices import Notice
from asl_bids_app.run_records import ParticipantRecord, RunRecord

Parsed = TypeVar("Parsed")
Shape = Any
"""A type or several, ``[shape]`` for a list, or a mapping of keys to shapes; null fits all but
the items of a list, unless it is one of several types."""


def _each(shape: Shape, *keys: str) -> dict[str, Shape]:
    return dict.fromkeys(keys, shape)


def shape_of(kind: Any) -> Shape:
    """Return the shape that a type of `asl_bids_app.run_records` has in a file."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [item.name for item in dataclasses.fields(kind)]
        return {n: shape_of(hints[n]) for n in names if n not in {"more", "traceback"}}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return [shape_of(arguments[0])]
    if origin in {Union, UnionType}:
        shapes = [shape_of(each) for each in arguments]
        flat = [k for each in shapes for k in (each if isinstance(each, tuple) else (each,))]
        return tuple(dict.fromkeys(type(None) if k is object else k for k in flat))
    if origin is abc.Mapping:
        return Mapping
    if isinstance(kind, type) and issubclass(kind, str):
        return str
    return {float: (int, float), int: (int, float)}.get(kind, object)


_OPTIONS: Final = {
    "session_label": [str],
    "bids_filter_file": str,
    "participant_label": [str],
}
"""Of the options of a run, those that reports read."""
RECORD: Final = MappingProxyType({**shape_of(ParticipantRecord), "options": _OPTIONS})
"""Of the record that a run leaves of a participant; every key may be missing."""
RUN: Final = MappingProxyType({**shape_of(RunRecord), "options": _OPTIONS})
"""Of ``run.json`` and ``config.json``."""
SIDECAR: Final = MappingProxyType(
    {
        "EstimationMethod": str,
        "Measurements": [
            {
                "Scheme": str,
                **_each((int, float), "PostLabelingDelay", "LabelingDuration", "Repeats"),
                "SliceTiming": [(int, float)],
            }
        ],
        **_each(Mapping, "Calibration", "NoiseEstimation", "Model"),
        **_each([str], "Warnings", "Sources"),
    }
)
"""Of a map's sidecar."""

_CURE: Final = "process the participant again"
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,80}")


def read_object(path: Path, shape: Shape, root: Path) -> tuple[dict[str, Any], list[Notice]]:
    """Read a JSON object that may be damaged.

    Parameters
    ----------
    path
        The file.
    shape
        What it should look like.
    root
        Messages name the file from here.

    Returns
    -------
    dict, list of Notice
        What of it can be used (nothing of a file that isn't there), and a line for each thing
        that can't.
    """
    name = _name(path, root)
    if not path.exists():
        return {}, []
    faults: list[Notice] = []
    try:
        content = read_json(path, name)
    except InputError as error:
        return {}, [Notice(name, error.field, error.found, error.expected, error.cure or _CURE)]
    return _fit(content, shape, "", name, faults), faults


def _fit(value: Any, shape: Shape, place: str, name: str, faults: list[Notice]) -> Any:
    """Return what of a value fits a shape; None for what doesn't fit at all."""
    if value is None or shape is object:
        return value
    kind = list if isinstance(shape, list) else dict if isinstance(shape, Mapping) else shape
    if not isinstance(value, kind) or isinstance(value, bool):
        text = json.dumps(value, default=str)
        text = text if len(text) <= 40 else f"{text[:37]}..."
        faults.append(Notice(name, place, one_line(text), _words(shape), _CURE))
        return None
    if isinstance(shape, list):
        blank = type(None) in _types(shape[0])
        if None in value and not blank:
            faults.append(Notice(name, place, "null in a list", _words(shape[0]), _CURE))
        fitted = [_fit(item, shape[0], place, name, faults) for item in value]
        return [item for item in fitted if blank or item is not None]
    if isinstance(shape, Mapping):
        return {
            key: _fit(item, shape[key], f"{place}: {key}" if place else key, name, faults)
            if key in shape
            else item
            for key, item in dict(value).items()
        }
    return value


def _words(shape: Shape) -> str:
    if isinstance(shape, list):
        return "a list"
    if isinstance(shape, Mapping) or shape is Mapping or Mapping in _types(shape):
        return "an object {...}"
    return "text" if shape is str else "a number"


def _types(shape: Shape) -> tuple[Any, ...]:
    return shape if isinstance(shape, tuple) else (shape,)


def read_metric_row(path: Path, root: Path) -> tuple[dict[str, float], Notice | Literal[""]]:
    """Read the one row of a table of metrics.

    Returns
    -------
    dict, Notice or str
        The numbers by column, NaN for ``n/a``; and a notice of what is wrong with the table, of
        which no number is used then.
    """
    numbers, found = parse_table(path, _numbers)
    if numbers is not None:
        return numbers, ""
    expected = "a header and one row of numbers or n/a"
    return {}, Notice(_name(path, root), "", found, expected, _CURE)


def parse_table(
    path: Path, parse: Callable[[list[list[str]]], Parsed]
) -> tuple[Parsed | None, str]:
    """Read a table with tabs, and take it apart.

    Parameters
    ----------
    path
    parse
        Takes the rows that aren't empty; a ValueError says what was found.

    Returns
    -------
    object or None, str
        What `parse` gave; or None and what was found instead.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return parse([row for row in csv.reader(text.splitlines(), delimiter="\t") if row]), ""
    except UnicodeDecodeError as error:
        return None, f"bytes that are no UTF-8 text at position {error.start}"
    except OSError as error:
        return None, error.strerror or str(error)
    except (csv.Error, ValueError) as error:
        return None, str(error)


def _numbers(rows: list[list[str]]) -> dict[str, float]:
    """Read header and row; a ValueError says what was found."""
    if len(rows) != 2:
        raise ValueError(f"{len(rows)} lines")
    header, cells = rows
    odd = [title for title in header if not _NAME.fullmatch(title)]
    if odd or len(set(header)) < len(header):
        raise ValueError(f"the column {odd[0][:40]!r}" if odd else "a column twice")
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells below {len(header)} columns")
    return {title: _number(cell, title) for title, cell in zip(header, cells, strict=True)}


def _number(cell: str, title: str) -> float:
    try:
        number = math.nan if cell in ("n/a", "") else float(cell)
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ValueError(f"{cell[:40]!r} in column {title}")
    return number


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
