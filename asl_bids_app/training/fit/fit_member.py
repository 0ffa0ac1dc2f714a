"""Train the members of an ensemble, from the start or from where they stopped."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from asl_bids_app.allocation import processors
from asl_bids_app.errors import InputError
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.data.batches import (
    Batches,
    PhantomStore,
    StepBatch,
    cropped,
    norm_stats,
)
from asl_bids_app.training.fit.callbacks import (
    Checkpoints,
    CurveLogger,
    Interrupted,
)
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.members import build_member, start_from
from asl_bids_app.training.fit.trainer import FitOptions, build_trainer
from asl_bids_app.training.fit.training_run import (
    NormStats,
    RunFolder,
    check_same_config,
    environment,
    load_member,
    note,
)
from asl_bids_app.training.whole_files import seed_of, write_json

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
    # By itself torch counts what the machine has, not what a container or a job is given.
    torch.set_num_threads(options.threads or min(processors(), torch.get_num_threads()))

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
    trainer, keeper = build_trainer(config, folder, member, options, curves, saved, start)
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
        StepBatch(
            phantoms.pick(slice(begin, begin + size)),
            seed_of(config.seed, "validation", begin),
            0,
        )
        for begin in range(0, phantoms.count, size)
    ]
