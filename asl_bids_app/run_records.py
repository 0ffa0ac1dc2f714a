"""What a run leaves about itself: the types of its records, by which they are written and read.

``logs/<run>/sub-<label>.json`` holds a `ParticipantRecord`, ``run.json`` and ``config.json`` a
`RunRecord`. Every key may be missing, for records of older versions, and damaged ones, are read
by the same types. Keys that a type doesn't know are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Self, get_args, get_origin, get_type_hints

from asl_bids_app.failures import Failure
from asl_bids_app.wording import title_of

_IF_ANY: Final = MappingProxyType({"if any": True})
"""Of keys that are left out of the file where there is nothing to say."""


class Record(Mapping[str, Any]):
    """A part of a record, which reads as the mapping that is in the file, too."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the record that a mapping from a file holds.

        Parameters
        ----------
        content
            Of the right types, see `asl_bids_app.reports.damage`; a record is taken as it is.
        """
        if isinstance(content, cls):
            return content
        hints = get_type_hints(cls)
        names = {item.name for item in fields(cls)} - {"more"}  # type: ignore[arg-type]
        values = {
            name: _read(hints[name], content[name])
            for name in names
            if content.get(name) is not None
        }
        more = {key: value for key, value in content.items() if key not in names}
        return cls(**values, more=more)  # type: ignore[call-arg]

    def to_json(self) -> dict[str, Any]:
        """Return the record for a file."""
        return {key: _write(value) for key, value in self.items()}

    def __iter__(self) -> Iterator[str]:
        for item in fields(self):  # type: ignore[arg-type]
            if item.name == "more":
                continue
            if getattr(self, item.name) or not item.metadata.get("if any"):
                yield item.name
        yield from self.more

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: str) -> Any:
        if key in self.more:
            return self.more[key]
        if key in {item.name for item in fields(self)}:  # type: ignore[arg-type]
            return getattr(self, key)
        raise KeyError(key)

    more: Mapping[str, Any]


def _read(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return tuple(_read(kind, item) for item in value)
    if isinstance(hint, type) and issubclass(hint, Record | Failure):
        return hint.from_json(value)
    return value


def _write(value: Any) -> Any:
    if isinstance(value, Record | Failure):
        return value.to_json()
    if isinstance(value, tuple):
        return [_write(item) for item in value]
    return value


def _list() -> Any:
    return field(default=())


def _object(*, if_any: bool = False) -> Any:
    return field(default_factory=dict, metadata=_IF_ANY if if_any else {})


@dataclass(frozen=True, eq=False)
class RunFacts(Record):
    """What is known of one run of a series: as it was understood, and what was done to it."""

    path: str = ""
    scheme: str = ""
    volumes: Mapping[str, int] = _object()
    post_labeling_delay: tuple[float, ...] = _list()
    label_duration: tuple[float | None, ...] = _list()
    """Seconds; None for a bolus that nothing cuts, for JSON has no infinity."""
    volumes_per_measurement: tuple[float, ...] = _list()
    slice_time: tuple[float, ...] = _list()
    """Seconds of the first and of the last slice."""
    inferred: Mapping[str, str] = _object()
    warnings: tuple[str, ...] = _list()
    motion: str = field(default="", metadata=_IF_ANY)
    m0: Mapping[str, Any] = _object()
    mask: Mapping[str, Any] = _object(if_any=True)
    voxel_size_mm: tuple[float, ...] = field(default=(), metadata=_IF_ANY)
    repeats: tuple[float, ...] = field(default=(), metadata=_IF_ANY)
    rejected: tuple[str, ...] = _list()
    decoding: Mapping[str, Any] = _object(if_any=True)
    space: str = field(default="", metadata=_IF_ANY)
    field_strength: float | None = None
    more: Mapping[str, Any] = _object()


@dataclass(frozen=True, eq=False)
class UnitRecord(Record):
    """What is known of a series: one run, or several that were quantified together."""

    entities: Mapping[str, str] = _object()
    joint: bool = False
    folder: str = field(default="", metadata=_IF_ANY)
    estimator: str = ""
    baseline: bool = False
    model: Mapping[str, Any] | None = None
    runs: tuple[RunFacts, ...] = _list()
    calibration: Mapping[str, Any] = _object()
    noise_method: Mapping[str, str] = _object(if_any=True)
    metrics: Mapping[str, float | None] = _object(if_any=True)
    tissue: Mapping[str, Any] = _object(if_any=True)
    tissue_consistency: Mapping[str, Any] | None = None
    anatomy: Mapping[str, Any] = _object(if_any=True)
    """What the anatomy found; empty where it didn't run."""
    warnings: tuple[str, ...] = _list()
    plausibility: tuple[str, ...] = _list()
    outputs: tuple[str, ...] = field(default=(), metadata=_IF_ANY)
    """Paths of images and tables below the derivatives."""
    output_keys: tuple[str, ...] = field(default=(), metadata=_IF_ANY)
    """Those in the space of the run, by their keys in `asl_bids_app.bids.outputs.OUTPUTS`; empty
    in records of version 0.1.0."""
    fit_seconds: float | None = None
    baseline_seconds: float | None = None
    timing: Mapping[str, float] = _object(if_any=True)
    processor_timing: Mapping[str, float] = _object(if_any=True)
    more: Mapping[str, Any] = _object()

    @property
    def title(self) -> str:
        """The entities as in file names."""
        return title_of(self.entities)


@dataclass(frozen=True, eq=False)
class ParticipantRecord(Record):
    """What a run says of one participant."""

    participant: str = ""
    status: str = ""
    errors: tuple[Failure, ...] = _list()
    warnings: tuple[str, ...] = _list()
    plausibility: tuple[str, ...] = _list()
    units: tuple[UnitRecord, ...] = _list()
    run_id: str = ""
    version: str = ""
    started: str = ""
    finished: str = ""
    command: tuple[str, ...] = _list()
    options: Mapping[str, Any] = _object()
    software: Mapping[str, Any] = _object()
    machine: Mapping[str, Any] = _object()
    more: Mapping[str, Any] = _object()


@dataclass(frozen=True, eq=False)
class RunRecord(Record):
    """What a run says of itself, at its start (``config.json``) and at its end (``run.json``)."""

    command: tuple[str, ...] = _list()
    options: Mapping[str, Any] = _object()
    participants: tuple[str | Mapping[str, Any], ...] = _list()
    """Labels at the start, records at the end."""
    more: Mapping[str, Any] = _object()
