"""Everything that keeps a scanner's ΔM/M0 from being the model's, component by component.

Each component is a pure function of tensors with a statistic that can be written down.

Conventions
-----------
A measurement is the mean of r control-label differences. *Thermal sd* is the standard
deviation of that mean by the coils' noise alone, as a fraction of M0. One image, control or
label, has complex noise of standard deviation ``thermal_sd * sqrt(r / 2)`` in each channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asl_bids_app.training.knobs import check_knobs, choice, knob


@dataclass(frozen=True)
class NoiseConfig:
    """Which disturbances are simulated and how strong they are; ranges are (low, high).

    Each field's metadata holds its unit, limits and a line of explanation. A strength of 0
    switches a component off.

    Raises
    ------
    ValueError
        Names the setting that is out of its limits.
    """

    snr: tuple[float, float] = knob((2.0, 25.0), "", 0.1, 1e6, "signal to thermal noise")
    noise_type: str = choice(
        "rician", ("rician", "gaussian"), "noise of magnitude images, or Gaussian of ΔM"
    )
    static_signal: tuple[float, float] = knob(
        (0.05, 1.0), "", 0.0, 1, "static tissue left by background suppression, of M0"
    )
    correlation: tuple[float, float] = knob(
        (0.0, 0.8), "pixels", 0, 5, "sd of the Gaussian that correlates noise in space"
    )
    correlation_chance: float = knob(0.5, "", 0, 1, "chance that noise is correlated at all")
    g_factor: tuple[float, float] = knob(
        (0.0, 0.4), "", 0, 1, "variation of the noise over the slice, relative sd"
    )
    physiological: tuple[float, float] = knob(
        (0.0, 0.5), "", 0, 5, "pulse and breathing: sd relative to the thermal sd"
    )
    drift: tuple[float, float] = knob(
        (0.0, 0.03), "", 0, 0.5, "change of the signal over the series, relative, of either sign"
    )
    spike_chance: float = knob(0.005, "", 0, 1, "chance of a k-space spike in a measurement")
    spike_size: tuple[float, float] = knob(
        (2.0, 6.0), "", 0, 100, "amplitude of the stripes relative to the thermal sd"
    )
    motion: tuple[float, float] = knob(
        (0.0, 0.15), "pixels", 0, 2, "sd of the residual displacement of a measurement"
    )
    pair_motion: tuple[float, float] = knob(
        (0.0, 0.01), "pixels", 0, 2, "sd of the displacement between label and control"
    )
    told_error: float = knob(
        0.1, "", 0, 0.9, "the noise told to the estimator is wrong by up to this factor"
    )

    def __post_init__(self) -> None:
        check_knobs(self)


def rician_mean(amplitude: Tensor, sd: Tensor) -> Tensor:
    """Compute the mean magnitude of a complex signal with Gaussian noise.

    Parameters
    ----------
    amplitude : Tensor
        Magnitude without noise.
    sd : Tensor
        Standard deviation of the noise in each of the two channels.

    References
    ----------
    Gudbjartsson 1995, doi:10.1002/mrm.1910340618.
    """
    # Scaled Bessel functions keep the exponential of large arguments out.
    half = (amplitude / sd) ** 2 / 4
    bessel = (1 + 2 * half) * torch.special.i0e(half) + 2 * half * torch.special.i1e(half)
    return sd * math.sqrt(math.pi / 2) * bessel


def rician_sd(amplitude: Tensor, sd: Tensor) -> Tensor:
    """Compute the standard deviation of a Rician magnitude; arguments as `rician_mean`."""
    # In float32 the difference of squares would lose its digits at high signal.
    wide, level = sd.double(), amplitude.double()
    variance = level**2 + 2 * wide**2 - rician_mean(level, wide) ** 2
    return variance.clamp(min=0).sqrt().to(amplitude.dtype)


def averaged_magnitude(amplitude: Tensor, sd: Tensor, repeats: Tensor, white: Tensor) -> Tensor:
    """Draw the mean of r Rician magnitudes with their exact mean and variance.

    One draw, shrunk toward the Rician mean by sqrt(r): averaging lowers the noise but not
    the bias. Exact in distribution for r = 1.

    Parameters
    ----------
    amplitude, sd
        As `rician_mean`.
    repeats : Tensor
        r, broadcasting.
    white : Tensor, shape (2, ...)
        Standard normal noise of the two channels.
    """
    one = torch.hypot(amplitude + sd * white[0], sd * white[1])
    mean = rician_mean(amplitude, sd)
    return mean + (one - mean) / repeats.sqrt()
