"""Which volumes of an M0 series show the magnetisation, and which are empty or unlike the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

UNLIKE: Final = 2.0
"""A volume this many times fainter or brighter than usual, its recovery taken into account, was
not acquired as the others: a dummy, a shot without signal, or one with suppression."""
BRIGHT: Final = 90
"""Percentile of the voxels that stands for the brightness of a volume; most of a field of view is
air."""


@dataclass(frozen=True)
class Choice:
    """The volumes of an M0 series that are used.

    Attributes
    ----------
    used : tuple of int
    passed_over : tuple of str
        A sentence for each volume that isn't.
    """

    used: tuple[int, ...]
    passed_over: tuple[str, ...]


def choose_volumes(
    volumes: np.ndarray, factors: Sequence[float], numbers: Sequence[int] | None = None
) -> Choice:
    """Choose the volumes of an M0 series that can be averaged.

    Parameters
    ----------
    volumes : array, shape (X, Y, Z, k)
        0 where a voxel holds no number.
    factors : length k
        Undo the incomplete recovery of each volume.
    numbers : length k
        What messages call the volumes; by default 0 to k - 1.

    Returns
    -------
    Choice
        Without any signal at all, all volumes are used: nothing is better than another then.
    """
    count = volumes.shape[3]
    numbers = list(range(count)) if numbers is None else list(numbers)
    bright = np.array(
        [
            float(np.percentile(volumes[..., i], BRIGHT)) or float(volumes[..., i].max())
            for i in range(count)
        ]
    ) * np.asarray(factors, float)
    alive = bright > 0
    if not alive.any():
        return Choice(tuple(range(count)), ())
    # Of two volumes either may be the odd one; the fault is more often a faint volume.
    usual = float(np.median(bright[alive]) if alive.sum() > 2 else bright[alive].max())
    used, passed_over = [], []
    for index in range(count):
        ratio = bright[index] / usual
        if alive[index] and 1 / UNLIKE <= ratio <= UNLIKE:
            used.append(index)
            continue
        how = f"{ratio:.2g} times as bright as the others" if alive[index] else "empty"
        passed_over.append(f"volume {numbers[index]} (counted from 0) is {how} and passed over")
    return Choice(tuple(used), tuple(passed_over))
