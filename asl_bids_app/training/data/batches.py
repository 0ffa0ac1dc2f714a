"""Phantoms for training steps: batch number k is a function of (seed, member, k) alone.

Nothing is remembered from one batch to the next, so a training that resumes at any step sees
what an unbroken one sees. Shards are read in a shuffled order through a small cache; within
a window of shards the phantoms are shuffled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from asl_bids_app.training.data.shards import load_shard, read_manifest
from asl_bids_app.training.phantoms.drawing import Phantoms, concatenate
from asl_bids_app.training.whole_files import seed_of

if TYPE_CHECKING:
    from asl_bids_app.training.config.sections import TrainingConfig
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


@dataclass(frozen=True)
class StepBatch:
    """What a training step starts from.

    Attributes
    ----------
    phantoms : Phantoms
        This process's part of the batch, cropped and turned.
    seed : int
        Of the physics and noise of this step and process.
    step : int
    """

    phantoms: Phantoms
    seed: int
    step: int


@dataclass(frozen=True)
class Step:
    """What a training step is given.

    Attributes
    ----------
    fresh : tuple of StepBatch
        To be simulated and put into the pool: none where the pool serves again, all that the
        pool held where a training resumes.
    seed : int
        Of the slices that are drawn from the pool.
    step : int
    """

    fresh: tuple[StepBatch, ...]
    seed: int
    step: int


class Batches(IterableDataset[Step]):
    """Steps from one on, without end.

    Parameters
    ----------
    store
        Training phantoms.
    config
        Batch size, crop, augmentation.
    seed, member
        Of the run, and which network of the ensemble.
    start
        First step.
    rank, world
        Number of this process and of all processes.
    """

    def __init__(
        self,
        store: PhantomStore,
        config: TrainingConfig,
        seed: int,
        member: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if config.batch_size % world:
            raise ValueError(
                f"training.batch_size: {config.batch_size} can't be shared by {world} processes"
            )
        if config.batch_size > len(store):
            raise ValueError(
                f"training.batch_size: {config.batch_size}, but only {len(store)} phantoms"
            )
        self.store, self.config = store, config
        self.seed, self.member = seed, member
        self.start, self.rank, self.world = start, rank, world
        self._order: tuple[int, Order] | None = None

    def __iter__(self) -> Iterator[Step]:
        step = self.start
        while True:
            yield self.step(step, resumed=step == self.start)
            step += 1

    def step(self, step: int, resumed: bool = False) -> Step:
        """Return what a step is given; if resumed, with all that the pool holds by then."""
        number, again = divmod(step, self.config.reuse)
        # Slices that serve once need no pool.
        kept = self.config.reuse_batches if resumed and self.config.reuse > 1 else 1
        first = max(0, number - kept + 1)
        fresh = range(first, number + 1) if resumed or not again else ()
        seed = seed_of(self.seed, "pool", self.member, step, self.rank)
        return Step(tuple(self.batch(index) for index in fresh), seed, step)

    def batch(self, step: int) -> StepBatch:
        """Return one batch of phantoms."""
        size = self.config.batch_size
        per_pass = len(self.store) // size
        number, position = divmod(step, per_pass)
        order = self._pass(number)
        share = size // self.world
        begin = position * size + self.rank * share
        chosen = slice(begin, begin + share)
        phantoms = self.store.take(order.shards[chosen], order.rows[chosen])
        seed = seed_of(self.seed, "step", self.member, step, self.rank)
        generator = torch.Generator().manual_seed(seed_of(seed, "crop"))
        if self.config.augment:
            phantoms = turned(phantoms, generator)
        if self.config.crop:
            phantoms = cropped(phantoms, self.config.crop, generator)
        return StepBatch(phantoms, seed, step)

    def _pass(self, number: int) -> Order:
        if self._order is None or self._order[0] != number:
            seed = seed_of(self.seed, "order", self.member, number)
            # Half the cache, so that two windows fit where a batch lies across both.
            window = max(1, self.store.cached // 2)
            self._order = number, Order(self.store.sizes, seed, window)
        return self._order[1]


def _map_maps(phantoms: Phantoms, change: Callable[[Tensor], Tensor]) -> Phantoms:
    """Change the maps, leave what is one number a slice."""
    return Phantoms(
        **{
            f.name: change(value) if (value := getattr(phantoms, f.name)).ndim >= 3 else value
            for f in fields(phantoms)
        }
    )


def turned(phantoms: Phantoms, generator: torch.Generator) -> Phantoms:
    """Flip and turn phantoms of square slices at random; every one its own way."""
    depth = phantoms.slices
    switches = torch.randint(2, (4, phantoms.count), generator=generator).bool()
    vertical, horizontal, swap, over = switches.repeat_interleave(depth, 1)

    def change(image: Tensor) -> Tensor:
        def pick(switch: Tensor) -> Tensor:
            return switch.reshape(-1, *(1,) * (image.ndim - 1))

        if depth > 1:
            upside_down = image.reshape(-1, depth, *image.shape[1:]).flip(1).reshape(image.shape)
            image = torch.where(pick(over), upside_down, image)

        image = torch.where(pick(vertical), image.flip(-2), image)
        image = torch.where(pick(horizontal), image.flip(-1), image)
        return torch.where(pick(swap), image.mT, image)

    return _map_maps(phantoms, change)


def cropped(phantoms: Phantoms, size: int, generator: torch.Generator) -> Phantoms:
    """Cut a square of each phantom at random, but so that it isn't mostly air.

    The middle of the square falls on a random pixel of the brain (of the inner slices, if there
    are any), as far as it fits; it is the same in all slices of a phantom.
    """
    n, height, width = phantoms.tissue.shape
    if size >= height and size >= width:
        return phantoms
    depth = phantoms.slices
    brain = (phantoms.mask & phantoms.inner[:, None, None]).flatten(1).float()
    brain = brain.reshape(-1, depth, height * width).sum(1)
    pixel = torch.multinomial(brain + 1e-6, 1, generator=generator)[:, 0]
    pixel = pixel.repeat_interleave(depth)
    corners = []
    for middle, whole in ((pixel // width, height), (pixel % width, width)):
        corners.append((middle - size // 2).clamp(0, max(whole - size, 0)))
    rows = corners[0][:, None] + torch.arange(min(size, height))
    columns = corners[1][:, None] + torch.arange(min(size, width))
    sample = torch.arange(n)[:, None, None]

    def change(image: Tensor) -> Tensor:
        layered = image.movedim(1, -1) if image.ndim == 4 else image
        cut = layered[sample, rows[:, :, None], columns[:, None, :]]
        return cut.movedim(-1, 1) if image.ndim == 4 else cut

    return _map_maps(phantoms, change)


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
