"""Hadamard time encoding: encoding matrices, their rows' orders, and decoding.

A label of N - 1 blocks is given N times; a row of the matrix says which blocks of a volume
carry label. One row is all control. With ``h = +1`` for a control block, ``-1`` for a label
block, and the orthogonal columns of a Hadamard matrix, least squares gives the difference of
block b as ``2/N sum_v h_vb y_v`` (Günther 2007, ISMRM 15:380; von Samson-Himmelstjerna 2016,
doi:10.1002/mrm.26078). All N - 1 differences of a cycle come from the same N volumes. Their
columns are orthogonal, so noise that is independent between volumes, with a variance of
``s^2``, gives each difference the variance ``4 s^2 / N`` and no correlation between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

SIZES: Final = (4, 8, 12)
"""Sizes in use; 12 is no power of two, its matrix is Paley's."""
MIXED_8: Final = (5, 2, 6, 1, 4, 3, 7)
"""Numbers of sign changes of the rows of an order of size 8 that is in use (a product sequence's
prototype, as public decoding programs tell it)."""

CHANCE: Final = 3.0
"""Noise variances a region by which a wrong order must be worse ..."""
LEAD: Final = 4.0
"""... and standard errors over the regions."""
MISFIT: Final = 0.01
"""Share of the energy that the kinetics of a right order may leave unexplained, beside noise."""


@dataclass(frozen=True, eq=False)
class Order:
    """A Hadamard matrix with its rows in the order of the volumes.

    Attributes
    ----------
    name : str
        The order in words.
    blocks : array of int, shape (N - 1, N - 1)
        +1 for a control block, -1 for a label block: volumes of a cycle, the all-control
        one left out, by blocks, the first to be labelled first.
    in_use : bool
        Whether sequences are known to use it; the others serve to exclude it.
    """

    name: str
    blocks: np.ndarray
    in_use: bool = True

    @property
    def walsh(self) -> bool:
        """Whether the rows (or columns) go by their number of sign changes."""
        return self.name.startswith("Walsh")


def is_hadamard(blocks: np.ndarray) -> bool:
    """Tell whether ±1 `blocks` with a row and a column of ones make a Hadamard matrix."""
    n = len(blocks) + 1
    full = np.ones((n, n), int)
    full[1:, 1:] = blocks
    return bool(np.array_equal(full.T @ full, n * np.eye(n, dtype=int)))


def _sign_changes(blocks: np.ndarray) -> np.ndarray:
    full = np.concatenate([np.ones((len(blocks), 1), int), blocks], axis=1)
    return (np.diff(full, axis=1) != 0).sum(axis=1)


def _powers_of_two(size: int) -> Iterator[Order]:
    full = np.ones((1, 1), int)
    while len(full) < size:
        full = np.block([[full, full], [full, -full]])
    natural = full[1:, 1:]
    falling = natural[np.argsort(-_sign_changes(natural))]
    orders = {
        "Walsh order, falling": falling,
        "Walsh order, rising": falling[::-1],
        "natural (Sylvester) order": natural,
    }
    if size == 8:
        orders["mixed order"] = falling[[size - 1 - k for k in MIXED_8]]
    for name, blocks in orders.items():
        yield Order(name, blocks)
        yield Order(f"{name}, transposed", blocks.T)
    for name, blocks in orders.items():
        yield Order(f"{name}, blocks reversed", blocks[:, ::-1], in_use=False)
        yield Order(f"{name}, transposed, blocks reversed", blocks.T[:, ::-1], in_use=False)


def _paley(size: int) -> Iterator[Order]:
    """Every cyclic order of Paley's matrix of a prime q = N - 1 (Paley 1933)."""
    q = size - 1
    squares = {k * k % q for k in range(1, q)}
    sign = np.array([1 if k in squares else -1 for k in range(q)])
    index = np.arange(q)
    for shift in range(q):
        for word, first in (("right", -1), ("left", 1)):
            for direction, way in (("", 1), (", reversed", -1)):
                which = (way * (index[None] + first * index[:, None]) + shift) % q
                name = f"cyclic order (shifted {word} by {shift}{direction})"
                # Of 8 there are many thousand orders, of which these come near some: too many to
                # be told apart. Of 4 these are all, and those of 12 are far from each other.
                yield Order(name, sign[which], in_use=size != 8)


@cache
def known_orders(size: int) -> tuple[Order, ...]:
    """Return the row orders that are told apart, the usual one first.

    Parameters
    ----------
    size
        One of `SIZES`.
    """
    sources = [*(_powers_of_two(size) if size != 12 else ()), *_paley(size)]
    distinct: dict[bytes, Order] = {}
    for order in sources:
        distinct.setdefault(order.blocks.tobytes(), order)
    return tuple(distinct.values())


def decode(volumes: np.ndarray, blocks: np.ndarray, control: int) -> np.ndarray:
    """Decode one cycle.

    Parameters
    ----------
    volumes : array, shape (..., N)
        The N volumes of a cycle, in the order of the scanner.
    blocks
        As of an `Order`.
    control
        Place of the all-control volume in the cycle.

    Returns
    -------
    array of float32, shape (..., N - 1)
        ΔM of each block, the first to be labelled first.
    """
    rows = np.insert(blocks, control, 1, axis=0).astype(np.float32)
    return volumes.astype(np.float32) @ (rows * np.float32(2 / len(rows)))


@dataclass(frozen=True)
class Evidence:
    """How well an order explains the data, beside all others that are known.

    Attributes
    ----------
    order : Order
        The best one.
    explained : float
        Share of the energy of the differences that blood of one transit time, more or less
        spread, explains in each region.
    expected : float
        The share that noise would leave to a right order.
    rivals : tuple of str
        Orders that the data can't rule out beside it.
    """

    order: Order
    explained: float
    expected: float
    rivals: tuple[str, ...]

    @property
    def clear(self) -> bool:
        """Whether the data tell the order: it fits, is in use, and no other one comes near."""
        fits = 1 - self.explained <= MISFIT + 2 * (1 - self.expected)
        return self.order.in_use and fits and not self.rivals


def compare_orders(
    regions: np.ndarray,
    noise: np.ndarray,
    response: np.ndarray,
    orders: Sequence[Order],
    control: int,
) -> Evidence:
    """Compare orders by how well one-compartment kinetics explain what they decode to.

    The differences have the same energy in any order, for a Hadamard matrix keeps it: what
    differs is only how much of it a flow explains. An order is ruled out if it leaves much
    more than noise could: fits with more freedom in one place than in another gain up to two
    degrees of freedom by chance.

    Parameters
    ----------
    regions : array, shape (R, N)
        Mean over regions of the averaged volumes of the cycle.
    noise : array, shape (R,)
        Variance of such a mean.
    response : array, shape (R or 1, N - 1, A)
        ΔM of each block per unit of flow for A kinds of transit.
    orders
        The orders.
    control
        As in `decode`.

    Returns
    -------
    Evidence
        Of the best order.
    """
    size = regions.shape[1]
    unit = response / np.maximum(np.linalg.norm(response, axis=1, keepdims=True), 1e-30)
    of_one = np.maximum(4 / size * noise, 1e-12 * np.abs(regions).max() ** 2)
    energy, found = 0.0, []
    for order in orders:
        signal = decode(regions, order.blocks, control).astype(np.float64)
        energy = float((signal**2).sum())
        along = np.matmul(signal[:, None], unit)[:, 0].clip(min=0)
        found.append((along**2).max(axis=1))
    explained = np.array(found)
    best = int(explained.sum(axis=1).argmax())
    gain = (explained[best] - explained) / of_one
    scatter = gain.std(axis=1, ddof=1) / np.sqrt(gain.shape[1]) if gain.shape[1] > 1 else np.inf
    ruled_out = (gain.mean(axis=1) > CHANCE) & (gain.mean(axis=1) > LEAD * scatter)
    rivals = tuple(o.name for i, o in enumerate(orders) if i != best and not ruled_out[i])
    noise_energy = float(of_one.sum()) * (size - 3)
    return Evidence(
        orders[best],
        float(explained[best].sum()) / max(energy, 1e-30),
        1 - min(noise_energy / max(energy, 1e-30), 1.0),
        rivals,
    )
