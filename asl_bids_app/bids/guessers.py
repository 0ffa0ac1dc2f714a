"""How each key of a sidecar is guessed from what converters leave, for review by a person.

Keys of dcm2niix: https://github.com/rordenlab/dcm2niix/blob/master/BIDS/README.md. No run
uses a guess; see `asl_bids_app.bids.propose`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.fields import COUSINS, Fields, Notes, find_near_word
from asl_bids_app.bids.files import DataFile
from asl_bids_app.bids.labelling import BIDS_TYPES
from asl_bids_app.bids.timing import CUT_OFFS
from asl_bids_app.bids.words import Guess, guess_scheme
from asl_bids_app.errors import InputError
from asl_bids_app.schemes import SCHEMES, Scheme

BLOCK: Final = 0.0185
"""Seconds of one of `NumRFBlocks`, 20 pulses, of the sequence ep2d_pcasl (loft-lab.org)."""
SUPPRESSED: Final = 0.5
"""A control below this fraction of the M0 was measured with background suppression ..."""
RECOVERED: Final = 0.8
"""... and above this one without."""
HUGE: Final = 1e12
"""No number of a sidecar is larger; NaN isn't smaller either."""
UNITS: Final = ((1.0, ""), (1e-3, "divided by 1000: "), (1e-6, "divided by a million: "))


@dataclass(frozen=True)
class Evidence:
    """What guesses rest on.

    Attributes
    ----------
    metadata : mapping
        The sidecar.
    scheme : Scheme or None
        As far as it can be told.
    kinds : tuple of str
        Volume types, guessed ones included; empty if not known.
    m0_file : str
        Name of an M0 scan that can belong to the run; empty if there is none.
    brightness : float or None
        Signal of the controls as a fraction of the M0.
    """

    metadata: Mapping[str, Any]
    scheme: Scheme | None = None
    kinds: tuple[str, ...] = ()
    m0_file: str = ""
    brightness: float | None = None

    @property
    def labelled(self) -> int:
        """Number of volumes with a delay."""
        return sum(kind in {"control", "label", "deltam"} for kind in self.kinds)

    def text(self, *keys: str) -> str:
        """Return what some keys hold, in lower case."""
        return " ".join(str(self.metadata.get(key, "")) for key in keys).casefold()


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(value: Any) -> Any:
    """Return numbers that are written in quotes as numbers; None if there are none."""
    if isinstance(value, list):
        read = [None if isinstance(each, list) else _numeric(each) for each in value]
        return read if read and None not in read else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if _is_number(value) and abs(value) < HUGE else None


def _seconds(key: str, value: Any, said: str) -> Guess | None:
    """Guess a time from a value in seconds, milliseconds or microseconds."""
    value = _numeric(value)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    for factor, how in UNITS:
        scaled = [round(each * factor, 9) for each in values]
        if _readable(key, scaled):
            return Guess(scaled if isinstance(value, list) else scaled[0], f"{how}{said}")
    return None


def _readable(key: str, values: list[float]) -> bool:
    """Tell whether a run would take numbers for the value of a key."""
    here = Path("sidecar.json")
    file = DataFile(
        root=Path(), path=here, entities={}, sidecars=(here,), metadata={key: values}, origin={}
    )
    try:
        Fields(file, Notes()).numbers(key, "")
    except InputError:
        return False
    return True


def _spread(guess: Guess, evidence: Evidence) -> Guess:
    """Give each volume its value where a list has one for each pair, or none for the M0."""
    values, kinds = guess.value, evidence.kinds
    if not isinstance(values, list) or not kinds or len(values) == len(kinds):
        return guess
    if len(values) == 1:
        return guess._replace(value=values[0])
    n = evidence.labelled
    why = f"{guess.why}; 0 put in at m0scan"
    if len(values) * 2 == n and "label" in kinds:
        values, why = [v for v in values for _ in range(2)], f"{why}, each value for one pair"
    if len(values) != n:
        told = f"not known: {guess.why}, {len(values)} values for {len(kinds)} volumes"
        return Guess(None, f"{told}; give each volume its own", guess.key)
    rest = iter(values)
    spread = [
        next(rest) if kind in {"control", "label", "deltam"} else 0 for kind in evidence.kinds
    ]
    return Guess(spread, why, guess.key)


def _time(key: str, *others: str) -> Callable[[Evidence], Guess | None]:
    """Return a guesser of a time: the key's own value in another unit, or another key."""

    def guess(evidence: Evidence) -> Guess | None:
        for name in (key, *others, *(k for k in COUSINS.get(key, ()) if k not in others)):
            if name in evidence.metadata:
                value = evidence.metadata[name]
                found = _seconds(key, value, f"{name} = {_short(value)}")
                if found:
                    return _spread(found._replace(key=name), evidence)
        return None

    return guess


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}..."


def _type(evidence: Evidence) -> Guess | None:
    value = evidence.metadata.get("ArterialSpinLabelingType")
    near = find_near_word(value, BIDS_TYPES)
    if near:
        return Guess(near, f"the sidecar says {value!r}")
    guess = guess_scheme(evidence.metadata)
    if guess and not SCHEMES[guess.value].sidecar.in_bids:
        title = SCHEMES[guess.value].title
        return Guess("PASL", f"{guess.why}: {title}; name the pulse in PASLType")
    return guess and Guess(guess.value.value, guess.why)


def _delay(evidence: Evidence) -> Guess | None:
    guess = _time("PostLabelingDelay")(evidence)
    if guess is None:
        return None
    caution = ""
    if guess.key == "PostLabelDelay":
        caution = (
            "; of enhanced DICOM this key may hold the duration of the label instead "
            "(dcm2niix issue 748)"
        )
    elif guess.key in {"InversionTime", "InversionTimes"} and evidence.scheme is Scheme.PCASL:
        caution = "; true of GE, where it is the delay; elsewhere it may include the label"
    return guess._replace(why=guess.why + caution)


def _duration(evidence: Evidence) -> Guess | None:
    if evidence.scheme and not SCHEMES[evidence.scheme].continuous:
        return None
    others = ("TagDuration", "GELabelingDuration", "LabelDuration", "BolusDuration")
    guess = _time("LabelingDuration", *others)(evidence)
    blocks = evidence.metadata.get("NumRFBlocks")
    if guess is None and _is_number(blocks) and 0 < blocks < 1000:
        why = f"NumRFBlocks = {blocks:g}, {1000 * BLOCK:g} ms each in ep2d_pcasl"
        return Guess(round(blocks * BLOCK, 4), why)
    return guess


def _has_cut_off(evidence: Evidence) -> Guess | None:
    value = evidence.metadata.get("BolusCutOffFlag")
    if isinstance(value, str) and value.casefold() in {"true", "false"}:
        return Guess(value.casefold() == "true", f"the sidecar says {value!r} in quotes")
    for key in ("BolusCutOffDelayTime", "BolusCutOffTechnique", "BolusDuration"):
        if key in evidence.metadata:
            return Guess(True, f"the sidecar has {key}")
    return None


def _cut_off_time(evidence: Evidence) -> Guess | None:
    guess = _time("BolusCutOffDelayTime")(evidence)
    stop = evidence.metadata.get("SaturationStopTime")
    if guess and stop is not None and not isinstance(guess.value, list):
        last = _seconds("BolusCutOffDelayTime", stop, "")
        if last and _is_number(last.value) and last.value > guess.value:
            why = f"{guess.why} and SaturationStopTime = {stop}"
            return Guess([guess.value, last.value], why)
    return guess


def _technique(evidence: Evidence) -> Guess | None:
    value = evidence.metadata.get("BolusCutOffTechnique")
    near = find_near_word(str(value).replace(" ", ""), CUT_OFFS)
    if value is not None and near:
        return Guess(near, f"the sidecar says {value!r}")
    words = evidence.text(*_NAMES)
    if "q2tips" in words or "SaturationStopTime" in evidence.metadata:
        return Guess("Q2TIPS", "saturation with a beginning and an end")
    if "quipss" in words or ("BolusDuration" in evidence.metadata and "tgse" in words):
        return Guess("QUIPSSII", "Siemens' 3D PASL cuts the bolus once")
    return None


_NAMES: Final = ("PulseSequenceName", "SequenceName", "PulseSequenceDetails", "ProtocolName")


def _suppression(evidence: Evidence) -> Guess | None:
    value = evidence.metadata.get("BackgroundSuppression")
    if isinstance(value, str) and value.casefold() in {"true", "false", "yes", "no"}:
        return Guess(value.casefold() in {"true", "yes"}, f"the sidecar says {value!r} in quotes")
    pulses = evidence.metadata.get("BackgroundSuppressionNumberPulses")
    if _is_number(pulses):
        return Guess(pulses > 0, f"BackgroundSuppressionNumberPulses = {pulses}")
    if "BackgroundSuppressionPulseTime" in evidence.metadata:
        return Guess(True, "the sidecar has BackgroundSuppressionPulseTime")
    if evidence.text("Manufacturer").startswith("ge") and "deltam" in evidence.kinds:
        return Guess(True, "GE's 3D ASL suppresses the background")
    bright = evidence.brightness
    if bright is None or SUPPRESSED <= bright <= RECOVERED:
        return None
    return Guess(bright < SUPPRESSED, f"the controls have {bright:.0%} of the M0's signal")


def _m0_type(evidence: Evidence) -> Guess | None:
    value = evidence.metadata.get("M0Type")
    if "m0scan" in evidence.kinds:
        return Guess("Included", "the image holds M0 volumes")
    if evidence.m0_file:
        return Guess("Separate", f"there is {evidence.m0_file}")
    near = find_near_word(value, tuple(M0Kind))
    if near and near != value:
        return Guess(near, f"the sidecar says {value!r}")
    if not evidence.kinds:
        return None
    why = "neither an M0 scan nor an M0 volume was found; look for one, for it is better"
    return Guess("Absent", why)


def _pairs(evidence: Evidence) -> Guess | None:
    labels = evidence.kinds.count("label")
    if labels:
        return Guess(labels, "the label volumes of the image")
    if "deltam" not in evidence.kinds:
        return None
    for key in ("NumberOfExcitations", "NumberOfAverages"):
        value = evidence.metadata.get(key)
        if _is_number(value) and 1 <= value < HUGE:
            return Guess(value * evidence.kinds.count("deltam"), f"{key} = {value:g}")
    return Guess(evidence.kinds.count("deltam"), "the deltam volumes of the image, or more")


def _readout(evidence: Evidence) -> Guess | None:
    value = str(evidence.metadata.get("MRAcquisitionType", "")).upper()
    if value in {"2D", "3D"}:
        return Guess(value, f"the sidecar says {evidence.metadata['MRAcquisitionType']!r}")
    times = evidence.metadata.get("SliceTiming")
    if isinstance(times, list) and len(times) > 1:
        return Guess("2D", "the sidecar has SliceTiming")
    words = evidence.text(*_NAMES, "SeriesDescription")
    for word, kind in (("3d", "3D"), ("tgse", "3D"), ("grase", "3D"), ("2d", "2D"), ("epi", "2D")):
        if word in words:
            return Guess(kind, f"{word!r} in the names of sequence or series")
    return None


def _field_strength(evidence: Evidence) -> Guess | None:
    value = _numeric(evidence.metadata.get("MagneticFieldStrength"))
    if _is_number(value) and 1000 <= value <= 20000:
        return Guess(round(value / 10000, 2), f"{value:g} gauss")
    if _is_number(value) and 0.1 <= value <= 20:
        return Guess(value, "written in quotes")
    frequency = evidence.metadata.get("ImagingFrequency")
    if _is_number(frequency) and 5 < frequency < 1000:
        # Protons, 42.577 MHz/T.
        return Guess(round(2 * frequency / 42.577) / 2, f"ImagingFrequency = {frequency:g} MHz")
    return None


GUESSERS: Final = MappingProxyType(
    {
        "ArterialSpinLabelingType": _type,
        "PostLabelingDelay": _delay,
        "LabelingDuration": _duration,
        "BolusCutOffFlag": _has_cut_off,
        "BolusCutOffTechnique": _technique,
        "BolusCutOffDelayTime": _cut_off_time,
        "BackgroundSuppression": _suppression,
        "M0Type": _m0_type,
        "TotalAcquiredPairs": _pairs,
        "RepetitionTimePreparation": _time("RepetitionTimePreparation"),
        "EchoTime": _time("EchoTime"),
        "MRAcquisitionType": _readout,
        "SliceTiming": _time("SliceTiming"),
        "MagneticFieldStrength": _field_strength,
    }
)
"""How the value of a key at fault is guessed."""
