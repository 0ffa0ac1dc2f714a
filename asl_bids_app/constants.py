"""Numbers that reach a user, each with its unit and where it came from; how records name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class Source(StrEnum):
    """Where a number came from."""

    SIDECAR = "sidecar"
    COMMAND_LINE = "command line"
    CONFIG_FILE = "configuration file"
    ARGUMENT = "argument"
    """Of a function of this package, called from Python."""
    DEFAULT = "default"
    INFERRED = "inferred"


class Origin(NamedTuple):
    """Where the value of an option was given.

    Examples
    --------
    >>> print(Origin(Source.CONFIG_FILE, "run.yaml"))
    configuration file run.yaml
    >>> Origin().spell("t1_blood"), Origin(Source.ARGUMENT).spell("t1_blood")
    ('--t1-blood', 't1_blood')
    """

    source: Source = Source.COMMAND_LINE
    file: str = ""
    """Name of the configuration file."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.source.value, self.file)))

    def spell(self, name: str) -> str:
        """Return the name of an option as it is written there."""
        if self.source is Source.ARGUMENT:
            return name
        prefix = "--" if self.source is Source.COMMAND_LINE else ""
        return prefix + name.replace("_", "-")

    def describe(self, name: str) -> str:
        """Return in words where an option was given."""
        spelled = self.spell(name)
        return spelled if self.source is Source.COMMAND_LINE else f"{spelled} ({self})"


@dataclass(frozen=True)
class Quantity:
    """A number that reaches the user, with unit, origin and a remark.

    Attributes
    ----------
    value : float
    unit : str
        Empty for a fraction.
    source : Source
    note : str
        A reference, a file and field, or how it was inferred.
    file : str
        Name of the configuration file, where it came from one.
    """

    value: float
    unit: str
    source: Source
    note: str = ""
    file: str = ""

    @property
    def origin(self) -> Origin:
        """Where it came from."""
        return Origin(self.source, self.file)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        note = f": {self.note}" if self.note else ""
        return f"{self.value:g}{unit} ({self.origin}{note})"

    def to_json(self) -> dict[str, Any]:
        """Return the quantity for a sidecar or a run report."""
        return {
            "Value": self.value,
            "Units": self.unit or "fraction",
            "Source": str(self.origin),
            "Note": self.note,
        }


class ConstantKey(NamedTuple):
    """Which constant an entry of a sidecar's `Calibration` holds.

    The text of a key is written and read here only.

    Examples
    --------
    >>> str(ConstantKey("suppression", "PCASL"))
    'suppression[PCASL]'
    >>> ConstantKey.read("suppression[PCASL]")
    ConstantKey(name='suppression', scheme='PCASL')
    >>> ConstantKey.read("t1_blood").scheme
    ''
    """

    name: str
    scheme: str = ""
    """Of a constant that each labelling scheme has its own of; else empty."""

    def __str__(self) -> str:
        return f"{self.name}[{self.scheme}]" if self.scheme else self.name

    @classmethod
    def read(cls, text: str) -> ConstantKey:
        """Return the key that a text names."""
        name, _, scheme = text.partition("[")
        return cls(name, scheme.removesuffix("]"))


class StoredConstant(NamedTuple):
    """A constant as a sidecar or a record holds it."""

    key: ConstantKey
    value: float | None
    unit: str
    source: str
    note: str


def read_constants(entries: Mapping[str, Any] | None) -> dict[ConstantKey, StoredConstant]:
    """Read the constants of a sidecar or a record; what is no constant is left out.

    Parameters
    ----------
    entries
        `Calibration` of a sidecar, ``calibration`` of a record.
    """
    found = {}
    for text, entry in (entries or {}).items():
        if isinstance(entry, Mapping):
            key, value = ConstantKey.read(text), entry.get("Value")
            texts = (str(entry.get(name) or "") for name in ("Units", "Source", "Note"))
            number = value if isinstance(value, int | float) else None
            found[key] = StoredConstant(key, number, *texts)
    return found
