"""Seconds of steps that nobody should have to wait for: reading, averaging, reports.

    python benchmarks/everyday_times.py

Run it on an idle machine. It prints the time of each step beside the time that would be too
much, and exits with an error where one takes longer.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import group_example
import reports_example
from fake_bids import FakeDataset

from asl_bids_app.bids.layout import find_runs
from asl_bids_app.preprocess.volumes import average_measurements
from asl_bids_app.reports.group import write_group
from asl_bids_app.reports.participant import write_participant_report


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes by the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def average() -> Callable[[], object]:
    """Average 8 repeats of 6 delays, 64x64x24 voxels."""
    shape, rng = (64, 64, 24), np.random.default_rng(0)
    order = [(k, 0.5 + d / 2) for _ in range(8) for d in range(6) for k in ("control", "label")]
    data = rng.normal(1000, 1, (*shape, len(order))).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[12:52, 10:56, 2:22] = True
    delays = np.array([delay for _, delay in order])
    return lambda: average_measurements(
        data, [kind for kind, _ in order], delays, np.full(len(order), 1.8), mask
    )


def main() -> int:
    """Measure every step and print a table."""
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset = FakeDataset(root / "bids")
        for number in range(100):
            label = f"{number:03d}"
            dataset.add(label, acq="pcasl", shape=(2, 2, 2), repeats=1)
            dataset.add(label, acq="vsasl", scheme="VSASL", shape=(2, 2, 2), repeats=1)
        find_runs(dataset.root, ["000"])  # imports
        for number in range(500):
            group_example.add(root / "group", {"sub": f"{number:03d}"}, {"cbf_mean_gm": 50.0})
        brain = reports_example.Brain(step=2)
        reports_example.write_participant(root / "one", "01", brain=brain)
        write_participant_report(root / "one", "01")  # imports
        steps: tuple[tuple[str, float, Callable[[], object]], ...] = (
            ("reading 100 participants of two runs", 15, lambda: find_runs(dataset.root)),
            ("reading one of them", 3, lambda: find_runs(dataset.root, ["042"])),
            ("averaging 48 pairs of 64x64x24 voxels", 6, average()),
            ("group report of 500 participants", 10, lambda: write_group(root / "group")),
            ("report of a run", 15, lambda: write_participant_report(root / "one", "01")),
        )
        for name, limit, work in steps:
            took = seconds(work)
            slow |= took > limit
            print(f"{name:40s} {took:6.2f} s (too much: {limit} s)")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
