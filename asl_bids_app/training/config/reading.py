"""Between a file's plain mappings (YAML) and the sections of a configuration.

The border: keys of times end in ``_ms`` and hold milliseconds in files; sections hold seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import pydantic

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.declaration import (
    OutOfRangeError,
    WrongOrderError,
    file_key,
    get_declared,
    list_choices,
    walk_settings,
)

T = TypeVar("T")

_MAPPING: Final = "a mapping of keys to values"


def build(cls: type[T], values: Any, file: str | Path) -> T:
    """Make a tree of sections from a mapping.

    Parameters
    ----------
    cls
        The section at its top.
    values
        The mapping; keys that are left out keep their defaults.
    file
        Named in errors.

    Raises
    ------
    InputError
        For an unknown key, a wrong type or a value out of range, with the path of the key.
    """
    content = _by_field(cls, values, file, "", cls)
    try:
        return pydantic.TypeAdapter(cls).validate_python(content)
    except pydantic.ValidationError as error:
        raise _input_error(cls, values or {}, file, error.errors()[0]) from None


def _by_field(cls: Any, values: Any, file: str | Path, path: str, root: Any) -> dict[str, Any]:
    """Return a mapping by the names of the fields, times in seconds."""
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise InputError(file, path, _shown(values), _MAPPING)
    known = {file_key(item): item for item in fields(cls)}
    made: dict[str, Any] = {}
    for key, value in values.items():
        where = _join(path, key)
        if key not in known:
            right = _right_key(str(key), path, known, root)
            raise InputError(
                file,
                where,
                "an unknown key",
                f"one of {', '.join(known)}",
                f"did you mean {right}" if right else "",
            )
        item = known[key]
        if is_dataclass(cls.plain_hints[item.name]):
            made[item.name] = _by_field(cls.plain_hints[item.name], value, file, where, root)
        else:
            made[item.name] = _inside(value, get_declared(item).factor)
    return made


def _right_key(key: str, path: str, known: Iterable[str], root: Any) -> str:
    """Return which key was probably meant: one of another section, or one spelled alike."""
    elsewhere = [name for name, *_ in walk_settings(root) if name.split(".")[-1] == key]
    if elsewhere:
        return elsewhere[0]
    close = get_close_matches(key, list(known), n=1, cutoff=0.5)
    return _join(path, close[0]) if close else ""


def _inside(value: Any, factor: float) -> Any:
    """Return a file's value as a section holds it: lists as tuples, times in seconds."""
    if isinstance(value, list | tuple):
        return tuple(_inside(part, factor) for part in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value / factor if number and factor != 1.0 else value


_WORDS: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "mapping_type": _MAPPING,
    "dict_type": _MAPPING,
}
"""What pydantic's kinds of error expected."""


def _input_error(cls: Any, values: Mapping[str, Any], file: str | Path, error: Any) -> InputError:
    """Word the first of pydantic's errors with the path, value, unit and limits of the file."""
    path, holder, item = "", cls, None
    place: Any = values
    for step in error["loc"]:
        if isinstance(step, int):
            if error["type"] in ("missing", "too_long", "too_short"):
                break
            path, place = f"{path}[{step}]", place[step]
            continue
        if item is not None:
            holder = holder.plain_hints[item.name]
        item = next(each for each in fields(holder) if each.name == step)
        path, place = _join(path, file_key(item)), place.get(file_key(item))
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, WrongOrderError):
        return _wrong_order(cls, file, path, place, str(cause))
    if item is None:
        return InputError(file, path, str(error["msg"]), "values that go together")
    hint = holder.plain_hints[item.name]
    expected, cure = _WORDS.get(error["type"], str(error["msg"])), ""
    found = _shown(place)
    if isinstance(cause, OutOfRangeError):
        declared = get_declared(item)
        unit = declared.unit.replace("s", "ms", 1) if declared.factor != 1.0 else declared.unit
        expected = declared.limits(declared.factor) + (f" {unit}" if unit else "")
        found = f"{place:g}"
    elif error["type"] in ("missing", "too_long", "too_short") and get_origin(hint) is tuple:
        found, expected = f"{len(place)} values", f"a list of {len(get_args(hint))}"
    elif list_choices(hint):
        expected = f"one of {', '.join(list_choices(hint))}"
        close = get_close_matches(str(place), list_choices(hint), n=1, cutoff=0.5)
        cure = f"did you mean {close[0]}" if close else ""
    return InputError(file, path, found, expected, cure)


def _wrong_order(cls: Any, file: str | Path, path: str, section: Any, name: str) -> InputError:
    """Word a range whose ends are in the wrong order."""
    for part in filter(None, path.split(".")):
        cls = cls.plain_hints[part]
    key = next(file_key(item) for item in fields(cls) if item.name == name)
    return InputError(file, path, f"{key}: {_shown(section.get(key))}", "the lower end first")


def plain(value: Any) -> Any:
    """Turn a tree of sections into mappings, lists and scalars for a file."""
    if is_dataclass(value) and not isinstance(value, type):
        return {file_key(item): _outside(value, item) for item in fields(value)}
    if isinstance(value, Mapping):
        return {plain(key): plain(content) for key, content in value.items()}
    if isinstance(value, tuple | list):
        return [plain(content) for content in value]
    return value


def _outside(value: Any, item: Field[Any]) -> Any:
    return _scaled(plain(getattr(value, item.name)), get_declared(item).factor)


def _scaled(value: Any, factor: float) -> Any:
    if factor == 1.0:
        return value
    if isinstance(value, list):
        return [_scaled(content, factor) for content in value]
    # Rounded so that 0.7 s is 700 ms in the file and not 699.9999999999999.
    return round(value * factor, 9)


def file_default(item: Field[Any]) -> Any:
    """Return the default of a setting as it stands in a file."""
    value = item.default
    if value is MISSING:
        assert item.default_factory is not MISSING
        value = item.default_factory()
    return _scaled(plain(value), get_declared(item).factor)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; lists and scalars replace what was there."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
