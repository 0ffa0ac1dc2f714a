"""Reading JSON that others wrote: whatever is wrong with it is reported in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from asl_bids_app.bids.unfetched import unfetched
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice

DEEPEST: Final = 64
"""Levels of lists and objects in each other; sidecars have three."""
DIGITS: Final = 18
"""An integer of more digits is read as a floating-point number, as most programs read it."""
EXPECTED: Final = "a JSON object {...}"
_OTHERS: Final = {
    list: "a JSON list",
    str: "a JSON string",
    type(None): "null",
    bool: "true or false",
}
"""What a file may hold in place of an object; all others are numbers."""


def read_json(path: Path, name: str, remarks: list[Notice] | None = None) -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    path
        The file.
    name
        What messages call it.
    remarks
        Takes a sentence for each key that the file holds twice; the last value counts then, as
        JSON readers have it.

    Raises
    ------
    InputError
        If it can't be read, isn't JSON, isn't an object, or nests deeper than `DEEPEST`.
    """
    if placeholder := unfetched(path, name):
        raise InputError(name, "", placeholder.found, EXPECTED, placeholder.cure)
    try:
        # Editors on Windows put a byte-order mark in front; it harms nobody.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(name, "", error.strerror or str(error), EXPECTED) from error
    except UnicodeDecodeError as error:
        found = f"bytes that are no UTF-8 text at position {error.start}"
        raise InputError(name, "", found, EXPECTED, "save it as UTF-8") from error
    return parse_json(text, name, remarks)


def parse_json(text: str, name: str, remarks: list[Notice] | None = None) -> dict[str, Any]:
    """Read a JSON object from a text; as `read_json`."""
    if not text.strip():
        raise InputError(name, "", "an empty file", EXPECTED)
    twice: dict[str, list[Any]] = {}

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            for key in content:
                if keys.count(key) > 1:
                    twice[key] = [value for other, value in pairs if other == key]
        return content

    try:
        content = json.loads(text, parse_int=_read_integer, object_pairs_hook=collect)
        deep = _depth(content) > DEEPEST
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(name, place, f"broken JSON ({error.msg})", EXPECTED) from error
    except RecursionError:
        deep = True
    if deep:
        found = f"lists or objects nested more than {DEEPEST} deep"
        raise InputError(name, "", found, EXPECTED, "remove the key that holds them")
    if not isinstance(content, dict):
        raise InputError(name, "", _OTHERS.get(type(content), "a number"), EXPECTED)
    if remarks is not None:
        remarks += [_given_twice(name, key, values) for key, values in twice.items()]
    return _plain_text(content)


def _read_integer(text: str) -> int | float:
    return int(text) if len(text) <= DIGITS else float(text)


def _depth(content: Any) -> int:
    depth, level = 0, [content] if isinstance(content, dict | list) else []
    while level:
        depth += 1
        inside: list[Any] = []
        for item in level:
            inside += item.values() if isinstance(item, dict) else item
        level = [item for item in inside if isinstance(item, dict | list)]
    return depth


def _plain_text(value: Any) -> Any:
    r"""Replace halves of a character pair (``\ud800``) alone, which no file or terminal takes."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_plain_text(item) for item in value]
    if isinstance(value, dict):
        return {_plain_text(key): _plain_text(item) for key, item in value.items()}
    return value


def _given_twice(name: str, key: str, values: list[Any]) -> Notice:
    shown = [text if len(text := json.dumps(v)) <= 40 else text[:37] + "..." for v in values]
    found = f"{len(values)} values ({', '.join(shown)})"
    return Notice(name, key, found, "the key once", "the last one is used")
