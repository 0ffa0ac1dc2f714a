"""One member in training: simulate on the device, estimate, compare with the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from asl_bids_app.training.data.batches import Step, StepBatch
from asl_bids_app.training.data.pool import Pool, Prepared, draw_from, joined, prepared
from asl_bids_app.training.fit.learning_rate import find_cycle, in_cycle, rate
from asl_bids_app.training.fit.losses import losses, voxel_weight
from asl_bids_app.training.fit.trunk_speed import speed_up
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.simulate.simulation import Batch, parted, simulate

if TYPE_CHECKING:
    from asl_bids_app.training.config.run_config import RunConfig


class MemberModule(pl.LightningModule):
    """Trains one network.

    Parameters
    ----------
    config
        Of the run.
    network
        Maps an `Observation` to an `Estimate`.
    steps
        Length of the training, for the learning rate.
    pieces
        Parts that a batch is worked through in, for less memory. The gradients of all are summed
        before a step is taken, so the batch counts as a whole.

    Attributes
    ----------
    latest : dict of Tensor
        Loss and its parts of the last training step.
    """

    def __init__(self, config: RunConfig, network: nn.Module, steps: int, pieces: int = 1) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.steps = steps
        self.pieces = pieces
        self.latest: dict[str, Tensor] = {}
        training = config.training
        self.by_cycle = [in_cycle(training, cycle) for cycle in range(training.cycles)]
        self.pool = Pool(config.training.reuse_batches)

    def _looked_at(self, batch: StepBatch) -> StepBatch:
        """Return the slices that the network looks at; others needn't be simulated."""
        beside = getattr(self.network, "beside", 0)
        return batch if beside else replace(batch, phantoms=batch.phantoms.alone())

    def simulated(self, batch: StepBatch) -> Batch:
        """Make signals of phantoms by the physics and noise that belong to this step."""
        generator = Generator(self.device).manual_seed(batch.seed)
        batch = self._looked_at(batch)
        if self.device.type != "cpu":
            batch = batch.drawn(self.config.domain)
        batch = batch.to(self.device)
        phantoms = batch.phantoms
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            physics = batch.physics
            if physics is None:
                physics = draw_physics(self.config.domain, phantoms.count, generator)
            made = simulate(phantoms, physics, self.config.noise, generator, self.config.domain)
            return parted(made, self.config.training.parted, generator)

    def _prepared(self, batch: StepBatch) -> list[Prepared]:
        """Simulate a batch and do what comes before the weights, piece by piece."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return [
                prepared(self.network, self.simulated(piece)) for piece in batch.split(self.pieces)
            ]

    @override
    def transfer_batch_to_device(
        self, batch: StepBatch | Step, device: torch.device, dataloader_idx: int
    ) -> StepBatch | Step:
        # What the network doesn't look at needn't travel, and a pool that is filled again may be
        # large: `simulated` moves one batch at a time.
        return batch

    @override
    def on_fit_start(self) -> None:
        # Not before: the copy of the module that keeps the averaged weights stays plain.
        training = self.config.training
        speed_up(self.network, self.device.type, training.precision, training.compile)

    def _ready(self, step: Step) -> list[Prepared]:
        """Return the slices of a step with all that comes before the weights done."""
        for batch in step.fresh:
            ready = self._prepared(batch)
            if self.config.training.reuse == 1:
                return ready
            self.pool.add(joined(ready))
        with torch.no_grad():
            taken = self.pool.take(draw_from(len(self.pool), self.pool.size, step.seed))
        size = -(-len(taken) // self.pieces)
        return [taken[begin : begin + size] for begin in range(0, len(taken), size)]

    def _losses(self, made: Prepared, cycle: int) -> tuple[Tensor, dict[str, Tensor]]:
        answer = self.network.corrections(made.maps)  # type: ignore[operator]
        estimate = self.network.correct(
            made.context, answer, made.mask, made.calibration_uncertainty
        )  # type: ignore[operator]
        return losses(estimate, made, self.by_cycle[cycle])

    def _losses_of_all(
        self, pieces: list[Prepared], cycle: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch in pieces and its parts; each counts by its voxels."""
        if len(pieces) == 1:
            return self._losses(pieces[0], cycle)
        amounts = torch.stack(
            [voxel_weight(piece, self.by_cycle[cycle]).sum() for piece in pieces]
        )
        shares = amounts / amounts.sum().clamp(min=1)
        loss, parts = shares.new_zeros(()), dict[str, Tensor]()
        for piece, share in zip(pieces, shares, strict=True):
            # What the backward pass needs of a piece is computed again when it comes to it: so
            # one piece is in memory at a time.
            one, some = checkpoint(self._losses, piece, cycle, use_reentrant=False)
            loss = loss + share * one
            for name, value in some.items():
                parts[name] = parts.get(name, 0) + share * value
        return loss, parts

    @override
    def training_step(self, batch: Step, batch_idx: int) -> Tensor:
        cycle = find_cycle(self.global_step, self.steps, len(self.by_cycle))
        loss, parts = self._losses_of_all(self._ready(batch), cycle)
        self.latest = {"loss": loss.detach(), **parts}
        return loss

    @override
    def validation_step(self, batch: StepBatch, batch_idx: int) -> None:
        # By what the last cycle counts, always: of two losses of a kind one is the better.
        loss, parts = self._losses_of_all(self._prepared(batch), cycle=-1)
        self.log_dict(
            {f"val/{name}": value for name, value in {"loss": loss, **parts}.items()},
            batch_size=batch.phantoms.count,
            sync_dist=True,
        )

    @override
    def configure_optimizers(self) -> Any:
        training = self.config.training
        # Weights decay, biases and norms don't: their size is not a sign of complexity.
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=training.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: rate(step, self.steps, training.warmup_steps, training.cycles),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
