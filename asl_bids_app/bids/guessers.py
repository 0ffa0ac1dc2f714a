"""How each key of a sidecar is guessed from what converters leave, for review by a person.

Keys of dcm2niix: https://github.com/rordenlab/dcm2niix/blob/master/BIDS/README.md. No run
uses a guess; see `asl_bids_app.bids.propose`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.evidence import (
    HUGE,
    Evidence,
    guess_seconds,
    guess_time,
    is_number,
    to_numbers,
)
from asl_bids_app.bids.labelling import BIDS_TYPES
from asl_bids_app.bids.spans import find_near_word
from asl_bids_app.bids.timing import CUT_OFFS
from asl_bids_app.bids.words import Guess, guess_scheme
from asl_bids_app.schemes import SCHEMES, Scheme

BLOCK: Final = 0.0185
"""Seconds of one of `NumRFBlocks`, 20 pulses, of the sequence ep2d_pcasl (loft-lab.org)."""
SUPPRESSED: Final = 0.5
"""A control below this fraction of the M0 was measured with background suppression ..."""
RECOVERED: Final = 0.8
"""... and above this one without."""


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
    guess = guess_time("PostLabelingDelay")(evidence)
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
    guess = guess_time("LabelingDuration", *others)(evidence)
    blocks = evidence.metadata.get("NumRFBlocks")
    if guess is None and is_number(blocks) and 0 < blocks < 1000:
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
    guess = guess_time("BolusCutOffDelayTime")(evidence)
    stop = evidence.metadata.get("SaturationStopTime")
    if guess and stop is not None and not isinstance(guess.value, list):
        last = guess_seconds("BolusCutOffDelayTime", stop, "")
        if last and is_number(last.value) and last.value > guess.value:
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
    if is_number(pulses):
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
        if is_number(value) and 1 <= value < HUGE:
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
    value = to_numbers(evidence.metadata.get("MagneticFieldStrength"))
    if is_number(value) and 1000 <= value <= 20000:
        return Guess(round(value / 10000, 2), f"{value:g} gauss")
    if is_number(value) and 0.1 <= value <= 20:
        return Guess(value, "written in quotes")
    frequency = evidence.metadata.get("ImagingFrequency")
    if is_number(frequency) and 5 < frequency < 1000:
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
        "RepetitionTimePreparation": guess_time("RepetitionTimePreparation"),
        "EchoTime": guess_time("EchoTime"),
        "MRAcquisitionType": _readout,
        "SliceTiming": guess_time("SliceTiming"),
        "MagneticFieldStrength": _field_strength,
    }
)
"""How the value of a key at fault is guessed."""
