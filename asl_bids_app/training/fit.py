"""Train the members of an ensemble, from the start or from where they stopped."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader
from typing_extensions import override

from asl_bids_app.errors import InputError
from asl_bids_app.training.callbacks import (
    Averaging,
    Checkpoints,
    CurveLogger,
    Curves,
    Interrupted,
    WholeCheckpointIO,
)
from asl_bids_app.training.config import RunConfig
from asl_bids_app.training.dataset import (
    Batches,
    PhantomStore,
    StepBatch,
    cropped,
    norm_stats,
)
from asl_bids_app.training.files import seed_of, write_json
from asl_bids_app.training.lightning_module import MemberModule
from asl_bids_app.training.members import build_member, core_of, start_from
from asl_bids_app.training.run_folder import (
    NormStats,
    RunFolder,
    check_same_config,
    environment,
    load_member,
    note,
    now,
    save_member,
)
from asl_bids_app.training.schema import plain
from asl_bids_app.training.speed import find_device

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
    """

    device: str = "auto"
    devices: int = 1
    max_hours: float = float("inf")
    threads: int = 0
    init_from: Path | None = None
    progress: bool = False


@dataclass(frozen=True)
class FitResult:
    """How the training of a member ended.

    Attributes
    ----------
    member, step, steps : int
    finished : bool
    reason : str
        Why it stopped before its end.
    """

    member: int
    step: int
    steps: int
    finished: bool
    reason: str = ""


def prepare_run(
    config: RunConfig, train: PhantomStore, folder: RunFolder, dataset: Path
) -> NormStats:
    """Write what a run folder holds before training, or check that it is the same run."""
    check_same_config(folder, config)
    if not folder.norm_stats.is_file():
        stats = norm_stats(train)
        write_json(folder.norm_stats, vars(stats))
    provenance = folder.read_research_config()
    known = provenance.get("dataset", {}).get("sha256")
    if known and known != train.digest:
        raise InputError(
            dataset,
            "manifest",
            f"sha256 {train.digest[:12]}",
            f"{known[:12]}, the phantoms that the run folder began with",
            "give the same --dataset, or another --output-dir",
        )
    note(folder, "dataset", {"sha256": train.digest, "phantoms": len(train)})
    note(
        folder,
        "run",
        {
            "config": config.name,
            "config_sha256": config.digest(),
            "seed": config.seed,
            "noncritical_settings": config.noncritical(),
        },
    )
    return folder.read_norm_stats()


def fit_member(
    config: RunConfig,
    dataset: Path,
    output: Path,
    member: int,
    options: FitOptions | None = None,
) -> FitResult:
    """Train one member, or go on with it; finished members are left alone.

    Parameters
    ----------
    config
        Of the run.
    dataset
        Folder of phantoms with the parts ``train`` and ``validation``.
    output
        Run folder.
    member
        Number of the network in the ensemble.
    options
        Device and limits.
    """
    options = options or FitOptions()
    began = time.monotonic()
    folder = RunFolder(output)
    if not 0 <= member < config.training.members:
        raise InputError("--members", "", str(member), f"0 to {config.training.members - 1}")
    train = PhantomStore(dataset / "train")
    stats = prepare_run(config, train, folder, dataset)
    steps = config.steps
    done = folder.model(member)
    if done.is_file() and load_member(done)["complete"]:
        log.info("member %d is complete", member)
        return FitResult(member, steps, steps, finished=True)
    _quiet()
    if options.threads:
        torch.set_num_threads(options.threads)

    torch.manual_seed(seed_of(config.seed, "weights", member))
    network = build_member(config, stats)
    checkpoint = folder.checkpoint(member)
    resume = checkpoint.is_file()
    if options.init_from is not None and not resume:
        start_from(network, options.init_from, member)
    start = _checkpoint_step(checkpoint)
    curves = CurveLogger(folder.logs(member) / "metrics.csv")
    curves.rewind(start)
    saved = Checkpoints(
        checkpoint,
        config.training.checkpoint_every,
        config.training.checkpoint_minutes,
        min(config.training.validate_every, steps),
        began + 3600 * options.max_hours,
    )
    trainer, keeper = _trainer(config, folder, member, options, curves, saved, start)
    if config.training.channels_last:
        network.to(memory_format=torch.channels_last)
    place = (trainer.global_rank, trainer.world_size)
    batches = Batches(train, config.training, config.seed, member, start, *place)
    watched = DataLoader(validation_batches(config, dataset), batch_size=None)
    if trainer.is_global_zero:
        note(folder, f"members/{member}", {"seed": config.seed, "environment": environment()})
    reason = ""
    try:
        trainer.fit(
            MemberModule(config, network, steps),
            DataLoader(batches, batch_size=None),
            watched,
            ckpt_path=checkpoint if resume else None,
            weights_only=True,
        )
    except Interrupted as stop:
        reason = str(stop)
    if trainer.is_global_zero:
        keeper.close(trainer.global_step, complete=not reason)
    return FitResult(member, trainer.global_step, steps, not reason, reason)


def _quiet() -> None:
    """Keep Lightning's advertisements, and warnings that don't concern the user, out of logs."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Processes are started here, not by srun; and Lightning is behind torch with its pytrees.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


class _Keeper(Callback):
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
            module = self.averaging.average() if self.averaging else pl_module
            self._save(core_of(module.network), step, metrics)

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


def _trainer(
    config: RunConfig,
    folder: RunFolder,
    member: int,
    options: FitOptions,
    curves: CurveLogger,
    saved: Checkpoints,
    start: int,
) -> tuple[pl.Trainer, _Keeper]:
    """Put the trainer together for one member."""
    training, steps = config.training, config.steps
    device = find_device(options.device)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    averaging = Averaging(training.averaging_decay) if training.averaging_decay else None
    keeper = _Keeper(config, folder, member, averaging)
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


def _checkpoint_step(path: Path) -> int:
    if not path.is_file():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])


def validation_batches(config: RunConfig, dataset: Path) -> list[StepBatch]:
    """Make the fixed batches that are watched during training."""
    training = config.training
    phantoms = PhantomStore(dataset / "validation").first(config.data.validation_phantoms)
    generator = torch.Generator().manual_seed(seed_of(config.seed, "validation crop"))
    if training.crop:
        phantoms = cropped(phantoms, training.crop, generator)
    size = training.batch_size
    return [
        StepBatch(phantoms[begin : begin + size], seed_of(config.seed, "validation", begin), 0)
        for begin in range(0, len(phantoms), size)
    ]
