"""The same function for many arguments, in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from asl_bids_app.allocation import processors
from asl_bids_app.processes import follow_parent

Result = TypeVar("Result")


def _begin(threads: int) -> None:
    """Prepare a process that works for another one, and ends with it."""
    torch.set_num_threads(threads)
    follow_parent()


def in_processes(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[Result]:
    """Call a function with each tuple of arguments, and yield the results in their order.

    Parameters
    ----------
    function
        Of a module, so that another process finds it.
    jobs
        Its arguments.
    workers
        Processes, which share the cores; 1: this process does all.

    Raises
    ------
    ValueError
        If `workers` is below 1; and whatever the function raises.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}, expected 1 or more")
    workers = min(workers, len(jobs))
    if workers < 2:
        for job in jobs:
            yield function(*job)
        return
    threads = max(1, processors() // workers)
    with ProcessPoolExecutor(
        workers,
        # A forked process may hang in the threads of torch that it inherits.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(threads,),
    ) as pool:
        waiting = [pool.submit(function, *job) for job in jobs]
        try:
            for future in waiting:
                yield future.result()
        finally:
            # After an error nobody waits for the rest.
            for future in waiting:
                future.cancel()
