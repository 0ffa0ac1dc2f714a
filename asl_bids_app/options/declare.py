"""How an option is declared: once, as a field of `asl_bids_app.options.table.AppOptions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum
from typing import Any, Final


class Access(Enum):
    """What the program does with the path that an option names."""

    NONE = "no path"
    READ = "read"
    READ_FILE = "a file that has to be there"
    WRITE = "a folder that is written to"
    WRITE_ALWAYS = "a folder that is written to, by a dry run too"
    WRITE_FILE = "a file that is written"
    MODEL = "a model's name, or its folder"


@dataclass(frozen=True)
class Option:
    """Everything about an option but its name and type in Python.

    Attributes
    ----------
    group
        Its heading in the help.
    help
        One sentence.
    names
        Spellings with hyphens; those with underscores are understood, too. By default the name
        of the field, or ``--no-`` and that name for a switch that is on.
    reader
        Reads a value from text; a text that can't be read raises ``ArgumentTypeError``.
    metavar
        What the help calls the value.
    choices
        The values there are; empty for any.
    several
        Whether the option takes several values.
    bare
        The value of an option that is given without one; None if it must have one.
    both_ways
        Whether a switch has a spelling with ``--no-`` beside the one without.
    counted
        Whether it counts how often it is given.
    access
        What is done with the path.
    machine_default
        Makes the default of the command line where it depends on the machine.
    second
        The same option with another reader, under other names.
    """

    group: str
    help: str
    names: tuple[str, ...] = ()
    reader: Callable[[str], Any] | None = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    several: bool = False
    bare: str | None = None
    both_ways: bool = False
    counted: bool = False
    access: Access = Access.NONE
    machine_default: Callable[[], Any] | None = None
    second: Option | None = None


_KEY: Final = "option"


def option(default: Any, group: str, help: str, **facts: Any) -> Any:  # noqa: A002 - argparse's word
    """Declare a field of the options, as `dataclasses.field`.

    Parameters
    ----------
    default
        Of the field; a mapping or a tuple of an option with several values.
    group, help, **facts
        As of `Option`.
    """
    metadata = {_KEY: Option(group, help, **facts)}
    if isinstance(default, Mapping):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(help: str, **facts: Any) -> Any:  # noqa: A002 - argparse's word
    """Declare a field that has no default in Python."""
    return field(metadata={_KEY: Option(facts.pop("group", ""), help, **facts)})


def options_of(table: type) -> tuple[Field[Any], ...]:
    """Return the fields of a class that are options."""
    return tuple(item for item in fields(table) if _KEY in item.metadata)


def option_of(item: Field[Any]) -> Option:
    """Return the declaration of a field."""
    declared: Option = item.metadata[_KEY]
    return declared


def has_default(item: Field[Any]) -> bool:
    """Tell whether a field may be left out."""
    return item.default is not MISSING or item.default_factory is not MISSING
