"""Slices as the estimators' cores see them: signal, noise and physics as plain tensors.

A series becomes one `Observation` whose batch axis runs over its slices; training draws
batches in which every sample has a protocol and a calibration of its own. Least squares,
the voxelwise posterior and the networks all take this one value.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from asl_bids_app.kinetics import arterial_response, tissue_response
from asl_bids_app.series import Series


@dataclass(frozen=True)
class Observation:
    """A batch of slices, each with the physics that its estimator assumes.

    Attributes
    ----------
    delta_m : Tensor, shape (B, n, H, W)
        ΔM/M0, a fraction, finite everywhere (0 where nothing was measured).
    noise_sd : Tensor, shape (B, n, H, W) or (B, n, 1, 1)
        Standard deviation of `delta_m`, a fraction; ``inf`` for a measurement that doesn't
        exist (padding of a batch of mixed protocols): it carries no information.
    mask : Tensor of bool, shape (B, H, W)
    arrival : Tensor of int, shape (B, n)
        Codes of `asl_bids_app.scheme_fields.Arrival`.
    delay, label_duration : Tensor, shape (B, n)
        Seconds; the delay contains the slice time.
    efficiency : Tensor, shape (B, n)
        Effective labelling efficiency, background suppression included.
    t1_blood, t1_tissue, partition_coefficient : Tensor, shape (B,)
        Seconds, seconds, mL/g.
    calibration_uncertainty : Tensor, shape (B,)
        How far T1 of blood, efficiency, M0 and bolus may be from what is assumed: 0 if they are
        exact, 1 if they are off as scanners and people differ
        (`asl_bids_app.training.simulate.physics`). Only learned estimators can make use of it.
    slice_number : Tensor of int, shape (B,)
        Place of a slice in its volume: the next one in the batch is its neighbour if its number
        is one higher. Only learned estimators look at neighbours.
    vessels : Tensor, shape (B, n)
        Share of the signal of arteries that is seen: 1, or 0 where gradients crush it.
    anatomy : Tensor, shape (B, 3, H, W)
        M0 in any unit, and the fractions of grey and white matter; 0 everywhere where one of
        them is not known. Only learned estimators look at it.
    """

    delta_m: Tensor
    noise_sd: Tensor
    mask: Tensor
    arrival: Tensor
    delay: Tensor
    label_duration: Tensor
    efficiency: Tensor
    t1_blood: Tensor
    t1_tissue: Tensor
    partition_coefficient: Tensor
    calibration_uncertainty: Tensor
    slice_number: Tensor
    vessels: Tensor
    anatomy: Tensor

    @property
    def follows(self) -> Tensor:
        """Whether each slice but the first is the neighbour of the one before, bool, (B - 1,)."""
        return self.slice_number[1:] == self.slice_number[:-1] + 1

    def response(self, att: Tensor) -> Tensor:
        """Compute ΔM/M0 per mL/100 g/min for transit times.

        Parameters
        ----------
        att : Tensor, shape (B or 1, ...)
            Seconds.

        Returns
        -------
        Tensor, shape (B, n, ...)
        """
        rest = (1,) * (att.ndim - 1)

        def spread(values: Tensor) -> Tensor:
            axes = values.shape if values.ndim == 2 else (*values.shape, 1)
            return values.reshape(*axes, *rest)

        return tissue_response(
            spread(self.arrival),
            spread(self.delay),
            spread(self.label_duration),
            spread(self.efficiency),
            spread(self.t1_blood),
            spread(self.t1_tissue),
            spread(self.partition_coefficient),
            att.unsqueeze(1),
        )

    def arterial_response(self, arrivals: Tensor) -> Tensor:
        """Compute ΔM/M0 per arterial blood volume (mL/mL) for arrival times in arteries.

        Parameters
        ----------
        arrivals : Tensor, shape (K,) or (B, H, W)
            Seconds.

        Returns
        -------
        Tensor, shape (B, n, K) or (B, n, H, W)
        """
        rest = (1,) * max(arrivals.ndim - 1, 1)

        def spread(values: Tensor) -> Tensor:
            axes = values.shape if values.ndim == 2 else (*values.shape, 1)
            return values.reshape(*axes, *rest)

        return arterial_response(
            spread(self.arrival),
            spread(self.delay),
            spread(self.label_duration),
            spread(self.efficiency * self.vessels),
            spread(self.t1_blood),
            spread(self.partition_coefficient),
            arrivals if arrivals.ndim == 1 else arrivals.unsqueeze(1),
        )

    def __getitem__(self, index: slice | Tensor) -> Observation:
        """Return some of the slices."""
        return Observation(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def __len__(self) -> int:
        return self.delta_m.shape[0]

    def to(self, device: torch.device | str) -> Observation:
        """Return the observation on a device."""
        return Observation(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def observe(series: Series, noise_sd: Tensor, calibration_uncertainty: float = 1.0) -> Observation:
    """Turn a series into an observation whose batch axis runs over the slices.

    Parameters
    ----------
    series
        Calibrated series.
    noise_sd : Tensor, shape (n_slices, n, H, W) or (n_slices, n, 1, 1)
        Standard deviation of its ΔM/M0.
    calibration_uncertainty
        0 to 1, see `Observation`.
    """
    protocol, calibration, like = series.protocol, series.calibration, series.delta_m
    shape = (series.n_slices, protocol.n_measurements)
    efficiency = [calibration.effective_efficiency(scheme) for scheme in protocol.schemes]

    def per_slice(value: float) -> Tensor:
        return torch.full(shape[:1], value, dtype=like.dtype, device=like.device)

    return Observation(
        delta_m=like,
        noise_sd=noise_sd.to(like),
        mask=series.mask,
        arrival=protocol.arrival.to(like.device).expand(shape),
        delay=protocol.delay.to(like).expand(shape),
        label_duration=protocol.label_duration.to(like).expand(shape),
        efficiency=torch.tensor(efficiency, dtype=like.dtype, device=like.device).expand(shape),
        t1_blood=per_slice(calibration.t1_blood.value),
        t1_tissue=per_slice(calibration.t1_tissue.value),
        partition_coefficient=per_slice(calibration.partition_coefficient.value),
        calibration_uncertainty=per_slice(calibration_uncertainty),
        slice_number=torch.arange(series.n_slices, device=like.device),
        vessels=protocol.vessels.to(like).expand(shape),
        anatomy=like.new_zeros(series.n_slices, 3, *like.shape[-2:])
        if series.anatomy is None
        else series.anatomy.to(like),
    )
