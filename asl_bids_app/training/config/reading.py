"""Strict conversion between plain mappings (YAML) and trees of frozen dataclasses.

The dataclasses say everything: types by their annotations; unit, range and choices by the
metadata that `setting` or `knobs.knob` put on a field; anything else by a ``ValueError`` from
their ``__post_init__``. Times are seconds in the dataclasses and milliseconds in the files,
where their keys end in ``_ms``; this is the one place that converts them.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from asl_bids_app.errors import InputError

T = TypeVar("T")

MS_PER_S = 1000.0

_SUFFIX = MappingProxyType({"s": "_ms", "s/mm": "_ms_per_mm"})
"""What the unit of a time adds to its key in a file."""


class Frozen(Mapping[Any, Any]):
    """A mapping that doesn't change and, unlike a mapping proxy, can be copied and pickled."""

    def __init__(self, content: Mapping[Any, Any] | None = None) -> None:
        self._content = dict(content or {})

    def __getitem__(self, key: Any) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return repr(self._content)


def setting(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    unit: str = "",
) -> Any:
    """Declare a field with a range.

    Parameters
    ----------
    default
        Its default (immutable).
    low, high : float, optional
        Inclusive bounds of the number, or of every number of a tuple; in seconds for a time.
    choices : tuple, optional
        The only values allowed.
    unit : str
        ``s`` marks a time, which stands in milliseconds in files.
    """
    return field(
        default=default, metadata={"low": low, "high": high, "choices": choices, "unit": unit}
    )


def key_of(item: Field[Any]) -> str:
    """Return the name that a field has in a file."""
    return item.name + _SUFFIX.get(item.metadata.get("unit", ""), "")


def build(cls: type[T], values: Any, file: str | Path, path: str = "") -> T:
    """Make a dataclass tree from a mapping.

    Parameters
    ----------
    cls
        The dataclass.
    values
        The mapping; keys that are left out keep their defaults.
    file
        Told in errors.
    path
        Where `values` stands in the file: ``training.optimizer``.

    Raises
    ------
    InputError
        For an unknown key, a wrong type or a value out of range.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise InputError(file, path, _shown(values), "a mapping of keys to values")
    known = {key_of(item): item for item in fields(cls) if item.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1, cutoff=0.5)
            raise InputError(
                file,
                _join(path, key),
                "an unknown key",
                f"one of {', '.join(known)}",
                f"did you mean {_join(path, close[0])}" if close else "",
            )
    hints = get_type_hints(cls)
    made: dict[str, Any] = {}
    for key, item in known.items():
        if key in values:
            made[item.name] = _convert(hints[item.name], values[key], file, _join(path, key), item)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InputError(file, _join(path, key), "nothing", "a value")
    try:
        return cls(**made)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(file, path, str(error), "values that go together") from error


def plain(value: Any) -> Any:
    """Turn a dataclass tree into mappings, lists and scalars for a file."""
    if is_dataclass(value) and not isinstance(value, type):
        made = {}
        for item in fields(value):
            if not item.init:
                continue
            content = plain(getattr(value, item.name))
            made[key_of(item)] = _scaled(content, MS_PER_S) if _is_time(item) else content
        return made
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {plain(key): plain(content) for key, content in value.items()}
    if isinstance(value, tuple | list):
        return [plain(content) for content in value]
    return str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; lists and scalars replace what was there."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value
    return merged


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _is_time(item: Field[Any]) -> bool:
    return item.metadata.get("unit") in _SUFFIX


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_scaled(content, factor) for content in value)
    if isinstance(value, Mapping):
        return {key: _scaled(content, factor) for key, content in value.items()}
    # Rounded so that 0.7 s is 700 ms in the file and not 699.9999999999999.
    return value if value is None or isinstance(value, str) else round(value * factor, 9)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _convert_union(
    hints: tuple[Any, ...], value: Any, file: str | Path, path: str, item: Field[Any]
) -> Any:
    options = [hint for hint in hints if hint is not type(None)]
    if value is None and len(options) < len(hints):
        return None
    errors: list[InputError] = []
    for option in options:
        try:
            return _convert(option, value, file, path, item)
        except InputError as error:
            errors.append(error)
    raise errors[-1]


def _convert(  # noqa: PLR0911 - one return for each kind of annotation
    hint: Any, value: Any, file: str | Path, path: str, item: Field[Any]
) -> Any:
    """Check one value against its annotation; return it in the annotation's type."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, file, path, item)
    if is_dataclass(hint):
        return build(hint, value, file, path)  # type: ignore[type-var]
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, file, path, item)
    if origin is Literal:
        return _choose(get_args(hint), value, file, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(_choose(tuple(member.value for member in hint), value, file, path))
    if hint is Mapping or origin in (Mapping, dict) or _is_mapping(origin):
        return _convert_mapping(get_args(hint), value, file, path, item)
    if hint not in _WORDS:
        raise TypeError(f"{path}: annotation {hint} can't be read from a file")
    return _scalar(hint, value, file, path, item)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _convert_tuple(
    hints: tuple[Any, ...], value: Any, file: str | Path, path: str, item: Field[Any]
) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(file, path, _shown(value), "a list")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise InputError(file, path, f"{len(value)} values", f"a list of {len(hints)}")
    return tuple(
        _convert(hint, content, file, f"{path}[{i}]", item)
        for i, (hint, content) in enumerate(zip(hints, value, strict=True))
    )


def _convert_mapping(
    hints: tuple[Any, ...], value: Any, file: str | Path, path: str, item: Field[Any]
) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(file, path, _shown(value), "a mapping of keys to values")
    key_hint, value_hint = hints or (str, Any)
    made = {}
    for key, content in value.items():
        name = _convert(key_hint, key, file, _join(path, key), item)
        made[name] = (
            content
            if value_hint is Any
            else _convert(value_hint, content, file, _join(path, key), item)
        )
    return Frozen(made)


def _choose(choices: tuple[Any, ...], value: Any, file: str | Path, path: str) -> Any:
    if value in choices:
        return value
    close = get_close_matches(str(value), [str(choice) for choice in choices], n=1, cutoff=0.5)
    raise InputError(
        file,
        path,
        _shown(value),
        f"one of {', '.join(str(choice) for choice in choices)}",
        f"did you mean {close[0]}" if close else "",
    )


def _scalar(hint: type, value: Any, file: str | Path, path: str, item: Field[Any]) -> Any:
    fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value, fits = float(value), True
    if not fits:
        raise InputError(file, path, _shown(value), _WORDS[hint])
    if hint is float and math.isnan(value):
        raise InputError(file, path, "nan", "a number")
    choices = item.metadata.get("choices") or ()
    if choices:
        return _choose(choices, value, file, path)
    if hint in (int, float):
        unit = 1.0
        if _is_time(item):
            unit, value = MS_PER_S, value / MS_PER_S
        low, high = item.metadata.get("low"), item.metadata.get("high")
        if (low is not None and value < low) or (high is not None and value > high):
            raise InputError(file, path, f"{value * unit:g}", _range(low, high, unit))
    return value


def _range(low: float | None, high: float | None, unit: float) -> str:
    if high is None:
        return f"at least {low * unit:g}" if low is not None else "a number"
    if low is None:
        return f"at most {high * unit:g}"
    return f"{low * unit:g} to {high * unit:g}"
