"""Reports of many participants, written side by side."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

from asl_bids_app.processes import begin_worker

FEWEST: Final = 4
"""Participants from which workers are started: each has to import what draws."""


def each_report(
    output_dir: Path, nprocs: int, labels: Sequence[str]
) -> Iterator[Path | Exception]:
    """Write the report of each participant; yield its path or what went wrong, in their order.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    nprocs
        Reports that are written at a time.
    labels
        Participants, without ``sub-``.
    """
    if nprocs == 1 or len(labels) < FEWEST:
        yield from (_write(output_dir, label) for label in labels)
        return
    pool = ProcessPoolExecutor(
        max_workers=min(nprocs, len(labels)),
        initializer=begin_worker,
        mp_context=multiprocessing.get_context("forkserver"),
    )
    try:
        waiting = [pool.submit(_write, output_dir, label) for label in labels]
        for label, future in zip(labels, waiting, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                # A worker was killed, for want of memory most often: here there is more.
                yield _write(output_dir, label)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _write(output_dir: Path, label: str) -> Path | Exception:
    from asl_bids_app.reports.participant import write_participant_report

    try:
        return write_participant_report(output_dir, label)
    except Exception as error:
        return error
