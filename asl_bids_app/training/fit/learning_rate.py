"""What changes in the course of a training: the learning rate, and what the loss counts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asl_bids_app.training.config.sections import TrainingConfig


def _cycle_length(steps: int, cycles: int) -> float:
    return max(1, steps / cycles)


def find_cycle(step: int, steps: int, cycles: int) -> int:
    """Return in which of the cycles of the learning rate, counted from 0, a step lies."""
    return min(int(step / _cycle_length(steps, cycles)), cycles - 1)


def rate(step: int, steps: int, warmup: int, cycles: int = 1) -> float:
    """Return the learning rate at a step relative to its highest: a ramp, half a cosine.

    With more cycles the cosine begins anew, at half the height each time: what was learnt is
    gone on with rather than thrown away. Loshchilov and Hutter 2017, arXiv:1608.03983, who
    begin at the full height.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    length = _cycle_length(steps, cycles)
    cycle = find_cycle(step, steps, cycles)
    begin = cycle * length if cycle else warmup
    progress = (step - begin) / max(1, (cycle + 1) * length - begin)
    return 0.5**cycle * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def in_cycle(training: TrainingConfig, cycle: int) -> TrainingConfig:
    """Return the settings as they hold in a cycle, counted from 0.

    What differs in the last cycle is decided here alone: the loss knows no cycles.
    """
    last = cycle == training.cycles - 1
    slices_count = training.slices_count
    if slices_count == "relative_in_last_cycle":
        slices_count = "relative" if last else "by_error"
    heavier = training.lesion_weight_in_last_cycle if last else 0
    return replace(
        training, slices_count=slices_count, lesion_weight=heavier or training.lesion_weight
    )
