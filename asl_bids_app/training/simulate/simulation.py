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
    Random,
    Stacks,
    chance,
    constants,
    correlated,
    log_uniform,
    normal,
    spread,
    uniform,
)
from asl_bids_app.training.simulate.disturbances import (
    add_spikes,
    displaced,
    draw_correlation,
    drift,
    noise_map,
    physiological,
    thermal_sd,
)
from asl_bids_app.training.simulate.physics import Physics
from asl_bids_app.training.simulate.rician import magnitude_difference, rician_sd
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


# Proton density of grey matter, white matter and CSF relative to M0, and what skull and scalp
# leave outside: static tissue between which motion makes edges.
_STATIC = (0.15, 0.82, 0.70, 1.0)


def static_signal(tissue: Tensor, noise: NoiseConfig, generator: Random) -> Tensor:
    """Draw what background suppression leaves of static tissue, of M0; (B, 1, H, W)."""
    n = len(tissue)
    low, high = (max(end, 1e-6) for end in noise.static_signal)
    left = log_uniform(generator, (n, 1), (low, high))
    level = constants(_STATIC, tissue.device) * left
    level = level * torch.exp(0.15 * normal(generator, (n, len(_STATIC))))
    # Lesions count as grey matter.
    code = torch.where(tissue < len(_STATIC), tissue, 1).long().flatten(1)
    return torch.gather(level, 1, code).reshape(tissue.shape)[:, None]


def measure(
    clean: Tensor,
    sd: Tensor,
    tissue: Tensor,
    physics: Physics,
    noise: NoiseConfig,
    stacks: Stacks,
) -> tuple[Tensor, Tensor]:
    """Add every disturbance to clean signals.

    Parameters
    ----------
    clean : Tensor, shape (B, n, H, W)
        ΔM/M0.
    sd : Tensor, shape (B, n)
        Thermal sd.
    tissue : Tensor of uint8, shape (B, H, W)
    physics, noise
        As in `simulate`, the physics of every slice.
    stacks
        Which slices are neighbours. They share the scanner and the subject; thermal noise goes
        on from one to the next only where it is correlated.

    Returns
    -------
    signal : Tensor, shape (B, n, H, W)
    reported_sd : Tensor, shape (B, n, H, W)
        Standard deviation by thermal and physiological noise together.
    """
    n, _, height, width = clean.shape
    repeats, valid = physics.repeats, physics.valid
    size = max(height, width)
    static = static_signal(tissue, noise, stacks)
    rough = torch.where(chance(stacks, (n,), noise.thermal_chance), 0.0, 1.0)

    signal = clean
    restless = rough * uniform(stacks, (n,), noise.motion)
    shift = spread(restless, 2) * normal(stacks, (*sd.shape, 2))
    if noise.motion[1] > 0:
        signal = displaced(signal, shift)
    if noise.pair_motion[1] > 0:
        step = spread(rough * uniform(stacks, (n,), noise.pair_motion), 2)
        moved = displaced(static, step * normal(stacks, (*sd.shape, 2)))
        signal = signal + (moved - static)
    slope = rough * uniform(stacks, (n,), noise.drift)
    slope = torch.where(chance(stacks, (n,), 0.5), slope, -slope)
    blocks = chance(stacks, (n,), 0.5)
    if noise.drift[1] > 0:
        signal = drift(signal, static, repeats, valid, slope, blocks)

    # One image has the same noise in all measurements.
    single = sd[:, :1] * (repeats[:, :1] / 2).sqrt()
    uneven = noise_map(noise, n, size, stacks)[..., :height, :width]
    local = spread(single, 2) * torch.where(spread(rough, 3) > 0, uneven, 1.0)
    averaged = (2 / spread(repeats, 2)).sqrt()
    width_of_noise = rough * draw_correlation(noise, n, stacks)
    through = rough * draw_correlation(noise, n, stacks)
    channels = (stacks, clean.shape[1], height, width, width_of_noise, through)
    if noise.noise_type == "gaussian":
        signal, thermal = signal + local * averaged * correlated(*channels), local
    else:
        white = [correlated(*channels) for _ in range(4)]
        signal = magnitude_difference(signal, static, local, repeats, white)
        thermal = rician_sd(static, local)
    ratio = rough[:, None] * uniform(stacks, (n, 1), noise.physiological)
    if noise.physiological[1] > 0:
        signal = signal + physiological(ratio * sd, size, stacks)[..., :height, :width]
    if noise.spike_chance > 0:
        struck = add_spikes(signal, sd, noise, stacks.generator)
        signal = torch.where(spread(rough, 3) > 0, struck, signal)
    reported_sd = torch.hypot(thermal, spread(ratio * single, 2))
    flat = reported_sd.square().mean((2, 3), keepdim=True).sqrt()
    reported_sd = torch.where(spread(chance(stacks, (n,), noise.told_flat), 3), flat, reported_sd)
    return signal, reported_sd * averaged


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
    error = uniform(stacks, (n, 1, 1, 1), (-noise.told_error, noise.told_error))
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
        calibration_doubt=physics.calibration_uncertainty,
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
