"""What error bars hold of T1 of tissue and of the partition coefficient.

Truth: signals by plain quadrature (`physics`), and a curve fit by scipy.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import calibration as constants
from physics import integrated
from scipy.optimize import curve_fit
from slices import maps as brain_maps
from slices import measured

from asl_bids_app.constants import Source
from asl_bids_app.estimators.assumed import (
    change_by_t1_tissue,
    other_t1_tissue,
    partition_uncertainty,
    with_assumed_constants,
)
from asl_bids_app.estimators.base import ParameterMaps

PCASL = [("PCASL", w, 1.8) for w in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)]
PASL = [("PASL", w, 0.7) for w in (0.6, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0)]


def seen_as(measurements, cbf, att):
    """An observation of one flow everywhere, next to free of noise, and its mask."""
    _, _, mask = brain_maps((1, 24, 24))
    like = np.ones(mask.shape)
    return measured(measurements, cbf * like, att * like, mask, snr=1e4), torch.tensor(mask)


def signal_of(measurements, cbf, att, **t1):
    """ΔM/M0 in thousandths."""
    return [1e3 * cbf * float(integrated(*m, att, **t1)) for m in measurements]


def fitted(measurements, signal, **t1):
    """CBF and ATT by scipy, with a T1 of tissue."""

    def model(_, cbf, att):
        return signal_of(measurements, cbf, att, **t1)

    start = {"p0": (50, 1.2), "method": "trf", "x_scale": (10, 0.1)}
    return curve_fit(model, np.zeros(len(signal)), signal, **start)[0]


@pytest.mark.parametrize("measurements", [PCASL, PASL], ids=["PCASL", "PASL"])
@pytest.mark.parametrize("t1_tissue", [1.2, 1.5])
@pytest.mark.parametrize(("cbf", "att"), [(60.0, 1.1), (25.0, 1.6)])
def test_the_change_is_that_of_a_fit_with_the_other_t1(measurements, t1_tissue, cbf, att):
    def model(_, flow, time):
        return [
            1e3 * flow * float(integrated(*m, time, t1_tissue=t1_tissue)) for m in measurements
        ]

    signal = [cbf * float(integrated(*m, att)) for m in measurements]
    found, _ = curve_fit(
        model,
        np.zeros(len(signal)),
        np.array(signal) * 1e3,
        p0=(cbf, att),
        method="trf",
        x_scale=(10, 0.1),
    )
    observation, middle = seen_as(measurements, cbf, att)
    like = torch.ones(middle.shape)
    change, delay = change_by_t1_tissue(observation, cbf * like, att * like, t1_tissue, 0.6)
    expected = found[0] - cbf, found[1] - att
    assert float(change[middle].mean()) == pytest.approx(expected[0], rel=0.05, abs=0.3)
    assert float(delay[middle].mean()) == pytest.approx(expected[1], rel=0.1, abs=0.015)


def test_the_other_t1_is_one_standard_deviation_away():
    calibration = constants("PCASL")
    draws = np.random.default_rng(1).uniform(1.1, 1.65, 200_000)
    away = calibration.t1_tissue.value - other_t1_tissue(calibration)
    spread = np.sqrt(np.mean((draws - calibration.t1_tissue.value) ** 2))
    assert away == pytest.approx(spread, rel=0.01)
    stated = replace(
        calibration,
        t1_tissue=replace(calibration.t1_tissue, source=Source.COMMAND_LINE),
        partition_coefficient=replace(calibration.partition_coefficient, source=Source.SIDECAR),
    )
    assert abs(other_t1_tissue(stated) - stated.t1_tissue.value) < away / 2
    assert partition_uncertainty(stated) < partition_uncertainty(calibration)


@pytest.mark.parametrize(("field_strength", "t1_blood"), [(1.5, 1.35), (7.0, 2.1)])
def test_the_range_of_t1_follows_the_field(field_strength, t1_blood):
    """Tissue has a shorter T1 than blood at any field."""
    at_3t = constants("PCASL")
    there = {"value": t1_blood, "source": Source.DEFAULT}
    calibration = replace(
        at_3t,
        t1_blood=replace(at_3t.t1_blood, **there),
        t1_tissue=replace(at_3t.t1_tissue, **there),
    )
    part = other_t1_tissue(calibration) / t1_blood
    assert part == pytest.approx(other_t1_tissue(at_3t) / 1.65, rel=1e-6)
    assert part < 1, field_strength


@pytest.mark.parametrize("t1_tissue", [1.15, 1.3, 1.6])
def test_bars_hold_a_person_whose_t1_is_another(t1_tissue):
    """Signals of tissue with its own T1, fitted as the consensus does, by scipy."""
    cbf, att = 60.0, 1.1

    def model(_, flow, time):
        return [1e3 * flow * float(integrated(*m, time)) for m in PCASL]

    signal = [cbf * float(integrated(*m, att, t1_tissue=t1_tissue)) for m in PCASL]
    found, _ = curve_fit(
        model,
        np.zeros(len(signal)),
        np.array(signal) * 1e3,
        p0=(50, 1.0),
        method="trf",
        x_scale=(10, 0.1),
    )
    observation, inside = seen_as(PCASL, *found)
    like = torch.ones(inside.shape)
    zero = torch.zeros_like(like)
    flags = zero.to(torch.uint8)
    estimate = ParameterMaps(
        like * found[0], like * found[1], zero, zero, observation.delta_m * 0, flags, "x"
    )
    bars = with_assumed_constants(observation, estimate, constants("PCASL"))
    assert abs(found[0] - cbf) < 1.96 * float(bars.cbf_sd[inside].min())
    assert abs(found[1] - att) < 1.96 * float(bars.att_sd[inside].min()) + 0.02
    assert not bars.cbf_sd[~inside].any()
