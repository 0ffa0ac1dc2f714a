"""Checks of a run's volumes against its sidecar: kinds, dimensions, number, one contrast."""

from __future__ import annotations

from collections import Counter

from asl_bids_app.bids import context
from asl_bids_app.bids.fields import Fields, Notes
from asl_bids_app.bids.file_names import RAW_ENTITIES
from asl_bids_app.bids.images import Header, read_header
from asl_bids_app.bids.layout import RunFiles
from asl_bids_app.bids.spans import show
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice


def read_volumes(run: RunFiles, notes: Notes) -> tuple[Header | None, tuple[str, ...] | None, int]:
    """Return header and volume types as far as they can be read, and the number of volumes.

    Faults go to the notes.
    """
    header = kinds = None
    n_volumes = 0
    with notes.faults.collect():
        header = _header(run, notes)
        n_volumes = header.n_volumes
    with notes.faults.collect():
        rows = context.read(run, n_volumes or None)
        whole = True
        if header:
            with notes.faults.collect():
                whole = False
                _check_dimensions(header, rows, notes)
                whole = True
        if not whole:
            # An image of one volume says nothing of how many there were.
            n_volumes = len(rows)
        elif header:
            context.check_rows(rows, run, n_volumes)
        kinds = context.settle(rows, run, notes.warnings)
        n_volumes = len(kinds)
    values = run.metadata.get("PostLabelingDelay")
    return header, kinds, n_volumes or (len(values) if isinstance(values, list) else 0) or 1


def _header(run: RunFiles, notes: Notes) -> Header:
    header = read_header(run.path, run.name)
    notes.warnings.extend(header.warnings)
    return header


def _check_dimensions(header: Header, kinds: tuple[str, ...], notes: Notes) -> None:
    if len(header.shape) == 4:
        return
    size = " x ".join(map(str, header.shape))
    if not set(kinds) & context.PERFUSION:
        return  # Reported as such: another conversion makes no more of a CBF map.
    if kinds != ("deltam",):
        cure = "convert the series again, keeping all volumes"
        raise InputError(header.name, "dimensions", f"3D ({size})", "4D", cure)
    notes.warnings.append(
        Notice(header.name, "dimensions", f"3D ({size})", "4D", "taken for one deltam volume")
    )


def check_number_of_pairs(fields: Fields, kinds: tuple[str, ...]) -> None:
    """Warn where the sidecar gives another number of pairs than the volumes show."""
    key = "TotalAcquiredPairs"
    if key not in fields:
        return
    total = fields.number(key, "the number of control-label pairs, above 0")
    stored = Counter(kinds)["label"]
    if stored > total:
        expected = f"at least the {stored} pairs of the image"
        fields.warn(key, f"{total:g}", expected, "not used")


def check_one_contrast(fields: Fields, kinds: tuple[str, ...]) -> None:
    """Refuse or tell volumes that are averaged as repeats but were not measured alike."""
    chosen = [i for i, kind in enumerate(kinds) if kind in {"control", "label", "deltam"}]

    def values(key: str) -> list[str]:
        """Those of the perfusion volumes that differ."""
        found = fields.get(key)
        if not isinstance(found, list) or len(found) != len(kinds):
            return []
        return list(dict.fromkeys(show(found[i]) for i in chosen))

    if "EchoTime" in fields:
        fields.numbers("EchoTime", "a time in seconds")
    if len(times := values("EchoTime")) > 1:
        raise fields.fault(
            "EchoTime",
            f"{', '.join(times)} s among the perfusion volumes",
            "one echo time a run: signals of different ones can't be averaged",
            "write one run for each echo time, and leave the later ones out by --bids-filter-file",
        )
    for key in ("FlipAngle", "VascularCrushingVENC"):
        if len(different := values(key)) > 1:
            found = f"{', '.join(different)} among the perfusion volumes"
            fields.warn(key, found, "one value a run", "the volumes are averaged all the same")


def check_entities(run: RunFiles, notes: Notes) -> None:
    """Warn of entities that BIDS doesn't know in the name of a raw image."""
    strange = [f"{key}-{value}" for key, value in run.entities.items() if key not in RAW_ENTITIES]
    if strange:
        expected = "entities that BIDS has for ASL"
        notes.warnings.append(
            Notice(run.name, "file name", ", ".join(strange), expected, "read all the same")
        )
