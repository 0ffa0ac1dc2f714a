"""Delays, label durations, slice times and repetition times of a run, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from asl_bids_app.bids.context import PERFUSION
from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.labelling import ALIASES, is_velocity_selective
from asl_bids_app.bids.spans import show
from asl_bids_app.schemes import SCHEMES, Scheme

CUT_OFFS: Final = ("Q2TIPS", "QUIPSS", "QUIPSSII")


def perfusion(kinds: Sequence[str]) -> np.ndarray:
    """Return which volumes have a delay, shape (n_volumes,)."""
    return np.array([kind in PERFUSION for kind in kinds])


def stand_in(fields: Fields, n_volumes: int) -> tuple[str, ...]:
    """Return volume types to go on checking with where nobody knows the right ones.

    Volumes with a delay or duration of 0 are taken for m0scan, the others for deltam, so
    that no fault is reported that the right types would not have.
    """
    silent = np.zeros(n_volumes, bool)
    for key in ("PostLabelingDelay", "LabelingDuration"):
        values = fields.get(key)
        if isinstance(values, list) and len(values) == n_volumes:
            silent |= np.array([value == 0 for value in values])
    if silent.all():
        silent[:] = False
    return tuple("m0scan" if each else "deltam" for each in silent)


def delays(fields: Fields, scheme: Scheme | None, kinds: Sequence[str]) -> np.ndarray:
    """Read `PostLabelingDelay`.

    Parameters
    ----------
    fields, scheme, kinds
        The run; None for a scheme that is not known.

    Returns
    -------
    array, shape (n_volumes,)
        Seconds; NaN at volumes without label or control.

    Raises
    ------
    InputError
    """
    key = "PostLabelingDelay"
    values = fields.per_volume(key, kinds, "the delay in seconds")
    values = np.where(perfusion(kinds), values, np.nan)
    used = values[perfusion(kinds)]
    if scheme and not SCHEMES[scheme].continuous and used.min() == 0:
        raise fields.fault(key, "0", f"more than 0 s for {scheme.value}", "see the protocol")
    return values


def durations(
    fields: Fields,
    scheme: Scheme,
    kinds: Sequence[str],
    delay: np.ndarray,
    bolus: float | None = None,
    given_by: str = "--bolus-duration",
) -> np.ndarray | None:
    """Read the label duration (PCASL, CASL) or bolus duration (PASL, VSASL).

    Parameters
    ----------
    fields, scheme, kinds
        The run.
    delay : array, shape (n_volumes,)
        Seconds, from `delays`; all NaN if that failed.
    bolus, given_by
        The bolus of PASL that an option gave, seconds, and what messages call the option.

    Returns
    -------
    array, shape (n_volumes,)
        Seconds; inf for a VSASL bolus that nothing cuts; NaN at volumes without label or
        control. None if several faults, which are in the notes of the fields, forbid it.

    Raises
    ------
    InputError
    """
    if SCHEMES[scheme].continuous:
        key = "LabelingDuration"
        values = fields.per_volume(key, kinds, "the label duration in seconds")
        used = values[perfusion(kinds)]
        if used.min() == 0:
            cure = "a control volume has the duration of its label; 0 is for m0scan"
            raise fields.fault(
                key, "0 at a control, label or deltam volume", "more than 0 s", cure
            )
        if np.fmax.reduce(delay) == 0 and used.min() == used.max():
            fields.warn(
                "PostLabelingDelay",
                f"0 everywhere with one {key} of {used[0]:g} s",
                "a delay, or durations that vary",
                "taken at its word; many converters write 0 for a delay they don't know",
            )
    else:
        if "LabelingDuration" in fields:
            fields.warn(
                "LabelingDuration",
                show(fields["LabelingDuration"]),
                f"nothing for {scheme.value}",
                "not used; the bolus is given by BolusCutOffFlag and BolusCutOffDelayTime",
            )
        bolus_values = (
            _vsasl_bolus(fields, kinds)
            if SCHEMES[scheme].endless_bolus
            else _pasl_bolus(fields, kinds, delay, bolus, given_by)
        )
        if bolus_values is None:
            return None
        values = bolus_values
    return np.where(perfusion(kinds), values, np.nan)


def _pasl_bolus(
    fields: Fields, kinds: Sequence[str], delay: np.ndarray, bolus: float | None, given_by: str
) -> np.ndarray | None:
    flag = "BolusCutOffFlag"
    if bolus is not None:
        if fields.file.metadata.get(flag) is True:
            said = show(fields.file.metadata.get("BolusCutOffDelayTime"))
            outcome = f"the bolus duration of {given_by} is used: {bolus:g} s"
            fields.warn("BolusCutOffDelayTime", said, f"no {given_by} beside it", outcome)
        fields.notes.inferred["label_duration"] = f"{bolus:g} s by {given_by}"
        return np.full(len(kinds), bolus)
    if flag not in fields:
        with fields.collect():
            if "BolusCutOffTechnique" in fields:
                fields.choice("BolusCutOffTechnique", CUT_OFFS)
        with fields.collect():
            if "BolusCutOffDelayTime" in fields:
                _cut_off(fields, kinds, str(fields.get("BolusCutOffTechnique")))
        absent = [
            key for key in ("BolusCutOffTechnique", "BolusCutOffDelayTime") if key not in fields
        ]
        cure = f"with true also {' and '.join(absent)}" if absent else ""
        raise fields.missing(flag, "true or false", cure)
    if not fields.flag(flag):
        raise fields.fault(
            flag,
            "false",
            "a bolus cut-off: without one the bolus duration of PASL is not known",
            "give the duration in seconds by --bolus-duration",
        )
    technique, times = "", None
    with fields.collect():
        technique = fields.choice("BolusCutOffTechnique", CUT_OFFS)
    with fields.collect():
        times = _cut_off(fields, kinds, technique)
    if technique != "QUIPSS" or times is None:
        return times
    # QUIPSS (unlike QUIPSS II) saturates the imaged slices: what is seen arrived between that
    # pulse and the readout. Wong 1998, doi:10.1002/mrm.1910390506.
    if fields.file.metadata.get("MRAcquisitionType") == "2D":
        words = "QUIPSS with a 2D readout", "QUIPSSII or Q2TIPS: not modelled"
        raise fields.not_modelled("BolusCutOffTechnique", *words)
    left = delay - times
    if np.fmin.reduce(left) <= 0:
        key = "BolusCutOffDelayTime"
        raise fields.fault(key, f"{times.max():g} s", "less than the PostLabelingDelay")
    fields.notes.inferred["label_duration"] = (
        "QUIPSS: the delay less BolusCutOffDelayTime, Wong 1998, doi:10.1002/mrm.1910390506"
    )
    return left


def _vsasl_bolus(fields: Fields, kinds: Sequence[str]) -> np.ndarray:
    n = len(kinds)
    flag, key = "BolusCutOffFlag", "BolusCutOffDelayTime"
    alias = fields.get("ArterialSpinLabelingType") in tuple(ALIASES)
    if flag not in fields and alias:
        # No standard asks for the flag in this form; what it would say is in the delay time.
        cut = key in fields
        outcome = "taken for " + (
            f"true, as {key} is there" if cut else "false (no second module)"
        )
        fields.warn(flag, "nothing", "true or false", outcome)
    else:
        cut = fields.flag(flag)
    if not cut:
        if key in fields:
            fields.warn(key, show(fields[key]), f"nothing with {flag} false", "not used")
        fields.notes.inferred["label_duration"] = "no second module: nothing cuts the bolus"
        return np.full(n, np.inf)
    technique = fields.file.metadata.get("BolusCutOffTechnique")
    if not is_velocity_selective(technique):
        outcome = f"{key} is taken for the time of the second velocity-selective module"
        fields.warn(
            "BolusCutOffTechnique", show(technique) if technique else "nothing", "VSS", outcome
        )
    return _cut_off(fields, kinds, "VSS")


def _cut_off(fields: Fields, kinds: Sequence[str], technique: str) -> np.ndarray:
    """Read `BolusCutOffDelayTime`: a number, the times of the pulses, or one a volume."""
    key, n = "BolusCutOffDelayTime", len(kinds)
    expected = "the time from the label to the bolus cut-off in seconds"
    if key not in fields:
        raise fields.missing(key, expected)
    values = fields.numbers(key, expected)
    pulses = len(values) > 1 and all(a < b for a, b in pairwise(values))
    if technique == "Q2TIPS":
        if len(values) > 2 or (len(values) == 2 and not pulses):
            raise fields.fault(key, show(fields[key]), "[first, last] for Q2TIPS")
        times = np.full(n, values[0])
    elif len(values) == n and not pulses:
        times = np.array(values)
    elif len(values) == 1 or pulses:
        times = np.full(n, values[0])
    else:
        raise fields.fault(key, f"{len(values)} values", f"1 or {n}, one for each volume")
    if len(values) > 1 and pulses:
        fields.notes.inferred["label_duration"] = (
            f"the first of {len(values)} cut-off pulses ends the bolus: {values[0]:g} s"
        )
    if times[perfusion(kinds)].min() == 0:
        raise fields.fault(key, "0", "more than 0 s")
    return times


def repetition_times(fields: Fields, kinds: Sequence[str]) -> np.ndarray:
    """Read `RepetitionTimePreparation`, shape (n_volumes,), seconds.

    Raises
    ------
    InputError
        Also for 0, which would turn any M0 correction into CBF 0.
    """
    key = "RepetitionTimePreparation"
    values = fields.per_volume(key, kinds, "the repetition time in seconds")
    if values.min() == 0:
        cure = "give the time between two preparations from the protocol (M0: its repetition time)"
        raise fields.fault(key, "0", "more than 0 s", cure)
    return values
