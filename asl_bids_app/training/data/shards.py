"""Phantoms on disk: shards that are seeded one by one, made in parallel and never half.

A folder holds ``spatial_chunk_00000.npz``, … with parameter maps in half precision, beside
each a small ``.json`` that says how it was made and its sha256, and `MANIFEST`, the sum of
those. A shard depends on the settings, the seed and its number only: who makes it, when and
with how many others changes no byte. So a run can stop anywhere, be continued, or be divided
among machines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asl_bids_app.atlas import ATLAS_FILE
from asl_bids_app.errors import InputError
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.data.manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    Shard,
    load_shard,
    read_manifest,
    shard_name,
    verify,
)
from asl_bids_app.training.phantoms.drawing import ANATOMIES, CONDITIONS, draw
from asl_bids_app.training.progress_lines import ProgressLines
from asl_bids_app.training.whole_files import (
    derive_seed,
    remove_left,
    replacing_file,
    sha256,
    write_json,
)
from asl_bids_app.training.worker_processes import in_processes

__all__ = ["Manifest", "Shard", "generate", "load_shard", "read_manifest", "shard_name", "verify"]


def settings_digest(config: PhantomConfig) -> str:
    """Return the fingerprint of all that decides the phantoms beside the seed."""
    text = json.dumps([FORMAT, sha256(ATLAS_FILE), asdict(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _finished(path: Path) -> Shard | None:
    """Return what the note beside a shard says, if the shard is there and agrees with it."""
    try:
        shard = Shard(**json.loads(_note(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not path.is_file() or path.stat().st_size != shard.size or sha256(path) != shard.sha256:
        return None
    return shard


def _make(config: PhantomConfig, path: Path, number: int, count: int, seed: int) -> Shard:
    """Draw one shard and write it with its note."""
    for left in (path, _note(path)):
        remove_left(left)
    threads = torch.get_num_threads()
    # More threads would sum in another order.
    torch.set_num_threads(1)
    try:
        phantoms = draw(config, count, derive_seed(seed, "phantoms", number))
    finally:
        torch.set_num_threads(threads)
    arrays: dict[str, Any] = {
        "cbf": phantoms.cbf.half().numpy(),
        "att": phantoms.att.half().numpy(),
        "tissue": phantoms.tissue.numpy(),
        "condition": phantoms.condition.numpy(),
        "anatomy": phantoms.anatomy.numpy(),
        "slice_number": phantoms.slice_number.numpy(),
        "layers": phantoms.layers.numpy(),
    }
    first = arrays["slice_number"] == 0
    with replacing_file(path) as beside, beside.open("wb") as target:
        np.savez_compressed(target, **arrays)
        target.flush()
        size = beside.stat().st_size
        digest = sha256(beside)

    def tally(codes: np.ndarray, names: Sequence[str]) -> dict[str, int]:
        found = np.bincount(codes, minlength=len(names))
        return {name: int(value) for name, value in zip(names, found, strict=True)}

    shard = Shard(
        number,
        path.name,
        count,
        seed,
        digest,
        size,
        settings_digest(config),
        tally(arrays["condition"][first], CONDITIONS),
        tally(arrays["anatomy"][first], ANATOMIES),
    )
    write_json(_note(path), asdict(shard))
    return shard


def _collect(folder: Path, config: PhantomConfig, n_phantoms: int, seed: int) -> Manifest:
    """Sum up the notes of a folder and write the manifest."""
    shards = []
    for note in sorted(folder.glob("spatial_chunk_*.json")):
        shard = Shard(**json.loads(note.read_text(encoding="utf-8")))
        if note.with_suffix(".npz").is_file():
            shards.append(shard)
    manifest = Manifest(asdict(config), seed, n_phantoms, tuple(shards))
    write_json(folder / MANIFEST, manifest.to_json())
    return manifest


def generate(
    config: PhantomConfig,
    out_dir: Path,
    n_phantoms: int,
    seed: int,
    shard_size: int = 1000,
    shards: Sequence[int] | None = None,
    workers: int = 1,
) -> Manifest:
    """Make phantoms, or what is missing of them.

    Finished shards whose hash agrees are kept. Several processes may work on one folder if
    they are given different `shards`; the manifest is complete when all are there.

    Parameters
    ----------
    config
        Settings of the phantoms.
    out_dir
        Folder; made if need be.
    n_phantoms, shard_size
        Phantoms in all and in a file; the last file holds the rest.
    seed
        Of the dataset.
    shards
        Numbers of the shards to make; None for all.
    workers
        Processes.

    Returns
    -------
    Manifest
        Of all shards in the folder; also in its file.

    Raises
    ------
    InputError
        If the folder holds shards made with other settings, seed or size.
    ValueError
        If a shard's number is out of range, or a count is below 1.
    """
    if n_phantoms < 1 or shard_size < 1 or workers < 1:
        raise ValueError("n_phantoms, shard_size and workers must be at least 1")
    total = -(-n_phantoms // shard_size)
    wanted = range(total) if shards is None else sorted(set(shards))
    if any(not 0 <= number < total for number in wanted):
        raise ValueError(f"shards: found {list(wanted)}, expected numbers from 0 to {total - 1}")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    counts = [min(shard_size, n_phantoms - number * shard_size) for number in range(total)]
    _check_folder(config, out_dir, counts, seed)
    missing = [n for n in wanted if _finished(out_dir / shard_name(n)) is None]
    jobs = [(config, out_dir / shard_name(n), n, counts[n], seed) for n in missing]
    if jobs:
        with ProgressLines(f"shards of {out_dir.name}", len(jobs)) as progress:
            for shard in in_processes(_make, jobs, workers):
                progress.advance(shard.name)
    return _collect(out_dir, config, n_phantoms, seed)


def _check_folder(config: PhantomConfig, folder: Path, counts: list[int], seed: int) -> None:
    """Refuse a folder whose shards belong to another dataset."""
    settings = settings_digest(config)
    cure = "give an empty folder, or remove the old shards"
    for note in sorted(folder.glob("spatial_chunk_*.json")):
        try:
            shard = Shard(**json.loads(note.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            continue
        size = counts[shard.number] if shard.number < len(counts) else 0
        for name, found, expected in (
            ("settings", shard.settings[:12], settings[:12]),
            ("seed", shard.seed, seed),
            ("phantoms", shard.phantoms, size),
        ):
            if found != expected:
                raise InputError(note, name, str(found), str(expected), cure)
