"""Slices in batches, smaller ones and at last on the CPU where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from asl_bids_app.estimators.devices import is_out_of_memory
from asl_bids_app.progress_callback import OnProgress

LOG = logging.getLogger(__name__)
Prepared = TypeVar("Prepared")


def run_in_batches(
    places: Tensor,
    batch_size: int,
    device: torch.device,
    prepare: Callable[[torch.device], Prepared],
    run: Callable[[Tensor, Prepared, torch.device], Tensor],
    on_progress: OnProgress,
) -> list[Tensor]:
    """Run a function on batches of slices.

    Memory that runs out halves the batch; if one slice is too much for an accelerator, the CPU
    takes over.

    Parameters
    ----------
    places : Tensor of int, shape (B,)
        Slices.
    batch_size
        Slices at a time.
    device
        Where to begin.
    prepare
        Makes what `run` needs on a device.
    run
        Takes places, what was prepared, and the device.
    on_progress
        Takes how many slices are done.

    Returns
    -------
    list of Tensor
        What `run` gave for each batch.

    Raises
    ------
    RuntimeError, MemoryError
        Of `run`, if the CPU has no memory for one slice, or for any other reason.
    """
    size, start = min(batch_size, len(places)), 0
    done: list[Tensor] = []
    prepared = prepare(device)
    while start < len(places):
        on_progress("slice", start, len(places))
        try:
            part = run(places[start : start + size], prepared, device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if size > 1:
                size = -(-size // 2)
                LOG.warning("%s ran out of memory: %d slices at a time", device, size)
            elif device.type != "cpu":
                LOG.warning("%s hasn't enough memory for one slice: going on by CPU", device)
                device, size = torch.device("cpu"), min(batch_size, len(places))
                prepared = prepare(device)
            else:
                raise
            continue
        done.append(part)
        start += size
    return done
