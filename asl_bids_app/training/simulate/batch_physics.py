"""Acquisition and calibration of a batch of slices, nominal and true."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from asl_bids_app.kinetics import arterial_response, tissue_response
from asl_bids_app.training.random_draws import to_device


@dataclass(frozen=True)
class Kinetics:
    """The constants of `asl_bids_app.kinetics.tissue_response` for a batch of slices.

    Attributes
    ----------
    arrival : Tensor of int, shape (B, n)
    delay, label_duration : Tensor, shape (B, n)
        Seconds.
    efficiency : Tensor, shape (B, n)
    t1_blood, t1_tissue, partition_coefficient : Tensor, shape (B,)
        Seconds, seconds, mL/g.
    vessels : Tensor, shape (B, n)
        Share of the arteries' signal that is seen, 1 or 0.
    """

    arrival: Tensor
    delay: Tensor
    label_duration: Tensor
    efficiency: Tensor
    t1_blood: Tensor
    t1_tissue: Tensor
    partition_coefficient: Tensor
    vessels: Tensor

    def arterial_response(self, arrival: Tensor, edge: Tensor) -> Tensor:
        """Compute ΔM/M0 per mL/mL of arteries; arrival (B, H, W) and edge (B,) in seconds."""
        seen = self.efficiency * self.vessels
        arguments = [
            *(t[:, :, None, None] for t in (self.arrival, self.delay, self.label_duration, seen)),
            *(t[:, None, None, None] for t in (self.t1_blood, self.partition_coefficient)),
            arrival[:, None],
            edge[:, None, None, None],
        ]
        return arterial_response(*arguments)

    def response(self, att: Tensor) -> Tensor:
        """Compute ΔM/M0 per mL/100 g/min for transit times (B, H, W); (B, n, H, W)."""
        measured = (self.arrival, self.delay, self.label_duration, self.efficiency)
        shared = (self.t1_blood, self.t1_tissue, self.partition_coefficient)
        arguments = [
            *(t[:, :, None, None] for t in measured),
            *(t[:, None, None, None] for t in shared),
            att[:, None],
        ]
        return tissue_response(*arguments)

    def __getitem__(self, index: Tensor) -> Kinetics:
        """Return the constants of some of the slices."""
        return Kinetics(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Kinetics:
        """Return the constants on a device."""
        return Kinetics(**{f.name: to_device(getattr(self, f.name), device) for f in fields(self)})

    def pin_memory(self) -> Kinetics:
        """Return the constants in memory that a GPU copies from by itself."""
        return Kinetics(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


@dataclass(frozen=True)
class Physics:
    """Acquisition and calibration of a batch of slices.

    Attributes
    ----------
    nominal, truth : Kinetics
        What the estimator is given, and what makes the signal.
    m0_scale : Tensor, shape (B,)
        Factor by which ΔM/M0 comes out wrong because M0 is.
    repeats : Tensor, shape (B, n)
        Label-control pairs averaged in each measurement.
    valid : Tensor of bool, shape (B, n)
        False where a measurement only fills the batch's rectangle.
    calibration_uncertainty : Tensor, shape (B,)
        0 where the nominal calibration is reported as exact, 1 where it may be off.
    arterial_edge : Tensor, shape (B,)
        Seconds: half width of the edges of label in arteries.
    """

    nominal: Kinetics
    truth: Kinetics
    m0_scale: Tensor
    repeats: Tensor
    valid: Tensor
    calibration_uncertainty: Tensor
    arterial_edge: Tensor

    def __len__(self) -> int:
        return len(self.m0_scale)

    def __getitem__(self, index: Tensor) -> Physics:
        """Return the physics of some of the slices."""
        return Physics(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def repeated(self, times: int) -> Physics:
        """Return the physics of slices of which so many in a row are acquired alike."""
        return self[torch.arange(len(self), device=self.m0_scale.device).repeat_interleave(times)]

    def to(self, device: torch.device | str) -> Physics:
        """Return the physics on a device."""
        return Physics(
            self.nominal.to(device),
            self.truth.to(device),
            *(to_device(values, device) for values in self._per_slice()),
        )

    def pin_memory(self) -> Physics:
        """Return the physics in memory that a GPU copies from by itself."""
        return Physics(
            self.nominal.pin_memory(),
            self.truth.pin_memory(),
            *(values.pin_memory() for values in self._per_slice()),
        )

    def _per_slice(self) -> tuple[Tensor, ...]:
        return (
            self.m0_scale,
            self.repeats,
            self.valid,
            self.calibration_uncertainty,
            self.arterial_edge,
        )
