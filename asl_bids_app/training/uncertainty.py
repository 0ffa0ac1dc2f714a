"""Calibration of the stated uncertainties on phantoms of their own.

An ensemble's standard deviations are right in order, but off by some ten per cent that depend
on the noise and on the tissue. Neither is known of a voxel, but the voxelwise posterior's sd
of CBF tells the noise and the estimate of CBF tells the tissue. The table holds, over these
two, the factor that makes intervals cover what they claim.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

CBF_SD_POINTS: Final = (1.0, 2.0, 4.0, 7.0, 12.0, 20.0, 32.0)
"""mL/100 g/min: nodes of the table along the sd of the voxelwise posterior."""
CBF_POINTS: Final = (5.0, 15.0, 25.0, 40.0, 60.0, 90.0)
"""mL/100 g/min: nodes of the table along the estimate of CBF."""
_TRUST: Final = 2000.0
"""Voxels (by weight) from which a node is believed more than the table's mean."""


def node_weights(posterior_cbf_sd: np.ndarray, cbf: np.ndarray) -> np.ndarray:
    """Spread voxels over the nodes of the table.

    Parameters
    ----------
    posterior_cbf_sd, cbf : array, shape (V,)
        mL/100 g/min.

    Returns
    -------
    array, shape (V, nodes)
        Bilinear weights, summing to 1, nodes in the order of the flattened table.
    """
    along = _linear(np.log(np.maximum(posterior_cbf_sd, 1e-6)), np.log(CBF_SD_POINTS))
    across = _linear(cbf, np.asarray(CBF_POINTS))
    return (along[:, :, None] * across[:, None, :]).reshape(len(cbf), -1)


def _linear(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    place = np.interp(values, points, np.arange(len(points)))
    distance = np.abs(place[:, None] - np.arange(len(points)))
    return np.maximum(0.0, 1.0 - distance)


def _quantile(values: np.ndarray, weight: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, share * total[-1])])


def _factor(ratio: np.ndarray, weight: np.ndarray) -> float:
    """Scale that puts the 68 and the 95 % points of |error|/sd where they belong, on average."""
    inner = _quantile(ratio, weight, 0.682689)
    outer = _quantile(ratio, weight, 0.95) / 1.959964
    return float(np.sqrt(inner * outer))


def fit_table(
    error: dict[str, np.ndarray],
    sd: dict[str, np.ndarray],
    posterior_cbf_sd: np.ndarray,
    cbf: np.ndarray,
) -> dict[str, Any]:
    """Find the factors for the standard deviations of CBF and ATT.

    Parameters
    ----------
    error, sd
        Of ``cbf`` and ``att``: errors and stated standard deviations, each of shape (V,).
    posterior_cbf_sd, cbf : array, shape (V,)
        Where the voxels lie in the table.

    Returns
    -------
    dict
        ``axes`` with their nodes, ``factor`` of ``cbf`` and ``att`` as nested lists,
        ``voxels`` that each node rests on.
    """
    weights = node_weights(posterior_cbf_sd, cbf)
    shape = (len(CBF_SD_POINTS), len(CBF_POINTS))
    factors = {}
    for name in ("cbf", "att"):
        ratio = np.abs(error[name]) / np.maximum(sd[name], 1e-12)
        overall = _factor(ratio, np.ones_like(ratio))
        table = []
        for weight in weights.T:
            count = weight.sum()
            own = _factor(ratio[weight > 0], weight[weight > 0]) if count > 20 else overall
            # Few voxels can't speak against all others.
            trust = count / (count + _TRUST)
            table.append(np.exp(trust * np.log(own) + (1 - trust) * np.log(overall)))
        factors[name] = np.round(np.reshape(table, shape), 4).tolist()
    return {
        "axes": {"posterior_cbf_sd": list(CBF_SD_POINTS), "cbf": list(CBF_POINTS)},
        "factor": factors,
        "voxels": np.round(weights.sum(0).reshape(shape)).astype(int).tolist(),
    }


def apply_table(
    table: dict[str, Any], name: str, posterior_cbf_sd: np.ndarray, cbf: np.ndarray
) -> np.ndarray:
    """Return the factor of voxels for the standard deviation of ``cbf`` or ``att``."""
    flat = np.asarray(table["factor"][name]).reshape(-1)
    return node_weights(posterior_cbf_sd, cbf) @ flat
