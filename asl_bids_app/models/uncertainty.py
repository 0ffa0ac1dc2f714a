"""Standard deviations of an ensemble: how they add up, and how they are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from asl_bids_app.options import groups
from asl_bids_app.scheme_fields import Arrival

ERROR_BARS: Final = MappingProxyType(dict(zip(groups.ERROR_BARS, (1.0, 0.0), strict=True)))
"""What standard deviations hold, and the uncertainty of the calibration that goes with it.

``total``: noise, and by how much T1 of blood, T1 of tissue, efficiency, partition coefficient and
M0 differ between scanners and people from what was assumed. ``noise``: the calibration is taken
as exact, as for comparisons within one person and scanner.
"""


def total_variance(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Combine members that each state a mean and a variance.

    The law of total variance for an even mixture: mean of the variances (aleatoric) plus
    variance of the means (the members' disagreement).

    Parameters
    ----------
    means, variances : Tensor, shape (members, ...)

    Returns
    -------
    mean, variance : Tensor, shape (...)
    """
    return means.mean(0), variances.mean(0) + means.var(0, unbiased=False)


SHARES: Final = ((0.682689, 1.0), (0.95, 1.959964))
"""Share of the errors within so many standard deviations, if they are normal."""

COUNTS: Final = MappingProxyType(
    {arrival: f"measurements_{arrival.name.lower()}" for arrival in Arrival}
)
"""Names of the features that say how many measurements there are of each way of arrival."""

FEATURES: Final = (
    "cbf_sd",
    "att_sd",
    "posterior_cbf_sd",
    "posterior_att_sd",
    "posterior_cbf_noise_sd",
    "cbf_spread",
    "att_spread",
    "cbf",
    "att",
    "cbf_roughness",
    "att_roughness",
    "misfit",
    "shared_misfit",
    *COUNTS.values(),
)
"""What tells of a voxel how far its stated standard deviations are off.

The ensemble's and the voxelwise posterior's standard deviations, the latter's of CBF if ATT were
known (with a single delay only this tells good data from noisy ones), those between the members,
the estimates themselves (mL/100 g/min, s) and their standard deviations over the 5x5 voxels
around, which tell lesions and edges from the middle of a tissue; means over the slice of
`asl_bids_app.networks.voxel.VoxelPosterior.misfit` of the voxels, which tells disturbances
from noise, and of their averaged neighbourhoods, which tells noise that neighbours share; and
how many measurements there are of each way of arrival.
"""


def transformed(features: Mapping[str, Tensor], names: Sequence[str] = FEATURES) -> Tensor:
    """Put features, each (...), beside each other, (..., features): of widths the logarithms."""
    columns = []
    for name in names:
        value = features[name]
        if name.endswith("_spread"):
            value = value / features[name.replace("_spread", "_sd")].clamp(min=1e-6)
            value = value.clamp(min=1e-3).log()
        elif name.endswith("_roughness"):
            value = value.clamp(min=1e-3).log()
        elif name.endswith("_sd"):
            value = value.clamp(min=1e-6).log()
        elif name.startswith("measurements"):
            value = value.log1p()
        columns.append(value)
    return torch.stack(columns, -1)


KINDS: Final = (*(arrival.name.lower() for arrival in Arrival), "several")
"""Kinds of data by the ways of arrival in them; each is calibrated by itself.

One function for all of them learns of each the mean with the others: error bars of ATT in white
matter of noisy PCASL came out up to a fifth too wide.
"""


def kind_of(features: Mapping[str, Tensor]) -> Tensor:
    """Return the places of voxels in `KINDS`, int64, (...), from their `FEATURES`, each (...)."""
    there = torch.stack([features[name] > 0 for name in COUNTS.values()], -1)
    return torch.where(there.sum(-1) > 1, len(KINDS) - 1, there.int().argmax(-1))


def calibration_factors(
    table: Mapping[str, Any], features: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the factors of the standard deviations of CBF and ATT of voxels.

    Functions of one hidden layer were fitted on phantoms of their own so that intervals cover
    what they claim.

    Parameters
    ----------
    table : mapping
        ``kinds``: a function for each of `KINDS`; of one that is missing nothing is known, and
        its factors are 1. Or one function for all. A function has ``features`` (``signs`` in
        models of 0.1.0): names of those that it looks at, all of `FEATURES` if it doesn't say;
        ``low`` and ``high``: their ends, beyond which they count as those; ``hidden_*``,
        ``weight``, ``bias``: of the layers.
    features : mapping of str to Tensor, shape (...)
        By the names of `FEATURES`.

    Returns
    -------
    cbf, att : Tensor, shape (...)
    """
    if "kinds" not in table:
        by_cbf, by_att = _factors(table, features).unbind(-1)
        return by_cbf, by_att
    kind = kind_of(features)
    found = torch.ones(*kind.shape, 2, dtype=features["cbf_sd"].dtype, device=kind.device)
    for name, function in table["kinds"].items():
        chosen = kind == KINDS.index(name)
        factors = _factors(function, {feature: features[feature][chosen] for feature in FEATURES})
        found[chosen] = factors.to(found)
    by_cbf, by_att = found.unbind(-1)
    return by_cbf, by_att


def _factors(function: Mapping[str, Any], features: Mapping[str, Tensor]) -> Tensor:
    """Evaluate a function of the features, (..., 2)."""
    x = transformed(features, function.get("features", function.get("signs", FEATURES)))

    def constant(name: str) -> Tensor:
        return torch.as_tensor(function[name], dtype=x.dtype, device=x.device)

    low, high = constant("low"), constant("high")
    x = (2 * (x - low) / (high - low) - 1).clamp(-1, 1)
    hidden = torch.tanh(functional.linear(x, constant("hidden_weight"), constant("hidden_bias")))
    return functional.linear(hidden, constant("weight"), constant("bias")).exp()


def calibrated_sds(
    table: Mapping[str, Any], features: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the calibrated standard deviations of CBF and ATT; as `calibration_factors`."""
    by_cbf, by_att = calibration_factors(table, features)
    return features["cbf_sd"] * by_cbf, features["att_sd"] * by_att
