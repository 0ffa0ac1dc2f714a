"""Acquisition protocols for training: fixed ones by name, and random ones."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Generator, Tensor

from asl_bids_app.protocol import Protocol
from asl_bids_app.schemes import Scheme
from asl_bids_app.training.random_draws import chance, choose, log_uniform, normal, uniform

_CODE: Final = MappingProxyType({scheme: code for code, scheme in enumerate(Scheme)})


@dataclass(frozen=True)
class Schedule:
    """Protocols of a batch of slices, padded to one number of measurements.

    Attributes
    ----------
    scheme : Tensor of int, shape (B, n)
        Positions in `asl_bids_app.schemes.Scheme`.
    delay, label_duration : Tensor, shape (B, n)
        Seconds; the delay contains the slice's time.
    repeats : Tensor, shape (B, n)
    valid : Tensor of bool, shape (B, n)
    """

    scheme: Tensor
    delay: Tensor
    label_duration: Tensor
    repeats: Tensor
    valid: Tensor


def make_protocol(scheme: Scheme, delays: list[float], duration: float | list[float]) -> Protocol:
    """Return a protocol of one scheme, 3D readout, with one label duration or one each, s."""
    n = len(delays)
    return Protocol(
        (scheme,) * n, torch.tensor(delays), torch.tensor(duration).expand(n), torch.zeros(1, n)
    )


_SIX = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]

PROTOCOLS: Final = MappingProxyType(
    {
        "joint 6+6": make_protocol(Scheme.PCASL, _SIX, 1.8)
        + make_protocol(Scheme.VSASL, _SIX, float("inf")),
        "pcasl 6": make_protocol(Scheme.PCASL, _SIX, 1.8),
        "vsasl 6": make_protocol(Scheme.VSASL, _SIX, float("inf")),
        "pasl 10": make_protocol(Scheme.PASL, [0.3 * (i + 1) for i in range(10)], 0.7),
    }
)
"""Fixed protocols by name, of 3D readouts (no slice times)."""


def fixed_schedule(name: str, n: int, generator: Generator) -> Schedule:
    """Return n times the protocol of a name.

    Raises
    ------
    ValueError
        If there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise ValueError(
            f"protocol: found {name!r}, expected random or one of {', '.join(PROTOCOLS)}"
        )
    return repeat_protocol(PROTOCOLS[name], n, generator.device)


def repeat_protocol(protocol: Protocol, n: int, device: torch.device | str = "cpu") -> Schedule:
    """Return n times a protocol of a 3D readout, one repeat each."""
    codes = torch.tensor([_CODE[scheme] for scheme in protocol.schemes])
    shape = (n, protocol.n_measurements)

    def rows(values: Tensor) -> Tensor:
        return values.to(device).expand(shape)

    return Schedule(
        rows(codes),
        rows(protocol.delay[0].float()),
        rows(protocol.label_duration.float()),
        torch.ones(shape, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
    )


@dataclass(frozen=True)
class _Habits:
    """How a scheme is used: ranges of first delay, last delay and duration, s."""

    first: tuple[float, float]
    last: tuple[float, float]
    duration: tuple[float, float]


_HABITS: Final = MappingProxyType(
    {
        Scheme.PCASL: _Habits((0.0, 1.2), (1.2, 3.8), (0.8, 4.0)),
        Scheme.CASL: _Habits((0.0, 1.2), (1.2, 3.8), (1.0, 4.0)),
        Scheme.PASL: _Habits((0.1, 1.0), (1.0, 3.8), (0.4, 1.4)),
        Scheme.VSASL: _Habits((0.2, 1.2), (1.2, 3.6), (0.8, 2.2)),
    }
)

# Kinds of protocol, with the share of each: one scheme, or two of them.
_KINDS: Final = (
    ((Scheme.PCASL,), 0.38),
    ((Scheme.PASL,), 0.15),
    ((Scheme.VSASL,), 0.09),
    ((Scheme.CASL,), 0.03),
    ((Scheme.PCASL, Scheme.VSASL), 0.27),
    ((Scheme.PCASL, Scheme.PASL), 0.04),
    ((Scheme.PASL, Scheme.VSASL), 0.04),
)
MOST: Final = 12
"""Most measurements of one scheme."""
_COUNTS: Final = (0.1, 0.03, 0.07, 0.09, 0.14, 0.19, 0.1, 0.08, 0.05, 0.07, 0.04, 0.04)
"""Share of the protocols with 1 to `MOST` measurements of a scheme."""
_ALIKE: Final = 16
"""So many neighbours in a batch get similar numbers of measurements: less padding."""
MOST_SLICE_TIME: Final = 1.5
"""Seconds by which a slice may be later than the first."""


def _sub_boluses(valid: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw durations and delays of time-encoded PCASL: labels that follow each other."""
    n = len(valid)
    uneven = 0.35 * chance(generator, (n, 1), 0.5)
    pieces = torch.exp(uneven * normal(generator, tuple(valid.shape))) * valid
    total = uniform(generator, (n, 1), (1.5, 4.2))
    pieces = (pieces / pieces.sum(1, keepdim=True) * total).clamp(min=0.05)
    final = uniform(generator, (n, 1), (0.0, 1.0)) * chance(generator, (n, 1), 0.8)
    counted = pieces * valid
    return pieces, final + counted.flip(1).cumsum(1).flip(1) - counted


def _part(scheme: Tensor, count: Tensor, width: int, generator: Generator) -> tuple[Tensor, ...]:
    """Draw delays, durations and repeats of one scheme's measurements, each (B, width)."""
    n = len(scheme)
    slot = torch.arange(width, device=scheme.device)
    valid = slot < count[:, None]
    habits = [_HABITS[scheme] for scheme in Scheme]
    table = torch.tensor([[*h.first, *h.last, *h.duration] for h in habits])
    low0, high0, low1, high1, short, long = table.to(scheme.device)[scheme].unbind(1)

    def between(low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        low, high = (t.reshape(n, *(1,) * (len(shape) - 1)) for t in (low, high))
        return low + (high - low) * uniform(generator, shape, (0.0, 1.0))

    first, last = between(low0, high0, (n,)), between(low1, high1, (n,))
    # Single delays sit where single-delay protocols put them.
    alone = count == 1
    first = torch.where(alone, between(low0 + 0.9, high0 + 2.0, (n,)), first)
    steps = slot / (count[:, None] - 1).clamp(min=1)
    scattered = uniform(generator, (n, width), (0.0, 1.0)).masked_fill(~valid, 2.0).sort(1).values
    even = chance(generator, (n, 1), 0.65)
    steps = torch.where(even, steps, scattered).clamp(max=1)
    steps = torch.where(alone[:, None], 0.0, steps)
    delay = first[:, None] + (last - first)[:, None] * steps

    short_label = long.clamp(max=2.2)
    usual = between(short, short_label, (n, 1))
    duration = torch.where(chance(generator, (n, 1), 0.8), usual, between(short, long, (n, 1)))
    duration = duration.expand(n, width)
    selective = (scheme == _CODE[Scheme.VSASL])[:, None]
    uncut = selective & chance(generator, (n, 1), 0.6)
    duration = torch.where(uncut, torch.inf, duration)

    # PCASL with a label duration for each delay, some with no delay at all.
    streaming = (scheme == _CODE[Scheme.PCASL]) & (count > 1)
    varied = (streaming & chance(generator, (n,), 0.08))[:, None]
    duration = torch.where(varied, uniform(generator, (n, width), (0.3, 3.6)), duration)
    no_delay = varied & chance(generator, (n, 1), 0.4)
    delay = torch.where(no_delay, 0.1 * uniform(generator, (n, 1), (0.0, 1.0)).round(), delay)

    encoded = (streaming & (count >= 3) & chance(generator, (n,), 0.15))[:, None]
    pieces, later = _sub_boluses(valid, generator)
    duration = torch.where(encoded, pieces, duration)
    delay = torch.where(encoded, later, delay)

    repeats = log_uniform(generator, (n, 1), (1.0, 40.0)).expand(n, width)
    growing = chance(generator, (n, 1), 0.25)
    repeats = torch.where(growing, repeats * (1 + 1.5 * steps), repeats).round().clamp(min=1)
    return delay, duration, repeats


def _draw_counts(both: Tensor, generator: Generator) -> Tensor:
    """Draw the numbers of measurements of a first and a second scheme, (B, 2)."""
    n, device = len(both), both.device
    alone = torch.tensor(_COUNTS, device=device)
    together = torch.zeros(2 * MOST, device=device)
    for k, share in enumerate(_COUNTS):  # entry t: a sum of t + 1 measurements
        together[k + 1 : k + 1 + MOST] += share * alone
    blocks = uniform(generator, (-(-n // _ALIKE),), (0.0, 1.0)).repeat_interleave(_ALIKE)[:n]
    rank = (blocks + uniform(generator, (n,), (-0.15, 0.15))).abs()
    rank = torch.where(rank > 1, 2 - rank, rank).clamp(max=1 - 1e-6)
    single, total = (
        torch.searchsorted(table.cumsum(0) / table.sum(), rank, right=True).clamp(
            max=len(table) - 1
        )
        + 1
        for table in (alone, together)
    )
    part = (total * uniform(generator, (n,), (0.3, 0.7))).round().long()
    part = torch.minimum(torch.maximum(part, total - MOST), total - 1).clamp(1, MOST)
    first = torch.where(both, part, single)
    return torch.stack([first, torch.where(both, total - part, 0)], 1)


def draw_schedule(n: int, generator: Generator) -> Schedule:
    """Draw random protocols: one or two schemes, 1 to `MOST` measurements of each."""
    device = generator.device
    kind = choose(generator, n, [share for _, share in _KINDS])
    pairs = torch.tensor([[_CODE[s] for s in (*schemes, schemes[0])[:2]] for schemes, _ in _KINDS])
    both = torch.tensor([len(schemes) == 2 for schemes, _ in _KINDS]).to(device)[kind]
    scheme = pairs.to(device)[kind]
    count = _draw_counts(both, generator)
    width = int(count.sum(1).max())
    parts = [_part(scheme[:, k], count[:, k].clamp(min=1), MOST, generator) for k in (0, 1)]
    slot = torch.arange(width, device=device).expand(n, width)
    second = slot >= count[:, :1]
    place = torch.where(second, slot - count[:, :1], slot).clamp(max=MOST - 1)

    def merge(first: Tensor, other: Tensor) -> Tensor:
        return torch.where(second, torch.gather(other, 1, place), torch.gather(first, 1, place))

    delay, duration, repeats = (merge(a, b) for a, b in zip(*parts, strict=True))
    valid = slot < count.sum(1, keepdim=True)
    slices = uniform(generator, (n, 1), (0.0, MOST_SLICE_TIME))
    delay = delay + torch.where(chance(generator, (n, 1), 0.5), slices, 0.0)
    return Schedule(
        torch.where(second, scheme[:, 1:], scheme[:, :1]), delay, duration, repeats, valid
    )
