"""What a scanner adds to clean signals: every disturbance in its turn."""

from __future__ import annotations

import torch
from torch import Tensor

from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.random_draws import (
    Random,
    Stacks,
    chance,
    constants,
    log_uniform,
    normal,
    spread,
    uniform,
)
from asl_bids_app.training.random_fields import correlated
from asl_bids_app.training.simulate.batch_physics import Physics
from asl_bids_app.training.simulate.disturbances import (
    add_spikes,
    displaced,
    draw_correlation,
    drift,
    noise_map,
    physiological,
)
from asl_bids_app.training.simulate.rician import magnitude_difference, rician_sd

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
    reported_sd = torch.where(
        spread(chance(stacks, (n,), noise.reported_flat), 3), flat, reported_sd
    )
    return signal, reported_sd * averaged
