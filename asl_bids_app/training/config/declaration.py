"""How a setting of a training is declared: once, with type, unit, range and meaning.

A section is a frozen dataclass that pydantic checks. Reading a file, ``--set``, the messages, the
critical settings and the tables of the documentation all come from its fields. Times are seconds
here; `asl_bids_app.training.config.reading` turns them into the milliseconds of the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import wraps
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic
from pydantic.dataclasses import dataclass as checked_dataclass

from asl_bids_app.training.config.frozen_mapping import Frozen

T = TypeVar("T")

MS_PER_S: Final = 1000.0
SUFFIXES: Final = MappingProxyType({"s": "_ms", "s/mm": "_ms_per_mm"})
"""What the unit of a time adds to its key in a file."""


@dataclass(frozen=True)
class Declared:
    """What is known of a setting beside its type and default.

    Attributes
    ----------
    unit : str
        Empty for fractions, counts, switches and words.
    low, high : float or None
        Inclusive limits of the number, or of every number of a tuple; seconds for a time.
    text : str
        One line for the documentation.
    critical : str
        Why only the default is known to work; empty if other values are.
    """

    unit: str = ""
    low: float | None = None
    high: float | None = None
    text: str = ""
    critical: str = ""

    @property
    def factor(self) -> float:
        """What a value is multiplied by in a file: 1000 for times, which are milliseconds."""
        return MS_PER_S if self.unit in SUFFIXES else 1.0

    def accepts(self, value: float) -> bool:
        """Tell whether a number lies within the limits; nan never does."""
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high) and not math.isnan(value)

    def limits(self, factor: float = 1.0) -> str:
        """Return the limits in words, times a factor."""
        low, high = (None if end is None else f"{end * factor:g}" for end in (self.low, self.high))
        if low is not None and high is not None:
            return f"{low} to {high}"
        if low is not None:
            return f"at least {low}"
        return "a number" if high is None else f"at most {high}"


def setting(
    default: Any,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    text: str = "",
    *,
    critical: str = "",
) -> Any:
    """Declare a setting of a section: its default, and what `Declared` says of it."""
    declared = Declared(unit, low, high, text, critical)
    return field(default=default, metadata={"declared": declared, "unit": unit})


def get_declared(item: Field[Any]) -> Declared:
    """Return what is declared of a field."""
    found: Declared = item.metadata.get("declared", Declared())
    return found


def file_key(item: Field[Any]) -> str:
    """Return the name that a field has in a file."""
    return item.name + SUFFIXES.get(get_declared(item).unit, "")


class OutOfRangeError(ValueError):
    """A number is outside its limits."""


class WrongOrderError(ValueError):
    """The ends of a range are in the wrong order; the message is the field's name."""

    def __init__(self, name: str, found: tuple[float, float]) -> None:
        super().__init__(name)
        self.found = found


def is_range(hint: Any) -> bool:
    """Tell whether a type is a range (low, high) that values are drawn from."""
    return (
        get_origin(hint) is tuple and len(get_args(hint)) == 2 and Ellipsis not in get_args(hint)
    )


def _within_limits(hint: Any, declared: Declared) -> Any:
    """Return a type whose numbers pydantic also checks against the limits."""
    if hint in (int, float):

        def check(value: float) -> float:
            if not declared.accepts(value):
                raise OutOfRangeError(f"{value:g}")
            return value

        return Annotated[hint, pydantic.Strict(), pydantic.AfterValidator(check)]
    if hint in (bool, str):
        return Annotated[hint, pydantic.Strict()]
    if get_origin(hint) is tuple:
        return tuple[tuple(_within_limits(part, declared) for part in get_args(hint))]  # type: ignore[misc]
    if get_origin(hint) is Mapping:
        return Annotated[hint, pydantic.AfterValidator(Frozen)]
    return hint


@dataclass_transform(frozen_default=True)
def section(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values are checked by their declarations.

    Wrong values of a constructor are a ``ValueError`` of one line.
    """
    plain_hints = get_type_hints(cls)
    declared = {
        name: get_declared(value) for name, value in vars(cls).items() if isinstance(value, Field)
    }
    cls.__annotations__ = {
        name: _within_limits(hint, declared.get(name, Declared()))
        for name, hint in plain_hints.items()
    }
    ranges = [name for name, hint in plain_hints.items() if is_range(hint)]

    def check_order(self: Any) -> None:
        for name in ranges:
            low, high = getattr(self, name)
            if low > high:
                raise WrongOrderError(name, (low, high))

    cls.__post_init__ = check_order  # type: ignore[attr-defined]
    made: Any = checked_dataclass(frozen=True, config={"extra": "forbid"})(cls)
    made.plain_hints = MappingProxyType(plain_hints)
    made.__init__ = _one_line(made.__init__, made)
    return made


def _one_line(construct: Callable[..., None], cls: Any) -> Callable[..., None]:
    """Turn pydantic's report on wrong arguments into one line."""

    @wraps(construct)
    def constructed(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            construct(self, *arguments, **named)
        except pydantic.ValidationError as error:
            raise ValueError(_word_error(cls, error)) from None

    return constructed


def _word_error(cls: Any, error: pydantic.ValidationError) -> str:
    """Return the first of pydantic's errors as one line."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    names = [item.name for item in fields(cls)]
    if isinstance(cause, WrongOrderError):
        name, found = str(cause), cause.found
    else:
        place, found = (first["loc"] or ("",))[0], first["input"]
        name = names[place] if isinstance(place, int) and place < len(names) else str(place)
    if name not in names:
        return f"{cls.__name__}: {name}: {first['msg']}"
    return (
        f"{name}: found {found!r}, expected {word_expected(cls, fields(cls)[names.index(name)])}"
    )


def word_expected(cls: Any, item: Field[Any], factor: float = 1.0) -> str:
    """Return what a setting is expected to be, in words.

    Parameters
    ----------
    cls
        The section.
    item
        Its field.
    factor
        What limits are multiplied by: that of `Declared` where a file is spoken of.
    """
    hint, declared = cls.plain_hints[item.name], get_declared(item)
    choices = list_choices(hint)
    if choices:
        return f"one of {', '.join(choices)}"
    if hint is bool:
        return "true or false"
    scaled = factor != 1.0
    unit = declared.unit.replace("s", "ms", 1) if scaled else declared.unit
    limits = declared.limits(factor) + (f" {unit}" if unit else "")
    return f"a range (low, high) within {limits}" if is_range(hint) else limits


def list_choices(hint: Any) -> tuple[str, ...]:
    """Return the words that a setting may be, if it is one of a few."""
    return tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()


def walk_settings(cls: Any, path: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """Go through all settings of a tree of sections: key in files, section and field of each."""
    for item in fields(cls):
        hint = cls.plain_hints[item.name]
        key = f"{path}.{file_key(item)}" if path else file_key(item)
        if is_dataclass(hint):
            yield from walk_settings(hint, key)
        else:
            yield key, cls, item
