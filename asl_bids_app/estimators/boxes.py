"""Parts of an observation: the brain's rectangle, some measurements, slices and those beside."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.observation import Observation

_MULTIPLE: Final = 8
"""The networks halve a slice three times."""


def brain_box(mask: Tensor, multiple: int = _MULTIPLE) -> tuple[slice, slice]:
    """Return the rows and columns that hold the mask of all slices, grown to a multiple.

    Parameters
    ----------
    mask : Tensor of bool, shape (n_slices, H, W)
        With at least one voxel.
    multiple
        Of which height and width are made one, as far as the slice reaches.
    """
    there = mask.any(0)
    rows, columns = (there.any(axis).nonzero().flatten() for axis in (1, 0))
    return (
        _span(int(rows[0]), int(rows[-1]) + 1, mask.shape[1], multiple),
        _span(int(columns[0]), int(columns[-1]) + 1, mask.shape[2], multiple),
    )


def _span(first: int, last: int, size: int, multiple: int) -> slice:
    length = min(size, last - first + -(last - first) % multiple)
    first = min(max(0, first - (length - (last - first)) // 2), size - length)
    return slice(first, first + length)


def crop(observation: Observation, rows: slice, columns: slice) -> Observation:
    """Cut a rectangle out of every slice."""
    noise = observation.noise_sd
    return replace(
        observation,
        delta_m=observation.delta_m[..., rows, columns],
        noise_sd=noise[..., rows, columns] if noise.shape[-1] > 1 else noise,
        mask=observation.mask[..., rows, columns],
        anatomy=observation.anatomy[..., rows, columns],
    )


def select(observation: Observation, order: list[int]) -> Observation:
    """Put some of the measurements into an order."""
    per_measurement = {"delta_m", "noise_sd", "arrival", "delay", "label_duration", "efficiency"}
    return replace(
        observation,
        **{
            f.name: getattr(observation, f.name)[:, order]
            for f in fields(Observation)
            if f.name in per_measurement
        },
    )


def with_neighbours(chosen: Tensor, reach: int, count: int) -> tuple[Tensor, Tensor]:
    """Add the slices beside those that are chosen.

    Parameters
    ----------
    chosen : Tensor of int, shape (n,)
        Places of slices in a batch, rising.
    reach
        How far neighbours are looked at.
    count
        Slices in the batch.

    Returns
    -------
    around : Tensor of int, shape (m,)
        Places of the chosen ones and their neighbours, rising.
    rows : Tensor of int, shape (n,)
        Where the chosen ones are among them.
    """
    steps = torch.arange(-reach, reach + 1, device=chosen.device)
    around = (chosen[:, None] + steps).unique()
    around = around[(around >= 0) & (around < count)]
    return around, torch.searchsorted(around, chosen)
