"""What training steps start from: batch number k is a function of (seed, member, k) alone.

Nothing is remembered from one batch to the next, so a training that resumes at any step sees
what an unbroken one sees, and so does one whose batches come from other processes. Shards are
read in a shuffled order through a small cache; within a window of shards the phantoms are
shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.utils.data import IterableDataset, get_worker_info

from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.sections import TrainingConfig
from asl_bids_app.training.data.augmentation import cropped, turned
from asl_bids_app.training.data.phantom_store import Order, PhantomStore
from asl_bids_app.training.phantoms.drawing import Phantoms
from asl_bids_app.training.simulate.batch_physics import Physics
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.whole_files import derive_seed


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
    physics : Physics or None
        Drawn already, by the process that made the batch; None: drawn where it is simulated.
    """

    phantoms: Phantoms
    seed: int
    step: int
    physics: Physics | None = None

    def to(self, device: torch.device | str) -> StepBatch:
        """Return the batch on a device."""
        physics = self.physics and self.physics.to(device)
        return replace(self, phantoms=self.phantoms.to(device), physics=physics)

    def pin_memory(self) -> StepBatch:
        """Return the batch in memory that a GPU copies from by itself."""
        physics = self.physics and self.physics.pin_memory()
        return replace(self, phantoms=self.phantoms.pin_memory(), physics=physics)

    def split(self, pieces: int) -> list[StepBatch]:
        """Return the batch in so many parts with seeds of their own, at least a phantom each."""
        count = self.phantoms.count
        size = -(-count // pieces)
        if size >= count:
            return [self]
        parts = []
        for begin in range(0, count, size):
            rows = torch.arange(begin, min(begin + size, count))
            seed = derive_seed(self.seed, "piece", begin)
            physics = self.physics and self.physics[rows]
            parts.append(
                replace(self, phantoms=self.phantoms.pick(rows), seed=seed, physics=physics)
            )
        return parts

    def drawn(self, domain: DomainConfig) -> StepBatch:
        """Return the batch with its physics drawn by the processor.

        Hundreds of small operators on a few numbers a slice: a GPU would wait for each.
        """
        if self.physics is not None:
            return self
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "physics"))
        return replace(self, physics=draw_physics(domain, self.phantoms.count, generator))


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

    def pin_memory(self) -> Step:
        """Return the step with its batches in memory that a GPU copies from by itself."""
        return replace(self, fresh=tuple(batch.pin_memory() for batch in self.fresh))


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
    domain
        Draws the physics of each batch here, for a device that should not; None: left undrawn.
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
        domain: DomainConfig | None = None,
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
        self.domain = domain
        self._order: tuple[int, Order] | None = None

    def __iter__(self) -> Iterator[Step]:
        # Several processes that load take turns.
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + first
        while True:
            yield self.step(step, resumed=step == self.start)
            step += every

    def step(self, step: int, resumed: bool = False) -> Step:
        """Return what a step is given; if resumed, with all that the pool holds by then."""
        number, again = divmod(step, self.config.reuse)
        # Slices that serve once need no pool.
        kept = self.config.reuse_batches if resumed and self.config.reuse > 1 else 1
        first = max(0, number - kept + 1)
        fresh = range(first, number + 1) if resumed or not again else ()
        seed = derive_seed(self.seed, "pool", self.member, step, self.rank)
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
        seed = derive_seed(self.seed, "step", self.member, step, self.rank)
        generator = torch.Generator().manual_seed(derive_seed(seed, "crop"))
        if self.config.augment:
            phantoms = turned(phantoms, generator)
        if self.config.crop:
            phantoms = cropped(phantoms, self.config.crop, generator)
        made = StepBatch(phantoms, seed, step)
        return made.drawn(self.domain) if self.domain else made

    def _pass(self, number: int) -> Order:
        if self._order is None or self._order[0] != number:
            seed = derive_seed(self.seed, "order", self.member, number)
            # Half the cache, so that two windows fit where a batch lies across both.
            window = max(1, self.store.cached // 2)
            self._order = number, Order(self.store.sizes, seed, window)
        return self._order[1]
