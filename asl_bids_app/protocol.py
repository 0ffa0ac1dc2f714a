"""How the blood was labelled and when it was looked at: schemes and protocols.

A *scheme* is a way to label (PCASL, CASL, PASL, VSASL). A *measurement* is one
(scheme, delay, label duration) combination. A *protocol* is the ordered list of the
measurements of a series. All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from torch import Tensor

from asl_bids_app.protocol_checks import check_measurements, check_rows, common_slices
from asl_bids_app.schemes import SCHEMES, Scheme


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
        check_measurements(self)

    @classmethod
    def pcasl(
        cls,
        post_labeling_delay: ArrayLike,
        label_duration: ArrayLike,
        slice_time: ArrayLike = 0.0,
        *,
        vascular_crushing: bool = False,
    ) -> Protocol:
        """Return a protocol of PCASL.

        Parameters
        ----------
        post_labeling_delay : float or sequence of float, length n
            Seconds from the end of the label to the excitation of the first slice.
        label_duration : float or sequence of float, length n
            Seconds.
        slice_time : float or sequence of float, length n_slices
            Seconds after the first slice; 0 for a 3D readout.
        vascular_crushing
            Whether gradients take away the signal of arteries.

        Examples
        --------
        >>> Protocol.pcasl([0.5, 1.0, 1.5], 1.8).n_measurements
        3
        """
        times = (post_labeling_delay, label_duration, slice_time)
        return cls.of_scheme(Scheme.PCASL, *times, vascular_crushing=vascular_crushing)

    @classmethod
    def casl(
        cls,
        post_labeling_delay: ArrayLike,
        label_duration: ArrayLike,
        slice_time: ArrayLike = 0.0,
        *,
        vascular_crushing: bool = False,
    ) -> Protocol:
        """Return a protocol of CASL; as `pcasl`."""
        times = (post_labeling_delay, label_duration, slice_time)
        return cls.of_scheme(Scheme.CASL, *times, vascular_crushing=vascular_crushing)

    @classmethod
    def pasl(
        cls,
        inversion_time: ArrayLike,
        bolus_duration: ArrayLike,
        slice_time: ArrayLike = 0.0,
        *,
        vascular_crushing: bool = False,
    ) -> Protocol:
        """Return a protocol of PASL; as `pcasl`.

        Parameters
        ----------
        inversion_time : float or sequence of float, length n
            Seconds from the inversion pulse to the excitation of the first slice.
        bolus_duration : float or sequence of float, length n
            Seconds: TI1, at which QUIPSS II or Q2TIPS cut the bolus.
        """
        times = (inversion_time, bolus_duration, slice_time)
        return cls.of_scheme(Scheme.PASL, *times, vascular_crushing=vascular_crushing)

    @classmethod
    def vsasl(
        cls,
        post_labeling_delay: ArrayLike,
        bolus_duration: ArrayLike = float("inf"),
        slice_time: ArrayLike = 0.0,
        *,
        vascular_crushing: bool = False,
    ) -> Protocol:
        """Return a protocol of VSASL; as `pcasl`.

        Parameters
        ----------
        post_labeling_delay : float or sequence of float, length n
            Seconds from the label module to the excitation of the first slice.
        bolus_duration : float or sequence of float, length n
            Seconds to the second module; infinite where nothing cuts the bolus.
        """
        times = (post_labeling_delay, bolus_duration, slice_time)
        return cls.of_scheme(Scheme.VSASL, *times, vascular_crushing=vascular_crushing)

    @classmethod
    def of_scheme(
        cls,
        scheme: Scheme,
        delay: ArrayLike,
        duration: ArrayLike,
        slice_time: ArrayLike = 0.0,
        *,
        vascular_crushing: bool = False,
    ) -> Protocol:
        """Return a protocol of one scheme, or of its name; as `pcasl`."""
        import torch

        check_rows(post_labeling_delay=delay, label_duration=duration)
        delays, durations = (
            torch.as_tensor(np.atleast_1d(np.asarray(values, np.float32)))
            for values in (delay, duration)
        )
        n = max(len(delays), len(durations))
        delays, durations = (v.repeat(n) if len(v) == 1 else v for v in (delays, durations))
        protocol = cls(
            (Scheme(scheme),) * n, delays, durations, torch.zeros(1, n), (vascular_crushing,) * n
        )
        return protocol.with_slice_time(slice_time)

    def with_slice_time(self, slice_time: ArrayLike) -> Protocol:
        """Return the protocol with the time of each slice (s), the same in all measurements."""
        import torch

        times = np.atleast_1d(np.asarray(slice_time, np.float32))
        if not times.any():
            times = times[:1]
        column = torch.as_tensor(times)[:, None]
        return replace(self, slice_time=column.repeat(1, self.n_measurements))

    def __add__(self, other: Protocol) -> Protocol:
        """Put the measurements of another protocol behind these.

        Both are of one grid: equal numbers of slices, or a 3D readout on a side. A `ValueError`
        says so if they are not.
        """
        import torch

        n_slices = common_slices(both := (self, other))
        return Protocol(
            self.schemes + other.schemes,
            torch.cat([protocol.post_labeling_delay for protocol in both]),
            torch.cat([protocol.label_duration for protocol in both]),
            torch.cat([protocol.slice_time.expand(n_slices, -1) for protocol in both], dim=1),
            tuple(bool(seen == 0) for protocol in both for seen in protocol.vessels),
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
        import torch

        codes = [int(SCHEMES[scheme].arrival) for scheme in self.schemes]
        return torch.tensor(codes, device=self.post_labeling_delay.device)

    @property
    def vessels(self) -> Tensor:
        """Share of the arteries' signal that each measurement sees, 1 or 0, shape (n,)."""
        import torch

        crushed = self.vascular_crushing or (False,) * self.n_measurements
        return 1 - torch.tensor(crushed, device=self.post_labeling_delay.device).float()

    def select(self, measurements: Sequence[int]) -> Protocol:
        """Return the protocol of some of the measurements, in the order given."""
        import torch

        index = torch.as_tensor(measurements, device=self.post_labeling_delay.device)
        return Protocol(
            tuple(self.schemes[i] for i in measurements),
            self.post_labeling_delay[index],
            self.label_duration[index],
            self.slice_time[:, index],
            self.vascular_crushing and tuple(self.vascular_crushing[i] for i in measurements),
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
