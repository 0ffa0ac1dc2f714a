"""The times of the sub-boli of a time-encoded run, from one number or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.spans import show

SAME: Final = 0.005
"""Seconds by which times of sub-boli may be rounded."""
LONGEST_LABEL: Final = 6.0
"""Seconds; no label is longer in all, for blood forgets it with a T1 of 1.65 s."""


def sub_bolus_times(
    fields: Fields,
    kinds: Sequence[str],
    cycles: tuple[tuple[int, ...], ...],
    uniform: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Read delay and duration of each sub-bolus.

    Parameters
    ----------
    fields, kinds
        The run.
    cycles
        Volumes of each cycle.
    uniform
        Place in the cycle of the volume whose sub-boli are all alike.

    Returns
    -------
    array, array, shape (N - 1,)
        Seconds, the first to be labelled first.

    Raises
    ------
    InputError
        If they don't follow from the sidecar, or contradict each other.
    """
    blocks, key = len(cycles[0]) - 1, "LabelingDuration"
    delay = _per_block(fields, "PostLabelingDelay", kinds, cycles, uniform)
    length = _per_block(fields, key, kinds, cycles, uniform)
    if length.min() <= 0:
        raise fields.fault(key, "0", "more than 0 s")
    cure = "give the delay and the duration of each sub-bolus as lists of " + str(blocks)
    if len(delay) == 1:
        if len(length) == 1:
            length = np.full(
                blocks, _block_duration(fields, float(length[0]), float(delay[0]), blocks)
            )
        elif np.ptp(length) > SAME:
            found = "durations of sub-boli that differ beside one delay"
            raise fields.fault("PostLabelingDelay", found, "the delay of each sub-bolus", cure)
        after = np.concatenate([np.cumsum(length[::-1])[-2::-1], [0.0]])
        return delay[0] + after, length
    order = np.argsort(-delay, kind="stable")
    delay = delay[order]
    gaps = delay[:-1] - delay[1:]
    if gaps.min() <= SAME:
        found = show(fields["PostLabelingDelay"])
        raise fields.fault("PostLabelingDelay", found, "another delay for each sub-bolus", cure)
    if len(length) > 1:
        length = length[order]
    elif np.abs(gaps - length[0]).max() <= SAME:
        length = np.full(blocks, length[0])
    else:
        # One number beside a delay for each sub-bolus is the whole label, as BIDS has it.
        length = np.concatenate([length - gaps.sum(), gaps])
    if length.min() <= SAME or np.abs(gaps - length[1:]).max() > SAME:
        found = f"{show(fields[key])} with delays of {', '.join(f'{d:g}' for d in delay)} s"
        raise fields.fault(key, found, "sub-boli that follow on one another", cure)
    return delay, length


def _per_block(
    fields: Fields,
    key: str,
    kinds: Sequence[str],
    cycles: tuple[tuple[int, ...], ...],
    uniform: int,
) -> np.ndarray:
    """Return one value, or one for each sub-bolus as the sidecar has them."""
    size = len(cycles[0])
    what = "the time in seconds of the last sub-bolus, or of each"
    if key not in fields:
        raise fields.missing(key, what)
    values: Any = np.array(fields.numbers(key, what))
    if len(values) in {1, size - 1}:
        return values
    if len(values) == len(kinds):
        values = np.array([values[list(cycle)] for cycle in cycles])
    elif len(values) == size:
        values = values[None]
    else:
        expected = f"1, {size - 1} (one for each sub-bolus) or {len(kinds)} (one for each volume)"
        raise fields.fault(key, f"{len(values)} values", expected)
    if np.ptp(values, axis=0).max() > SAME:
        raise fields.fault(key, "values that differ from cycle to cycle", "the same in each cycle")
    encoded = np.delete(values[0], uniform)
    return encoded[:1] if np.ptp(encoded) <= SAME else encoded


def _block_duration(fields: Fields, length: float, delay: float, blocks: int) -> float:
    """Return the duration of a block of a label whose `LabelingDuration` is one number.

    BIDS means the whole label; some converters write that of one sub-bolus. Which one it is
    shows where several of that length don't fit into the repetition time or into T1.
    """
    key, other = "LabelingDuration", "RepetitionTimePreparation"
    longest = LONGEST_LABEL
    if other in fields:
        times = fields.numbers(other, "the repetition time in seconds")
        longest = min(longest, max(times) - delay)
    if blocks * length <= longest + SAME:
        raise fields.fault(
            key,
            f"{length:g}, which may be the label of {blocks} sub-boli or one of them",
            "the duration of each sub-bolus",
            f"give them as a list of {blocks}",
        )
    return length / blocks
