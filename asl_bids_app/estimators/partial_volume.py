r"""Partial volume correction: the flow of grey and of white matter as two unknowns of a voxel.

A voxel of grey and white matter has the flow of a mixture, so that maps of CBF follow the
thickness of the cortex. Given the fractions of both tissues, the correction says how much blood a
mL of either gets. Two methods:

- ``bayesian``: both flows are smooth fields, see
  `asl_bids_app.estimators.partial_volume_field`.
- ``linear``: in a kernel of 5 x 5 voxels of a slice every measurement's ΔM/M0 is regressed on the
  fractions (Asllani 2008, doi:10.1002/mrm.21670), and the kinetic model is fitted to the
  signals of the tissues that this gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from asl_bids_app.estimators.partial_volume_field import fit_fields
from asl_bids_app.estimators.partial_volume_linear import KERNEL, regress_in_kernel
from asl_bids_app.estimators.partial_volume_means import (
    LEAST_SHARE,
    Mixture,
    TwoFlows,
    mix,
    two_flows,
)
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import TransitPrior

METHODS: Final = ("bayesian", "linear")
LEAST_VOXELS: Final = 20.0
"""Volume of a tissue below which it has no flow, voxels."""
LEAST_EXPLAINED: Final = 0.33
"""Share of the variance of CBF, noise taken off, that fractions must explain. On a simulated head
0.7 to 0.9 with its own fractions, 0.65 if they are 2 mm off, 0.43 at 4 mm, and 0.31 if they are
mirrored from front to back (`benchmarks/partial_volume.py`)."""
FRACTION_SD: Final = (0.05, 0.1)
"""Relative standard deviation of the flows of grey and white matter by fractions of a good T1w.
On a simulated head fractions that are a millimetre off make them 4 % too high and 5 % too low."""


class PartialVolumeError(ValueError):
    """The fractions can't be those of the data.

    Parameters
    ----------
    found, expected
        In a few words, for one line.
    """

    def __init__(self, found: str, expected: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"{found}, expected {expected}")


@dataclass(frozen=True, eq=False)
class PartialVolume:
    """Flows of two tissues.

    Attributes
    ----------
    flows, sds : mapping of str to Tensor, shape (S, H, W)
        By ``gm`` and ``wm``, mL/100 g/min per mL of the tissue; 0 where there is less than
        `LEAST_SHARE` of it.
    inside : mapping of str to Tensor of bool, shape (S, H, W)
    means : TwoFlows
        One flow for each tissue of the whole brain.
    wrong : (float, float)
        Relative standard deviation of the flows of grey and white matter by wrong fractions.
    facts : dict
        For sidecars.
    """

    flows: dict[str, Tensor]
    sds: dict[str, Tensor]
    inside: dict[str, Tensor]
    means: TwoFlows
    wrong: tuple[float, float]
    facts: dict[str, Any]


@torch.no_grad()
def correct_partial_volume(
    observation: Observation,
    fractions: Tensor,
    voxel_mm: Sequence[float],
    prior: TransitPrior,
    method: str = METHODS[0],
) -> PartialVolume:
    """Estimate the flows of grey and white matter in every voxel.

    Parameters
    ----------
    observation
        The slices of one series in order, with their noise, and without the signal of arteries.
    fractions : Tensor, shape (2, S, H, W)
        Of grey and white matter, 0 to 1.
    voxel_mm
        Distance of slices, rows and columns.
    prior
        Of the transit time.
    method
        One of `METHODS`.

    Raises
    ------
    PartialVolumeError
        If there is hardly any grey or white matter, or if the data contradict the fractions.
    ValueError
        If shapes or sizes are wrong, or the method is unknown.
    """
    if fractions.shape != (2, *observation.mask.shape):
        expected = (2, *observation.mask.shape)
        raise ValueError(f"fractions: {tuple(fractions.shape)}, expected {expected}")
    if len(voxel_mm) != 3 or not all(size > 0 for size in voxel_mm):
        raise ValueError(f"voxel_mm: {voxel_mm}, expected three sizes > 0")
    if method not in METHODS:
        raise ValueError(f"method: {method!r}, expected one of {', '.join(METHODS)}")
    mixture = mix(observation, fractions)
    means = two_flows(mixture, prior)
    explained = _check(mixture, means)
    if method == "linear":
        flows, sd = regress_in_kernel(mixture)
        unexplained = _unexplained(mixture, means)[0]
        facts: dict[str, Any] = {"Kernel": [KERNEL, KERNEL, 1]}
    else:
        fields = fit_fields(mixture, means, voxel_mm)
        flows, sd, unexplained = fields.flows, fields.sd, fields.unexplained
        facts = {"FlowSD": [round(value, 2) for value in fields.spread]}
        if mixture.signal.shape[1] == 1:
            sd = torch.hypot(sd, _late(mixture, prior) * flows.clamp(min=0))
    wrong = _wrong_fractions(mixture, means, unexplained)
    sd = torch.hypot(sd, mixture.signal.new_tensor(wrong)[:, None] * flows.abs())
    facts = {
        "Method": method,
        **facts,
        "ExplainedVariance": round(explained, 3),
        "Unexplained": round(unexplained, 2),
        "FractionSD": [round(part, 3) for part in wrong],
        "LeastFraction": LEAST_SHARE,
        "WholeBrainGM": round(means.gm, 2),
        "WholeBrainWM": round(means.wm, 2),
    }
    some = (mixture.shares.T >= LEAST_SHARE) & (mixture.precision > 0).any(1)
    some = some & torch.isfinite(flows + sd)
    inside = mixture.volume(some)
    keys = ("gm", "wm")
    flows, sd = (mixture.volume(torch.where(some, values, 0.0)) for values in (flows, sd))
    return PartialVolume(
        dict(zip(keys, flows, strict=True)),
        dict(zip(keys, sd, strict=True)),
        dict(zip(keys, inside, strict=True)),
        means,
        wrong,
        facts,
    )


def _check(mixture: Mixture, means: TwoFlows) -> float:
    """Return the share of the variance of CBF that fractions explain, if they can be right."""
    known = (mixture.precision > 0).any(1)
    volumes = mixture.shares[known].sum(0).tolist()
    for name, volume in zip(("grey", "white"), volumes, strict=True):
        if volume < LEAST_VOXELS:
            raise PartialVolumeError(
                f"{volume:.0f} voxels of {name} matter in the brain mask",
                f"{LEAST_VOXELS:g} or more",
            )
    if means.gm <= means.wm:
        raise PartialVolumeError(
            f"less flow in grey than in white matter ({means.gm:.0f} and {means.wm:.0f} mL/100 "
            "g/min)",
            "more; the tissue maps may be swapped, or not be those of the head",
        )
    left, by_fractions = _unexplained(mixture, means)
    share = by_fractions / max(by_fractions + left**2, 1e-12)
    if share < LEAST_EXPLAINED:
        raise PartialVolumeError(
            f"fractions of grey and white matter that explain {100 * share:.0f} % of the "
            "variance of CBF",
            f"{100 * LEAST_EXPLAINED:.0f} % or more; the tissue maps may not be those of the head",
        )
    return share


def _unexplained(mixture: Mixture, means: TwoFlows) -> tuple[float, float]:
    """Return the sd of CBF that one flow a tissue leaves, noise taken off, and what it makes."""
    flows = mixture.signal.new_tensor(means.flows)
    times = [torch.full_like(mixture.signal[:, 0], t) for t in (means.gm_att, means.wm_att)]
    fitted = torch.zeros_like(mixture.signal)
    for k in range(2):
        fitted += mixture.shares[:, k, None] * flows[k] * mixture.response(times[k])
    response = mixture.response(times[0])
    power = (response.square() * mixture.precision).sum(1)
    used = power > 0.1 * power.median()
    if not bool(used.any()):
        return 0.0, 0.0
    left = mixture.signal - fitted
    off = ((response * mixture.precision * left).sum(1) / power.clamp(min=1e-12))[used]
    noise = 1 / power[used]
    # Twice: weights are those of the variance that is found.
    excess = torch.zeros(())
    for _ in range(2):
        weight = 1 / (excess.clamp(min=0) + noise).square()
        excess = (weight * (off.square() - noise)).sum() / weight.sum()
    made = mixture.shares[used] @ flows
    return max(float(excess), 0.0) ** 0.5, float(made.var(correction=0))


def _wrong_fractions(mixture: Mixture, means: TwoFlows, unexplained: float) -> tuple[float, float]:
    """Return the relative sd of both flows by wrong fractions.

    Random errors of fractions draw both flows towards the mean of the brain, by the share of the
    variance along the fractions that is theirs; as much of it as isn't explained may be. Besides
    these there is the error of any segmentation, `FRACTION_SD`.
    """
    usual = mixture.signal.new_tensor(means.flows)
    made = mixture.shares @ usual
    share = unexplained**2 / max(unexplained**2 + float(made.var(correction=0)), 1e-12)
    drawn = share * (usual - made.mean()).abs() / usual.abs().clamp(min=1.0)
    gm, wm = torch.hypot(drawn, drawn.new_tensor(FRACTION_SD)).tolist()
    return gm, wm


def _late(mixture: Mixture, prior: TransitPrior) -> Tensor:
    """Return by what part the flow by one delay is more if blood comes one sd later, (V,)."""
    at = torch.tensor([prior.mean, prior.mean + prior.sd]).to(mixture.signal)
    usual, late = mixture.observation.response(at[None])[:, 0].unbind(1)
    more = (usual / late.clamp(min=1e-12) - 1).clamp(0, 1)
    return more.expand(len(mixture.where))[mixture.slice_of]
