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


def _bumps(size: int, nodes: int, sigma: Tensor) -> Tensor:
    """Rows of Gaussian weights (B, size, nodes) with sum of squares 1; sigma in pixels, (B,)."""
    # Nodes reach one sigma beyond the edge, or the field would look different there.
    reach = torch.clamp(sigma, max=size / 2.0)[:, None, None]
    step = torch.linspace(0, 1, nodes, device=sigma.device)[None, None, :]
    place = -reach + (size - 1 + 2 * reach) * step
    pixel = torch.arange(size, device=sigma.device, dtype=sigma.dtype)[None, :, None]
    weight = torch.exp(-((pixel - place) ** 2) / (2 * spread(sigma, 2) ** 2))
    return weight / weight.norm(dim=-1, keepdim=True)


def _joined(random: Random, white: Tensor, sigma: Tensor) -> Tensor:
    """Correlate white noise (n, ...) between the slices of each stack.

    A field of a Gaussian correlation is correlated along each axis by itself, so neighbours are
    sums of independent slices, by the Cholesky factor of what they have in common.

    Parameters
    ----------
    sigma : Tensor, shape (n,)
        Standard deviation of the Gaussian in slices.
    """
    depth = as_stacks(random).depth
    if depth == 1:
        return white
    place = torch.arange(depth, device=white.device, dtype=white.dtype)
    square = (place[:, None] - place[None, :]) ** 2
    own = spread(sigma[::depth].clamp(min=1e-3), 2)
    # In double precision: slices that are much alike make the matrix nearly singular.
    common = torch.exp(-square / (4 * own**2)).double()
    common = common + 1e-6 * torch.eye(depth, device=white.device, dtype=common.dtype)
    # Not `cholesky`, which waits for a GPU to learn whether it failed; this matrix can't.
    factor = torch.linalg.cholesky_ex(common).L.to(white.dtype)
    flat = white.reshape(-1, depth, white[0].numel())
    return (factor @ flat).reshape(white.shape)


def _noise(random: Random, shape: tuple[int, ...], sigma: Tensor) -> Tensor:
    """Draw white noise that is correlated between the slices of a stack only."""
    generator = as_stacks(random).generator
    white = torch.randn(shape, generator=generator, device=generator.device)
    return _joined(random, white, sigma)


def smooth_field(
    random: Random, channels: int, size: int, sigma: Tensor, nodes: int = 24
) -> Tensor:
    """Draw smooth random fields of zero mean and unit variance.

    White noise on a coarse square grid, spread by Gaussians: two small matrix products.

    Parameters
    ----------
    channels
        Independent fields a sample.
    size
        Height and width in pixels.
    sigma : Tensor, shape (B, 2) or (B,)
        Standard deviation of the Gaussian along height and width, in pixels. The field's
        autocorrelation falls as exp(-d²/(4 sigma²)), between slices too. Not below the
        spacing of the nodes.
    nodes
        Grid points along an axis.

    Returns
    -------
    Tensor, shape (B, channels, size, size)
    """
    both = sigma if sigma.ndim == 2 else torch.stack([sigma, sigma], 1)
    both = both.clamp(min=size / (nodes - 1))
    through = (both / as_stacks(random).gaps(len(both), size)).mean(1)
    white = _noise(random, (both.shape[0], channels, nodes, nodes), through)
    rows = _bumps(size, nodes, both[:, 0])[:, None]
    columns = _bumps(size, nodes, both[:, 1])[:, None]
    return rows @ white @ columns.mT


def _kernels(size: int, sigma: Tensor) -> Tensor:
    """Rows of Gaussian weights (B, size, size) with sum of squares 1."""
    pixel = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    square = (pixel[:, None] - pixel[None, :]) ** 2
    weight = torch.exp(-square / (2 * spread(sigma, 2).clamp(min=1e-3) ** 2))
    return weight / weight.norm(dim=-1, keepdim=True)


def correlated(
    random: Random,
    channels: int,
    height: int,
    width: int,
    sigma: Tensor,
    through: Tensor | None = None,
) -> Tensor:
    """Draw Gaussian noise of unit variance, edges included, with a Gaussian correlation.

    Parameters
    ----------
    channels
        Independent maps a sample.
    sigma : Tensor, shape (B,)
        Standard deviation of the Gaussian in pixels; 0 for white noise. The correlation
        between pixels at distance d is close to exp(-d²/(4 sigma²)).
    through : Tensor, shape (B,), optional
        The same between the slices of a stack, in slices; by their distance if not given.

    Returns
    -------
    Tensor, shape (B, channels, height, width)
    """
    n = len(sigma)
    if through is None:
        through = (sigma[:, None] / as_stacks(random).gaps(n, height)).mean(1)
    white = _noise(random, (n, height, channels, width), through)
    if search_pays(white.device):
        some = torch.nonzero(sigma > 0)[:, 0]
        if len(some):
            white[some] = _blurred(white[some], sigma[some])
    else:
        # A Gaussian of no width leaves white noise as it is.
        white = _blurred(white, sigma)
    return white.transpose(1, 2).contiguous()


def _blurred(white: Tensor, sigma: Tensor) -> Tensor:
    """Blur noise (n, height, channels, width) along height and width."""
    n, height, channels, width = white.shape
    # One large matrix product along each axis is much faster than many small ones.
    part = _kernels(height, sigma) @ white.reshape(n, height, channels * width)
    part = part.reshape(n, height * channels, width) @ _kernels(width, sigma).mT
    return part.reshape(white.shape)


_CUT = 1.458
"""Cells a unit area that a plane cuts in a Voronoi mosaic of one cell a unit volume. Okabe et al.,
Spatial Tessellations, 2000, section 5.7."""


def mosaic_field(random: Random, n: int, size: int, cells: int) -> Tensor:
    """Draw fields that are constant in the cells of a random mosaic: edges without blur.

    A plane through a mosaic of space; the next slice cuts it elsewhere.

    Parameters
    ----------
    n, size
        Number of slices; height and width in pixels.
    cells
        In a slice, about.

    Returns
    -------
    Tensor, shape (n, size, size)
        About zero mean and unit variance.
    """
    stacks = as_stacks(random)
    cells = round((cells / _CUT) ** 1.5)
    seeds = uniform(random, (n, 3, cells), (0.0, float(size)))
    height = size / 2 + stacks.height(n) * stacks.gaps(n, size).mean(1)
    apart = (height[:, None] - seeds[:, 2])[:, None, :] ** 2
    value = normal(random, (n, cells))
    pixel = torch.arange(size, device=stacks.device, dtype=torch.float32)
    vertical = (pixel[None, :, None] - seeds[:, 0, None, :]) ** 2 + apart
    horizontal = (pixel[None, :, None] - seeds[:, 1, None, :]) ** 2
    nearest = (vertical[:, :, None, :] + horizontal[:, None, :, :]).argmin(-1)
    return torch.gather(value, 1, nearest.reshape(n, -1)).reshape(n, size, size)
