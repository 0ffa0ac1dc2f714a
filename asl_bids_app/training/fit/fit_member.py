"""Train the members of an ensemble, from the start or from where they stopped."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset

from asl_bids_app.allocation import processors
from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.estimators.devices import is_out_of_memory
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.data.batches import Batches, StepBatch
from asl_bids_app.training.data.loading import load_batches
from asl_bids_app.training.data.phantom_store import PhantomStore
from asl_bids_app.training.fit.accelerator import describe_device, find_device, full_precision
from asl_bids_app.training.fit.callbacks import Checkpoints
from asl_bids_app.training.fit.curves import CurveLogger
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.run_members import build_member, start_from
from asl_bids_app.training.fit.run_start import prepare_run, validation_batches
from asl_bids_app.training.fit.trainer import FitOptions, build_trainer
from asl_bids_app.training.fit.training_run import (
    NormStats,
    RunFolder,
    environment,
    load_member,
    note,
)
from asl_bids_app.training.stop_signals import (
    Interrupted,
    StopSignals,
    end_with_parent,
    is_helper_rank,
)
from asl_bids_app.training.whole_files import derive_seed

log = logging.getLogger(__name__)


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
    if is_helper_rank():
        end_with_parent()
    stop = options.stop or StopSignals()
    with nullcontext() if options.stop else stop:
        try:
            stop.attend()
            return _Fit(config, dataset, RunFolder(output), member, options, stop).run()
        except Interrupted as interruption:
            done = _checkpoint_step(RunFolder(output).checkpoint(member))
            return FitResult(member, done, config.steps, finished=False, reason=str(interruption))


@dataclass
class _Fit:
    """The training of one member: attempts with ever smaller pieces of a batch until one fits."""

    config: RunConfig
    dataset: Path
    folder: RunFolder
    member: int
    options: FitOptions
    stop: StopSignals

    def run(self) -> FitResult:
        """Train to the end, or until it is stopped."""
        config, member, steps = self.config, self.member, self.config.steps
        began = time.monotonic()
        if not 0 <= member < config.training.members:
            raise InputError("--members", "", str(member), f"0 to {config.training.members - 1}")
        train = PhantomStore(self.dataset / "train")
        stats = prepare_run(config, train, self.folder, self.dataset)
        done = self.folder.model(member)
        if done.is_file() and load_member(done)["complete"]:
            log.info("member %d is complete", member)
            return FitResult(member, steps, steps, finished=True)
        _quiet()
        # By itself torch counts what the machine has, not what a container or a job is given.
        torch.set_num_threads(self.options.threads or min(processors(), torch.get_num_threads()))
        device = find_device(self.options.device)
        full_precision()
        log.info("member %d trains on %s", member, describe_device(device))
        pieces = 1
        while True:
            try:
                return self._attempt(train, stats, device, pieces, began)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                pieces = self._smaller(pieces, device)
            # Only here nothing holds on to what the failed attempt had in memory.
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()

    def _smaller(self, pieces: int, device: str) -> int:
        """Return in how many pieces to go on after memory ran out."""
        size = self.config.training.batch_size
        if self.options.devices > 1 or 2 * pieces > size:
            raise AslAppError(
                f"member {self.member}: memory ran out on {describe_device(device)} with "
                f"{-(-size // pieces)} slices at a time. Cure: --set training.batch_size="
                f"{max(1, size // 2)} in a new run folder, a smaller training.crop, or more memory"
            ) from None
        log.warning(
            "member %d: memory ran out with %d slices at a time; going on with %d at a time and "
            "the gradients of all %d summed for a step",
            self.member,
            -(-size // pieces),
            -(-size // (2 * pieces)),
            size,
        )
        return 2 * pieces

    def _attempt(
        self, train: PhantomStore, stats: NormStats, device: str, pieces: int, began: float
    ) -> FitResult:
        """Train from the last checkpoint, or from the start."""
        config, member, options = self.config, self.member, self.options
        torch.manual_seed(derive_seed(config.seed, "weights", member))
        network = build_member(config, stats)
        checkpoint = self.folder.checkpoint(member)
        resume = checkpoint.is_file()
        if options.init_from is not None and not resume:
            start_from(network, options.init_from, member)
        start = _checkpoint_step(checkpoint)
        curves = CurveLogger(self.folder.logs(member) / "metrics.csv")
        curves.rewind(start)
        saved = Checkpoints(
            checkpoint,
            config.training.checkpoint_every,
            config.training.checkpoint_minutes,
            min(config.training.validate_every, config.steps),
            began + 3600 * options.max_hours,
            stop=self.stop,
        )
        trainer, keeper = build_trainer(
            config, self.folder, member, options, device, curves, saved, start
        )
        if config.training.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        place = (trainer.global_rank, trainer.world_size)
        domain = None if device == "cpu" else config.domain
        batches = Batches(train, config.training, config.seed, member, start, *place, domain)
        watched = validation_batches(config, self.dataset)
        if trainer.is_global_zero:
            about = {"seed": config.seed, "environment": environment(), "pieces": pieces}
            note(self.folder, f"members/{member}", {**about, "device": describe_device(device)})
        reason = ""
        try:
            trainer.fit(
                MemberModule(config, network, config.steps, pieces),
                load_batches(batches, device, options.devices),
                DataLoader(cast("Dataset[StepBatch]", watched), batch_size=None),
                ckpt_path=checkpoint if resume else None,
                weights_only=True,
            )
        except Interrupted as interruption:
            reason = str(interruption)
        if trainer.is_global_zero:
            keeper.close(trainer.global_step, complete=not reason)
        return FitResult(member, trainer.global_step, config.steps, not reason, reason)


def _quiet() -> None:
    """Keep Lightning's advertisements, and warnings that don't concern the user, out of logs."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Processes are started here, not by srun; and Lightning is behind torch with its pytrees.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")


def _checkpoint_step(path: Path) -> int:
    if not path.is_file():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])
