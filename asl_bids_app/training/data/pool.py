"""Simulated slices that serve several training steps.

Simulation and the analytic layer take most of a step's time, and a network of half a million
weights learns more than once from a slice. So a pool of slices, ready for the trunk, is kept in
memory; new ones replace the oldest, and each step draws from all of them. Known as data echoing:
Choi et al. 2019, arXiv:1907.05550.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor, nn

from asl_bids_app.networks.analytic import VoxelPosterior
from asl_bids_app.observation import Observation
from asl_bids_app.training.simulate.simulation import Batch

_COARSE = ("maps", "att_bins", "bin_att", "bin_cbf", "bin_volume")
"""What half precision is good enough for: the trunk rounds it more."""
_UNUSED = ("correlation", "residual", "misfit", "vessels")
"""Parts of a posterior that only the input maps are made of."""


@dataclass(frozen=True)
class Prepared:
    """Slices with all that comes before the weights already done.

    Attributes
    ----------
    context : VoxelPosterior or None
        What the network's `correct` starts from.
    maps : Tensor, shape (B, channels, H, W)
        Input of the trunk.
    mask : Tensor of bool, shape (B, H, W)
    doubt : Tensor, shape (B,)
    several : Tensor of bool, shape (B,)
        Whether a slice has more than one measurement.
    cbf, att : Tensor, shape (B, H, W)
        The truth, mL/100 g/min and s.
    tissue : Tensor of uint8, shape (B, H, W)
    volume : Tensor, shape (B, H, W)
        True arterial blood volume, mL/mL.
    fractions : Tensor, shape (B, 2, H, W)
        True fractions of grey and white matter.
    observation : Observation or None
        Only of slices that were just simulated: those of a pool differ in their numbers of
        measurements.
    """

    context: VoxelPosterior | None
    maps: Tensor
    mask: Tensor
    doubt: Tensor
    several: Tensor
    cbf: Tensor
    att: Tensor
    tissue: Tensor
    volume: Tensor
    fractions: Tensor
    observation: Observation | None = None

    def __len__(self) -> int:
        return len(self.maps)


def prepared(network: nn.Module, batch: Batch) -> Prepared:
    """Do what comes before the weights of a network, and keep the slices that are asked for."""
    seen = batch.observation
    context, maps = network.prepare(seen)
    asked = batch.asked
    return Prepared(
        context[asked] if isinstance(context, VoxelPosterior) else context,
        maps[asked],
        seen.mask[asked],
        seen.calibration_doubt[asked],
        batch.several[asked],
        batch.cbf[asked],
        batch.att[asked],
        batch.tissue[asked],
        batch.volume[asked],
        batch.fractions[asked],
        seen[asked],
    )


@dataclass(frozen=True)
class Draw:
    """Which slices of a pool make up a step.

    Attributes
    ----------
    place, row : Tensor of int, shape (B,)
        Batch in the pool, oldest first, and slice in the batch.
    flips : tuple of int
        Axes along which all slices are flipped.
    turned : bool
        Whether rows and columns change places.
    """

    place: Tensor
    row: Tensor
    flips: tuple[int, ...]
    turned: bool


def draw_from(batches: int, size: int, seed: int) -> Draw:
    """Draw a step's slices from a pool.

    Parameters
    ----------
    batches
        In the pool.
    size
        Slices in a batch, and in the step.
    seed
        Of the step.
    """
    generator = Generator().manual_seed(seed)
    place = torch.randint(batches, (size,), generator=generator)
    row = torch.randint(size, (size,), generator=generator)
    vertical, horizontal, turned = torch.randint(2, (3,), generator=generator).tolist()
    flips = tuple(axis for axis, on in ((-2, vertical), (-1, horizontal)) if on)
    return Draw(place, row, flips, bool(turned))


class Pool:
    """The latest batches, ready for the trunk.

    Parameters
    ----------
    batches
        How many are kept.
    """

    def __init__(self, batches: int) -> None:
        self._parts: deque[dict[str, Tensor]] = deque(maxlen=batches)

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def size(self) -> int:
        """Slices in a batch."""
        return len(self._parts[0]["maps"])

    def add(self, fresh: Prepared) -> None:
        """Keep a batch; the oldest goes if the pool is full."""
        kept: dict[str, Tensor] = {}
        for name, value in _tensors(fresh).items():
            kept[name] = value.half() if name in _COARSE else value
        self._parts.append(kept)

    def take(self, draw: Draw) -> Prepared:
        """Return the slices of a step."""
        places = list(zip(draw.place.tolist(), draw.row.tolist(), strict=True))

        def gathered(name: str) -> Tensor:
            values = torch.stack([self._parts[place][name][row] for place, row in places])
            if values.ndim > 1:
                values = values.flip(draw.flips)
                values = values.mT if draw.turned else values
            return values.float() if name in _COARSE else values

        found: dict[str, Any] = {name: gathered(name) for name in self._parts[0]}
        found["maps"] = found["maps"].contiguous(memory_format=torch.channels_last)
        posterior = {f.name: found.pop(_key(f.name), None) for f in fields(VoxelPosterior)}
        if posterior["att_sd"] is None:
            return Prepared(None, **found)
        like = posterior["att_sd"]
        posterior = {k: like if v is None else v for k, v in posterior.items()}
        return Prepared(VoxelPosterior(**posterior), **found)


def _key(name: str) -> str:
    """Name of a posterior's map in a pool; CBF and ATT are also names of the truth."""
    return name if name in _COARSE else f"posterior {name}"


def _tensors(fresh: Prepared) -> dict[str, Tensor]:
    """Return what a pool keeps of a batch, by name."""
    found = {
        f.name: getattr(fresh, f.name)
        for f in fields(Prepared)
        if f.name not in ("context", "observation")
    }
    if fresh.context is not None:
        for f in fields(VoxelPosterior):
            if f.name not in _UNUSED:
                found[_key(f.name)] = getattr(fresh.context, f.name)
    return found
