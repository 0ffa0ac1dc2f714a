"""Phantoms on disk, read as they are needed, and the order of a pass over them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from asl_bids_app.training.data.shards import load_shard, read_manifest
from asl_bids_app.training.phantoms.drawing import Phantoms, concatenate

if TYPE_CHECKING:
    from asl_bids_app.training.fit.training_run import NormStats


class PhantomStore:
    """The phantoms of one folder of shards, read as they are needed.

    Parameters
    ----------
    folder
        Shards and their manifest, complete.
    cached
        Shards kept in memory (46 MB per 1000 slices of 64x64).
    """

    def __init__(self, folder: Path, cached: int = 16) -> None:
        manifest = read_manifest(folder)
        self.folder = folder
        self.digest = manifest.digest
        self.paths = [folder / entry.name for entry in manifest.shards]
        self.sizes = np.array([entry.phantoms for entry in manifest.shards])
        self.cached = cached
        self._cache: OrderedDict[int, Phantoms] = OrderedDict()

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def shard(self, number: int) -> Phantoms:
        """Return a shard, maps in half precision."""
        if number in self._cache:
            self._cache.move_to_end(number)
        else:
            while len(self._cache) >= self.cached:
                self._cache.popitem(last=False)
            whole = load_shard(self.paths[number])
            # Single precision would take twice the memory, and the files hold half anyway.
            self._cache[number] = replace(whole, cbf=whole.cbf.half(), att=whole.att.half())
        return self._cache[number]

    def take(self, shards: np.ndarray, rows: np.ndarray) -> Phantoms:
        """Return phantoms by shard and number in the shard, in the order given."""
        parts, places = [], []
        for number in np.unique(shards):
            where = np.flatnonzero(shards == number)
            parts.append(self.shard(int(number)).pick(torch.from_numpy(rows[where])))
            places.append(where)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        return _single(concatenate(parts).pick(order))

    def first(self, count: int) -> Phantoms:
        """Return the first phantoms of the folder."""
        parts: list[Phantoms] = []
        missing = min(count, len(self))
        for number in range(len(self.paths)):
            if missing <= 0:
                break
            part = self.shard(number)
            parts.append(part.pick(slice(missing)))
            missing -= parts[-1].count
        return _single(concatenate(parts))


def _single(phantoms: Phantoms) -> Phantoms:
    return replace(phantoms, cbf=phantoms.cbf.float(), att=phantoms.att.float())


class Order:
    """The order of the phantoms in one pass over a store.

    Parameters
    ----------
    sizes
        Phantoms in each shard.
    seed
        Of the pass.
    window
        Shards that are shuffled together, at most what the cache holds.
    """

    def __init__(self, sizes: np.ndarray, seed: int, window: int) -> None:
        random = np.random.default_rng(seed)
        shards = random.permutation(len(sizes))
        numbers, rows = [], []
        for start in range(0, len(shards), window):
            group = shards[start : start + window]
            number = np.repeat(group, sizes[group])
            row = np.concatenate([np.arange(sizes[shard]) for shard in group])
            shuffled = random.permutation(len(number))
            numbers.append(number[shuffled])
            rows.append(row[shuffled])
        self.shards = np.concatenate(numbers)
        self.rows = np.concatenate(rows)


def norm_stats(store: PhantomStore, count: int = 4000) -> NormStats:
    """Compute mean and standard deviation of CBF and ATT in the brains of a store."""
    from asl_bids_app.training.fit.training_run import NormStats

    phantoms = store.first(count)
    mask = phantoms.mask
    cbf, att = phantoms.cbf[mask].double(), phantoms.att[mask].double()
    return NormStats(
        round(float(cbf.mean()), 4),
        round(float(cbf.std()), 4),
        round(float(att.mean()) * 1000, 3),
        round(float(att.std()) * 1000, 3),
    )
