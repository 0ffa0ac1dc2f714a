"""How the blood was labelled and when it was looked at: schemes and protocols.

A *scheme* is a way to label (PCASL, CASL, PASL, VSASL). A *measurement* is one
(scheme, delay, label duration) combination. A *protocol* is the ordered list of the
measurements of a series. All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asl_bids_app.schemes import (
    PRIOR_BY_ARRIVAL,
    SCHEMES,
    Arrival,
    Module,
    Scheme,
    SchemeInfo,
    TransitPrior,
    transit_prior,
)

__all__ = [
    "PRIOR_BY_ARRIVAL",
    "SCHEMES",
    "Arrival",
    "Module",
    "Protocol",
    "Scheme",
    "SchemeInfo",
    "TransitPrior",
    "join",
    "transit_prior",
]


@dataclass(frozen=True)
class Protocol:
    """The ordered measurements of a series.

    Attributes
    ----------
    schemes : tuple of Scheme, length n
        The labelling scheme of each measurement.
    post_labeling_delay : Tensor, shape (n,)
        Seconds, to the excitation of the first slice. PCASL and CASL: from the end of the
        label; PASL: from the inversion pulse; VSASL: from the label module.
    label_duration : Tensor, shape (n,)
        Seconds: label duration (PCASL, CASL) or bolus duration (PASL, VSASL). ``inf`` for
        VSASL without a second module, where nothing cuts the bolus.
    slice_time : Tensor, shape (n_slices, n)
        Seconds by which a slice is excited later than the first one; (1, n) zeros for a
        3D readout.
    vascular_crushing : tuple of bool, length n
        Whether gradients take away the signal of arteries; nowhere if empty.

    Raises
    ------
    ValueError
        If the shapes disagree, a time is negative or not a number, or the label duration
        of PCASL, CASL or PASL is not finite and positive.
    """

    schemes: tuple[Scheme, ...]
    post_labeling_delay: Tensor
    label_duration: Tensor
    slice_time: Tensor
    vascular_crushing: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.schemes)
        if n == 0:
            raise ValueError("a protocol needs at least one measurement")
        if self.vascular_crushing and len(self.vascular_crushing) != n:
            raise ValueError(
                f"vascular_crushing: {len(self.vascular_crushing)} values, expected {n}"
            )
        for name in ("post_labeling_delay", "label_duration"):
            values = getattr(self, name)
            if tuple(values.shape) != (n,):
                raise ValueError(f"{name}: shape {tuple(values.shape)}, expected ({n},)")
        if self.slice_time.ndim != 2 or self.slice_time.shape[1] != n:
            raise ValueError(
                f"slice_time: shape {tuple(self.slice_time.shape)}, expected (n_slices, {n})"
            )
        for name in ("post_labeling_delay", "slice_time"):
            values = getattr(self, name)
            if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
                raise ValueError(f"{name}: {values.tolist()}, expected finite times >= 0 s")
        for scheme, duration in zip(self.schemes, self.label_duration.tolist(), strict=True):
            endless = duration == float("inf") and SCHEMES[scheme].endless_bolus
            if not endless and not 0 < duration < float("inf"):
                raise ValueError(
                    f"label_duration: {duration} s for {scheme.value}, expected > 0 s"
                )

    @property
    def n_measurements(self) -> int:
        """Number of measurements."""
        return len(self.schemes)

    @property
    def delay(self) -> Tensor:
        """Delay of every slice and measurement, shape (n_slices, n), in seconds."""
        return self.post_labeling_delay + self.slice_time

    @property
    def arrival(self) -> Tensor:
        """The kinetic equation of each measurement as integers, shape (n,)."""
        codes = [int(SCHEMES[scheme].arrival) for scheme in self.schemes]
        return torch.tensor(codes, device=self.post_labeling_delay.device)

    @property
    def vessels(self) -> Tensor:
        """Share of the arteries' signal that each measurement sees, 1 or 0, shape (n,)."""
        crushed = self.vascular_crushing or (False,) * self.n_measurements
        return 1 - torch.tensor(crushed, device=self.post_labeling_delay.device).float()

    def select(self, measurements: Sequence[int]) -> Protocol:
        """Return the protocol of some of the measurements, in the order given."""
        index = torch.as_tensor(measurements, device=self.post_labeling_delay.device)
        return Protocol(
            tuple(self.schemes[i] for i in measurements),
            self.post_labeling_delay[index],
            self.label_duration[index],
            self.slice_time[:, index],
            tuple(self.vascular_crushing[i] for i in measurements)
            if self.vascular_crushing
            else (),
        )

    def slices(self, index: slice | Sequence[int]) -> Protocol:
        """Return the protocol of some slices; a 3D readout serves any."""
        if self.slice_time.shape[0] == 1:
            return self
        return replace(self, slice_time=self.slice_time[index])

    def to(self, device: torch.device | str) -> Protocol:
        """Return the protocol with its tensors on a device."""
        return replace(
            self,
            post_labeling_delay=self.post_labeling_delay.to(device),
            label_duration=self.label_duration.to(device),
            slice_time=self.slice_time.to(device),
        )


def join(first: Protocol, second: Protocol) -> Protocol:
    """Put the measurements of one protocol behind those of another.

    Parameters
    ----------
    first, second
        Protocols of the same grid: equal numbers of slices, or a 3D readout on a side.

    Raises
    ------
    ValueError
        If the numbers of slices differ.
    """
    counts = {first.slice_time.shape[0], second.slice_time.shape[0]} - {1}
    if len(counts) > 1:
        raise ValueError(f"protocols of {sorted(counts)} slices can't be joined")
    n_slices = counts.pop() if counts else 1
    return Protocol(
        first.schemes + second.schemes,
        torch.cat([first.post_labeling_delay, second.post_labeling_delay]),
        torch.cat([first.label_duration, second.label_duration]),
        torch.cat([p.slice_time.expand(n_slices, -1) for p in (first, second)], dim=1),
        tuple(bool(seen == 0) for p in (first, second) for seen in p.vessels),
    )
