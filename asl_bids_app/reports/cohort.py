"""What the derivatives of a cohort say: one row a series, and who is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asl_bids_app.bids.derivatives import sidecar_path
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.errors import Cause
from asl_bids_app.failures import Failure, Status
from asl_bids_app.notices import Notice
from asl_bids_app.quality.plausibility import plausibility
from asl_bids_app.reports.damage import SIDECAR, read_metric_row, read_object
from asl_bids_app.reports.explain import Explained, explain
from asl_bids_app.reports.find_records import (
    asked_participants,
    find_unit,
    outdated,
    read_records,
    standing,
)
from asl_bids_app.reports.load import parse_entities
from asl_bids_app.reports.outliers import find_outliers
from asl_bids_app.reports.region_tables import (
    RegionTable,
    find_region_tables,
    read_region_table,
)
from asl_bids_app.run_records import ParticipantRecord, UnitRecord
from asl_bids_app.wording import title_of


@dataclass(frozen=True, eq=False)
class Row:
    """One series of a cohort.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    entities : mapping of str to str
    metrics : mapping of str to float
    estimator, schemes : str
    plausibility : tuple of str
        Reasons why the maps can't be believed.
    report : str
        Address of the participant's report; empty if there is none.
    folder : Path
        The `perf` folder.
    regions : mapping of str to RegionTable
        By atlas.
    damaged : tuple of str
        Atlases whose table can't be used.
    registered : bool or None
        Whether the registration was believed; None where nothing says.
    """

    participant: str
    entities: Mapping[str, str]
    metrics: Mapping[str, float]
    estimator: str = ""
    schemes: str = ""
    plausibility: tuple[str, ...] = ()
    report: str = ""
    folder: Path = Path()
    regions: Mapping[str, RegionTable] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    registered: bool | None = None

    @property
    def title(self) -> str:
        """The entities as in file names."""
        return title_of(self.entities)


@dataclass(frozen=True)
class Absent:
    """A participant of whom something is missing.

    Attributes
    ----------
    participant : str
    status : str
        As in the record, ``missing`` where there is neither record nor map, or ``damaged``
        where a table, sidecar or record can't be used.
    errors : tuple of Explained
    report : str
        Address of the report; empty if there is none.
    """

    participant: str
    status: str
    errors: tuple[Explained, ...] = ()
    report: str = ""


@dataclass(frozen=True, eq=False)
class Cohort:
    """All series of the derivatives.

    Attributes
    ----------
    rows : tuple of Row
    absent : tuple of Absent
        Participants who failed, in part or altogether, or are missing.
    participants : tuple of str
        All who are known of.
    outliers : mapping of str to tuple of str
        Metrics in which a series is one, by the title of the series.
    damage : mapping of str to list of Notice
        Of tables, sidecars and records that can't be used, by participant.
    """

    rows: tuple[Row, ...]
    absent: tuple[Absent, ...]
    participants: tuple[str, ...]
    outliers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    damage: Mapping[str, list[Notice]] = field(default_factory=dict)


def read_cohort(output_dir: Path) -> Cohort:
    """Read what the derivatives say of every participant.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    """
    records, damage = read_records(output_dir)
    rows = _rows(output_dir, records, damage)
    with_maps = {row.participant for row in rows}
    folders = {p.name.removeprefix("sub-") for p in output_dir.glob("sub-*") if p.is_dir()}
    known = sorted(
        with_maps | folders | set(records) | set(damage) | asked_participants(output_dir)
    )
    absent = []
    for label in known:
        status, failures = standing(records.get(label, []))
        status = status or (Status.COMPLETE if label in with_maps else Status.MISSING)
        if status == Status.COMPLETE and label not in with_maps:
            status = Status.MISSING
        faults = damage.get(label, [])
        if faults:
            status = Status.DAMAGED
        if status != Status.COMPLETE:
            damaged = [_failure_of(f"sub-{label}", fault) for fault in faults]
            errors = tuple(explain(error, output_dir) for error in (*damaged, *failures))
            absent.append(Absent(label, status, errors, _report(output_dir, label)))
    return Cohort(tuple(rows), tuple(absent), tuple(known), find_outliers(rows), damage)


def _failure_of(unit: str, fault: Notice) -> Failure:
    """Return the failure that a file which can't be read back is."""
    fields = {"field": fault.field, "found": fault.found, "expected": fault.expected}
    (file,) = fault.files
    return Failure(unit, "", fault, cause=Cause.INPUT, file=file, cure=fault.outcome, **fields)


def _report(output_dir: Path, label: str) -> str:
    name = f"sub-{label}.html"
    return name if (output_dir / name).exists() else ""


def _rows(
    output_dir: Path,
    records: Mapping[str, Sequence[ParticipantRecord]],
    damage: dict[str, list[Notice]],
) -> list[Row]:
    """Read the series; what is wrong with their files is added to `damage`."""
    quality, main = OUTPUTS["quality"], OUTPUTS["cbf"]
    ending = f"_{quality.label}_{quality.suffix}{quality.extension}"
    rows = []
    for path in sorted(output_dir.glob(f"sub-*/**/perf/*{ending}")):
        entities = parse_entities(path.name.removesuffix(ending))
        if "sub" not in entities:
            continue
        label = entities["sub"]
        metrics, fault = read_metric_row(path, output_dir)
        beside = sidecar_path(path.parent / main.name(entities))
        sidecar, faults = read_object(beside, SIDECAR, output_dir)
        regions, unread = _regions(path.parent, entities, output_dir)
        if faults or fault or unread:
            mine = damage.setdefault(label, [])
            mine += [*([fault] if fault else []), *faults, *unread.values()]
        unit = find_unit(records.get(label, []), entities) or UnitRecord()
        schemes = [str(m.get("Scheme", "")) for m in sidecar.get("Measurements") or []]
        schemes = schemes or [run.scheme for run in unit.runs]
        report = _report(output_dir, label)
        row = Row(
            label,
            entities,
            metrics,
            str(sidecar.get("EstimationMethod") or unit.estimator),
            "+".join(dict.fromkeys(schemes)),
            (
                *outdated(records.get(label, []), entities),
                *(plausibility(metrics) if metrics else ()),
            ),
        )
        pose = unit.anatomy.get("registration")
        row = replace(
            row,
            report=f"{report}#{row.title}" if report else "",
            folder=path.parent,
            regions=regions,
            damaged=tuple(unread),
            registered=pose.get("registered") if isinstance(pose, Mapping) else None,
        )
        rows.append(row)
    return rows


def _regions(
    folder: Path, entities: Mapping[str, str], root: Path
) -> tuple[dict[str, RegionTable], dict[str, Notice]]:
    """Read the tables of regions of a series; what is wrong with some by their atlas."""
    tables, unread = {}, {}
    title = title_of(entities)
    for atlas, path in find_region_tables(folder, title).items():
        found = read_region_table(path, atlas, root)
        if isinstance(found, Notice):
            unread[atlas] = found
        else:
            tables[atlas] = found
    return tables, unread


def add_damage(cohort: Cohort, damage: Mapping[str, Sequence[Notice]], output_dir: Path) -> Cohort:
    """Return a cohort with files that turned out to be damaged when they were used."""
    if not damage:
        return cohort
    absent = {item.participant: item for item in cohort.absent}
    for label, faults in damage.items():
        errors = tuple(explain(_failure_of(f"sub-{label}", f), output_dir) for f in faults)
        known = absent.get(label)
        others = known.errors if known else ()
        report = _report(output_dir, label)
        absent[label] = Absent(label, "damaged", (*errors, *others), report)
    all_damage = {label: list(faults) for label, faults in cohort.damage.items()}
    for label, faults in damage.items():
        all_damage.setdefault(label, []).extend(faults)
    return replace(
        cohort, absent=tuple(absent[label] for label in sorted(absent)), damage=all_damage
    )
