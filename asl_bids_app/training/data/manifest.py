"""What a folder of phantoms holds: one note for each shard, one manifest for all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from asl_bids_app.errors import InputError
from asl_bids_app.training.phantoms.drawing import TISSUES, Phantoms
from asl_bids_app.training.whole_files import sha256

MANIFEST: Final = "manifest.json"
FORMAT: Final = 4
"""Counts up whenever the same settings and seed would give other phantoms or other files."""


@dataclass(frozen=True)
class Shard:
    """One file of phantoms.

    Attributes
    ----------
    number : int
    name : str
        File name.
    phantoms : int
    seed : int
        Of the dataset; with `number` it decides everything random.
    sha256 : str
    size : int
        Bytes.
    settings : str
        Digest of the settings of the phantoms.
    conditions, anatomies : dict
        Number of phantoms of each.
    """

    number: int
    name: str
    phantoms: int
    seed: int
    sha256: str
    size: int
    settings: str
    conditions: dict[str, int]
    anatomies: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Attributes
    ----------
    config : dict
        Settings of the phantoms, seconds and mm.
    seed, wanted : int
        Of the dataset; number of phantoms asked for.
    shards : tuple of Shard
        Finished ones, by number.
    """

    config: dict[str, Any]
    seed: int
    wanted: int
    shards: tuple[Shard, ...]

    @property
    def phantoms(self) -> int:
        """Number of phantoms there are."""
        return sum(shard.phantoms for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether all phantoms asked for are there."""
        return self.phantoms == self.wanted

    @property
    def digest(self) -> str:
        """Fingerprint of the content: sha256 over the shards' sha256."""
        return hashlib.sha256("".join(s.sha256 for s in self.shards).encode()).hexdigest()

    def counts(self, kind: str) -> dict[str, int]:
        """Sum ``conditions`` or ``anatomies`` over the shards."""
        total: dict[str, int] = {}
        for shard in self.shards:
            for name, count in getattr(shard, kind).items():
                total[name] = total.get(name, 0) + count
        return total

    def to_json(self) -> dict[str, Any]:
        """Return the content of the manifest's file."""
        return {
            "format": FORMAT,
            "complete": self.complete,
            "phantoms": self.phantoms,
            "wanted": self.wanted,
            "seed": self.seed,
            "digest": self.digest,
            "bytes": sum(shard.size for shard in self.shards),
            "conditions": self.counts("conditions"),
            "anatomies": self.counts("anatomies"),
            "tissues": {str(code): name for code, name in TISSUES.items()},
            "config": self.config,
            "shards": [asdict(shard) for shard in self.shards],
        }


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"spatial_chunk_{number:05d}.npz"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a complete folder of shards.

    Raises
    ------
    InputError
        If there is none, it can't be read, or shards are missing.
    """
    path = Path(folder) / MANIFEST
    cure = "run asl-train generate, which makes what is missing"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(Shard(**shard) for shard in content["shards"])
        manifest = Manifest(content["config"], content["seed"], content["wanted"], shards)
    except FileNotFoundError:
        raise InputError(
            path, "", "nothing", "the manifest of a folder of phantoms", cure
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(path, "", f"unreadable content ({error})", "a manifest", cure) from error
    missing = [s.name for s in shards if not (path.parent / s.name).is_file()]
    if missing or not manifest.complete:
        found = f"{manifest.phantoms} phantoms" + (f", {missing[0]} missing" if missing else "")
        raise InputError(path, "shards", found, f"{manifest.wanted} phantoms", cure)
    return manifest


def verify(folder: Path) -> Manifest:
    """Read the manifest and check every shard's hash.

    Raises
    ------
    InputError
        If a shard isn't what the manifest says.
    """
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        found = sha256(Path(folder) / shard.name)
        if found != shard.sha256:
            path = Path(folder) / shard.name
            raise InputError(path, "sha256", found, shard.sha256, "remove it and generate again")
    return manifest


def load_shard(path: Path) -> Phantoms:
    """Read the phantoms of a shard, in single precision.

    Raises
    ------
    InputError
        If the file isn't a shard.
    """
    try:
        with np.load(path) as arrays:
            content = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return Phantoms(
            content["cbf"].float(),
            content["att"].float(),
            content["tissue"],
            content["condition"],
            content["anatomy"],
            content["slice_number"],
            content["layers"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            path, "", f"unreadable content ({error})", "a shard of phantoms"
        ) from error
