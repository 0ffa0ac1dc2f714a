"""Simulated slices that serve several training steps.

Simulation and the analytic layer take most of a step's time, and a network of half a million
weights learns more than once from a slice. So a pool of slices, ready for the trunk, is kept in
memory; new ones replace the oldest, and each step draws from all of them. Known as data echoing:
Choi et al. 2019, arXiv:1907.05550.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor

from asl_bids_app.networks.voxel import VoxelPosterior
from asl_bids_app.observation import Observation
from asl_bids_app.training.random_draws import to_device
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
    calibration_uncertainty : Tensor, shape (B,)
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
    calibration_uncertainty: Tensor
    several: Tensor
    cbf: Tensor
    att: Tensor
    tissue: Tensor
    volume: Tensor
    fractions: Tensor
    observation: Observation | None = None

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: slice) -> Prepared:
        """Return some of the slices."""
        return Prepared(**{f.name: _part(getattr(self, f.name), index) for f in fields(self)})


def _part(value: Any, index: slice) -> Any:
    return None if value is None else value[index]


def joined(parts: Sequence[Prepared]) -> Prepared:
    """Put slices behind each other; those to serve again, which have no observation."""
    if len(parts) == 1:
        return parts[0]

    def together(name: str, holders: Sequence[Any]) -> Tensor:
        return torch.cat([getattr(holder, name) for holder in holders])

    found: dict[str, Any] = {
        f.name: together(f.name, parts)
        for f in fields(Prepared)
        if f.name not in ("context", "observation")
    }
    contexts = [part.context for part in parts if part.context is not None]
    # Numbers of measurements differ between the parts; what hangs on them isn't kept.
    shape = contexts[0].att_sd if contexts else None
    posterior = {
        f.name: shape if f.name in _UNUSED else together(f.name, contexts)
        for f in fields(VoxelPosterior)
        if contexts
    }
    return Prepared(VoxelPosterior(**posterior) if contexts else None, **found)  # type: ignore[arg-type]


def prepared(network: Any, batch: Batch) -> Prepared:
    """Do what comes before the weights of a network, and keep the slices that are asked for."""
    seen = batch.observation
    context, maps = network.prepare(seen)
    rows = batch.rows
    return Prepared(
        context[rows] if isinstance(context, VoxelPosterior) else context,
        maps[rows],
        seen.mask[rows],
        seen.calibration_uncertainty[rows],
        batch.several[rows],
        batch.cbf[rows],
        batch.att[rows],
        batch.tissue[rows],
        batch.volume[rows],
        batch.fractions[rows],
        seen[rows],
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
    """The latest batches, ready for the trunk, in one tensor for each kind of map.

    Parameters
    ----------
    batches
        How many are kept.
    """

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._kept: dict[str, Tensor] = {}
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self._batches)

    @property
    def size(self) -> int:
        """Slices in a batch."""
        return self._kept["maps"].shape[1]

    def add(self, fresh: Prepared) -> None:
        """Keep a batch; the oldest goes if the pool is full."""
        place = self._added % self._batches
        for name, value in _tensors(fresh).items():
            if name not in self._kept:
                dtype = torch.float16 if name in _COARSE else value.dtype
                shape = (self._batches, *value.shape)
                self._kept[name] = torch.empty(shape, dtype=dtype, device=value.device)
            self._kept[name][place] = value
        self._added += 1

    def take(self, draw: Draw) -> Prepared:
        """Return the slices of a step."""
        oldest = self._added % self._batches if self._added > self._batches else 0
        place = (draw.place + oldest) % self._batches
        device = self._kept["maps"].device
        place, row = to_device(torch.stack([place, draw.row]), device).unbind(0)

        def gathered(name: str) -> Tensor:
            values = self._kept[name][place, row]
            if values.ndim > 1:
                values = values.flip(draw.flips) if draw.flips else values
                values = values.mT if draw.turned else values
            return values.float() if name in _COARSE else values

        found: dict[str, Any] = {name: gathered(name) for name in self._kept}
        found["maps"] = found["maps"].contiguous(memory_format=torch.channels_last)
        posterior = {f.name: found.pop(_key(f.name), None) for f in fields(VoxelPosterior)}
        like = posterior["att_sd"]
        if like is None:
            return Prepared(None, **found)
        full = {name: like if value is None else value for name, value in posterior.items()}
        return Prepared(VoxelPosterior(**full), **found)


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
