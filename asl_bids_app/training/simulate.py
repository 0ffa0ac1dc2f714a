"""From parameter maps to what a scanner would have measured, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from asl_bids_app.observation import Observation
from asl_bids_app.training.domain import Physics
from asl_bids_app.training.draws import chance, correlated, log_uniform, normal, spread, uniform
from asl_bids_app.training.noise import (
    NoiseConfig,
    add_spikes,
    displaced,
    draw_correlation,
    drift,
    noise_map,
    physiological,
    thermal_sd,
)
from asl_bids_app.training.phantoms import Phantoms
from asl_bids_app.training.rician import magnitude_difference, rician_sd


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
        Codes of `asl_bids_app.training.phantoms.TISSUES`.
    condition : Tensor of uint8, shape (B,)
        Indices into `asl_bids_app.training.phantoms.CONDITIONS`.
    snr : Tensor, shape (B,)
        Signal to thermal noise.
    physics : Physics
        Nominal and true.
    """

    observation: Observation
    cbf: Tensor
    att: Tensor
    tissue: Tensor
    condition: Tensor
    snr: Tensor
    physics: Physics

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


def static_signal(tissue: Tensor, noise: NoiseConfig, generator: Generator) -> Tensor:
    """Draw what background suppression leaves of static tissue, of M0; (B, 1, H, W)."""
    n = len(tissue)
    low, high = (max(end, 1e-6) for end in noise.static_signal)
    left = log_uniform(generator, (n, 1), (low, high))
    level = torch.tensor(_STATIC, device=tissue.device) * left
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
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Add every disturbance to clean signals.

    Parameters
    ----------
    clean : Tensor, shape (B, n, H, W)
        ΔM/M0.
    sd : Tensor, shape (B, n)
        Thermal sd.
    tissue : Tensor of uint8, shape (B, H, W)
    physics, noise, generator
        As in `simulate`.

    Returns
    -------
    signal : Tensor, shape (B, n, H, W)
    told : Tensor, shape (B, n, H, W)
        Standard deviation by thermal and physiological noise together.
    """
    n, _, height, width = clean.shape
    repeats, valid = physics.repeats, physics.valid
    size = max(height, width)
    static = static_signal(tissue, noise, generator)
    rough = torch.where(chance(generator, (n,), noise.thermal_chance), 0.0, 1.0)

    signal = clean
    restless = rough * uniform(generator, (n,), noise.motion)
    shift = spread(restless, 2) * normal(generator, (*sd.shape, 2))
    if noise.motion[1] > 0:
        signal = displaced(signal, shift)
    if noise.pair_motion[1] > 0:
        step = spread(rough * uniform(generator, (n,), noise.pair_motion), 2)
        moved = displaced(static, step * normal(generator, (*sd.shape, 2)))
        signal = signal + (moved - static)
    slope = rough * uniform(generator, (n,), noise.drift)
    slope = torch.where(chance(generator, (n,), 0.5), slope, -slope)
    blocks = chance(generator, (n,), 0.5)
    if noise.drift[1] > 0:
        signal = drift(signal, static, repeats, valid, slope, blocks)

    # One image has the same noise in all measurements.
    single = sd[:, :1] * (repeats[:, :1] / 2).sqrt()
    uneven = noise_map(noise, n, size, generator)[..., :height, :width]
    local = spread(single, 2) * torch.where(spread(rough, 3) > 0, uneven, 1.0)
    averaged = (2 / spread(repeats, 2)).sqrt()
    width_of_noise = rough * draw_correlation(noise, n, generator)
    channels = (generator, clean.shape[1], height, width, width_of_noise)
    if noise.noise_type == "gaussian":
        signal, thermal = signal + local * averaged * correlated(*channels), local
    else:
        white = [correlated(*channels) for _ in range(4)]
        signal = magnitude_difference(signal, static, local, repeats, white)
        thermal = rician_sd(static, local)
    ratio = rough[:, None] * uniform(generator, (n, 1), noise.physiological)
    if noise.physiological[1] > 0:
        signal = signal + physiological(ratio * sd, size, generator)[..., :height, :width]
    if noise.spike_chance > 0:
        struck = add_spikes(signal, sd, noise, generator)
        signal = torch.where(spread(rough, 3) > 0, struck, signal)
    told = torch.hypot(thermal, spread(ratio * single, 2))
    flat = told.square().mean((2, 3), keepdim=True).sqrt()
    told = torch.where(spread(chance(generator, (n,), noise.told_flat), 3), flat, told)
    return signal, told * averaged


def simulate(
    phantoms: Phantoms, physics: Physics, noise: NoiseConfig, generator: Generator
) -> Batch:
    """Simulate the measurement of phantoms.

    Parameters
    ----------
    phantoms
        B slices.
    physics
        B acquisitions.
    noise
        Settings of the disturbances.
    generator
        On the device of the phantoms and the physics.
    """
    n, mask = len(phantoms), phantoms.mask
    valid = physics.valid
    # Outside the brain CBF is 0.
    flow = phantoms.cbf * spread(physics.m0_scale, 2)
    clean = flow[:, None] * physics.truth.response(phantoms.att)
    snr = log_uniform(generator, (n,), noise.snr)
    sd = thermal_sd(snr, physics.repeats, valid)
    signal, told = measure(clean, sd, phantoms.tissue, physics, noise, generator)
    error = uniform(generator, (n, 1, 1, 1), (-noise.told_error, noise.told_error))
    told = torch.where(spread(valid, 2), told * (1 + error), torch.inf)
    nominal = physics.nominal
    observation = Observation(
        delta_m=signal * (mask[:, None] & spread(valid, 2)),
        noise_sd=told,
        mask=mask,
        arrival=nominal.arrival,
        delay=nominal.delay,
        label_duration=nominal.label_duration,
        efficiency=nominal.efficiency,
        t1_blood=nominal.t1_blood,
        t1_tissue=nominal.t1_tissue,
        partition_coefficient=nominal.partition_coefficient,
        calibration_doubt=physics.doubt,
    )
    return Batch(
        observation,
        phantoms.cbf,
        phantoms.att,
        phantoms.tissue,
        phantoms.condition,
        snr,
        physics,
    )
