"""Random fields for batches of slices: smooth, of correlated noise, of mosaics."""

from __future__ import annotations

import torch
from torch import Tensor

from asl_bids_app.training.random_draws import (
    Random,
    as_stacks,
    normal,
    search_pays,
    spread,
    uniform,
)


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
