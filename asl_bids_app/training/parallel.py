"""The same function for many arguments, in several processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def _begin(threads: int) -> None:
    """Prepare a process that works for another one, and ends with it."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        # Killed, the parent can't tell its workers, which would wait for work for ever.
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


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
    threads = max(1, (os.cpu_count() or 1) // workers)
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
