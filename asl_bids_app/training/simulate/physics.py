"""Domain randomisation: the reported physics that an estimator uses, and the true one.

Two steps. The *nominal* protocol and calibration, which the estimator is given, are drawn
widely, so that every real acquisition lies inside. The *truth* is drawn around the nominal,
as far away as a real scanner and a real person are. Each deviation is a factor exp(s z) with
z standard normal: its median is 1, so a network learns no bias from it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor

from asl_bids_app.kinetics import arterial_response, tissue_response
from asl_bids_app.protocol import SCHEMES, Scheme
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.random_draws import chance, normal, to_device, uniform
from asl_bids_app.training.simulate.schedules import (
    MOST,
    PROTOCOLS,
    Schedule,
    combinations,
    draw_schedule,
    fixed_schedule,
    reach,
)


@dataclass(frozen=True)
class Kinetics:
    """The constants of `asl_bids_app.kinetics.tissue_response` for a batch of slices.

    Attributes
    ----------
    arrival : Tensor of int, shape (B, n)
    delay, label_duration : Tensor, shape (B, n)
        Seconds.
    efficiency : Tensor, shape (B, n)
    t1_blood, t1_tissue, partition_coefficient : Tensor, shape (B,)
        Seconds, seconds, mL/g.
    vessels : Tensor, shape (B, n)
        Share of the arteries' signal that is seen, 1 or 0.
    """

    arrival: Tensor
    delay: Tensor
    label_duration: Tensor
    efficiency: Tensor
    t1_blood: Tensor
    t1_tissue: Tensor
    partition_coefficient: Tensor
    vessels: Tensor

    def arterial_response(self, arrival: Tensor, edge: Tensor) -> Tensor:
        """Compute ΔM/M0 per mL/mL of arteries; arrival (B, H, W) and edge (B,) in seconds."""
        seen = self.efficiency * self.vessels
        arguments = [
            *(t[:, :, None, None] for t in (self.arrival, self.delay, self.label_duration, seen)),
            *(t[:, None, None, None] for t in (self.t1_blood, self.partition_coefficient)),
            arrival[:, None],
            edge[:, None, None, None],
        ]
        return arterial_response(*arguments)

    def response(self, att: Tensor) -> Tensor:
        """Compute ΔM/M0 per mL/100 g/min for transit times (B, H, W); (B, n, H, W)."""
        measured = (self.arrival, self.delay, self.label_duration, self.efficiency)
        shared = (self.t1_blood, self.t1_tissue, self.partition_coefficient)
        arguments = [
            *(t[:, :, None, None] for t in measured),
            *(t[:, None, None, None] for t in shared),
            att[:, None],
        ]
        return tissue_response(*arguments)

    def __getitem__(self, index: Tensor) -> Kinetics:
        """Return the constants of some of the slices."""
        return Kinetics(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Kinetics:
        """Return the constants on a device."""
        return Kinetics(**{f.name: to_device(getattr(self, f.name), device) for f in fields(self)})

    def pin_memory(self) -> Kinetics:
        """Return the constants in memory that a GPU copies from by itself."""
        return Kinetics(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


@dataclass(frozen=True)
class Physics:
    """Acquisition and calibration of a batch of slices.

    Attributes
    ----------
    nominal, truth : Kinetics
        What the estimator is given, and what makes the signal.
    m0_scale : Tensor, shape (B,)
        Factor by which ΔM/M0 comes out wrong because M0 is.
    repeats : Tensor, shape (B, n)
        Label-control pairs averaged in each measurement.
    valid : Tensor of bool, shape (B, n)
        False where a measurement only fills the batch's rectangle.
    calibration_uncertainty : Tensor, shape (B,)
        0 where the nominal calibration is reported as exact, 1 where it may be off.
    arterial_edge : Tensor, shape (B,)
        Seconds: half width of the edges of label in arteries.
    """

    nominal: Kinetics
    truth: Kinetics
    m0_scale: Tensor
    repeats: Tensor
    valid: Tensor
    calibration_uncertainty: Tensor
    arterial_edge: Tensor

    def __len__(self) -> int:
        return len(self.m0_scale)

    def __getitem__(self, index: Tensor) -> Physics:
        """Return the physics of some of the slices."""
        return Physics(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def repeated(self, times: int) -> Physics:
        """Return the physics of slices of which so many in a row are acquired alike."""
        return self[torch.arange(len(self), device=self.m0_scale.device).repeat_interleave(times)]

    def to(self, device: torch.device | str) -> Physics:
        """Return the physics on a device."""
        return Physics(
            self.nominal.to(device),
            self.truth.to(device),
            *(to_device(values, device) for values in self._per_slice()),
        )

    def pin_memory(self) -> Physics:
        """Return the physics in memory that a GPU copies from by itself."""
        return Physics(
            self.nominal.pin_memory(),
            self.truth.pin_memory(),
            *(values.pin_memory() for values in self._per_slice()),
        )

    def _per_slice(self) -> tuple[Tensor, ...]:
        return (
            self.m0_scale,
            self.repeats,
            self.valid,
            self.calibration_uncertainty,
            self.arterial_edge,
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
