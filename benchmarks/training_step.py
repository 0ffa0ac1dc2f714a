"""What a training step asks of a device: operators, waits for the device, time.

``python benchmarks/training_step.py --config laptop`` counts on the processor what a GPU would be
given (the code takes a GPU's way, on the processor's numbers). ``--device cuda`` runs it there,
lets PyTorch report every wait, and measures. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from asl_bids_app.networks import analytic, grid
from asl_bids_app.training import random_fields
from asl_bids_app.training.config.run_config import RunConfig, load
from asl_bids_app.training.data.augmentation import cropped
from asl_bids_app.training.data.batches import Step, StepBatch
from asl_bids_app.training.fit.accelerator import describe_device, full_precision
from asl_bids_app.training.fit.callbacks import average_module
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.run_members import build_member
from asl_bids_app.training.fit.training_run import NormStats
from asl_bids_app.training.fit.trunk_speed import speed_up
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.simulate import disturbances, rician

WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")
"""Operators whose result the processor has to know before it can go on."""
_NO_WORK = frozenset(
    {
        *("aten::as_strided", "aten::as_strided_", "aten::view", "aten::_reshape_alias"),
        *("aten::_unsafe_view", "aten::empty", "aten::empty_strided", "aten::resize_"),
        *("aten::to", "aten::result_type", "aten::resolve_conj", "aten::detach"),
    }
)
"""Operators that name or reserve memory: a GPU is given nothing to do."""
_STATS = NormStats(34.0, 21.0, 1550.0, 560.0)


class Stepper:
    """Training steps outside of Lightning, all that happens in each included."""

    def __init__(self, config: RunConfig, device: str) -> None:
        self.config, self.device = config, device
        torch.manual_seed(1)
        self.module = MemberModule(config, build_member(config, _STATS), 1000).to(device)
        self.average = MemberModule(config, build_member(config, _STATS), 1000).to(device)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        if device == "cuda":
            speed_up(self.module.network, device, config.training.precision, "never")
        training = config.training
        phantoms = draw(config.phantoms, training.batch_size, 1)
        if training.crop:
            phantoms = cropped(phantoms, training.crop, torch.Generator().manual_seed(1))
        self.phantoms = phantoms.pin_memory() if device == "cuda" else phantoms
        self.number = 0

    def batch(self) -> StepBatch:
        """Return what other processes make in time: phantoms and their physics."""
        self.number += 1
        made = StepBatch(self.phantoms, self.number, self.number).drawn(self.config.domain)
        return made.pin_memory() if self.device == "cuda" else made

    def step(self, batch: StepBatch) -> torch.Tensor:
        """Take one step."""
        ready = self.module._ready(Step((batch,), batch.seed, batch.step))
        loss, _ = self.module._losses_of_all(ready, 0)
        loss.backward()
        clip = self.config.training.gradient_clip
        nn.utils.clip_grad_norm_(self.module.parameters(), clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        average_module(self.average, self.module, batch.step, 0.999)
        return loss.detach()


def as_on_a_gpu() -> ExitStack:
    """Let the code take the way of a GPU while the processor computes."""
    stack = ExitStack()
    for module in (random_fields, disturbances, rician):
        stack.enter_context(patch.object(module, "search_pays", lambda _device: False))
    stack.enter_context(patch.object(analytic, "_slice_by_slice", lambda _device: False))
    large = grid._ZOOM_CHUNKS["cuda"]
    stack.enter_context(patch.object(grid, "_zoom_chunk", lambda _device: large))
    return stack


def count(stepper: Stepper) -> dict[str, int]:
    """Count the operators of one step and those that wait, by the profiler."""
    stepper.step(stepper.batch())
    batch = stepper.batch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        stepper.step(batch)
    events = [event for event in profile.events() if _counts(event)]
    names = Counter(event.name for event in events)
    leaves = [event.name for event in events if not event.cpu_children]
    return {
        "operators": len(leaves),
        "launches": sum(name not in _NO_WORK for name in leaves),
        "waits": sum(names[name] for name in WAITS),
        "constants": names["aten::lift_fresh"],
    }


def _counts(event: Any) -> bool:
    """Tell whether an event is an operator that a GPU would be given, too."""
    parent = event.cpu_parent
    while parent is not None:
        # On the processor the optimiser reads its count of the steps; on a GPU it doesn't.
        if "fused_adam" in parent.name:
            return False
        parent = parent.cpu_parent
    return event.name.startswith("aten::")


def reported_waits(stepper: Stepper) -> int:
    """Count the waits that CUDA itself reports in one step."""
    batch = stepper.batch()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as met:
            warnings.simplefilter("always")
            stepper.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in met)


def slices_per_second(stepper: Stepper, seconds: float) -> float:
    """Measure steps by the clock, the device's work included."""

    def settle() -> float:
        if stepper.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(3):
        stepper.step(stepper.batch())
    began, steps = settle(), 0
    while time.perf_counter() - began < seconds:
        stepper.step(stepper.batch())
        steps += 1
    return steps * stepper.config.training.batch_size / (settle() - began)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="laptop")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=0.0, help="also measure so long")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    full_precision()
    config = load(arguments.config, [*arguments.changes, "training.reuse=1"])
    stepper = Stepper(config, arguments.device)
    found: dict[str, object] = {
        "config": config.name,
        "slices": config.training.batch_size,
        "device": describe_device(arguments.device),
    }
    if arguments.device == "cuda":
        found |= count(stepper)
        found["waits that CUDA reports"] = reported_waits(stepper)
    else:
        with as_on_a_gpu():
            found |= count(stepper)
    if arguments.seconds:
        found["slices per second"] = round(slices_per_second(stepper, arguments.seconds), 1)
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
