"""Understanding an ASL run: from its files to an `Acquisition`, or to one clear line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from asl_bids_app.bids import context, encoding, labelling, m0scan, readout, scaling, timing
from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.bids.fields import Fields, Notes
from asl_bids_app.bids.file_names import FILE_NAME
from asl_bids_app.bids.layout import RunFiles
from asl_bids_app.bids.misspelt import check_names
from asl_bids_app.bids.volume_checks import (
    check_entities,
    check_number_of_pairs,
    check_one_contrast,
    read_volumes,
)
from asl_bids_app.schemes import Scheme

UNUSED: Final = (
    ("EchoTime", "the echo time in seconds"),
    ("TotalAcquiredPairs", "the number of control-label pairs"),
    ("RepetitionTimePreparation", "the repetition time in seconds"),
)
"""Keys that BIDS requires, and that the quantification of a run may well do without."""


@dataclass(frozen=True)
class InputOptions:
    """What the options say of the input.

    Attributes
    ----------
    bolus_duration : float or None
        Seconds; the bolus of PASL runs, outranking their sidecars.
    lenient : bool
        Go on without keys that BIDS requires but the quantification doesn't need
        (``--skip-bids-validation``); each is still a warning.
    m0_scale : float or None
        The factor that the user gives the M0.
    bolus_option : str
        What messages call the option of the bolus duration.
    """

    bolus_duration: float | None = None
    lenient: bool = False
    m0_scale: float | None = None
    bolus_option: str = "--bolus-duration"


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
        What the options say of the input.

    Returns
    -------
    Acquisition

    Raises
    ------
    InputError
        If anything forbids a trustworthy quantification. Of several faults all are reported
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
    header, kinds, n_volumes = read_volumes(run, notes)
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
        check_one_contrast(fields, types)
    if "RepetitionTimePreparation" in fields:
        with faults.collect():
            repetition = timing.repetition_times(fields, types)
    if paired:
        with faults.collect():
            check_number_of_pairs(fields, types)
    faults.check()
    delay, duration, slice_time = map(_settled, (delay, duration, slice_time))
    scheme, kinds = _settled(scheme), _settled(kinds)
    if repetition is not None:
        readout.check_fit(fields, scheme, delay, duration, slice_time, repetition)
    check_entities(run, notes)
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
            raise fields.not_modelled("LookLocker", "true", expected)
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
            given = options.bolus_duration, options.bolus_option
            duration = timing.durations(fields, scheme, kinds, known, *given)
    return delay, duration
