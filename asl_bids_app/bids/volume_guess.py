"""Guessing what each volume of an image is from its brightness, for review by a person.

No run uses what is guessed here; see `asl_bids_app.bids.propose`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from asl_bids_app.bids.words import Guess

UNKNOWN: Final = "?"
"""Stands in a proposed table for a volume of which nothing is known; no run accepts it."""

BRIGHTER: Final = 1.25
"""First or last volumes brighter than all others by this factor are an M0."""
MOST: Final = 4
"""M0 volumes looked for at either end."""
OUTLYING: Final = 8.0
"""Robust standard deviations above the others from which on a first volume is an M0."""
DARK: Final = 0.1
"""Differences of control and label are darker than this fraction of the M0."""
NEGATIVE: Final = 0.05
"""Share of negative voxels in the head that magnitude images never have."""
CONSISTENT: Final = 0.8
"""Share of pairs that have to agree on which volume is brighter."""
SIGNIFICANT: Final = 3.0
"""Their mean difference over its standard error."""
SMALL: Final = 0.002
"""Smallest difference, as a fraction of the signal, on which one or two pairs may decide."""

LARGE: Final = 0.3
"""More than labelled blood takes away, unless the background is nulled."""

DRIFT: Final = (0.5, 2.0)
"""Mean step from pair to pair over that within them, where neither is of labelled blood."""

DIFFERENCES: Final = re.compile(r"perfusion.?weighted|pwi|subtract|delta.?m|\bdiff")
QUANTIFIED: Final = re.compile(r"cbf|blood.?flow")


def guess_kinds(data: np.ndarray, metadata: Mapping[str, Any]) -> list[Guess]:
    """Guess the type of every volume.

    The M0 is recognised by its delay of 0 or by its brightness, differences by negative values or
    by being dark beside an M0, and control from label by which of the two is brighter:
    labelled blood takes signal away (Alsop 2015, doi:10.1002/mrm.25197).

    Parameters
    ----------
    data : array, shape (X, Y, Z, n)
        The volumes.
    metadata
        The sidecar.

    Returns
    -------
    list of Guess
        One for each volume: a volume type, or `UNKNOWN`, and what it rests on.
    """
    n = data.shape[3]
    mean = np.abs(data).mean(axis=3)
    head = mean > 0.2 * np.percentile(mean, 98)
    inside = data[head].astype(float)
    signal = inside.mean(axis=0)
    guesses = [Guess(UNKNOWN, "not known")] * n
    for index, why in _calibration(signal, metadata).items():
        guesses[index] = Guess("m0scan", why)
    rest = [i for i in range(n) if guesses[i].value == UNKNOWN]
    if not rest:
        return guesses
    m0 = [signal[i] for i in range(n) if i not in rest]
    derived = _derived(inside[:, rest], signal[rest], m0, metadata)
    found = [derived] * len(rest) if derived else _pairs(signal[rest])
    for index, guess in zip(rest, found, strict=True):
        guesses[index] = guess
    return guesses


def _calibration(signal: np.ndarray, metadata: Mapping[str, Any]) -> dict[int, str]:
    """Find the M0 volumes: index to reason."""
    n = len(signal)
    delays = metadata.get("PostLabelingDelay")
    if isinstance(delays, list) and len(delays) == n:
        silent = [i for i, delay in enumerate(delays) if delay == 0]
        if 0 < len(silent) < n:
            return dict.fromkeys(silent, "its PostLabelingDelay is 0")
    for count in range(1, min(MOST, n - 1) + 1):
        for chosen in (range(count), range(n - count, n)):
            rest = np.delete(signal, list(chosen))
            # Among pairs of several delays the brightest are no M0: their number tells.
            bound = BRIGHTER if len(rest) % 2 == 0 and count < n / 2 else 1 / DARK
            ratio = float(signal[list(chosen)].min() / max(np.abs(rest).max(), 1e-30))
            if ratio > bound:
                return dict.fromkeys(chosen, f"at least {ratio:.3g} times as bright as the others")
    above = float(signal[0] - signal[1:].max())
    from scipy.stats import median_abs_deviation

    spread = float(median_abs_deviation(signal[1:], scale="normal"))
    if n % 2 and n > 4 and above > OUTLYING * spread:
        share = above / float(np.abs(signal[1:]).max())
        return {0: f"brighter than the others by {share:.1%}, and their number is even"}
    return {}


def _derived(
    inside: np.ndarray, signal: np.ndarray, m0: Sequence[float], metadata: Mapping[str, Any]
) -> Guess | None:
    """Tell volumes that are no control or label: differences, or maps of CBF."""
    texts = [metadata.get(key) for key in ("ImageType", "SeriesDescription", "ProtocolName")]
    words = " ".join(
        " ".join(map(str, text)) if isinstance(text, list) else str(text) for text in texts
    ).casefold()
    negative = float((inside < 0).mean())
    dark = bool(m0) and float(np.abs(signal).max()) < DARK * max(m0)
    if negative > NEGATIVE or (dark and len(signal) == 1):
        why = (
            f"{negative:.0%} of its voxels in the head are negative"
            if negative > NEGATIVE
            else f"{abs(signal[0]) / max(m0):.1%} of the M0's brightness"
        )
        return Guess("deltam", f"a difference of control and label: {why}")
    for kind, pattern in (("cbf", QUANTIFIED), ("deltam", DIFFERENCES)):
        found = pattern.search(words)
        # Names of series tell what was scanned; of a pair of volumes they don't tell enough.
        if found and len(signal) % 2:
            return Guess(kind, f"{found[0]!r} in ImageType or the name of the series")
    return None


def _pairs(signal: np.ndarray) -> list[Guess]:
    """Tell control from label by which is brighter, in turns or in two halves."""
    n = len(signal)
    if n % 2 or not n:
        why = f"not known: {n} volumes are no pairs"
        return [Guess(UNKNOWN, why)] * n
    turns = signal.reshape(-1, 2)
    halves = signal.reshape(2, -1).T
    for pairs, how in ((turns, "in turns"), (halves, "in two halves")):
        difference = pairs[:, 0] - pairs[:, 1]
        size = float(difference.mean() / np.abs(pairs).mean())
        agree = int((np.sign(difference) == np.sign(difference.mean())).sum())
        count = len(difference)
        if count > 2:
            error = difference.std(ddof=1) / np.sqrt(count)
            sure = abs(difference.mean()) > SIGNIFICANT * error and agree >= CONSISTENT * count
        else:
            sure = abs(size) > SMALL and agree == count
        if how == "in two halves" and sure:
            # A drift does the same: the step must be larger than all others.
            steps = np.abs(np.diff(signal))
            sure = steps[count - 1] > 2 * np.delete(steps, count - 1).max(initial=0.0)
        if how == "in turns" and count > 1:
            # A drift goes on from pair to pair as it does within one; turns go back.
            step = float((pairs[:-1, 1] - pairs[1:, 0]).mean())
            between = step / (float(difference.mean()) or np.inf)
            sure = sure and not DRIFT[0] < between < DRIFT[1]
        if not sure or abs(size) > LARGE:
            continue
        order = ("control", "label") if difference.mean() > 0 else ("label", "control")
        why = (
            f"control and label {how}, {order[0]} first: the control is brighter by "
            f"{abs(size):.2%} on average and in {agree} of {count} pairs"
        )
        names = order * count if how == "in turns" else (order[0],) * count + (order[1],) * count
        return [Guess(name, why) for name in names]
    why = "not known: neither the even nor the odd volumes are brighter throughout"
    return [Guess(UNKNOWN, why)] * n
