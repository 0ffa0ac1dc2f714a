"""Which disturbances a training simulates."""

from __future__ import annotations

from typing import Literal

from asl_bids_app.training.config.declaration import section, setting


@section
class NoiseConfig:
    """Which disturbances are simulated and how strong they are; ranges are (low, high).

    A strength of 0 switches a component off.

    Raises
    ------
    ValueError
        Names the setting that is out of its limits.
    """

    snr: tuple[float, float] = setting((2.0, 25.0), "", 0.1, 1e9, "signal to thermal noise")
    noise_type: Literal["rician", "gaussian"] = setting(
        "rician",
        text="noise of magnitude images, or Gaussian of ΔM",
        critical="Scanners give magnitudes. Gaussian noise teaches wrong values where the signal "
        "is low.",
    )
    static_signal: tuple[float, float] = setting(
        (0.05, 1.0), "", 0.0, 1, "static tissue left by background suppression, of M0"
    )
    correlation: tuple[float, float] = setting(
        (0.0, 0.8), "pixels", 0, 5, "sd of the Gaussian that correlates noise in space"
    )
    correlation_chance: float = setting(0.5, "", 0, 1, "chance that noise is correlated at all")
    g_factor: tuple[float, float] = setting(
        (0.0, 0.4), "", 0, 1, "variation of the noise over the slice, sd of its logarithm"
    )
    physiological: tuple[float, float] = setting(
        (0.0, 0.5), "", 0, 5, "pulse and breathing: sd relative to the thermal sd"
    )
    drift: tuple[float, float] = setting(
        (0.0, 0.03), "", 0, 0.5, "change of the signal over the series, relative, of either sign"
    )
    spike_chance: float = setting(0.005, "", 0, 1, "chance of a k-space spike in a measurement")
    spike_size: tuple[float, float] = setting(
        (2.0, 6.0), "", 0, 100, "amplitude of the stripes relative to the thermal sd"
    )
    motion: tuple[float, float] = setting(
        (0.0, 0.15), "pixels", 0, 2, "sd of the residual displacement of a measurement"
    )
    pair_motion: tuple[float, float] = setting(
        (0.0, 0.01), "pixels", 0, 2, "sd of the displacement between label and control"
    )
    reported_error: float = setting(
        0.1, "", 0, 0.9, "the noise reported to the estimator is wrong by up to this part"
    )
    thermal_chance: float = setting(
        0.0, "", 0, 1, "chance that a slice has thermal noise only, white and even in space"
    )
    reported_flat: float = setting(
        0.3, "", 0, 1, "chance that one noise is reported for a whole measurement"
    )
