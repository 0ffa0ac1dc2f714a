"""Telling the pull of a contrast from motion, in estimated motion parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from asl_bids_app.preprocess.robust import PER_MEDIAN

ARC_MM: Final = 50.0
"""A rotation (radians) counts as this many mm, as in framewise displacement."""
CONTRAST_MM: Final = 0.5
"""How far a registration across contrasts may be off: what was seen on real data between
an M0 and background-suppressed delays."""
STILLEST_MM: Final = 0.07
"""Least step from volume to volume that is believed."""
JERK_MM: Final = 1.2
"""A larger step is a movement, unless it comes back at every change between two contrasts."""
USUAL_TIMES: Final = 4.0
"""Label and control this many times further apart than in the calmest quarter of the pairs, and
further than a jerk: the head moved between them."""
CAUCHY: Final = 2.4
"""Steps this many times the usual one count less and less."""
_MM: Final = np.array([1.0] * 3 + [ARC_MM] * 3)


def remove_alternation(
    path: np.ndarray, kinds: Sequence[str], groups: Sequence[Sequence[int]], fewest: int
) -> np.ndarray:
    """Remove the systematic difference between label and control volumes.

    The head doesn't move in step with the labelling; a median over pairs that says so is the
    labelled blood. Its half is taken from both sides. Groups of few pairs share one median;
    with fewer than that in the whole run nothing is done. A pair between whose volumes the head
    jumped does not count: labelled blood pulls by less. A median that is small against its own
    uncertainty, the head having wandered, is shrunk towards zero (James and Stein 1961).

    Parameters
    ----------
    path : array, shape (N, 6)
        Motion within each group.
    kinds
        Volume types.
    groups
        Volumes of each contrast.
    fewest
        Pairs that a median needs.

    Returns
    -------
    array, shape (N, 6)
    """
    pairs = []
    for volumes in groups:
        labels = [i for i in volumes if kinds[i] == "label"]
        controls = [i for i in volumes if kinds[i] == "control"]
        pairs.append(list(zip(labels, controls, strict=False)))
    size = {(a, b): np.linalg.norm((path[a] - path[b]) * _MM) for group in pairs for a, b in group}
    if size:
        limit = max(JERK_MM, USUAL_TIMES * float(np.percentile(list(size.values()), 25)))
        pairs = [[pair for pair in group if size[pair] <= limit] for group in pairs]
    every = [pair for group in pairs for pair in group]
    path = path.copy()
    original = path.copy()

    def median(chosen: list[tuple[int, int]]) -> np.ndarray:
        apart = np.array([original[a] - original[b] for a, b in chosen]) * _MM
        middle = np.median(apart, axis=0).reshape(2, 3)  # shift, rotation
        spread = PER_MEDIAN * np.median(np.abs(apart - middle.ravel()), axis=0).reshape(2, 3)
        variance = np.pi / 2 * (spread**2).sum(axis=1) / len(chosen)  # of a median, if normal
        power = np.maximum((middle**2).sum(axis=1), 1e-12)
        return (middle * np.maximum(0.0, 1.0 - variance / power)[:, None]).ravel() / _MM

    for volumes, group in zip(groups, pairs, strict=True):
        chosen = group if len(group) >= fewest else every
        if not group or len(chosen) < fewest:
            continue
        shift = median(chosen)
        for index in volumes:
            path[index] -= {"label": 0.5, "control": -0.5}.get(kinds[index], 0.0) * shift
    return path


def steady_offsets(
    path: np.ndarray, groups: Sequence[Sequence[int]], guess: np.ndarray, main: int
) -> np.ndarray:
    """Correct the offsets between contrasts so that the head moves steadily in time.

    Minimises ``sum_t rho(step_t / s) + sum_g |offset_g - guess_g|² / c²``: s is the usual
    step between neighbouring volumes of one contrast, c the usual error of a registration
    across contrasts, rho Cauchy's. Jerks don't count: a step is one if it is large at the
    guess and other changes between the same contrasts (three or more) don't repeat it.

    Parameters
    ----------
    path : array, shape (N, 6)
        Motion within each group, mm and radians.
    groups
        Volumes of each contrast; volumes of none are passed over.
    guess : array, shape (G, 6)
        Offsets as registered.
    main
        The group whose offset is zero.

    Returns
    -------
    array, shape (G, 6)
    """
    count = len(groups)
    owner = {index: number for number, volumes in enumerate(groups) for index in volumes}
    order = sorted(owner)
    if count == 1 or len(order) < 2:
        return guess
    own = np.array([owner[i] for i in order])
    steps = np.diff(path[order] * _MM, axis=0)
    guess_mm = guess * _MM
    same = own[1:] == own[:-1]
    within = np.linalg.norm(steps[same], axis=1)
    usual = max(STILLEST_MM, float(np.median(within)) if within.size else 0.0)

    design = np.zeros((len(steps), count))
    design[np.arange(len(steps)), own[1:]] += 1
    design[np.arange(len(steps)), own[:-1]] -= 1
    free = [g for g in range(count) if g != main]
    reduced = design[:, free]
    offsets = guess_mm - guess_mm[main]
    target = offsets[free].copy()
    steady = ~_jerks(steps + design @ offsets, own)
    weight = steady / usual**2
    for _ in range(20):
        normal = reduced.T @ (weight[:, None] * reduced) + np.eye(len(free)) / CONTRAST_MM**2
        right = -reduced.T @ (weight[:, None] * steps) + target / CONTRAST_MM**2
        offsets[free] = np.linalg.solve(normal, right)
        size = np.linalg.norm(steps + design @ offsets, axis=1)
        weight = steady / usual**2 / (1 + (size / (CAUCHY * usual)) ** 2)
    return offsets / _MM


def _jerks(steps: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Say which steps (mm) from volume to volume are movements of the head for certain."""
    kinds = np.stack([own[:-1], own[1:]], axis=1)
    rest = steps.copy()
    for kind in np.unique(kinds, axis=0):
        members = (kinds == kind).all(axis=1)
        if members.sum() >= 3:
            rest[members] -= np.median(steps[members], axis=0)
    return np.linalg.norm(rest, axis=1) > JERK_MM
