"""Values of regions: of the voxel maps, and by a fit of the region's mean signal.

A mean of a map is biased where the map is; the mean of a signal isn't. So each region's mean
ΔM/M0 is fitted as a voxel's would be, with the slice times of its voxels and the spread of
their transit times, and its standard error is told by source: noise, model, calibration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from asl_bids_app.observation import Observation
    from asl_bids_app.scheme_fields import TransitPrior

LEAST_COVERAGE: Final = 0.5
"""Part of a region that must lie in the brain mask; below, its values are n/a."""
CALIBRATION_SD: Final = 0.08
"""Relative standard deviation of CBF by efficiency, M0 and T1 of blood together, as
`asl_bids_app.networks.posterior.PosteriorNetwork` takes it (``cbf_doubt``)."""
ATT_GRID: Final = (0.05, 4.0, 0.01)
"""First, last and step of the transit times tried, seconds."""
MOST_SPREAD: Final = 0.5
"""Largest standard deviation of transit times inside a region that is believed, seconds."""


TOLD_ATT: Final = 0.3
"""Standard error of a voxel's transit time below which it tells of the spread, seconds."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions on the grid of a series.

    Attributes
    ----------
    name : str
        Of the atlas, as in file names.
    names : tuple of str
    indices : tuple of int
        Labels in the atlas; 1, 2, ... of what has none.
    where : array of bool, shape (R, X, Y, Z)
        The voxels of each, inside and outside the brain mask; regions may overlap.
    volume : array, shape (R,)
        Voxels of the whole region, those outside the field of view too.
    """

    name: str
    names: tuple[str, ...]
    indices: tuple[int, ...]
    where: np.ndarray
    volume: np.ndarray


@dataclass(frozen=True, eq=False)
class Signals:
    """What the fit of a region needs of its series, volumes as (X, Y, Z) and (X, Y, Z, n).

    Attributes
    ----------
    delta_m, noise : array, shape (X, Y, Z, n)
        ΔM/M0 and its standard deviation; infinite where there is no measurement.
    slice_number : array of int, shape (X, Y, Z)
    curves : array, shape (S, n, A)
        ΔM/M0 per mL/100 g/min of each slice, measurement and transit time of `ATT_GRID`.
    prior : TransitPrior
        Of the transit time.
    shared : float
        By what the variance of a mean exceeds that of independent voxels.
    att, att_sd : array, shape (X, Y, Z), or None
        Transit times of a voxelwise fit with their standard errors, by which the spread inside
        a region is told; None: every region is taken to have one transit time.
    """

    delta_m: np.ndarray
    noise: np.ndarray
    slice_number: np.ndarray
    curves: np.ndarray
    prior: TransitPrior
    shared: float = 1.0
    att: np.ndarray | None = None
    att_sd: np.ndarray | None = None


@dataclass(frozen=True)
class Fit:
    """The fit of one region's mean signal, mL/100 g/min and s; NaN where there is none.

    Attributes
    ----------
    cbf, att : float
    se_noise, se_model, se_calibration : float
        Standard errors of CBF: by noise; by the model (a misfit beyond noise, and a transit
        time that only the prior tells); by efficiency, M0 and T1 of blood.
    att_se : float
        Standard error of ATT by noise.
    misfit : float
        Chi square over its degrees of freedom; NaN of one or two measurements.
    """

    cbf: float = np.nan
    att: float = np.nan
    se_noise: float = np.nan
    se_model: float = np.nan
    se_calibration: float = np.nan
    att_se: float = np.nan
    misfit: float = np.nan

    @property
    def se(self) -> float:
        """All together."""
        return float(np.sqrt(self.se_noise**2 + self.se_model**2 + self.se_calibration**2))


def att_grid() -> np.ndarray:
    """Return the transit times of `ATT_GRID`, (A,)."""
    first, last, step = ATT_GRID
    return np.arange(first, last + step / 2, step)


def signals_of(
    observation: Observation,
    slice_axis: int,
    prior: TransitPrior,
    residual: np.ndarray | None = None,
    vessels: np.ndarray | None = None,
    att: np.ndarray | None = None,
    att_sd: np.ndarray | None = None,
) -> Signals:
    """Turn an observation into what regions are fitted from.

    Parameters
    ----------
    observation
    slice_axis
        Axis of volumes along which slices lie.
    prior
        Of the transit time.
    residual : array, shape (X, Y, Z, n), optional
        Of a voxelwise fit, by which the noise that neighbours share is measured.
    vessels : array, shape (X, Y, Z, n), optional
        The arteries' part of ΔM/M0, which is taken off.
    att, att_sd : array, shape (X, Y, Z), optional
        Of the same voxelwise fit.
    """
    import torch

    from asl_bids_app.series import to_volume

    grid = torch.from_numpy(att_grid()).to(observation.delta_m)
    curves = observation.response(grid[None]).double().numpy()
    curves = np.broadcast_to(curves, (len(observation), *curves.shape[1:]))
    mask = to_volume(observation.mask.numpy(), slice_axis)
    noise = observation.noise_sd.expand_as(observation.delta_m).numpy()
    delta_m = to_volume(observation.delta_m.numpy(), slice_axis)
    noise = to_volume(noise, slice_axis)
    shape = [1, 1, 1]
    shape[slice_axis] = -1
    numbers = np.broadcast_to(np.arange(len(observation)).reshape(shape), mask.shape)
    shared = 1.0
    if residual is not None and delta_m.shape[-1] > 2:
        shared = shared_noise(residual / np.maximum(noise, 1e-12), mask)
    if vessels is not None:
        delta_m = delta_m - vessels
    return Signals(delta_m, noise, numbers, curves, prior, shared, att, att_sd)


def shared_noise(residual: np.ndarray, mask: np.ndarray) -> float:
    """Return by what the variance of a mean exceeds that of independent voxels.

    From the correlations r of neighbours along each axis, sqrt(π / -ln r) each: the sum of the
    correlations over all distances, were they those of a Gaussian blur.

    Parameters
    ----------
    residual : array, shape (X, Y, Z, n)
    mask : array of bool, shape (X, Y, Z)
    """
    factor = 1.0
    for axis in range(3):
        size = mask.shape[axis]
        if size < 2:
            continue
        ahead, behind = range(1, size), range(size - 1)
        both = mask.take(ahead, axis) & mask.take(behind, axis)
        a, b = residual.take(ahead, axis)[both], residual.take(behind, axis)[both]
        power = float((a * a).sum() + (b * b).sum()) / 2
        if both.sum() > 50 and power > 0:
            r = float(np.clip((a * b).sum() / power, 1e-6, 0.95))
            factor *= max(1.0, float(np.sqrt(np.pi / -np.log(r))))
    return factor


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
    curve = np.tensordot(shares, signals.curves, 1)
    n = len(y)
    if n > 2 and (spread := _spread(signals, where)) > 0:
        # Blood doesn't come at one time to all of a region: its curve is the mean of many.
        sigma = spread / ATT_GRID[2]
        curve = ndimage.gaussian_filter1d(curve, sigma, axis=1, mode="nearest", truncate=3.0)
    power = (curve**2 / variance[:, None]).sum(axis=0)
    if not power.max() > 0:
        return Fit()
    projection = (curve * (y / variance)[:, None]).sum(axis=0)
    # Where no label arrives CBF may be anything: such a transit time explains nothing.
    seen = power > 1e-6 * power.max()
    att = att_grid()
    cbf = np.where(seen, projection / np.where(seen, power, 1), 0.0)
    gain = 0.5 * cbf * projection
    log = gain - 0.5 * ((att - signals.prior.mean) / signals.prior.sd) ** 2
    log = np.where(seen, log, -np.inf)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    # The likeliest, not the mean: late arrival has a long tail, which pulls means of CBF up.
    likeliest = int(weight.argmax())
    mean, middle = float(cbf[likeliest]), float(att[likeliest])
    by_noise = float(weight @ np.where(seen, 1 / np.where(seen, power, 1), 0))
    by_att = float(weight @ (cbf - mean) ** 2)
    att_se = float(np.sqrt(weight @ (att - middle) ** 2 + ATT_GRID[2] ** 2 / 12))
    noise, model, misfit = by_noise + by_att, 0.0, np.nan
    if n == 1:
        # One delay: what ATT adds is the prior's doubt, and no more data would take it away.
        noise, model = by_noise, by_att
    elif n > 2:
        best = int(np.argmax(np.where(seen, gain, -np.inf)))
        left = ((y - cbf[best] * curve[:, best]) ** 2 / variance).sum()
        misfit = float(left / (n - 2))
        model = max(misfit - 1, 0.0) * noise
    calibration = CALIBRATION_SD * abs(mean)
    return Fit(mean, middle, np.sqrt(noise), np.sqrt(model), calibration, att_se, misfit)


def region_table(
    regions: Regions,
    cbf: np.ndarray,
    att: np.ndarray,
    mask: np.ndarray,
    signals: Signals | None,
    failed: np.ndarray | None = None,
) -> dict[str, list]:
    """Return the values of every region, one row each.

    Parameters
    ----------
    regions
    cbf, att : array, shape (X, Y, Z)
    mask : array of bool, shape (X, Y, Z)
        Brain.
    signals
        What means are fitted from; None leaves the fits out.
    failed : array of bool, shape (X, Y, Z), optional
        Voxels without an estimate; they count as outside.

    Returns
    -------
    dict of str to list
        Columns as `COLUMNS` describes them; NaN below `LEAST_COVERAGE`.
    """
    usable = mask if failed is None else mask & ~failed
    rows = []
    for k, name in enumerate(regions.names):
        chosen = regions.where[k] & usable
        count = int(chosen.sum())
        whole = float(regions.volume[k])
        coverage = count / whole if whole > 0 else 0.0
        row = {
            "index": regions.indices[k],
            "name": name,
            "voxels": count,
            "coverage": min(coverage, 1.0),
        }
        enough = count > 0 and coverage >= LEAST_COVERAGE
        flow, transit = (m[chosen].astype(float) for m in (cbf, att))
        for key, values in (("cbf", flow), ("att", transit)):
            row |= {
                f"{key}_mean": values.mean() if enough else np.nan,
                f"{key}_median": np.median(values) if enough else np.nan,
                f"{key}_sd": values.std() if enough else np.nan,
            }
        fit = Fit()
        if enough and signals is not None:
            fit = fit_region(signals, chosen)
        row |= {
            "cbf_fit": fit.cbf,
            "cbf_se": fit.se,
            "cbf_se_noise": fit.se_noise,
            "cbf_se_model": fit.se_model,
            "cbf_se_calibration": fit.se_calibration,
            "att_fit": fit.att,
            "att_se": fit.att_se,
            "misfit": fit.misfit,
        }
        rows.append(row)
    return {key: [row[key] for row in rows] for key in COLUMNS}


def _spread(signals: Signals, where: np.ndarray) -> float:
    """Return the standard deviation of transit times inside a region, seconds.

    That of the fitted ones, without their tails, less what is noise.
    """
    if signals.att is None or signals.att_sd is None:
        return 0.0
    att, noise = signals.att[where], signals.att_sd[where]
    # Where noise is as wide as what is looked for, its own error is too.
    told = noise < TOLD_ATT
    if told.sum() < 10:
        return 0.0
    low, high = np.percentile(att[told], [16, 84])
    variance = ((high - low) / 2) ** 2 - float((noise[told] ** 2).mean())
    return float(min(np.sqrt(max(variance, 0.0)), MOST_SPREAD))


COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "index": {"Description": "Label in the atlas"},
    "name": {"Description": "Name of the region"},
    "voxels": {"Description": "Voxels of the region inside the brain mask"},
    "coverage": {
        "Description": "Part of the region inside the brain mask; below "
        f"{LEAST_COVERAGE:g} the values are n/a"
    },
    "cbf_mean": {"Description": "Mean of the CBF map", "Units": "mL/100 g/min"},
    "cbf_median": {"Description": "Median of the CBF map", "Units": "mL/100 g/min"},
    "cbf_sd": {"Description": "Standard deviation over voxels", "Units": "mL/100 g/min"},
    "att_mean": {"Description": "Mean of the ATT map", "Units": "s"},
    "att_median": {"Description": "Median of the ATT map", "Units": "s"},
    "att_sd": {"Description": "Standard deviation over voxels", "Units": "s"},
    "cbf_fit": {
        "Description": "CBF by the fit of the region's mean signal",
        "Units": "mL/100 g/min",
    },
    "cbf_se": {"Description": "Standard error of cbf_fit, all sources", "Units": "mL/100 g/min"},
    "cbf_se_noise": {"Description": "Its part by noise", "Units": "mL/100 g/min"},
    "cbf_se_model": {
        "Description": "Its part by the model: a misfit beyond noise, or an ATT that only the "
        "prior tells",
        "Units": "mL/100 g/min",
    },
    "cbf_se_calibration": {
        "Description": "Its part by labelling efficiency, M0 and T1 of blood, which all regions "
        "share",
        "Units": "mL/100 g/min",
    },
    "att_fit": {"Description": "ATT by the same fit", "Units": "s"},
    "att_se": {"Description": "Standard error of att_fit by noise", "Units": "s"},
    "misfit": {"Description": "Chi square of the fit over its degrees of freedom"},
}
"""What the columns of a region table mean."""

_SIDES: Final = (
    (r"(?i)(?<![a-z])left(?![a-z])", "right"),
    (r"(?i)(?<![a-z])lh(?![a-z])", "rh"),
    (r"(?<![A-Za-z])L(?![A-Za-z])", "R"),
)


def pairs(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Find regions of the left with their fellows of the right.

    Returns
    -------
    list of (int, int, str)
        Places of both, and the name without its side.

    Examples
    --------
    >>> pairs(["Left-Thalamus", "Right-Thalamus", "LH_Vis_1", "RH_Vis_1", "Brainstem"])
    [(0, 1, 'Thalamus'), (2, 3, 'Vis_1')]
    """
    known = {name.lower(): k for k, name in enumerate(names)}
    found = []
    for k, name in enumerate(names):
        for left, right in _SIDES:
            text = name.replace("_", " _ ")
            if not re.search(left, text):
                continue
            other = re.sub(left, right, text, count=1).replace(" _ ", "_").lower()
            if other in known and known[other] != k:
                bare = re.sub(left, "", text, count=1).replace(" _ ", "_")
                found.append((k, known[other], re.sub(r"^[\W_]+|[\W_]+$", "", bare) or name))
                break
    return found


def asymmetry(table: Mapping[str, Sequence]) -> dict[str, list]:
    """Return the asymmetry of each pair of regions, in per cent: 200 (L - R) / (L + R).

    The calibration is shared by both sides and drops out of the standard error.

    Parameters
    ----------
    table
        From `region_table`.
    """
    rows: dict[str, list] = {
        key: [] for key in ("name", "cbf_left", "cbf_right", "asymmetry", "asymmetry_se")
    }
    for left, right, name in pairs(table["name"]):
        l_value, r_value = table["cbf_fit"][left], table["cbf_fit"][right]
        l_se, r_se = (
            np.hypot(table["cbf_se_noise"][k], table["cbf_se_model"][k]) for k in (left, right)
        )
        total = l_value + r_value
        usable = np.isfinite(total) and total > 0
        se = 400 * np.hypot(r_value * l_se, l_value * r_se) / total**2 if usable else np.nan
        rows["name"].append(name)
        rows["cbf_left"].append(l_value)
        rows["cbf_right"].append(r_value)
        rows["asymmetry"].append(200 * (l_value - r_value) / total if usable else np.nan)
        rows["asymmetry_se"].append(se)
    return rows


ASYMMETRY: Final[Mapping[str, Mapping[str, str]]] = {
    "name": {"Description": "Name of the region without its side"},
    "cbf_left": {"Description": "cbf_fit on the left", "Units": "mL/100 g/min"},
    "cbf_right": {"Description": "cbf_fit on the right", "Units": "mL/100 g/min"},
    "asymmetry": {"Description": "200 (left - right) / (left + right)", "Units": "percent"},
    "asymmetry_se": {
        "Description": "Standard error by noise and model; the calibration, which both sides "
        "share, drops out",
        "Units": "percent",
    },
}
"""What the columns of a table of asymmetries mean."""
