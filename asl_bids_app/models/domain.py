"""Whether the data of a series lie inside what a model was trained with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.errors import InputError
from asl_bids_app.models.spec import Channel, ModelSpec, Range, TrainingDomain
from asl_bids_app.notices import Notice
from asl_bids_app.series import Series

_DELAY_TOLERANCE: Final = 0.03
"""Seconds by which a measurement may differ from the channel that it is put into."""
_DURATION_TOLERANCE: Final = 0.06
"""The same for the label duration, relative."""
_SNR_SLACK: Final = 1.25
"""The noise of a series is an estimate: only beyond so much of the range it is reported."""

_Outside = tuple[str, str]
"""What lies outside the domain, and the words for it."""


def domain_warnings(spec: ModelSpec, series: Series) -> tuple[Notice, ...]:
    """Say in which respects a series lies outside the training domain of a model.

    Parameters
    ----------
    spec
        Of the model.
    series
        The series, with its noise.

    Returns
    -------
    tuple of Notice
        One for each; empty if the series lies inside.
    """
    domain = spec.domain
    if domain is None:
        return (Notice(f"model {spec.name}", found="its training domain isn't recorded"),)
    found = [*_acquisition(domain, series), *_physics(domain, series)]
    found += _noise(domain, series)
    outside = f"outside the training domain of model {spec.name}"
    return tuple(Notice((), field, f"{outside}: {words}") for field, words in found)


def _span(low: float, high: float, unit: str) -> str:
    unit = f" {unit}" if unit else ""
    if high == float("inf"):
        return f"{low:.4g}{unit} to no cut" if low < high else "no cut"
    if abs(high - low) < 1e-6:
        return f"{low:.4g}{unit}"
    return f"{low:.4g} to {high:.4g}{unit}"


def _compare(what: str, low: float, high: float, trained: Range, unit: str) -> list[_Outside]:
    below, above = (1e-3 + 0.01 * abs(end) for end in trained)
    # Of endless durations the slack is endless too, and the difference no number.
    inside = (low >= trained[0] or low >= trained[0] - below) and (
        high <= trained[1] or high <= trained[1] + above
    )
    if inside:
        return []
    return [(what, f"{what} {_span(low, high, unit)}, trained with {_span(*trained, unit)}")]


def _acquisition(domain: TrainingDomain, series: Series) -> list[_Outside]:
    protocol = series.protocol
    names = [scheme.value for scheme in protocol.schemes]
    present = tuple(sorted(set(names)))
    found = [
        ("scheme", f"{name} was not trained") for name in present if name not in domain.schemes
    ]
    if not found and domain.combinations and present not in domain.combinations:
        found.append(("scheme", f"{' with '.join(present)} in one series was not trained"))
    for name in present:
        trained = domain.schemes.get(name)
        if trained is None:
            continue
        chosen = torch.tensor([each == name for each in names])
        delay = protocol.delay.cpu()[:, chosen]
        duration = protocol.label_duration.cpu()[chosen]
        count = float(chosen.sum())
        efficiency = next(
            series.calibration.effective_efficiency(s) for s in protocol.schemes if s.value == name
        )
        for what, values, limits, unit in (
            ("measurements", (count, count), trained.measurements, ""),
            ("delays", (float(delay.min()), float(delay.max())), trained.delay, "s"),
            (
                "label durations",
                (float(duration.min()), float(duration.max())),
                trained.label_duration,
                "s",
            ),
            ("labelling efficiency", (efficiency, efficiency), trained.efficiency, ""),
        ):
            found += _compare(f"{name} {what}", *values, limits, unit)
    return found


def _physics(domain: TrainingDomain, series: Series) -> list[_Outside]:
    found: list[_Outside] = []
    for name, words, unit in (
        ("t1_blood", "T1 of blood", "s"),
        ("t1_tissue", "T1 of tissue", "s"),
        ("partition_coefficient", "partition coefficient", "mL/g"),
    ):
        value = getattr(series.calibration, name).value
        found += _compare(words, value, value, getattr(domain, name), unit)
    return found


def share_outside(spec: ModelSpec, series: Series) -> float | None:
    """Return the share of the brain's voxels that lie outside the training domain.

    All of them if protocol or physics do, else those whose signal-to-noise ratio does; None
    if the model doesn't record its domain.
    """
    domain = spec.domain
    if domain is None or not bool(series.mask.any()):
        return None
    if _acquisition(domain, series) or _physics(domain, series):
        return 1.0
    snr = domain.reference_signal / _mean_variance(series).clamp(min=1e-24).sqrt()
    low, high = domain.snr
    outside = (snr < low / _SNR_SLACK) | (snr > high * _SNR_SLACK)
    return float(outside.double().mean())


def _mean_variance(series: Series) -> Tensor:
    """Return the mean variance of the measurements of each voxel of the brain, (V,)."""
    if series.noise is None:
        raise ValueError("series: found no noise, expected what `with_noise` estimates")
    return series.noise.noise_sd.square().mean(1)[series.mask]


def _noise(domain: TrainingDomain, series: Series) -> list[_Outside]:
    if not bool(series.mask.any()):
        return []
    snr = domain.reference_signal / float(_mean_variance(series).median().clamp(min=1e-24).sqrt())
    low, high = domain.snr
    if low / _SNR_SLACK <= snr <= high * _SNR_SLACK:
        return []
    what = "signal-to-noise ratio"
    return [(what, f"{what} about {snr:.2g}, trained with {_span(low, high, '')}")]


def _fits(channel: Channel, series: Series, index: int) -> bool:
    protocol = series.protocol
    duration = float(protocol.label_duration[index])
    same_duration = duration == channel.label_duration or (
        abs(duration - channel.label_duration) <= _DURATION_TOLERANCE * channel.label_duration
        and channel.label_duration != float("inf")
    )
    delays = protocol.delay[:, index]
    off = float((delays - channel.post_labeling_delay).abs().max())
    same_delay = off <= _DELAY_TOLERANCE
    return protocol.schemes[index].value == channel.scheme and same_delay and same_duration


def channel_order(spec: ModelSpec, series: Series) -> list[int]:
    """Find the measurement of each channel of a network of a fixed protocol.

    Parameters
    ----------
    spec
        Of the model; it has channels.
    series
        The series, with its noise.

    Returns
    -------
    list of int
        For each channel the index of its measurement.

    Raises
    ------
    InputError
        If a channel has no measurement or a measurement no channel.
    """
    n = series.protocol.n_measurements
    order: list[int] = []
    for channel in spec.channels:
        index = next(
            (i for i in range(n) if i not in order and _fits(channel, series, i)),
            None,
        )
        if index is None:
            break
        order.append(index)
    if len(order) == len(spec.channels) == n:
        return order
    raise InputError(
        f"model {spec.name}",
        "channels",
        _in_words(
            (scheme.value, float(delay), float(duration))
            for scheme, delay, duration in zip(
                series.protocol.schemes,
                series.protocol.delay.amax(0),
                series.protocol.label_duration,
                strict=True,
            )
        ),
        _in_words((c.scheme, c.post_labeling_delay, c.label_duration) for c in spec.channels),
        "leave --model out: the bundled model takes any protocol",
    )


def _in_words(measurements: Iterable[tuple[str, float, float]]) -> str:
    groups: dict[tuple[str, float], list[float]] = {}
    for scheme, delay, duration in measurements:
        groups.setdefault((scheme, round(duration, 3)), []).append(delay)
    return "; ".join(
        f"{scheme} {', '.join(f'{d:.3g}' for d in delays)} s"
        + ("" if duration == float("inf") else f" of {duration:g} s label")
        for (scheme, duration), delays in groups.items()
    )
