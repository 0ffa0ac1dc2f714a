"""How numbers become colours: ends, spacing and ticks of a colour scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

SPACING: Final = 0.13
"""Least distance between two ticks, as a share of the bar."""


@dataclass(frozen=True)
class Scale:
    """How numbers become colours; figures for comparison share one.

    Attributes
    ----------
    low, high : float
    colours : str
        A map that colour-blind readers can read.
    label : str
        Quantity with unit.
    kind : str
        ``linear``; ``log`` for quantities that span decades; ``asinh``, which is linear up to
        `width` and logarithmic beyond, so that weak and strong signals show on one scale.
    width : float
        Of the linear part of ``asinh``, in the quantity's unit.
    """

    low: float
    high: float
    colours: str
    label: str
    kind: str = "linear"
    width: float = 1.0

    def _stretch(self, values: np.ndarray) -> np.ndarray:
        if self.kind == "log":
            return np.log(np.maximum(values, self.low))
        if self.kind == "asinh":
            return np.arcsinh(np.asarray(values) / self.width)
        return np.asarray(values)

    def share(self, values: np.ndarray | float) -> np.ndarray:
        """Return where values lie between the ends, 0 to 1; NaN stays NaN."""
        values = np.asarray(values, dtype=np.float64)
        low, high = self._stretch(np.array([self.low, self.high], dtype=np.float64))
        return np.clip((self._stretch(values) - low) / (high - low), 0, 1)

    def ticks(self) -> list[float]:
        """Return round numbers within the scale, neither too many nor too close."""
        if self.kind == "linear":
            span = self.high - self.low
            step = next(
                s
                for power in range(-9, 10)
                for s in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
                if span / s <= 5.2
            )
            first = np.ceil(self.low / step - 1e-9)
            last = np.floor(self.high / step + 1e-9)
            return [float(f"{n * step:.10g}") + 0.0 for n in np.arange(first, last + 1)]
        size = max(abs(self.low), abs(self.high))
        decade = int(np.floor(np.log10(size)))
        round_ones = [
            float(f"{digit}e{power}")
            for digits in ((5, 2, 1), (3, 7))
            for power in range(decade, decade - 6, -1)
            for digit in digits
        ]
        # Zero first where it can be seen; then from the strongest down, each with its opposite.
        wanted = [0.0, self.high, *(sign * v for v in round_ones for sign in (1, -1))]
        if self.kind == "log":
            wanted = [v for v in wanted if v > 0]
        kept: list[float] = []
        for value in wanted:
            if not self.low <= value <= self.high:
                continue
            place = self.share(value)
            if all(abs(place - self.share(other)) >= SPACING for other in kept):
                kept.append(value)
        return sorted(kept)


def flow_scale(*maps: np.ndarray) -> Scale:
    """Return the scale of CBF maps from their values inside the brain."""
    # Voxels without signal blow up in any voxelwise fit: the top percentiles say nothing.
    top = 1.15 * max((_percentile(values, 95) for values in maps), default=80.0)
    return Scale(0, float(np.clip(10 * np.ceil(top / 10), 60, 200)), "inferno", "mL/100 g/min")


def time_scale(*maps: np.ndarray) -> Scale:
    """Return the scale of ATT maps from their values inside the brain."""
    low = min((_percentile(values, 2) for values in maps), default=0.5)
    high = max((_percentile(values, 98) for values in maps), default=2.5)
    low, high = np.floor(5 * low) / 5, np.ceil(5 * high) / 5
    return Scale(float(max(low, 0)), float(max(high, low + 0.4)), "viridis", "s")


def volume_scale(volumes: np.ndarray) -> Scale:
    """Return the scale of a map of arterial blood volume, mL/100 mL: up to what arteries have."""
    high = max(nice(_percentile(volumes, 99.5)), 0.5)
    return Scale(0.0, high, "inferno", "mL/100 mL")


def spread_scale(unit: str, *maps: np.ndarray) -> Scale:
    """Return the scale of maps of standard deviations.

    Those of two estimators may differ tenfold, and within one map as well: by logarithms both
    show. It reaches from the 2nd to the 98th percentile of any of the maps.
    """
    positive = [values[np.isfinite(values) & (values > 0)] for values in maps]
    positive = [values for values in positive if values.size]
    low = min((float(np.percentile(v, 2)) for v in positive), default=0.1)
    high = max((float(np.percentile(v, 98)) for v in positive), default=1.0)
    # More than two decades would leave all of one map in a few colours.
    low = max(low, high / 100)
    low, high = nice(low, up=False), nice(high)
    if high < 2 * low:
        low, high = nice(low / 1.5, up=False), nice(1.5 * high)
    return Scale(low, high, "cividis", unit, "log")


def difference_scale(unit: str, values: np.ndarray, least: float) -> Scale:
    """Return a scale around zero that reaches at least so far: what is less is nothing."""
    top = max(nice(_percentile(np.abs(values), 95)), least)
    return Scale(-top, top, "RdBu_r", unit)


def signal_scale(unit: str, values: np.ndarray) -> Scale:
    """Return the scale of measurements that differ in strength, the weakest of them readable.

    Parameters
    ----------
    unit
        Of the values.
    values : array, shape (voxels, n)
        One column for each measurement.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return Scale(-1, 1, "inferno", unit)
    high = nice(_percentile(values, 99.5))
    # What is strong in the weakest measurement: up to half of it the scale is linear. Below 0
    # there is noise alone, which needs few colours.
    weakest = min(_percentile(values[:, i], 95) for i in range(values.shape[1]))
    weakest = float(np.clip(weakest, high / 20, high))
    low = -nice(float(np.clip(-_percentile(values, 2), 0.02 * high, weakest / 4)))
    return Scale(low, high, "inferno", unit, "asinh", weakest / 2)


def _percentile(values: np.ndarray, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, q)) if finite.size else 1.0


def nice(value: float, *, up: bool = True) -> float:
    """Round up (or down) to two digits, so that the ends of a colour bar are readable."""
    if not value > 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    whole = value / step
    return float(f"{(np.ceil(whole - 1e-9) if up else np.floor(whole + 1e-9)) * step:.10g}")
