"""What an ensemble is compared with, from weak to unbeatable; each under its full name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from asl_bids_app.estimators.least_squares import LeastSquaresOptions, least_squares
from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.observation import Observation
from asl_bids_app.training.simulate.batch_physics import Physics

NETWORK: Final = "network ensemble"
STRONG: Final = "strong least squares (grid over ATT, closed-form CBF, refined)"
SMOOTHED: Final = "strong least squares on smoothed data"
NAIVE: Final = "naive least squares (curve_fit from one start)"
POSTERIOR: Final = "voxelwise posterior (no network)"
ORACLE: Final = "strong least squares with the true physics (oracle)"

METHODS: Final = (NETWORK, STRONG, SMOOTHED, NAIVE, POSTERIOR, ORACLE)
"""All methods, in the order of the tables."""


@dataclass(frozen=True)
class Maps:
    """Estimates of a batch, each (B, H, W); nan where a method was not asked.

    Attributes
    ----------
    cbf, cbf_sd : Tensor
        mL/100 g/min.
    att, att_sd : Tensor
        Seconds.
    """

    cbf: Tensor
    att: Tensor
    cbf_sd: Tensor
    att_sd: Tensor


def strong(observation: Observation) -> Maps:
    """Fit by a grid over ATT with closed-form CBF."""
    return Maps(*least_squares(observation)[:4])


def posterior(observation: Observation, grid: PosteriorGrid | None = None) -> Maps:
    """Take the voxelwise posterior's mean and standard deviation."""
    found = voxel_posterior(observation, grid)
    return Maps(found.cbf, found.att, found.cbf_sd, found.att_sd)


def smoothed(observation: Observation, fwhm: float) -> Maps:
    """Fit strongly after a Gaussian blur within the mask.

    Parameters
    ----------
    observation
        Slices.
    fwhm
        Pixels.
    """
    sigma = fwhm / math.sqrt(8 * math.log(2))
    reach = math.ceil(3 * sigma)
    place = torch.arange(-reach, reach + 1).to(observation.delta_m)
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()

    def blur(image: Tensor) -> Tensor:
        flat = image.flatten(0, 1).unsqueeze(1)
        flat = torch.nn.functional.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))
        flat = torch.nn.functional.conv2d(flat, kernel[None, None, None, :], padding=(0, reach))
        return flat.squeeze(1).unflatten(0, image.shape[:2])

    mask = observation.mask.unsqueeze(1).to(observation.delta_m)
    share = blur(mask).clamp(min=1e-6)
    # Averaged white noise shrinks by the norm of the kernel.
    shrink = float(kernel.square().sum())
    return strong(
        replace(
            observation,
            delta_m=blur(observation.delta_m * mask) / share * mask,
            noise_sd=observation.noise_sd * shrink,
        )
    )


def oracle(observation: Observation, physics: Physics) -> Maps:
    """Fit strongly with the physics that made the signal, the scale of M0 included."""
    truth = physics.truth
    return strong(
        replace(
            observation,
            arrival=truth.arrival,
            delay=truth.delay,
            label_duration=truth.label_duration,
            # A wrong M0 scales the signal as a wrong efficiency does.
            efficiency=truth.efficiency * physics.m0_scale.unsqueeze(1),
            t1_blood=truth.t1_blood,
            t1_tissue=truth.t1_tissue,
            partition_coefficient=truth.partition_coefficient,
        )
    )


def naive(observation: Observation, voxels: Tensor) -> Maps:
    """Fit voxel by voxel with `scipy.optimize.curve_fit` from one starting point.

    Parameters
    ----------
    observation
        Slices.
    voxels : Tensor, shape (V, 3)
        Places (slice, row, column) of the voxels to fit: it is slow.
    """
    from scipy.optimize import curve_fit

    options = LeastSquaresOptions()
    found = [torch.full(observation.mask.shape, torch.nan) for _ in range(4)]
    # The response as a table: a call to the model costs microseconds, and the same physics.
    table = np.linspace(options.att_min, options.att_max, 8192)
    points = torch.from_numpy(table).to(observation.delta_m)
    curves = observation.response(points[None]).double().cpu().numpy()
    noise = observation.noise_sd.expand_as(observation.delta_m)
    for place in voxels.tolist():
        one, row, column = place
        sd = noise[one, :, row, column].double().cpu().numpy()
        use = np.isfinite(sd)
        data = observation.delta_m[one, :, row, column].double().cpu().numpy()[use]
        curve = curves[one][use]

        def model(_: object, cbf: float, att: float, curve: np.ndarray = curve) -> np.ndarray:
            position = (att - table[0]) / (table[1] - table[0])
            low = int(np.clip(position, 0, len(table) - 2))
            return cbf * (curve[:, low] + (position - low) * (curve[:, low + 1] - curve[:, low]))

        try:
            best, covariance = curve_fit(
                model,
                np.arange(len(data)),
                data,
                p0=(50.0, 1.2),
                sigma=sd[use],
                absolute_sigma=True,
                bounds=((0.0, options.att_min), (options.cbf_max, options.att_max)),
            )
        except (RuntimeError, ValueError, TypeError):
            continue  # it did not converge or has fewer measurements than parameters
        spread = np.sqrt(np.diag(covariance))
        values = (best[0], best[1], spread[0], spread[1])
        for image, value in zip(found, values, strict=True):
            image[one, row, column] = float(value)
    return Maps(*(image.to(observation.delta_m) for image in found))
