"""From parameter maps to what a scanner would have measured, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from asl_bids_app.observation import Observation
from asl_bids_app.training.domain import Physics
from asl_bids_app.training.draws import log_uniform, normal, spread, uniform
from asl_bids_app.training.noise import NoiseConfig
from asl_bids_app.training.phantoms import Phantoms


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
    n = len(phantoms)
    mask = phantoms.mask
    clean = phantoms.cbf[:, None] * physics.truth.response(phantoms.att)
    clean = clean * spread(physics.m0_scale, 3) * mask[:, None] * spread(physics.valid, 2)
    snr = log_uniform(generator, (n,), noise.snr)
    pixels = mask.flatten(1).sum(1) * physics.valid.sum(1)
    reference = clean.abs().sum((1, 2, 3)) / pixels
    inverse = torch.where(physics.valid, 1 / physics.repeats, 0)
    share = inverse / (inverse.sum(1) / physics.valid.sum(1))[:, None]
    sd = spread((reference / snr)[:, None] * share.sqrt(), 2)
    noisy = clean + sd * normal(generator, tuple(clean.shape))
    noisy = noisy * mask[:, None]
    told = sd * uniform(generator, (n, 1, 1, 1), (1 - noise.told_error, 1 + noise.told_error))
    told = torch.where(spread(physics.valid, 2), told, torch.inf)
    nominal = physics.nominal
    observation = Observation(
        delta_m=noisy,
        noise_sd=told,
        mask=mask,
        arrival=nominal.arrival,
        delay=nominal.delay,
        label_duration=nominal.label_duration,
        efficiency=nominal.efficiency,
        t1_blood=nominal.t1_blood,
        t1_tissue=nominal.t1_tissue,
        partition_coefficient=nominal.partition_coefficient,
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
