"""What happens around the steps of a training: averaging, checkpoints, stopping, curves."""

from __future__ import annotations

import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from typing_extensions import override

from asl_bids_app.errors import AslAppError
from asl_bids_app.training.whole_files import whole


class Averaging(WeightAveraging):
    """Exponential moving average of the weights that forgets a bad start.

    Parameters
    ----------
    decay
        Reached after some hundred steps; before, the average is over about a tenth of the
        steps so far, so that a short training isn't held back by its first weights.
    """

    def __init__(self, decay: float) -> None:
        def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
            steps = float(count)
            now = min(decay, (1 + steps) / (10 + steps))
            return torch.lerp(old, new, 1 - now) if old.is_floating_point() else new

        super().__init__(avg_fn=average)

    def average(self) -> torch.nn.Module:
        """Return the module with the averaged weights."""
        assert self._average_model is not None
        return self._average_model.module


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them: a kill leaves the last one."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        if storage_options is not None:
            raise TypeError("storage options are not supported")
        with whole(Path(path)) as beside:
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
        latest = pl_module.latest
        stacked = trainer.strategy.reduce(torch.stack(list(latest.values())), reduce_op="mean")
        row = {f"train/{k}": v for k, v in zip(latest, stacked.tolist(), strict=True)}
        if not all(math.isfinite(value) for value in row.values()):
            # Nothing is saved from here on: the last checkpoint is the last good state.
            raise AslAppError(f"training broke down at step {step}: {row}")
        row["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in trainer.loggers:
            # Zero-based, as Lightning counts the steps of the rows that it writes itself.
            logger.log_metrics(row, step - 1)


class Interrupted(Exception):  # noqa: N818 - not an error: the state is saved
    """Training stopped before its end, with a checkpoint to go on from."""


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
    """

    SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

    def __init__(
        self,
        path: Path,
        every: int,
        minutes: float,
        validate_every: int,
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.every = every
        self.minutes = minutes
        self.validate_every = validate_every
        self.deadline = deadline
        self.clock = clock
        self._received = ""
        self._saved_at = clock()
        self._previous: dict[int, Any] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to signals; Lightning's own handlers would end training in mid-step."""

        def receive(number: int, _frame: FrameType | None) -> None:
            self._received = signal.Signals(number).name

        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, receive)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

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
        stop, aged = self._agree(trainer, bool(self._received) or late, aged)
        finished = step >= trainer.max_steps
        if stop or aged or finished or step % self.every == 0:
            trainer.save_checkpoint(self.path)
            self._saved_at = now
        if stop and not finished:
            raise Interrupted(self._received or ("out of time" if late else "another process"))

    @staticmethod
    def _agree(trainer: pl.Trainer, *decisions: bool) -> tuple[bool, ...]:
        """Let all processes of a distributed training decide alike."""
        if trainer.world_size == 1:
            return decisions
        decide = trainer.strategy.reduce_boolean_decision
        return tuple(decide(decision, all=False) for decision in decisions)


class CurveLogger(Logger):
    """One CSV file of metrics that stays one curve over resumed trainings.

    Rows of the steps from which a training resumes on belong to a time that was lost; they
    are dropped, and written again.

    Parameters
    ----------
    path
        The file; columns: step, metric, value.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "curves"

    @property
    def version(self) -> str:
        """There is one version."""
        return ""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows of a (zero-based) step and all after it."""
        rows = [row for row in read_curves(self.path) if row[0] < step]
        with whole(self.path) as beside, beside.open("w", newline="") as target:
            writer = csv.writer(target)
            writer.writerow(("step", "metric", "value"))
            writer.writerows(rows)

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters stand in ``config.yaml``."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append metrics."""
        with self.path.open("a", newline="") as target:
            writer = csv.writer(target)
            for name, value in metrics.items():
                if name != "epoch":
                    writer.writerow((step, name, repr(float(value))))


def read_curves(path: Path) -> list[tuple[int, str, str]]:
    """Read a file of `CurveLogger` as (step, metric, value); a torn last row is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as source:
        rows = list(csv.reader(source))[1:]
    return [(int(r[0]), r[1], r[2]) for r in rows if len(r) == 3 and r[0].isdigit() and r[2]]
