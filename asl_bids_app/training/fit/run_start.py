"""What a run folder and a training begin with."""

from __future__ import annotations

from pathlib import Path

import torch

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.data.augmentation import cropped
from asl_bids_app.training.data.batches import StepBatch
from asl_bids_app.training.data.phantom_store import PhantomStore, norm_stats
from asl_bids_app.training.fit.training_run import (
    NormStats,
    RunFolder,
    check_same_config,
    note,
)
from asl_bids_app.training.whole_files import derive_seed, write_json


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


def validation_batches(config: RunConfig, dataset: Path) -> list[StepBatch]:
    """Make the fixed batches that are watched during training."""
    training = config.training
    phantoms = PhantomStore(dataset / "validation").first(config.data.validation_phantoms)
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "validation crop"))
    if training.crop:
        phantoms = cropped(phantoms, training.crop, generator)
    size = training.batch_size
    return [
        StepBatch(
            phantoms.pick(slice(begin, begin + size)),
            derive_seed(config.seed, "validation", begin),
            0,
        )
        for begin in range(0, phantoms.count, size)
    ]
