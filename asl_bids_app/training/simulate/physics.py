"""Domain randomisation: the reported physics that an estimator uses, and the true one.

Two steps. The *nominal* protocol and calibration, which the estimator is given, are drawn
widely, so that every real acquisition lies inside. The *truth* is drawn around the nominal,
as far away as a real scanner and a real person are. Each deviation is a factor exp(s z) with
z standard normal: its median is 1, so a network learns no bias from it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from asl_bids_app.schemes import SCHEMES, Scheme
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.random_draws import chance, normal, uniform
from asl_bids_app.training.simulate.batch_physics import Kinetics, Physics
from asl_bids_app.training.simulate.covered_protocols import combinations, reach
from asl_bids_app.training.simulate.schedules import (
    MOST,
    PROTOCOLS,
    Schedule,
    draw_schedule,
    fixed_schedule,
)

_ORDER = tuple(Scheme)


def _by_scheme(schedule: Schedule, per_scheme: Tensor) -> Tensor:
    """Give each measurement its scheme's value; per_scheme is (B, schemes), result (B, n)."""
    return torch.gather(per_scheme, 1, schedule.scheme)


def _draw_constants(
    config: DomainConfig, n: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw from the ranges: efficiency (n, schemes), T1 of blood and tissue, lambda."""
    spans = [getattr(config, f"{scheme.value.lower()}_efficiency") for scheme in _ORDER]
    low, high = torch.tensor(spans, device=generator.device).unbind(1)
    efficiency = low + (high - low) * uniform(generator, (n, len(_ORDER)), (0.0, 1.0))
    # One suppression for all schemes of a session: the same pulses.
    efficiency = efficiency * uniform(generator, (n, 1), config.suppression)
    t1_blood = uniform(generator, (n,), config.t1_blood)
    share = uniform(generator, (n,), (0.0, 1.0))
    share = torch.where(chance(generator, (n,), config.t1_tissue_as_blood), 1.0, share)
    t1_tissue = torch.lerp(torch.full_like(t1_blood, config.t1_tissue_low), t1_blood, share)
    partition = uniform(generator, (n,), config.partition_coefficient)
    return efficiency, t1_blood, t1_tissue, partition


def _default_constants(n: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from asl_bids_app.calibration import PARTITION_COEFFICIENT, T1_BLOOD

    defaults = torch.tensor(
        [SCHEMES[scheme].labeling_efficiency for scheme in _ORDER], device=generator.device
    )
    t1_blood = torch.full((n,), T1_BLOOD[3.0][0], device=generator.device)
    partition = torch.full((n,), PARTITION_COEFFICIENT[0], device=generator.device)
    return defaults.expand(n, -1), t1_blood, t1_blood.clone(), partition


def draw_physics(config: DomainConfig, n: int, generator: Generator) -> Physics:
    """Draw acquisitions and calibrations for a batch.

    Parameters
    ----------
    config
        Settings.
    n
        Number of slices; each has a protocol and a calibration of its own.
    generator
        Its device is that of the result.

    Raises
    ------
    ValueError
        If the settings name a protocol that doesn't exist.
    """
    if config.protocol == "random":
        schedule = draw_schedule(n, generator)
    else:
        schedule = fixed_schedule(config.protocol, n, generator)
    return draw_calibration(schedule, config, generator)


def draw_calibration(schedule: Schedule, config: DomainConfig, generator: Generator) -> Physics:
    """Draw calibrations for acquisitions that are given.

    Parameters
    ----------
    schedule
        Of a batch of slices.
    config
        Settings; the protocol that they name doesn't matter.
    generator
        Its device is that of the result.
    """
    n = len(schedule.scheme)
    if config.truth_from_ranges:
        calibration_uncertainty = torch.ones(n, device=generator.device)
    else:
        exact = chance(generator, (n,), config.exact_chance) | (config.spread == 0)
        calibration_uncertainty = torch.where(exact, 0.0, 1.0)

    def factor(shape: tuple[int, ...], sd: float | Tensor) -> Tensor:
        width = (config.spread * calibration_uncertainty).reshape(n, *(1,) * (len(shape) - 1))
        return torch.exp(width * sd * normal(generator, shape))

    drawn = _draw_constants(config, n, generator)
    reported = drawn if config.nominal_random else _default_constants(n, generator)
    efficiency, t1_blood, t1_tissue, partition = reported
    arrival = torch.tensor(
        [int(SCHEMES[scheme].arrival) for scheme in _ORDER], device=generator.device
    )[schedule.scheme]
    crushed = chance(generator, (n, 1), config.crushing_chance)
    vessels = (~crushed).float().expand(arrival.shape)
    nominal = Kinetics(
        arrival,
        schedule.delay,
        schedule.label_duration,
        _by_scheme(schedule, efficiency),
        t1_blood,
        t1_tissue,
        partition,
        vessels,
    )
    sd_efficiency = torch.tensor(
        [
            config.pcasl_efficiency_spread,
            config.pcasl_efficiency_spread,
            config.pasl_efficiency_spread,
            config.vsasl_efficiency_spread,
        ],
        device=generator.device,
    )
    sd_duration = torch.tensor(
        [config.label_duration_spread] * 2 + [config.bolus_duration_spread] * 2,
        device=generator.device,
    )
    duration = factor((n, len(_ORDER)), sd_duration)
    m0_scale = factor((n,), config.m0_spread)
    off = factor((n, len(_ORDER)), sd_efficiency) * factor((n, 1), config.suppression_spread)
    off_blood = factor((n,), config.t1_blood_spread)
    off_tissue = factor((n,), config.t1_tissue_spread)
    if config.truth_from_ranges:
        efficiency, t1_blood, t1_tissue, partition = drawn
        duration = uniform(generator, (n, len(_ORDER)), config.label_duration_factor)
        m0_scale = uniform(generator, (n,), config.m0_factor)
    else:
        # No pulse inverts more than all of the blood; the median stays where it was.
        efficiency = (efficiency * off).clamp(max=1.0)
        # What shortens blood's T1 where T1s are taken as equal shortens both.
        t1_blood, t1_tissue = t1_blood * off_blood, t1_tissue * off_blood * off_tissue
    truth = Kinetics(
        arrival,
        schedule.delay,
        schedule.label_duration * _by_scheme(schedule, duration),
        _by_scheme(schedule, efficiency),
        t1_blood,
        t1_tissue,
        partition,
        vessels,
    )
    edge = uniform(generator, (n,), config.arterial_edge)
    return Physics(
        nominal, truth, m0_scale, schedule.repeats, schedule.valid, calibration_uncertainty, edge
    )


def training_domain(config: DomainConfig) -> dict[str, Any]:
    """Describe the acquisitions and calibrations that training covers, for the model's file.

    Returns
    -------
    dict
        ``schemes``: by scheme the ranges of ``delay``, ``label_duration`` (seconds) and
        ``efficiency`` (suppression included); ``t1_blood``, ``t1_tissue`` (seconds) and
        ``partition_coefficient`` (mL/g): ranges (low, high); ``measurements``: the range of
        their number in one scheme; ``combinations``: the schemes that come in one series.
    """
    schemes: dict[str, Any] = reach(config.protocol)
    counts = [1, MOST]
    if config.protocol != "random":
        names = [scheme.value for scheme in PROTOCOLS[config.protocol].schemes]
        counts = [min(names.count(n) for n in schemes), max(names.count(n) for n in schemes)]
    for name, ranges in schemes.items():
        low, high = getattr(config, f"{name.lower()}_efficiency")
        ranges["efficiency"] = (low * config.suppression[0], high * config.suppression[1])
    return {
        "schemes": schemes,
        "measurements": tuple(counts),
        "combinations": combinations(config.protocol),
        "t1_blood": config.t1_blood,
        "t1_tissue": (min(config.t1_tissue_low, config.t1_blood[0]), config.t1_blood[1]),
        "partition_coefficient": config.partition_coefficient,
    }
