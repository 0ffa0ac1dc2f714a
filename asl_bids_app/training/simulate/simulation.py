"""From parameter maps to what a scanner would have measured, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from asl_bids_app.observation import Observation
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.phantoms.drawing import Phantoms, inner_rows
from asl_bids_app.training.phantoms.layers import Layers, unpacked
from asl_bids_app.training.random_draws import (
    Stacks,
    chance,
    log_uniform,
    spread,
    uniform,
)
from asl_bids_app.training.simulate.batch_physics import Physics
from asl_bids_app.training.simulate.disturbances import (
    thermal_sd,
)
from asl_bids_app.training.simulate.measurement import measure
from asl_bids_app.training.simulate.shown_anatomy import show_anatomy

_EARLIEST = 0.1
"""Seconds: shortest transit time of a voxel's grey matter."""


@dataclass(frozen=True)
class Batch:
    """Simulated slices with the truth behind them.

    Attributes
    ----------
    observation : Observation
        What an estimator is given: noisy ΔM/M0, its noise and the nominal physics.
    cbf, att : Tensor, shape (B, H, W)
        mL/100 g/min and seconds, zero outside the brain.
    tissue : Tensor of uint8, shape (B, H, W)
        Codes of `asl_bids_app.training.phantoms.drawing.TISSUES`.
    condition : Tensor of uint8, shape (B,)
        Indices into `asl_bids_app.training.phantoms.drawing.CONDITIONS`.
    snr : Tensor, shape (B,)
        Signal to thermal noise.
    physics : Physics
        Nominal and true, of every slice.
    asked : Tensor of bool, shape (B,)
        Slices that are to be estimated; the others are there to be their neighbours.
    volume : Tensor, shape (B, H, W)
        Arterial blood volume, mL/mL.
    fractions : Tensor, shape (B, 2, H, W)
        Of grey and white matter, as they are.
    slices : int
        Of each phantom.
    """

    observation: Observation
    cbf: Tensor
    att: Tensor
    tissue: Tensor
    condition: Tensor
    snr: Tensor
    physics: Physics
    asked: Tensor
    volume: Tensor
    fractions: Tensor
    slices: int = 1

    @property
    def rows(self) -> Tensor:
        """Numbers of the slices that are asked for: `asked` without waiting for a GPU."""
        return inner_rows(len(self.cbf), self.slices, self.cbf.device)

    @property
    def mask(self) -> Tensor:
        """The brain, bool, shape (B, H, W)."""
        return self.observation.mask

    @property
    def several(self) -> Tensor:
        """Whether a slice has more than one measurement, bool, shape (B,)."""
        return self.physics.valid.sum(1) > 1


def clean_signal(phantoms: Phantoms, layers: Layers, physics: Physics) -> Tensor:
    """Compute ΔM/M0 without noise, (B, n, H, W): grey and white matter and arteries mixed.

    Grey and white matter of a voxel each have their own transit time; the voxel's is their mean
    weighted by flow.
    """
    # Outside the brain CBF is 0.
    flow = (phantoms.cbf * spread(physics.m0_scale, 2))[:, None]
    if phantoms.mixed:
        share = layers.white_flow
        early = (phantoms.att - share * layers.white_delay).clamp(min=_EARLIEST)
        late = early + layers.white_delay
        of_grey = (1 - share)[:, None] * physics.truth.response(early)
        clean = flow * (of_grey + share[:, None] * physics.truth.response(late))
    else:
        clean = flow * physics.truth.response(phantoms.att)
    if phantoms.arterial:
        in_arteries = physics.truth.arterial_response(layers.arrival, physics.arterial_edge)
        clean = clean + (layers.volume * spread(physics.m0_scale, 2))[:, None] * in_arteries
    return clean


def simulate(
    phantoms: Phantoms,
    physics: Physics,
    noise: NoiseConfig,
    generator: Generator,
    domain: DomainConfig | None = None,
) -> Batch:
    """Simulate the measurement of phantoms.

    Parameters
    ----------
    phantoms
        B slices.
    physics
        Of every phantom one; its slices are acquired alike.
    noise
        Settings of the disturbances.
    generator
        On the device of the phantoms and the physics.
    domain
        How often M0 and tissue maps are shown; None for never.
    """
    n, mask = len(phantoms), phantoms.mask
    stacks = Stacks(generator, phantoms.slices)
    physics = physics.repeated(stacks.depth)
    valid = physics.valid
    layers = unpacked(phantoms.layers)
    clean = clean_signal(phantoms, layers, physics)
    snr = log_uniform(stacks, (n,), noise.snr)
    sd = thermal_sd(snr, physics.repeats, valid)
    signal, reported_sd = measure(clean, sd, phantoms.tissue, physics, noise, stacks)
    error = uniform(stacks, (n, 1, 1, 1), (-noise.reported_error, noise.reported_error))
    reported_sd = torch.where(spread(valid, 2), reported_sd * (1 + error), torch.inf)
    # Last, so that what is shown of the anatomy doesn't change the signals.
    shown = show_anatomy(layers, mask, domain, stacks) if domain else None
    nominal = physics.nominal
    observation = Observation(
        delta_m=signal * (mask[:, None] & spread(valid, 2)),
        noise_sd=reported_sd,
        mask=mask,
        arrival=nominal.arrival,
        delay=nominal.delay,
        label_duration=nominal.label_duration,
        efficiency=nominal.efficiency,
        t1_blood=nominal.t1_blood,
        t1_tissue=nominal.t1_tissue,
        partition_coefficient=nominal.partition_coefficient,
        calibration_uncertainty=physics.calibration_uncertainty,
        slice_number=phantoms.slice_number.long(),
        vessels=nominal.vessels,
        anatomy=clean.new_zeros(n, 3, *mask.shape[1:]) if shown is None else shown,
    )
    return Batch(
        observation,
        phantoms.cbf,
        phantoms.att,
        phantoms.tissue,
        phantoms.condition,
        snr,
        physics,
        phantoms.inner,
        layers.volume,
        torch.stack([layers.grey, layers.white], 1),
        phantoms.slices,
    )


def parted(batch: Batch, share: float, generator: Generator) -> Batch:
    """Hide some neighbours from each other, as if a volume ended between them.

    Parameters
    ----------
    batch
        Simulated slices.
    share
        Chance of each pair.
    generator
        On the device of the batch.
    """
    number = batch.observation.slice_number
    follows = batch.observation.follows
    cut = follows & chance(generator, tuple(follows.shape), share)
    # Every number behind a cut is one too high to follow the one before.
    apart = torch.cat([torch.zeros_like(number[:1]), cut.cumsum(0)])
    return replace(batch, observation=replace(batch.observation, slice_number=number + apart))
