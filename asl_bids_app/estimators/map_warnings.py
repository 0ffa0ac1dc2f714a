"""What a reader of the maps must know beside them: warnings for log, sidecar and report."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from asl_bids_app.estimators.arteries import find_early_delay
from asl_bids_app.estimators.bars import (
    CBF_MEANINGLESS,
    CBF_RANGE,
    NO_FLOW,
    balance,
    mean_flow,
    nothing_flows,
)
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.notices import Notice
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import Arrival, TransitPrior
from asl_bids_app.schemes import transit_prior
from asl_bids_app.series import Series

FEW_PAIRS: Final = 3
"""Pairs of a whole series up to which their spread says hardly anything of the noise."""
NOISY: Final = 20.0
"""mL/100 g/min: noise of CBF in one voxel from which single voxels can't be read, a third of
grey matter's flow."""
_OPEN_SHARE: Final = 0.1
_MANY: Final = 0.005
_LEANING: Final = {
    "ensemble": "the map leans on what brains usually have; error bars hold the difference",
    "least-squares": "its bounds turn noise into flow; read its median, or another estimator",
}
"""Why the mean of a map isn't that of the data, by estimator."""


def warn_of_maps(
    series: Series, observation: Observation, maps: ParameterMaps
) -> tuple[Notice, ...]:
    """Return the warnings about a series and its maps.

    Parameters
    ----------
    series
        What was measured.
    observation
        The same with its noise.
    maps
        Of any estimator.

    Returns
    -------
    tuple of Notice
        Of the quantity that each is about; empty if there is nothing to say.
    """
    if not bool(series.mask.any()):
        return ()
    prior = maps.att_prior or transit_prior(series.protocol.schemes)
    return (
        *_transit(series, maps, prior),
        *_noise(series, observation, prior),
        *_arteries(series, maps),
        *_implausible(series, maps),
        *_means(observation, maps, prior),
    )


def _share(flags: Tensor, bit: Flag, mask: Tensor) -> float:
    return float(((flags[mask] & int(bit)) > 0).double().mean())


def _transit(series: Series, maps: ParameterMaps, prior: TransitPrior) -> list[Notice]:
    """ATT comes from the prior; and whether all of the bolus has arrived by it."""
    protocol, scheme = series.protocol, series.protocol.schemes[0]
    if protocol.n_measurements > 1:
        share = _share(maps.flags, Flag.ATT_UNIDENTIFIABLE, series.mask)
        if share <= _OPEN_SHARE:
            return []
        found = (
            f"ATT comes from a prior ({prior}) in {100 * share:.0f} % of the brain's voxels, "
            f"where the data don't determine it (flag {int(Flag.ATT_UNIDENTIFIABLE)})"
        )
        return [Notice((), "ATT", found)]
    delay = float(protocol.delay.min())
    text = f"ATT comes from a prior, {prior} for {scheme.value}, because there is a single delay"
    if int(protocol.arrival[0]) == Arrival.VELOCITY_SELECTIVE:
        return [Notice((), "ATT", text, outcome="the ATT map says nothing about this person")]
    duration = float(protocol.label_duration[0])
    pulsed = int(protocol.arrival[0]) == Arrival.PULSED
    complete = delay - duration if pulsed else delay
    meaning = (
        f"one delay cannot tell late arrival from low flow: where blood arrives later than "
        f"{max(complete, 0):.2f} s, CBF is higher than the map says"
    )
    warnings = [Notice((), "ATT", text, outcome=meaning)]
    nothing = delay if pulsed else delay + duration
    if nothing <= prior.mean:
        found = (
            f"no label has arrived by the prior's ATT of {prior.mean:.2f} s at a delay of "
            f"{delay:.2f} s: least squares has no CBF (flag {int(Flag.FAILED)}), and any other "
            f"estimate rests on its priors"
        )
        warnings.append(Notice((), "CBF", found))
    elif complete < prior.mean + prior.sd / 2 - 1e-6:
        found = (
            f"part of the bolus had not arrived at a delay of {delay:.2f} s wherever ATT is above "
            f"{max(complete, 0):.2f} s, as may well be with a prior of {prior}"
        )
        warnings.append(Notice((), "CBF", found, outcome="CBF there depends on the prior"))
    return warnings


def _noise(series: Series, observation: Observation, prior: TransitPrior) -> list[Notice]:
    """Few repeats, and noise that hides single voxels."""
    pairs = int(series.repeats.sum())
    few = 1 < pairs <= FEW_PAIRS
    at = torch.tensor([prior.mean]).to(observation.delta_m)
    response = observation.response(at[None])
    precision = precision_of(observation.noise_sd).expand_as(observation.delta_m)
    information = (precision * response.square().unsqueeze(3)).sum(1)[series.mask]
    sd = float(information.clamp(min=1e-12).rsqrt().median())
    noisy = sd > NOISY
    if not (few or noisy):
        return []
    counted = f"{pairs} pair{'s' if pairs > 1 else ''} of volumes"
    what = "few repeats, noisy" if few and noisy else "few repeats" if few else "noisy"
    cure = (
        "read means of regions, not voxels"
        if noisy
        else "the noise, and with it the error bars, is itself uncertain"
    )
    found = f"{what}: {counted}, noise of CBF in one voxel about {sd:.3g} mL/100 g/min"
    return [Notice((), "CBF", found, outcome=cure)]


def _arteries(series: Series, maps: ParameterMaps) -> list[Notice]:
    """Early delays see label in arteries, which the model takes for early tissue."""
    if maps.abv is not None:
        return []
    first = find_early_delay(series.protocol)
    if first is None:
        return []
    share = _share(maps.flags, Flag.ARTERY, series.mask)
    seen = f"; {100 * share:.1f} % of the brain's voxels look so (flag {int(Flag.ARTERY)})"
    found = (
        f"delays from {first:.2g} s and no arterial term in the model: label still in arteries "
        f"may make ATT too early and CBF too high{seen if share > 0 else ''}"
    )
    return [Notice((), "CBF, ATT", found)]


def _implausible(series: Series, maps: ParameterMaps) -> list[Notice]:
    """Values that flow can't have: some far off, or many."""
    flagged = (maps.flags[series.mask] & int(Flag.CBF_IMPLAUSIBLE)) > 0
    count = int(flagged.sum())
    if not count:
        return []
    low, high = CBF_RANGE
    cbf = maps.cbf[series.mask][flagged]
    least, most = float(cbf.min()), float(cbf.max())
    share = count / len(flagged)
    span = f" to {most:.0f}" if count > 1 else ""
    digits = ".2g" if share < 0.99 else ".3g"
    if share < _MANY and least >= CBF_MEANINGLESS and most <= high:
        return []
    found = (
        f"{count} voxel{'s' if count > 1 else ''} ({100 * share:{digits}} % of the brain) with a "
        f"CBF that flow can't have, {least:.0f}{span} mL/100 g/min (outside {low:g}-"
        f"{high:g} by more than their noise; flag {int(Flag.CBF_IMPLAUSIBLE)}): don't read them"
    )
    return [Notice((), "CBF", found)]


def _means(observation: Observation, maps: ParameterMaps, prior: TransitPrior) -> list[Notice]:
    """No flow at all, or a mean of the map that isn't the data's."""
    warnings: list[Notice] = []
    flow = mean_flow(observation, prior.mean)
    if flow is not None and nothing_flows(flow):
        if flow[0] < -max(NO_FLOW, 2 * flow[1]):
            what, cause = "below zero", "are control and label swapped?"
        else:
            what = "hardly different from zero"
            cause = "did the labelling fail, are control and label volumes marked correctly?"
        found = (
            f"the mean CBF of the brain is {flow[0]:.2f} ± {flow[1]:.2g} mL/100 g/min by its "
            f"signal alone, {what}, whatever the map says: {cause}"
        )
        warnings.append(Notice((), "CBF", found))
    means = balance(observation, maps)
    # The mean of a posterior isn't CBF at the mean of ATT where ATT is open: no contradiction.
    if means is None or not means.contradicts or maps.estimator == "bayes":
        return warnings
    why = _LEANING.get(maps.estimator, "the map doesn't fit the data")
    found = (
        f"the mean CBF of the brain is {means.of_maps:.3g} mL/100 g/min by the map ("
        f"{maps.estimator}) but {means.of_data:.3g} ± {means.error:.2g} by its signal: {why}"
    )
    return [*warnings, Notice((), "CBF", found)]
