"""The parts of a dataset: phantoms for training and four kinds that training never sees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asl_bids_app.errors import InputError
from asl_bids_app.training.whole_files import derive_seed

if TYPE_CHECKING:
    from asl_bids_app.training.config.phantom_config import PhantomConfig
    from asl_bids_app.training.config.run_config import RunConfig

log = logging.getLogger(__name__)

PARTS: Final = ("train", "validation", "calibration", "test", "test_held_out")
"""Folders of a dataset. ``test_held_out`` is of a kind of anatomy held back from training."""


@dataclass(frozen=True)
class Part:
    """One part of a dataset.

    Attributes
    ----------
    name : str
    config : PhantomConfig
    phantoms, per_shard : int
    seed : int
    """

    name: str
    config: PhantomConfig
    phantoms: int
    per_shard: int
    seed: int

    @property
    def shards(self) -> int:
        """Number of its shards."""
        return -(-self.phantoms // self.per_shard)


def describe_part(config: RunConfig, name: str) -> Part:
    """Describe a part of a run's dataset."""
    data = config.data
    held_out = data.test_phantoms // 2
    counts = {
        "train": data.phantoms,
        "validation": data.validation_phantoms,
        "calibration": data.calibration_phantoms,
        "test": data.test_phantoms - held_out,
        "test_held_out": held_out,
    }
    return Part(
        name,
        replace(config.phantoms, held_out=name == "test_held_out"),
        counts[name],
        data.phantoms_per_shard,
        # Different streams, or the first test phantom would be the first training phantom.
        derive_seed(config.seed, f"phantoms {name}") % 2**31,
    )


def check_phantoms(folder: Path) -> None:
    """Check that the phantoms that training needs are there.

    Raises
    ------
    InputError
        Names the manifest that is missing or not complete.
    """
    from asl_bids_app.training.data.manifest import read_manifest

    for name in ("train", "validation"):
        read_manifest(folder / name)


def generate_part(
    config: RunConfig,
    folder: Path,
    name: str,
    shards: Sequence[int] | None = None,
    workers: int = 1,
) -> None:
    """Make a part of a dataset, or what is missing of it.

    Parameters
    ----------
    config
        Of the run.
    folder
        Of the dataset; each part is a folder in it.
    name
        One of `PARTS`.
    shards
        Numbers of the shards to make; None for all.
    workers
        Processes.
    """
    from asl_bids_app.training.data.shards import generate

    part = describe_part(config, name)
    if shards is not None and any(not 0 <= number < part.shards for number in shards):
        raise InputError("--shards", name, str(list(shards)), f"0 to {part.shards - 1}")
    log.info("%s: %d phantoms in %d shards", name, part.phantoms, part.shards)
    generate(part.config, folder / name, part.phantoms, part.seed, part.per_shard, shards, workers)
