"""Random numbers and random fields for batches of slices, all from one generator.

Where slices come in stacks of neighbours (`Stacks`), numbers are drawn once a stack, and fields
go on from slice to slice as they do within one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Stacks:
    """A generator for batches in which every `depth` slices in a row are neighbours.

    Attributes
    ----------
    generator : Generator
    depth : int
        Slices in a stack.
    gap : Tensor, shape (n, 2), or float
        From the middle of one slice to that of the next, in pixel heights and pixel widths.
    size : int
        Height and width in pixels to which `gap` refers; a field that is drawn on more pixels
        has finer ones. 0: that of each field.
    """

    generator: Generator
    depth: int = 1
    gap: Tensor | float = 1.0
    size: int = 0

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn."""
        return self.generator.device

    def part(self, index: Tensor) -> Stacks:
        """Draw for some of the slices: whole stacks."""
        return self if isinstance(self.gap, float) else replace(self, gap=self.gap[index])

    def gaps(self, n: int, size: int) -> Tensor:
        """Return `gap` in the pixels of a field, (n, 2)."""
        scale = size / self.size if self.size else 1.0
        return scale * torch.as_tensor(self.gap, device=self.device).expand(n, 2)

    def level(self, n: int) -> Tensor:
        """Return the place of each slice in its stack, 0 for the lowest, shape (n,)."""
        return torch.arange(n, device=self.device) % self.depth

    def height(self, n: int) -> Tensor:
        """Return the same in slices from the middle of the stack, shape (n,)."""
        return self.level(n) - (self.depth - 1) / 2


Random = Generator | Stacks


def search_pays(device: torch.device) -> bool:
    """Tell whether finding the few entries that matter beats computing all of them.

    The processor saves work by it. A GPU has to be waited for until the number of the found is
    known, which takes longer than the work.
    """
    return device.type == "cpu"


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; copies to a GPU are not waited for."""
    return values.to(device, non_blocking=torch.device(device).type != "cpu")


@cache
def constants(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor that is copied to a device once, not in every step."""
    return torch.tensor(values, device=device)


def as_stacks(random: Random) -> Stacks:
    """Return a source of slices that aren't neighbours as stacks of one."""
    return random if isinstance(random, Stacks) else Stacks(random)


def per_stack(random: Random, shape: tuple[int, ...]) -> tuple[Generator, tuple[int, ...], int]:
    """Return a generator, the shape with one row a stack, and the slices in a stack.

    Raises
    ------
    ValueError
        If the first axis doesn't hold whole stacks.
    """
    stacks = as_stacks(random)
    if shape[0] % stacks.depth:
        raise ValueError(f"{shape[0]} slices, expected a multiple of {stacks.depth}")
    return stacks.generator, (shape[0] // stacks.depth, *shape[1:]), stacks.depth


def _even(random: Random, shape: tuple[int, ...]) -> Tensor:
    generator, own, depth = per_stack(random, shape)
    drawn = torch.rand(own, generator=generator, device=generator.device)
    return drawn if depth == 1 else drawn.repeat_interleave(depth, 0)


def uniform(random: Random, shape: tuple[int, ...], span: tuple[float, float]) -> Tensor:
    """Draw numbers evenly between the two ends of a range; the first axis runs over slices."""
    low, high = span
    return low + (high - low) * _even(random, shape)


def log_uniform(random: Random, shape: tuple[int, ...], span: tuple[float, float]) -> Tensor:
    """Draw numbers whose logarithm is even between the two (positive) ends of a range."""
    low, high = span
    return torch.exp(uniform(random, shape, (math.log(low), math.log(high))))


def normal(random: Random, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers."""
    generator, own, depth = per_stack(random, shape)
    drawn = torch.randn(own, generator=generator, device=generator.device)
    return drawn if depth == 1 else drawn.repeat_interleave(depth, 0)


def chance(random: Random, shape: tuple[int, ...], probability: float | Tensor) -> Tensor:
    """Draw switches that are on with a probability."""
    return _even(random, shape) < probability


def choose(random: Random, n: int, weights: list[float] | Tensor) -> Tensor:
    """Draw n indices with the given weights (which need not sum to 1)."""
    generator, (own,), depth = per_stack(random, (n,))
    table = torch.as_tensor(weights, dtype=torch.float32, device=generator.device)
    drawn = torch.multinomial(table, own, replacement=True, generator=generator)
    return drawn if depth == 1 else drawn.repeat_interleave(depth, 0)


def pick(random: Random, weights: Tensor) -> Tensor:
    """Draw an index for each stack by weights of its slices (n, K) together, shape (n,)."""
    generator, (own,), depth = per_stack(random, (len(weights),))
    table = weights.reshape(own, depth, -1).sum(1)
    drawn = torch.multinomial(table, 1, generator=generator)[:, 0]
    return drawn.repeat_interleave(depth, 0)


def widest(random: Random, values: Tensor) -> Tensor:
    """Give every slice the greatest of its stack's values, shape (n,)."""
    depth = as_stacks(random).depth
    return values.reshape(-1, depth).amax(1).repeat_interleave(depth, 0)


def spread(values: Tensor, axes: int) -> Tensor:
    """Append axes of length 1, so that per-sample values broadcast over maps."""
    return values.reshape(*values.shape, *(1,) * axes)
