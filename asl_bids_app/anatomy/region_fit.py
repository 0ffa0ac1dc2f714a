"""CBF and ATT of a region by a fit of its mean signal.

A mean of a map is biased where the map is; the mean of a signal isn't. So each region's mean
ΔM/M0 is fitted as a voxel's would be, with the slice times of its voxels and the spread of
their transit times, and its standard error has one part per source: noise, model, calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.signals import ATT_GRID, Signals, att_grid
from asl_bids_app.scheme_fields import TransitPrior

CALIBRATION_SD: Final = 0.08
"""Relative standard deviation of CBF by efficiency, M0 and T1 of blood together, as
`asl_bids_app.networks.posterior.PosteriorASLNet` takes it (``cbf_uncertainty``)."""
MOST_SPREAD: Final = 0.5
"""Largest standard deviation of transit times inside a region that is believed, seconds."""
PRECISE_ATT: Final = 0.3
"""Standard error of a voxel's transit time below which it counts for the spread, seconds."""


@dataclass(frozen=True)
class Fit:
    """The fit of one region's mean signal, mL/100 g/min and s; NaN where there is none.

    Attributes
    ----------
    cbf, att : float
    se_noise, se_model, se_calibration : float
        Standard errors of CBF: by noise; by the model (a misfit beyond noise, and a transit
        time that only the prior constrains); by efficiency, M0 and T1 of blood.
    att_se_noise, att_se_model, att_se_calibration : float
        Standard errors of ATT: by noise; by the model (a misfit beyond noise, or a transit time
        that only the prior tells); by T1 of blood and of tissue.
    misfit : float
        Chi square over its degrees of freedom; NaN of one or two measurements.
    """

    cbf: float = np.nan
    att: float = np.nan
    se_noise: float = np.nan
    se_model: float = np.nan
    se_calibration: float = np.nan
    att_se_noise: float = np.nan
    att_se_model: float = np.nan
    att_se_calibration: float = np.nan
    misfit: float = np.nan

    @property
    def se(self) -> float:
        """Standard error of CBF, all together."""
        return float(np.sqrt(self.se_noise**2 + self.se_model**2 + self.se_calibration**2))

    @property
    def att_se(self) -> float:
        """Standard error of ATT, all together."""
        parts = (self.att_se_noise, self.att_se_model, self.att_se_calibration)
        return float(np.sqrt(sum(part**2 for part in parts)))


def fit_region(signals: Signals, where: np.ndarray) -> Fit:
    """Fit the mean signal of the voxels of a region.

    CBF is linear given ATT: it has a closed form at each transit time of the grid, and the
    posterior over the grid, with the prior of the labelling scheme, gives the likeliest pair and
    its errors.

    Parameters
    ----------
    signals
    where : array of bool, shape (X, Y, Z)
        Voxels with measurements.
    """
    where = where & np.isfinite(signals.noise).all(axis=-1)
    count = int(where.sum())
    if count == 0:
        return Fit()
    y = signals.delta_m[where].mean(axis=0, dtype=float)
    shared = min(signals.shared, count)
    variance = (signals.noise[where].astype(float) ** 2).mean(axis=0) / count * shared
    variance = np.maximum(variance, 1e-18)
    shares = np.bincount(signals.slice_number[where], minlength=len(signals.curves)) / count
    n = len(y)
    spread = _spread(signals, where) if n > 2 else 0.0

    def read(curves: np.ndarray) -> np.ndarray:
        curve = np.tensordot(shares, curves, 1)
        if spread > 0:
            # Blood doesn't come at one time to all of a region: its curve is the mean of many.
            sigma = spread / ATT_GRID[2]
            curve = ndimage.gaussian_filter1d(curve, sigma, axis=1, mode="nearest", truncate=3.0)
        return curve

    curve, att = read(signals.curves), att_grid()
    found = _explain(curve, y, variance, signals.prior)
    if found is None:
        return Fit()
    cbf, power, gain, weight = found
    seen = power > 0
    # The likeliest, not the mean: late arrival has a long tail, which pulls means of CBF up.
    likeliest = int(weight.argmax())
    mean, middle = float(cbf[likeliest]), float(att[likeliest])
    by_noise = float(weight @ np.where(seen, 1 / np.where(seen, power, 1), 0))
    by_att = float(weight @ (cbf - mean) ** 2)
    late_noise, late_model = float(weight @ (att - middle) ** 2 + ATT_GRID[2] ** 2 / 12), 0.0
    noise, model, misfit = by_noise + by_att, 0.0, np.nan
    if n == 1:
        # One delay: what ATT adds is the prior's doubt, and no more data would take it away.
        noise, model = by_noise, min(by_att, _by_late_arrival(signals.prior, att, cbf, seen, mean))
        late_noise, late_model = 0.0, late_noise
    elif n > 2:
        best = int(np.argmax(np.where(seen, gain, -np.inf)))
        left = ((y - cbf[best] * curve[:, best]) ** 2 / variance).sum()
        misfit = float(left / (n - 2))
        model = max(misfit - 1, 0.0) * noise
        late_model = max(misfit - 1, 0.0) * late_noise
    others = [_explain(read(curves), y, variance, signals.prior) for curves in signals.others]
    off = [float((other[-1] - weight) @ att) for other in others if other is not None]
    variances = [noise, model, late_noise, late_model, sum(step**2 for step in off)]
    se_noise, se_model, *late_parts = (float(np.sqrt(part)) for part in variances)
    calibration = CALIBRATION_SD * abs(mean)
    by_source = (late_parts[0], late_parts[1], late_parts[2])
    return Fit(mean, middle, se_noise, se_model, calibration, *by_source, misfit)


def _explain(
    curve: np.ndarray, y: np.ndarray, variance: np.ndarray, prior: TransitPrior
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Explain a mean signal (n,) at each transit time of the grid by a curve (n, A).

    Returns
    -------
    cbf, power, gain, weight : array, shape (A,)
        The best CBF; its precision, 0 where no label arrives; by how much it explains the data
        (log likelihood); the posterior. None where no label arrives at all.
    """
    power = (curve**2 / variance[:, None]).sum(axis=0)
    if not power.max() > 0:
        return None
    projection = (curve * (y / variance)[:, None]).sum(axis=0)
    # Where no label arrives CBF may be anything: such a transit time explains nothing.
    seen = power > 1e-6 * power.max()
    cbf = np.where(seen, projection / np.where(seen, power, 1), 0.0)
    gain = 0.5 * cbf * projection
    log = gain - 0.5 * ((att_grid() - prior.mean) / prior.sd) ** 2
    log = np.where(seen, log, -np.inf)
    weight = np.exp(log - log.max())
    return cbf, np.where(seen, power, 0.0), gain, weight / weight.sum()


def _by_late_arrival(
    prior: TransitPrior, att: np.ndarray, cbf: np.ndarray, seen: np.ndarray, mean: float
) -> float:
    """Return the variance of CBF if blood came one standard deviation of the prior later.

    As the bars of voxels have it: where hardly any label arrives CBF would have no bound.
    """
    late = int(np.abs(att - (prior.mean + prior.sd)).argmin())
    return float((cbf[late] - mean) ** 2) if seen[late] else np.inf


def _spread(signals: Signals, where: np.ndarray) -> float:
    """Return the standard deviation of transit times inside a region, seconds.

    That of the fitted ones, without their tails, less what is noise.
    """
    if signals.att is None or signals.att_sd is None:
        return 0.0
    att, noise = signals.att[where], signals.att_sd[where]
    # Where noise is as wide as what is looked for, its own error is too.
    precise = noise < PRECISE_ATT
    if precise.sum() < 10:
        return 0.0
    low, high = np.percentile(att[precise], [16, 84])
    variance = ((high - low) / 2) ** 2 - float((noise[precise] ** 2).mean())
    return float(min(np.sqrt(max(variance, 0.0)), MOST_SPREAD))
