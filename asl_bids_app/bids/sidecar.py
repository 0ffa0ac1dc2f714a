"""Understanding an ASL run: from its files to an `Acquisition`, or to one clear line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from asl_bids_app.bids import context, encoding, labelling, m0scan, readout, scaling, timing
from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.bids.fields import Fields, Notes, show
from asl_bids_app.bids.images import Header, read_header
from asl_bids_app.bids.layout import FILE_NAME, RAW_ENTITIES, RunFiles
from asl_bids_app.bids.misspelt import check_names
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.schemes import Scheme

UNUSED: Final = (
    ("EchoTime", "the echo time in seconds"),
    ("TotalAcquiredPairs", "the number of control-label pairs"),
    ("RepetitionTimePreparation", "the repetition time in seconds"),
)
"""Keys that BIDS requires, and that the quantification of a run may well do without."""


@dataclass(frozen=True)
class InputOptions:
    """What the command line says of the input.

    Attributes
    ----------
    bolus_duration : float or None
        Seconds; the bolus of PASL runs, outranking their sidecars.
    lenient : bool
        Go on without keys that BIDS requires but the quantification doesn't need
        (``--skip-bids-validation``); each is still a warning.
    m0_scale : float or None
        The factor that the user gives the M0.
    """

    bolus_duration: float | None = None
    lenient: bool = False
    m0_scale: float | None = None


Value = TypeVar("Value")


def _settled(value: Value | None) -> Value:
    """Return what is known by now: a value that is missing has left a fault."""
    assert value is not None
    return value


def understand(run: RunFiles, options: InputOptions | None = None) -> Acquisition:
    """Understand one run. Headers are read, image data are not.

    Parameters
    ----------
    run
        The files, from `layout.find_runs`.
    options
        What the command line says of the input.

    Returns
    -------
    Acquisition

    Raises
    ------
    InputError
        If anything forbids a trustworthy quantification. Of several faults all are told
        (`SeveralInputsError`), so that one round is enough.
    """
    options = options or InputOptions()
    notes = Notes()
    notes.warnings.extend(run.remarks)
    faults = notes.faults
    for problem in run.problems:
        faults.add(problem)
    if any(problem.field == FILE_NAME for problem in run.problems):
        # By a name that is wrong no other file of the run is found.
        faults.check()
    header, kinds, n_volumes = _volumes(run, notes)
    if not run.readable:
        faults.check()
    fields = Fields(run, notes, options.lenient)
    if not run.sidecars:
        faults.add(fields.missing(labelling.KEY, "how the run was measured"))
        faults.check()
    with faults.collect():
        fields.check_reviewed()
    types = timing.stand_in(fields, n_volumes) if kinds is None else kinds

    scheme = slice_time = repetition = m0 = None
    slice_axis = 2
    with faults.collect():
        scheme = labelling.decide(fields)
    likely = scheme or labelling.scheme_of(run)
    _check_flags(fields)
    encoded, paired, delay, duration = _measurements(run, fields, likely, kinds, types, options)
    with faults.collect():
        shape = header.shape[:3] if header else None
        slice_time, slice_axis = readout.slice_times(fields, shape)
    with faults.collect():
        m0 = m0scan.read(fields, kinds, run, header)
    with faults.collect():
        scaling.check_ge(fields, types, scale_given=options.m0_scale is not None)
    for key, expected in UNUSED:
        with faults.collect():
            fields.demand(key, expected)
    with faults.collect():
        _check_one_contrast(fields, types)
    if "RepetitionTimePreparation" in fields:
        with faults.collect():
            repetition = timing.repetition_times(fields, types)
    if paired:
        with faults.collect():
            _check_number_of_pairs(fields, types)
    faults.check()
    delay, duration, slice_time = map(_settled, (delay, duration, slice_time))
    scheme, kinds = _settled(scheme), _settled(kinds)
    if repetition is not None:
        readout.check_fit(fields, scheme, delay, duration, slice_time, repetition)
    _check_entities(run, notes)
    check_names(fields)
    return Acquisition(
        path=run.path,
        sidecar=run.sidecar,
        entities=dict(run.entities),
        metadata=dict(run.metadata),
        scheme=scheme,
        volume_types=kinds,
        post_labeling_delay=delay,
        label_duration=duration,
        slice_time=slice_time,
        slice_axis=slice_axis,
        m0=_settled(m0),
        warnings=tuple(dict.fromkeys(notes.warnings)),
        inferred=dict(notes.inferred),
        encoding=encoded,
    )


def _check_flags(fields: Fields) -> None:
    with fields.collect():
        if fields.flag_or("LookLocker", default=False):
            expected = "one readout after each label: Look-Locker readouts are not modelled"
            raise fields.fault("LookLocker", "true", expected)
    with fields.collect():
        fields.flag("BackgroundSuppression")


def _measurements(
    run: RunFiles,
    fields: Fields,
    scheme: Scheme | None,
    kinds: tuple[str, ...] | None,
    types: tuple[str, ...],
    options: InputOptions,
) -> tuple[encoding.Encoding | None, bool, np.ndarray | None, np.ndarray | None]:
    """Return time encoding, whether the volumes are pairs, delays and durations.

    As far as they can be read; faults go to the notes. What is encoded has times of its own,
    and no pairs.
    """
    paired = kinds is None
    if kinds is not None:
        encoded = None
        with fields.collect():
            encoded = encoding.read(fields, scheme or Scheme.PCASL, kinds)
            paired = encoded is None
        if encoded:
            return encoded, False, *encoded.of_volumes(len(kinds))
    if not paired:
        return None, False, None, None
    delay, duration = _times(fields, scheme, types, options)
    with fields.collect():
        unknown = np.zeros(len(types))
        context.check_pairs(
            types,
            unknown if delay is None else delay,
            unknown if duration is None else duration,
            context.name_of(run),
            run.cite("PostLabelingDelay"),
        )
    return None, True, delay, duration


def _times(
    fields: Fields, scheme: Scheme | None, kinds: tuple[str, ...], options: InputOptions
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return delays and durations as far as they can be read; faults go to the notes."""
    delay = duration = None
    with fields.collect():
        delay = timing.delays(fields, scheme, kinds)
    with fields.collect():
        if scheme is None:
            labelling.demand_duration(fields)
        else:
            known = np.full(len(kinds), np.nan) if delay is None else delay
            duration = timing.durations(fields, scheme, kinds, known, options.bolus_duration)
    return delay, duration


def _volumes(run: RunFiles, notes: Notes) -> tuple[Header | None, tuple[str, ...] | None, int]:
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
        return  # Told as such: another conversion makes no more of a CBF map.
    if kinds != ("deltam",):
        cure = "convert the series again, keeping all volumes"
        raise InputError(header.name, "dimensions", f"3D ({size})", "4D", cure)
    notes.warnings.append(
        Notice(header.name, "dimensions", f"3D ({size})", "4D", "taken for one deltam volume")
    )


def _check_number_of_pairs(fields: Fields, kinds: tuple[str, ...]) -> None:
    key = "TotalAcquiredPairs"
    if key not in fields:
        return
    total = fields.number(key, "the number of control-label pairs, above 0")
    stored = Counter(kinds)["label"]
    if stored > total:
        expected = f"at least the {stored} pairs of the image"
        fields.warn(key, f"{total:g}", expected, "not used")


def _check_one_contrast(fields: Fields, kinds: tuple[str, ...]) -> None:
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


def _check_entities(run: RunFiles, notes: Notes) -> None:
    strange = [f"{key}-{value}" for key, value in run.entities.items() if key not in RAW_ENTITIES]
    if strange:
        expected = "entities that BIDS has for ASL"
        notes.warnings.append(
            Notice(run.name, "file name", ", ".join(strange), expected, "read all the same")
        )
