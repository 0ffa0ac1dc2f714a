"""How fast a core makes phantoms and trains, and what fraction of its peak that is.

All times are processor time, so that what else runs on the machine counts little.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.data.augmentation import cropped
from asl_bids_app.training.data.batches import StepBatch
from asl_bids_app.training.data.pool import prepared
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.losses import losses
from asl_bids_app.training.fit.run_members import build_member
from asl_bids_app.training.fit.training_run import NormStats, environment
from asl_bids_app.training.fit.trunk_speed import speed_up
from asl_bids_app.training.phantoms.drawing import Phantoms, draw
from asl_bids_app.training.whole_files import write_json

log = logging.getLogger(__name__)

# Near enough to those of the phantoms; speed doesn't depend on them.
_STATS = NormStats(34.0, 21.0, 1550.0, 560.0)
_POOL = 128


def run_benchmark(
    config: RunConfig, seconds: float, threads: int, output: Path | None = None
) -> dict[str, Any]:
    """Measure phantoms a second, and training slices a second with the means one by one.

    Parameters
    ----------
    config
        Whose network, phantoms and batch are measured.
    seconds
        Length of each measurement.
    threads
        Of the processor.
    output
        JSON file to write, if any.
    """
    torch.set_num_threads(threads)
    phantoms = draw(config.phantoms, _POOL, 1)
    found: dict[str, Any] = {
        "config": config.name,
        "network": config.network.name,
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "environment": environment(),
        "phantoms_per_second": round(phantoms_per_second(config, seconds), 1),
        "peak_gflops": {
            "float32": round(peak_gflops(torch.float32), 1),
            "bfloat16": round(peak_gflops(torch.bfloat16), 1),
        },
        "training": [],
    }
    log.info("%.0f phantoms a second", found["phantoms_per_second"])
    size = config.training.batch_size
    variants = (
        ("plain", False, "float32", "never"),
        ("channels-last", True, "float32", "never"),
        ("channels-last, bfloat16", True, "bfloat16", "never"),
        ("channels-last, compiled", True, "float32", "always"),
        ("channels-last, bfloat16, compiled", True, "bfloat16", "always"),
    )
    for title, channels_last, precision, compiled in variants:
        step = _Stepper(config, phantoms, channels_last, precision, compiled)
        parts = step.measure(seconds)
        whole = sum(parts.values())
        peak = found["peak_gflops"]["bfloat16" if precision == "bfloat16" else "float32"]
        trunk = parts["network"] + parts["backward"]
        row = {
            "means": title,
            "slices_per_second": round(size / whole, 1),
            "milliseconds_per_batch": {k: round(1000 * v, 1) for k, v in parts.items()},
            "gflop_per_batch": round(step.gflop, 2),
            "peak_fraction_of_network": round(step.gflop / trunk / peak, 3),
            "peak_fraction_of_step": round(step.gflop / whole / peak, 3),
        }
        found["training"].append(row)
        log.info(
            "%s: %.0f slices a second, network at %.0f %% of peak",
            title,
            row["slices_per_second"],
            100 * row["peak_fraction_of_network"],
        )
    if output is not None:
        write_json(output, found)
    return found


def _repeat(work: Callable[[], object], seconds: float) -> float:
    """Return the seconds that one call takes, by calls that fill a time."""
    work()
    began, count = time.process_time(), 0
    while True:
        work()
        count += 1
        elapsed = time.process_time() - began
        if elapsed >= seconds:
            return elapsed / count


def phantoms_per_second(config: RunConfig, seconds: float) -> float:
    """Measure how many phantoms are drawn in a second."""
    seeds = itertools.count()
    return 64 / _repeat(lambda: draw(config.phantoms, 64, next(seeds)), seconds)


def peak_gflops(dtype: torch.dtype, size: int = 1024) -> float:
    """Measure what the processor reaches where it is best: multiplying large matrices."""
    a = torch.randn(size, size).to(dtype)
    return 2e-9 * size**3 / _repeat(lambda: a @ a, 1.0)


class _Stepper:
    """Training steps outside of Lightning, timed part by part."""

    def __init__(
        self,
        config: RunConfig,
        phantoms: Phantoms,
        channels_last: bool,
        precision: str,
        compiled: str,
    ) -> None:
        self.config = config
        network: Any = build_member(config, _STATS)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        self.module = MemberModule(config, network, 1000)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.phantoms = phantoms
        self.step = 0
        self.gflop = self._count(network)
        speed_up(network, "cpu", precision, compiled)

    def _batch(self) -> StepBatch:
        training = self.config.training
        generator = torch.Generator().manual_seed(self.step)
        rows = torch.randint(self.phantoms.count, (training.batch_size,), generator=generator)
        part = self.phantoms.pick(rows)
        if training.crop:
            part = cropped(part, training.crop, generator)
        self.step += 1
        return StepBatch(part, self.step, self.step)

    def _count(self, network: Any) -> float:
        made = prepared(network, self.module.simulated(self._batch()))
        with FlopCounterMode(display=False) as counter:
            network.corrections(made.maps).float().sum().backward()
        network.zero_grad()
        return counter.get_total_flops() / 1e9

    def _time_step(self) -> dict[str, float]:
        marks = [time.process_time()]

        def mark() -> None:
            marks.append(time.process_time())

        batch = self._batch()
        mark()
        simulated = self.module.simulated(batch)
        mark()
        network: Any = self.module.network
        made = prepared(network, simulated)
        mark()
        answer = network.corrections(made.maps)
        mark()
        estimate = network.correct(made.context, answer, made.mask, made.calibration_uncertainty)
        loss, _ = losses(estimate, made, self.config.training)
        mark()
        loss.backward()
        mark()
        nn.utils.clip_grad_norm_(network.parameters(), self.config.training.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mark()
        names = ("data", "simulate", "prepare", "network", "loss", "backward", "optimiser")
        spans = (after - before for before, after in itertools.pairwise(marks))
        return dict(zip(names, spans, strict=True))

    def measure(self, seconds: float) -> dict[str, float]:
        """Return the mean seconds of each part of a step."""
        for _ in range(2):
            self._time_step()
        began = time.process_time()
        rows: list[dict[str, float]] = []
        while not rows or time.process_time() - began < seconds:
            rows.append(self._time_step())
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
