"""Understanding an ASL run: from its files to an `Acquisition`, or to one clear line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from asl_bids_app.bids import context, encoding, labelling, m0scan, scaling, timing
from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.bids.fields import Fields, Notes, show
from asl_bids_app.bids.images import Header, read_header
from asl_bids_app.bids.layout import RAW_ENTITIES, RunFiles
from asl_bids_app.errors import InputError

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
        At the first thing that forbids a trustworthy quantification.
    """
    options = options or InputOptions()
    if run.problems:
        raise run.problems[0]
    notes = Notes()
    fields = Fields(run, notes, options.lenient)
    header = _header(run, notes)
    kinds = context.read(run, header.n_volumes)
    _check_dimensions(header, kinds, notes)
    context.check_rows(kinds, run, header.n_volumes)
    kinds = context.settle(kinds, run, notes.warnings)

    scheme = labelling.decide(fields)
    if fields.flag_or("LookLocker", default=False):
        expected = "one readout after each label: Look-Locker readouts are not modelled"
        raise fields.fault("LookLocker", "true", expected)
    fields.flag("BackgroundSuppression")
    encoded = encoding.read(fields, scheme, kinds)
    if encoded:
        delay, duration = encoded.of_volumes(len(kinds))
    else:
        delay = timing.delays(fields, scheme, kinds)
        duration = timing.durations(fields, scheme, kinds, delay, options.bolus_duration)
        table, cited = context.name_of(run), run.cite("PostLabelingDelay")
        context.check_pairs(kinds, delay, duration, table, cited)
    slice_time, slice_axis = timing.slice_times(fields, header.shape[:3])
    m0 = m0scan.read(fields, kinds, run, header)
    scaling.check_ge(fields, kinds, scale_given=options.m0_scale is not None)
    for key, expected in UNUSED:
        fields.demand(key, expected)
    _check_one_contrast(fields, kinds)
    if "RepetitionTimePreparation" in fields:
        repetition = timing.repetition_times(fields, kinds)
        timing.check_fit(fields, scheme, delay, duration, slice_time, repetition)
    if not encoded:
        _check_number_of_pairs(fields, kinds)
    _check_entities(run, notes)
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
        m0=m0,
        warnings=tuple(dict.fromkeys(notes.warnings)),
        inferred=dict(notes.inferred),
        encoding=encoded,
    )


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
        f"{header.name}: dimensions: found 3D ({size}), expected 4D; taken for one deltam volume"
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
        notes.warnings.append(
            f"{run.name}: file name: found {', '.join(strange)}, expected entities that BIDS has "
            "for ASL; read all the same"
        )
