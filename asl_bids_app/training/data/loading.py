"""How batches reach the process that trains: made by it, or by others in time for a GPU."""

from __future__ import annotations

from typing import Final

from torch.utils.data import DataLoader

from asl_bids_app.allocation import processors
from asl_bids_app.training.data.batches import Batches, Step
from asl_bids_app.training.stop_signals import ignore_signals

_MOST: Final = 4
"""Processes that load for one that trains: each keeps phantoms in memory."""
_AHEAD: Final = 4
"""Batches that each of them makes before they are asked for."""


def loading_processes(device: str, ranks: int = 1) -> int:
    """Return how many processes make batches for each one that trains.

    None on the processor, whose cores training needs itself; on a GPU those that the job has
    beside the training process.
    """
    if device == "cpu":
        return 0
    return max(0, min(_MOST, processors() // max(1, ranks) - 1))


def load_batches(batches: Batches, device: str, ranks: int = 1) -> DataLoader[Step]:
    """Return a loader of training steps, the same ones however many processes make them.

    Parameters
    ----------
    batches
        Of one training process.
    device
        ``cpu``, ``cuda`` or ``mps``.
    ranks
        Processes that train on this machine.
    """
    workers = loading_processes(device, ranks)
    if not workers:
        return DataLoader(batches, batch_size=None, pin_memory=device == "cuda")
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        pin_memory=device == "cuda",
        persistent_workers=True,
        # A forked process may hang in the threads and the CUDA context that it inherits.
        multiprocessing_context="spawn",
        worker_init_fn=_begin,
    )


def _begin(_worker: int) -> None:
    ignore_signals()
