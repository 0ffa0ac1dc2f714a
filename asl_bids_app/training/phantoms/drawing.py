"""Phantoms: slices of brains that never were, alone or in stacks, with known CBF and ATT."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Final

import torch
from torch import Generator, Tensor

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.abstract_shapes import abstract_slices
from asl_bids_app.training.phantoms.conditions import (
    CONDITIONS,
    draw_atrophy,
    draw_physiology,
)
from asl_bids_app.training.phantoms.head_anatomy import Anatomy, mni_slices
from asl_bids_app.training.phantoms.layers import STEPS, Layers
from asl_bids_app.training.phantoms.lesions import add_lesions
from asl_bids_app.training.phantoms.phantom_arteries import draw_arteries
from asl_bids_app.training.phantoms.sampling import Sampling, draw_sampling
from asl_bids_app.training.phantoms.tissue_codes import TISSUES
from asl_bids_app.training.random_draws import Stacks, chance, choose, to_device

__all__ = ["ANATOMIES", "CONDITIONS", "TISSUES", "PhantomConfig", "Phantoms", "draw"]

ANATOMIES = ("mni", "abstract")
"""Names of the kinds of anatomy, by code."""

_CHUNK = 32
_ROUNDS = 20


@dataclass(frozen=True)
class Phantoms:
    """A batch of slices with known parameters; those of a phantom follow each other.

    Attributes
    ----------
    cbf : Tensor, shape (n, H, W)
        mL/100 g/min, zero outside the brain.
    att : Tensor, shape (n, H, W)
        Seconds, zero outside the brain.
    tissue : Tensor of uint8, shape (n, H, W)
        Codes of `TISSUES`; the brain is where it isn't 0.
    condition, anatomy : Tensor of uint8, shape (n,)
        Indices into `CONDITIONS` and `ANATOMIES`.
    slice_number : Tensor of uint8, shape (n,)
        Place in the phantom, from 0.
    layers : Tensor of uint8, shape (n, 6, H, W)
        `asl_bids_app.training.phantoms.layers.Layers`, packed.
    """

    cbf: Tensor
    att: Tensor
    tissue: Tensor
    condition: Tensor
    anatomy: Tensor
    slice_number: Tensor
    layers: Tensor

    @property
    def mask(self) -> Tensor:
        """Brain, bool, shape (n, H, W)."""
        return self.tissue != 0

    @cached_property
    def slices(self) -> int:
        """Number of slices of each phantom."""
        return int(self.slice_number.max()) + 1 if len(self) else 1

    @cached_property
    def mixed(self) -> bool:
        """Whether blood comes later to a voxel's white matter than to its grey matter."""
        return bool(self.layers[:, _WHITE_DELAY].any())

    @cached_property
    def arterial(self) -> bool:
        """Whether there are arteries."""
        return bool(self.layers[:, _VOLUME].any())

    @property
    def inner(self) -> Tensor:
        """Slices that have a neighbour on both sides, or all if none has; bool, shape (n,)."""
        last = self.slices - 1
        number = self.slice_number
        return (number > 0) & (number < last) if last > 1 else torch.ones_like(number).bool()

    @property
    def count(self) -> int:
        """Number of phantoms."""
        return len(self) // self.slices

    def __len__(self) -> int:
        return len(self.cbf)

    def pick(self, index: slice | Tensor) -> Phantoms:
        """Return some of the phantoms, with all their slices."""
        rows = torch.arange(len(self), device=self.cbf.device).reshape(-1, self.slices)
        return self[rows[index].flatten()]

    def __getitem__(self, index: slice | Tensor) -> Phantoms:
        """Return some of the slices."""
        return Phantoms(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def alone(self) -> Phantoms:
        """Return the inner slices as phantoms of one slice each."""
        some = self[inner_rows(len(self), self.slices, self.cbf.device)]
        return replace(some, slice_number=torch.zeros_like(some.slice_number))

    def to(self, device: torch.device | str) -> Phantoms:
        """Return the phantoms on a device."""
        moved = Phantoms(
            **{f.name: to_device(getattr(self, f.name), device) for f in fields(self)}
        )
        # Known here before the copy, so that nobody waits for a GPU to tell it.
        moved.__dict__.update({name: getattr(self, name) for name in _KNOWN})
        return moved

    def pin_memory(self) -> Phantoms:
        """Return the phantoms in memory that a GPU copies from by itself."""
        return Phantoms(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


_WHITE_DELAY, _VOLUME = (list(STEPS).index(name) for name in ("white_delay", "volume"))
_KNOWN: Final = ("slices", "mixed", "arterial")
"""What a batch knows of its content without looking again."""


def inner_rows(n: int, slices: int, device: torch.device) -> Tensor:
    """Return the numbers of `Phantoms.inner` slices of n in stacks, int, without a search."""
    rows = torch.arange(n, device=device)
    return rows.reshape(-1, slices)[:, 1:-1].flatten() if slices > 2 else rows


def concatenate(parts: list[Phantoms]) -> Phantoms:
    """Put batches behind each other."""
    return Phantoms(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Phantoms)}
    )


def _held_out(config: PhantomConfig) -> PhantomConfig:
    """Return the settings with the held-out anatomy's tilt and warps in the usual places."""
    if not config.held_out:
        return config
    factor = config.held_out_warp_factor

    def scaled(span: tuple[float, float], limit: float) -> tuple[float, float]:
        return (min(span[0] * factor, limit), min(span[1] * factor, limit))

    return replace(
        config,
        tilt=config.held_out_tilt,
        shape_warp=scaled(config.shape_warp, 15.0),
        fold_warp=scaled(config.fold_warp, 6.0),
    )


def _draw_anatomy(
    config: PhantomConfig, sampling: Sampling, condition: Tensor, stacks: Stacks
) -> Anatomy:
    n = len(condition)
    atrophy = draw_atrophy(condition, stacks)
    abstract = chance(stacks, (n,), config.abstract_fraction)
    merged: Anatomy | None = None
    for index in (torch.nonzero(~abstract)[:, 0], torch.nonzero(abstract)[:, 0]):
        if len(index) == 0:
            continue
        own, where = stacks.part(index), sampling.part(index)
        if bool(abstract[index[0]]):
            part = abstract_slices(config, where, own)
        else:
            part = mni_slices(config, where, atrophy[index], own)
        if merged is None:
            merged = Anatomy(
                **{
                    f.name: getattr(part, f.name).new_empty((n, *getattr(part, f.name).shape[1:]))
                    for f in fields(Anatomy)
                }
            )
        for f in fields(Anatomy):
            getattr(merged, f.name)[index] = getattr(part, f.name)
    assert merged is not None
    return merged


def _draw_chunk(config: PhantomConfig, count: int, generator: Generator) -> Phantoms:
    n = count * config.slices
    stacks = Stacks(generator, config.slices)
    weights = [getattr(config, f"{name}_weight") for name in CONDITIONS]
    condition = choose(stacks, n, weights)
    sampling = draw_sampling(config, n, stacks)
    stacks = replace(stacks, gap=sampling.spacing[:, None] / sampling.voxel, size=config.size)
    anatomy = _draw_anatomy(config, sampling, condition, stacks)
    physiology = draw_physiology(config, anatomy, condition, stacks)
    cbf, att, tissue = add_lesions(config, anatomy, physiology, condition, stacks)
    volume, arrival = draw_arteries(config, anatomy, sampling.spacing, att, stacks)
    grey, white, _ = anatomy.fractions.unbind(1)
    layers = Layers(
        grey, white, physiology.white_flow, physiology.white_delay, volume, arrival
    ).packed()
    number = stacks.level(n).to(torch.uint8)
    return Phantoms(cbf, att, tissue, condition.to(torch.uint8), anatomy.kind, number, layers)


def draw(config: PhantomConfig, n: int, seed: int) -> Phantoms:
    """Draw phantoms; the same settings, number and seed give the same phantoms.

    Parameters
    ----------
    config
        Settings.
    n
        Number of phantoms; `config` says how many slices each has.
    seed
        Any integer of 64 bits.

    Raises
    ------
    ValueError
        If no weight of a condition is positive, or the settings leave no room for a brain of
        `smallest_brain` pixels.
    """
    generator = Generator().manual_seed(seed)
    config = _held_out(config)
    if sum(getattr(config, f"{name}_weight") for name in CONDITIONS) <= 0:
        raise ValueError("healthy_weight … stenosis_weight: at least one must be above 0")
    parts, missing, rounds = [], n, 0
    while missing > 0:
        part = _draw_chunk(config, min(_CHUNK, missing), generator)
        large = part.mask.flatten(1).sum(1) >= config.smallest_brain
        # Beyond the first and the last of three slices and more the brain may end.
        whole = (large | ~part.inner).reshape(-1, config.slices).all(1)
        part = part.pick(whole)
        rounds = 0 if len(part) else rounds + 1
        if rounds > _ROUNDS:
            raise ValueError(
                f"smallest_brain: {config.smallest_brain} pixels don't fit into slices of "
                f"{config.size} pixels with voxels of {config.voxel_size} mm"
            )
        parts.append(part)
        missing -= part.count
    return concatenate(parts)
