"""Gaussian fields with Matérn's correlation: their root, their spectrum, and their posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

LENGTH_MM: Final = 8.0
"""ℓ of Matérn's correlation (1 + d/ℓ) exp(-d/ℓ), which is a half at 13 mm. By choice: half
of what a kernel of five voxels of 3.4 mm spans."""
MOST_TURNS: Final = 60
TOLERANCE: Final = 1e-5
"""Of the residual's square, against that of the right side, at which the solution is good."""


class Matern:
    """The root *S* of a correlation that is the product of those along the axes."""

    def __init__(self, shape: Sequence[int], voxel_mm: Sequence[float], like: Tensor) -> None:
        self.roots, spectra = [], []
        for size, mm in zip(shape, voxel_mm, strict=True):
            place = torch.arange(size, dtype=torch.float64) * mm / LENGTH_MM
            apart = (place[:, None] - place).abs()
            values, vectors = torch.linalg.eigh((1 + apart) * (-apart).exp())
            values = values.clamp(min=1e-9)
            self.roots.append((vectors * values.sqrt()).to(like))
            spectra.append(values)
        self.spectrum = torch.einsum("i,j,k->ijk", *spectra).to(like)

    def apply(self, z: Tensor) -> Tensor:
        """Return S z, (K, S, H, W)."""
        slices, rows, columns = self.roots
        return rows @ torch.einsum("st,kthw->kshw", slices, z) @ columns.T

    def adjoint(self, u: Tensor) -> Tensor:
        """Return Sᵀ u."""
        slices, rows, columns = self.roots
        return rows.T @ torch.einsum("ts,kthw->kshw", slices, u) @ columns

    def shrinkage(self) -> Callable[[Tensor], Tensor]:
        """Return what is left of a variance of 1, by the information there is."""
        eigenvalues = self.spectrum.flatten().double()
        eigenvalues = eigenvalues / eigenvalues.mean()
        ends = torch.logspace(-5, 6, 111, dtype=torch.float64)
        kept = torch.stack([(eigenvalues / (1 + n * eigenvalues)).mean() for n in ends])

        def look_up(information: Tensor) -> Tensor:
            place = (information.double().clamp(1e-5, 1e6).log10() + 5) * 10
            low = place.floor().clamp(max=109).long()
            part = place - low
            return (kept[low] * (1 - part) + kept[low + 1] * part).to(information)

        return look_up


def solve_fields(
    where: Tensor,
    matern: Matern,
    spread: Tensor,
    wide: Tensor,
    equations: tuple[Tensor, Tensor],
    z: Tensor,
) -> tuple[Tensor, Tensor]:
    """Solve for K fields and their means by preconditioned conjugate gradients.

    Parameters
    ----------
    where : Tensor of bool, shape (S, H, W)
        The V voxels with data.
    matern
    spread, wide : Tensor, shape (K, 1)
        Standard deviations of the fields, and of their means.
    equations : (Tensor, Tensor), shapes (K, K, V) and (K, V)
        Information and score of each voxel.
    z : Tensor, shape (K, S, H, W)
        Where to begin.

    Returns
    -------
    z : Tensor, shape (K, S, H, W)
        Whitened fields; they are `spread` times `Matern.apply` of it.
    means : Tensor, shape (K, 1)
    """
    information, score = equations

    def to_volume(u: Tensor) -> Tensor:
        volume = u.new_zeros(len(u), *where.shape)
        volume[:, where] = u
        return volume

    def to_fields(z: Tensor, c: Tensor) -> Tensor:
        return matern.apply(z)[:, where] * spread + wide * c

    def from_fields(u: Tensor) -> tuple[Tensor, Tensor]:
        return matern.adjoint(to_volume(u * spread)), wide * u.sum(1, keepdim=True)

    def times(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        back = from_fields((information * to_fields(z, c)).sum(1))
        return z + back[0], c + back[1]

    own = information.diagonal(dim1=0, dim2=1).T.sum(1, keepdim=True)
    even = 1 / (1 + (own / where.numel() * spread.square())[:, :, None, None] * matern.spectrum)
    even_c = 1 / (1 + wide.square() * own)

    def dot(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
        return float((a[0] * b[0]).sum(dtype=torch.float64) + (a[1] * b[1]).sum())

    c = torch.zeros_like(wide)
    right = from_fields(score)
    there = times(z, c)
    residual = right[0] - there[0], right[1] - there[1]
    whole = dot((right[0] * even, right[1] * even_c), right)
    ahead = residual[0] * even, residual[1] * even_c
    way, size = ahead, dot(ahead, residual)
    for _ in range(MOST_TURNS):
        if not size > TOLERANCE * whole:
            break
        there = times(*way)
        length = size / dot(way, there)
        z, c = z + length * way[0], c + length * way[1]
        residual = residual[0] - length * there[0], residual[1] - length * there[1]
        ahead = residual[0] * even, residual[1] * even_c
        size, before = dot(ahead, residual), size
        way = ahead[0] + size / before * way[0], ahead[1] + size / before * way[1]
    return z, wide * c
