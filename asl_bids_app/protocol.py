"""How the blood was labelled and when it was looked at: schemes and protocols.

A *scheme* is a way to label (PCASL, CASL, PASL, VSASL). A *measurement* is one
(scheme, delay, label duration) combination. A *protocol* is the ordered list of the
measurements of a series. All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Arrival(IntEnum):
    """The way in which label reaches the tissue, which selects the kinetic equation."""

    CONTINUOUS = 0
    """A steady stream: every spin has the age ATT when it arrives (PCASL, CASL)."""
    PULSED = 1
    """A slab inverted at once: a spin that arrives at time t has the age t (PASL)."""
    VELOCITY_SELECTIVE = 2
    """Label made in the vessels next to the tissue: arrival from t = 0 (VSASL)."""


class Scheme(StrEnum):
    """A labelling scheme, by the field's name for it."""

    PCASL = "PCASL"
    CASL = "CASL"
    PASL = "PASL"
    VSASL = "VSASL"


class Module(StrEnum):
    """What a velocity-selective label module does to flowing blood."""

    INVERSION = "inversion"
    SATURATION = "saturation"


@dataclass(frozen=True)
class TransitPrior:
    """What is taken of ATT where the data don't determine it: a normal distribution.

    Attributes
    ----------
    mean, sd : float
        Seconds, from where the label of the scheme starts to the tissue.
    source : str
        Where the numbers come from.
    """

    mean: float
    sd: float
    source: str

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f} s"

    def to_json(self) -> dict[str, float | str]:
        """Return the prior for a sidecar."""
        return {"Mean": self.mean, "StandardDeviation": self.sd, "Units": "s", "Note": self.source}


@dataclass(frozen=True)
class SchemeInfo:
    """What the rest of the program has to know of a labelling scheme.

    Attributes
    ----------
    arrival
        The kinetic equation.
    title
        The scheme in words, for reports.
    labeling_efficiency
        Default inversion (or saturation) efficiency, a fraction, without background
        suppression.
    source
        Where the default comes from.
    transit
        Prior of ATT. It depends on where the label is made: PASL counts from the edge of its
        slab, close to the tissue, PCASL and CASL from a plane at the neck.
    modules
        Default efficiency and its source by the kind of label module, where the scheme has
        several; `labeling_efficiency` is taken where the kind isn't known.
    """

    arrival: Arrival
    title: str
    labeling_efficiency: float
    source: str
    transit: TransitPrior
    modules: Mapping[Module, tuple[float, str]] = field(default_factory=dict)


_FROM_NECK: Final = TransitPrior(
    1.3, 0.8, "mean as in BASIL, Chappell 2009, doi:10.1109/TSP.2008.2005752; sd broad by choice"
)
_FROM_SLAB: Final = TransitPrior(
    0.7, 0.4, "mean as in BASIL, Chappell 2009, doi:10.1109/TSP.2008.2005752; sd broad by choice"
)
_SHARED: Final = TransitPrior(1.3, 0.8, "that of PCASL, with which VSASL shares ATT")
_INVERSION: Final = (0.56, "Qin 2022 (velocity-selective inversion), doi:10.1002/mrm.29371")
_SATURATION: Final = (
    0.5,
    "perfect saturation (half of an inversion), Wong 2006, doi:10.1002/mrm.20906",
)


SCHEMES: Final = MappingProxyType(
    {
        Scheme.PCASL: SchemeInfo(
            Arrival.CONTINUOUS,
            "pseudo-continuous",
            0.85,
            "Alsop 2015, doi:10.1002/mrm.25197",
            _FROM_NECK,
        ),
        Scheme.CASL: SchemeInfo(
            Arrival.CONTINUOUS,
            "continuous",
            0.68,
            "Wang 2005, doi:10.1148/radiol.2351031663",
            _FROM_NECK,
        ),
        Scheme.PASL: SchemeInfo(
            Arrival.PULSED,
            "pulsed",
            0.98,
            "Alsop 2015, doi:10.1002/mrm.25197",
            _FROM_SLAB,
        ),
        Scheme.VSASL: SchemeInfo(
            Arrival.VELOCITY_SELECTIVE,
            "velocity-selective",
            *_INVERSION,
            _SHARED,
            {Module.INVERSION: _INVERSION, Module.SATURATION: _SATURATION},
        ),
    }
)

PRIOR_BY_ARRIVAL: Final = MappingProxyType(
    {info.arrival: info.transit for info in reversed(SCHEMES.values())}
)
"""Prior of ATT for slices of which only the kinetic equation is known."""


def transit_prior(schemes: Iterable[Scheme]) -> TransitPrior:
    """Return the prior of ATT of measurements that share one ATT.

    Parameters
    ----------
    schemes
        Of the measurements; of several the broadest prior is taken, the first of equals.
    """
    return max((SCHEMES[scheme].transit for scheme in schemes), key=lambda prior: prior.sd)


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
            if not bool(values.isfinite().all()) or bool((values < 0).any()):
                raise ValueError(f"{name}: {values.tolist()}, expected finite times >= 0 s")
        for scheme, duration in zip(self.schemes, self.label_duration.tolist(), strict=True):
            endless = duration == float("inf") and scheme is Scheme.VSASL
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
    import torch

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
