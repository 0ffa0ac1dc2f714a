"""What worker processes are started with. Only the standard library is imported here."""

from __future__ import annotations

import logging
import multiprocessing
import os
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asl_bids_app.options.table import AppOptions

LOG = logging.getLogger("asl-app")

QUIET: Final = "ASL_APP_QUIET_NIPYPE"
"""Set in the environment of the processes in which nipype is to be silent."""
_PRELOAD: Final = "asl_bids_app.workflows.preload"
"""Imported once, before workers part from the process that makes them."""


def _set_environment(threads: int, verbose: bool) -> None:
    """Set what workers take from the environment; what the user has set stays."""
    # Every step's worker may use as many threads as its step was given, not more.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Threads that spin while they wait cost several times the work itself on a shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's library for matrices has threads of its own, which do spin; its matrices are small.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # One store of freed memory for all threads of a process (glibc), which goes back whole.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    if not verbose:
        os.environ[QUIET] = "1"


def prepare_workers(options: AppOptions) -> None:
    """Let the process that makes workers import the libraries while the dataset is read.

    Each worker would import them anew otherwise: seconds and hundreds of megabytes.
    """
    threads = options.omp_nthreads or options.nprocs
    _set_environment(threads, options.debug or options.verbose > 1)
    if options.nprocs == 1 or options.use_plugin is not None:
        return
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload([_PRELOAD])
        forkserver.ensure_running()
    except (OSError, ValueError) as error:
        LOG.debug("workers import for themselves: %s", error)
