"""The Lightning trainer of a member, with everything that watches it."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from typing_extensions import override

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.reading import plain
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.fit.callbacks import Averaging, Checkpoints, Curves, WholeCheckpointIO
from asl_bids_app.training.fit.curves import CurveLogger
from asl_bids_app.training.fit.run_members import inner_network
from asl_bids_app.training.fit.training_run import RunFolder, load_member, note, now, save_member
from asl_bids_app.training.stop_signals import StopSignals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """Where and how long to train; none of it changes the result.

    Attributes
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    devices : int
        Processes or GPUs that share every batch.
    max_hours : float
        Stop with a checkpoint after so long.
    threads : int
        Of a process on the CPU; 0: as torch chooses.
    init_from : Path or None
        Weights to start from: a member's ``.pt``, a run folder or a model folder.
    progress : bool
        Draw a progress bar.
    stop : StopSignals or None
        Signals that the command listens to already; None: they are listened to while training.
    """

    device: str = "auto"
    devices: int = 1
    max_hours: float = float("inf")
    threads: int = 0
    init_from: Path | None = None
    progress: bool = False
    stop: StopSignals | None = None


class Keeper(Callback):
    """Keeps the weights of a member, the time spent on it, and tells how it goes."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        member: int,
        averaging: Averaging | None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.member = member
        self.averaging = averaging
        spent = folder.read_research_config().get("members", {}).get(str(member), {})
        self.spent = float(spent.get("seconds", 0.0))
        self.began = time.monotonic()
        self.first_step = 0
        self.best = float("inf")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_step = trainer.global_step

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
        step, elapsed = trainer.global_step, time.monotonic() - self.began
        speed = (step - self.first_step) / elapsed
        log.info(
            "member %d: step %d of %d, CBF %.2f mL/100 g/min, ATT %.0f ms, loss %.4f, "
            "%.0f slices/s, %.2f h to go",
            self.member,
            step,
            trainer.max_steps,
            metrics["val/cbf_mae"],
            metrics["val/att_mae_ms"],
            metrics["val/loss"],
            speed * self.config.training.batch_size,
            (trainer.max_steps - step) / speed / 3600,
        )
        better = metrics["val/loss"] < self.best
        self.best = min(self.best, metrics["val/loss"])
        # With early stopping the best weights count, otherwise the last: the learning rate
        # goes to zero, and the best of many noisy validations is chosen by luck.
        if trainer.is_global_zero and (better or not self.config.training.early_stopping_patience):
            module: Any = self.averaging.average() if self.averaging else pl_module
            self._save(inner_network(module.network), step, metrics)

    def _save(self, network: torch.nn.Module, step: int, metrics: dict[str, float]) -> None:
        save_member(
            self.folder.model(self.member),
            {
                "model_state_dict": network.state_dict(),
                "network": self.config.network.name,
                "arguments": plain(self.config.network.arguments),
                "member": self.member,
                "seed": self.config.seed,
                "step": step,
                "steps": self.config.steps,
                "complete": False,
                "config_sha256": self.config.digest(),
                "metrics": metrics,
            },
        )

    def close(self, step: int, complete: bool) -> None:
        """Write down how the training ended."""
        path = self.folder.model(self.member)
        if complete:
            save_member(path, {**load_member(path), "complete": True})
        seconds = self.spent + time.monotonic() - self.began
        entry = {"step": step, "complete": complete, "seconds": round(seconds, 1), "ended": now()}
        note(self.folder, f"members/{self.member}", entry)


def build_trainer(
    config: RunConfig,
    folder: RunFolder,
    member: int,
    options: FitOptions,
    device: str,
    curves: CurveLogger,
    saved: Checkpoints,
    start: int,
) -> tuple[pl.Trainer, Keeper]:
    """Put the trainer together for one member."""
    training, steps = config.training, config.steps
    averaging = Averaging(training.averaging_decay) if training.averaging_decay else None
    keeper = Keeper(config, folder, member, averaging)
    callbacks: list[Callback] = [averaging] if averaging else []
    if training.early_stopping_patience:
        callbacks.append(EarlyStopping("val/loss", patience=training.early_stopping_patience))
    trainer = pl.Trainer(
        accelerator=device,
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=min(training.validate_every, steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=training.gradient_clip,
        logger=[curves, *_loggers(config, folder.logs(member), member, start)],
        # Checkpoints come last: they keep what the others hold.
        callbacks=[*callbacks, Curves(training.log_every), keeper, saved],
        plugins=[WholeCheckpointIO(), LightningEnvironment()],
        enable_checkpointing=False,
        enable_progress_bar=options.progress and sys.stderr.isatty(),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder.root,
    )
    return trainer, keeper


def _loggers(config: RunConfig, logs: Path, member: int, start: int) -> list[Logger]:
    found: list[Logger] = []
    if config.logging.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        # Points behind the step that is resumed from are lost time; TensorBoard hides them.
        found.append(TensorBoardLogger(logs.parent, name="", version=logs.name, purge_step=start))
    if config.logging.wandb_project:
        try:
            from lightning.pytorch.loggers import WandbLogger

            name = f"{config.name}-{config.digest()[:8]}-{member}"
            found.append(
                WandbLogger(
                    name=name,
                    id=name,
                    resume="allow",
                    save_dir=logs,
                    project=config.logging.wandb_project,
                    group=config.name,
                    config=config.to_dict(),
                )
            )
        except ModuleNotFoundError as error:
            raise InputError(
                "logging.wandb_project",
                "",
                "no package wandb",
                "Weights & Biases",
                "pip install wandb, or leave the setting empty",
            ) from error
    return found
