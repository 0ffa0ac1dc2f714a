"""Calibration of the stated uncertainties on phantoms of their own.

An ensemble's standard deviations are right in order, but off by some ten per cent that depend
on the noise and on the tissue. Neither is known of a voxel, but the voxelwise posterior's sd
of CBF tells the noise and the estimate of CBF tells the tissue. The table holds, over these
two, the factor that makes intervals cover what they claim;
`asl_bids_app.estimators.uncertainty.calibration_factor` reads it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

CBF_SD_POINTS: Final = (0.35, 0.7, 1.2, 2.0, 4.0, 7.0, 12.0, 20.0, 32.0)
"""mL/100 g/min: nodes of the table along the sd of the voxelwise posterior."""
CBF_POINTS: Final = (5.0, 15.0, 25.0, 40.0, 60.0, 90.0)
"""mL/100 g/min: nodes of the table along the estimate of CBF."""
_TRUST: Final = 300.0
"""Voxels (by weight) from which a node is believed more than the table's mean."""
_FEWEST: Final = 20
_ROUNDS: Final = 3


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
    count = weights.sum(0)
    # Few voxels can't speak against all others.
    trust = count / (count + _TRUST)
    shape = (len(CBF_SD_POINTS), len(CBF_POINTS))
    factors = {}
    for name in ("cbf", "att"):
        ratio = np.abs(error[name]) / np.maximum(sd[name], 1e-12)
        overall = np.log(_factor(ratio, np.ones_like(ratio)))
        table = np.full(len(count), overall)
        # A node's voxels lie between it and its neighbours; what the interpolation of one
        # round leaves over is the next one's to mend.
        for _ in range(_ROUNDS):
            left = ratio / np.exp(weights @ table)
            for node, weight in enumerate(weights.T):
                near = weight > 0
                if count[node] > _FEWEST:
                    table[node] += np.log(_factor(left[near], weight[near]))
        table = overall + trust * (table - overall)
        factors[name] = np.round(np.exp(table).reshape(shape), 4).tolist()
    return {
        "axes": {"posterior_cbf_sd": list(CBF_SD_POINTS), "cbf": list(CBF_POINTS)},
        "factor": factors,
        "voxels": np.round(count.reshape(shape)).astype(int).tolist(),
    }
