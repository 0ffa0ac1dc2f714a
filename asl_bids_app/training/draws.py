"""Random numbers and random fields for batches of slices, all from one generator."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def uniform(generator: Generator, shape: tuple[int, ...], span: tuple[float, float]) -> Tensor:
    """Draw numbers evenly between the two ends of a range."""
    low, high = span
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def log_uniform(generator: Generator, shape: tuple[int, ...], span: tuple[float, float]) -> Tensor:
    """Draw numbers whose logarithm is even between the two (positive) ends of a range."""
    low, high = span
    return torch.exp(uniform(generator, shape, (math.log(low), math.log(high))))


def normal(generator: Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, device=generator.device)


def chance(generator: Generator, shape: tuple[int, ...], probability: float | Tensor) -> Tensor:
    """Draw switches that are on with a probability."""
    return torch.rand(shape, generator=generator, device=generator.device) < probability


def choose(generator: Generator, n: int, weights: list[float] | Tensor) -> Tensor:
    """Draw n indices with the given weights (which need not sum to 1)."""
    table = torch.as_tensor(weights, dtype=torch.float32, device=generator.device)
    return torch.multinomial(table, n, replacement=True, generator=generator)


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


def smooth_field(
    generator: Generator, channels: int, size: int, sigma: Tensor, nodes: int = 24
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
        autocorrelation falls as exp(-d²/(4 sigma²)). Not below the spacing of the nodes.
    nodes
        Grid points along an axis.

    Returns
    -------
    Tensor, shape (B, channels, size, size)
    """
    both = sigma if sigma.ndim == 2 else torch.stack([sigma, sigma], 1)
    both = both.clamp(min=size / (nodes - 1))
    white = normal(generator, (both.shape[0], channels, nodes, nodes))
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
    generator: Generator, channels: int, height: int, width: int, sigma: Tensor
) -> Tensor:
    """Draw Gaussian noise of unit variance, edges included, with a Gaussian correlation.

    Parameters
    ----------
    channels
        Independent maps a sample.
    sigma : Tensor, shape (B,)
        Standard deviation of the Gaussian in pixels; 0 for white noise. The correlation
        between pixels at distance d is close to exp(-d²/(4 sigma²)).

    Returns
    -------
    Tensor, shape (B, channels, height, width)
    """
    n = len(sigma)
    white = normal(generator, (n, height, channels, width))
    some = torch.nonzero(sigma > 0)[:, 0]
    if len(some):
        # One large matrix product along each axis is much faster than many small ones.
        part = white[some].reshape(len(some), height, channels * width)
        part = _kernels(height, sigma[some]) @ part
        part = part.reshape(len(some), height * channels, width)
        part = part @ _kernels(width, sigma[some]).mT
        white[some] = part.reshape(len(some), height, channels, width)
    return white.transpose(1, 2).contiguous()


def mosaic_field(generator: Generator, n: int, size: int, cells: int) -> Tensor:
    """Draw fields that are constant in the cells of a random mosaic: edges without blur.

    Returns
    -------
    Tensor, shape (n, size, size)
        About zero mean and unit variance.
    """
    seeds = uniform(generator, (n, 2, cells), (0.0, float(size)))
    value = normal(generator, (n, cells))
    pixel = torch.arange(size, device=generator.device, dtype=torch.float32)
    vertical = (pixel[None, :, None] - seeds[:, 0, None, :]) ** 2
    horizontal = (pixel[None, :, None] - seeds[:, 1, None, :]) ** 2
    nearest = (vertical[:, :, None, :] + horizontal[:, None, :, :]).argmin(-1)
    return torch.gather(value, 1, nearest.reshape(n, -1)).reshape(n, size, size)
