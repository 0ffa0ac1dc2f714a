"""Calibration of the stated uncertainties on phantoms of their own.

An ensemble's standard deviations are right in order, but off by some ten per cent: the members'
mean errs less than a member does, and disturbances and tissues differ. A small function of what
is known of a voxel, `asl_bids_app.models.uncertainty.FEATURES`, holds the factor that makes
intervals cover what they claim; `asl_bids_app.models.uncertainty.calibration_factors`
evaluates it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from asl_bids_app.models.uncertainty import FEATURES, SHARES, transformed

_HIDDEN: Final = 32
_STEPS: Final = 3000
_BATCH: Final = 16384
_RATE: Final = 1e-2
_DECAY: Final = 1e-4
_TAILS: Final = 0.002
"""Share of the voxels at either end of a sign beyond which it counts as that end."""
FEWEST: Final = 100
"""Voxels without which nothing can be fitted."""
_DIGITS: Final = 5


def pinball(log_ratio: Tensor) -> Tensor:
    """Loss of standard deviations that hold 68 % of the errors in one and 95 % in 1.96 of them.

    Of the logarithm of |error|/sd: quantiles survive it, and in it the gradient is the same at
    any size of the error. Koenker and Bassett 1978, doi:10.2307/1913643.
    """
    loss = torch.zeros_like(log_ratio)
    for share, width in SHARES:
        over = log_ratio - math.log(width)
        loss = loss + torch.maximum(share * over, (share - 1) * over)
    return loss


def fit_calibration(
    error: Mapping[str, np.ndarray],
    features: Mapping[str, np.ndarray],
    weight: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Find the function of the features that calibrates the standard deviations.

    Parameters
    ----------
    error
        Of ``cbf`` and ``att``, each of shape (V,), mL/100 g/min and s.
    features
        By the names of `FEATURES`, each of shape (V,).
    weight : array, shape (V,)
    seed
        Of the start and the order of the voxels.

    Returns
    -------
    dict
        What `calibration_factors` reads, ready for JSON, and ``voxels`` that it rests on.

    Raises
    ------
    ValueError
        If there are too few voxels.
    """
    count = len(weight)
    if count < FEWEST:
        raise ValueError(f"calibration: {count} voxels, expected {FEWEST} or more")
    tensors = {name: torch.from_numpy(np.asarray(features[name])).float() for name in FEATURES}
    x = transformed(tensors)
    # A part is enough, and `quantile` takes no more than some millions of numbers.
    some = slice(None, None, max(1, count // 100_000))
    low, high = torch.quantile(x[some], torch.tensor([_TAILS, 1 - _TAILS]), 0)
    high = torch.maximum(high, low + 1e-3)
    x = (2 * (x - low) / (high - low) - 1).clamp(-1, 1)
    log_ratio = torch.stack(
        [
            (torch.from_numpy(np.abs(error[q])).float().clamp(min=1e-7) / tensors[f"{q}_sd"]).log()
            for q in ("cbf", "att")
        ],
        1,
    )
    weights = torch.from_numpy(weight).float()[:, None]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden, last = nn.Linear(len(FEATURES), _HIDDEN), nn.Linear(_HIDDEN, 2)
        network = nn.Sequential(hidden, nn.Tanh(), last)
        nn.init.zeros_(last.weight)
        # From where one factor for all is right.
        with torch.no_grad():
            last.bias.copy_(log_ratio[some].quantile(SHARES[0][0], 0))
        optimizer = torch.optim.Adam(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        for _ in range(_STEPS):
            part = torch.randint(count, (min(_BATCH, count),))
            loss = (weights[part] * pinball(log_ratio[part] - network(x[part]))).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def numbers(values: Tensor) -> Any:
        return np.round(values.detach().double().numpy(), _DIGITS).tolist()

    return {
        "features": list(FEATURES),
        "low": numbers(low),
        "high": numbers(high),
        "hidden_weight": numbers(hidden.weight),
        "hidden_bias": numbers(hidden.bias),
        "weight": numbers(last.weight),
        "bias": numbers(last.bias),
        "voxels": count,
    }
