"""What happens around the steps of a training: averaging, checkpoints, stopping, curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from asl_bids_app.errors import AslAppError
from asl_bids_app.training.stop_signals import Interrupted, StopSignals
from asl_bids_app.training.whole_files import replacing_file


class Averaging(WeightAveraging):
    """Exponential moving average of the weights that forgets a bad start.

    Parameters
    ----------
    decay
        Reached after some hundred steps; before, the average is over about a tenth of the
        steps so far, so that a short training isn't held back by its first weights.
    """

    _latest_update_step: int

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the weights of a step to the average.

        The count of the steps is a number of Python: asking the device for it, parameter by
        parameter, would let the processor wait for a GPU hundreds of times a step.
        """
        step = trainer.global_step
        if step <= self._latest_update_step:
            return
        assert self._average_model is not None
        average_module(self._average_model.module, pl_module, step - 1, self.decay)
        self._average_model.n_averaged += 1
        self._latest_update_step = step

    def average(self) -> torch.nn.Module:
        """Return the module with the averaged weights."""
        assert self._average_model is not None
        return self._average_model.module


@torch.no_grad()
def average_module(
    average: torch.nn.Module, current: torch.nn.Module, steps: int, decay: float
) -> None:
    """Move averaged weights toward the current ones, all in one operator.

    Parameters
    ----------
    average, current
        Two modules of one kind; the first is changed.
    steps
        Taken into the average before; 0: it begins with the current weights.
    decay
        Of the average.
    """
    old = [*average.parameters(), *average.buffers()]
    new = [*current.parameters(), *current.buffers()]
    counts = [n for n, value in enumerate(old) if not value.is_floating_point()]
    for n in counts:
        old[n].copy_(new[n])
    olds, news = (
        [value.detach() for n, value in enumerate(values) if n not in counts]
        for values in (old, new)
    )
    if steps == 0:
        torch._foreach_copy_(olds, news)
        return
    now = min(decay, (1 + steps) / (10 + steps))
    torch._foreach_lerp_(olds, news, 1 - now)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them: a kill leaves the last one."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        if storage_options is not None:
            raise TypeError("storage options are not supported")
        with replacing_file(Path(path)) as beside:
            torch.save(checkpoint, beside)


class Curves(Callback):
    """Logs the training steps; stands before the checkpoints, which must not be ahead of it.

    Parameters
    ----------
    every
        Steps between rows.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a row."""
        step = trainer.global_step
        if step % self.every and step < trainer.max_steps:
            return
        latest: dict[str, torch.Tensor] = cast("Any", pl_module).latest
        stacked = trainer.strategy.reduce(torch.stack(list(latest.values())), reduce_op="mean")
        row = {f"train/{k}": v for k, v in zip(latest, stacked.tolist(), strict=True)}
        if not all(math.isfinite(value) for value in row.values()):
            # Nothing is saved from here on: the last checkpoint is the last good state.
            raise AslAppError(f"training broke down at step {step}: {row}")
        row["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in trainer.loggers:
            # Zero-based, as Lightning counts the steps of the rows that it writes itself.
            logger.log_metrics(row, step - 1)


class Checkpoints(Callback):
    """Saves the state at intervals, at a signal and at the end of the time allowed.

    Must stand last in the list of callbacks, so that what the others keep is up to date.

    Parameters
    ----------
    path
        The checkpoint, replaced each time.
    every
        Steps between checkpoints.
    minutes
        A checkpoint is also due after so many minutes; 0: never.
    validate_every
        Steps between validations. Where one is due, the checkpoint waits for its end, or a
        resumed training would miss it.
    deadline
        Time of `clock` at which training stops with a checkpoint.
    clock
        Seconds; replaceable for tests.
    stop
        Signals that end the training.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        minutes: float,
        validate_every: int,
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
        stop: StopSignals | None = None,
    ) -> None:
        self.path = path
        self.every = every
        self.minutes = minutes
        self.validate_every = validate_every
        self.deadline = deadline
        self.clock = clock
        self.stop = stop or StopSignals()
        self._saved_at = clock()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note signals from here on; Lightning's own handlers would end training in mid-step."""
        self.stop.defer()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save or stop if it is time."""
        step = trainer.global_step
        if step % self.validate_every and step < trainer.max_steps:
            self._save_if_due(trainer, step)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save or stop if it is time."""
        if not trainer.sanity_checking:
            self._save_if_due(trainer, trainer.global_step)

    def _save_if_due(self, trainer: pl.Trainer, step: int) -> None:
        now = self.clock()
        late = now >= self.deadline
        aged = bool(self.minutes) and now - self._saved_at >= 60 * self.minutes
        stop, aged = self._agree(trainer, bool(self.stop.received) or late, aged)
        finished = step >= trainer.max_steps
        if stop or aged or finished or step % self.every == 0:
            trainer.save_checkpoint(self.path)
            self._saved_at = now
        if stop and not finished:
            raise Interrupted(self.stop.received or ("out of time" if late else "another process"))

    @staticmethod
    def _agree(trainer: pl.Trainer, *decisions: bool) -> tuple[bool, ...]:
        """Let all processes of a distributed training decide alike."""
        if trainer.world_size == 1:
            return decisions
        decide = trainer.strategy.reduce_boolean_decision
        return tuple(decide(decision, all=False) for decision in decisions)
