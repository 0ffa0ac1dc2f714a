"""Every disturbance against the statistic that it is meant to have."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from noise_settings import thermal_only
from scipy import stats

from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.phantoms.drawing import Phantoms
from asl_bids_app.training.simulate.disturbances import (
    REFERENCE_SIGNAL,
    NoiseConfig,
    add_spikes,
    displaced,
    draw_correlation,
    drift,
    noise_map,
    physiological,
    thermal_sd,
)
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.simulate.rician import (
    averaged_magnitude,
    magnitude_difference,
    rician_excess,
    rician_mean,
    rician_sd,
)
from asl_bids_app.training.simulate.simulation import simulate

LEVELS = [0.0, 0.3, 1.0, 2.0, 5.0, 12.0, 25.0]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat_phantoms(n, size=16, cbf=60.0, att=1.2, tissue=1):
    """Slices of one tissue, brain everywhere."""
    return Phantoms(
        torch.full((n, size, size), cbf),
        torch.full((n, size, size), att),
        torch.full((n, size, size), tissue, dtype=torch.uint8),
        *(torch.zeros(n, dtype=torch.uint8) for _ in range(3)),
        torch.zeros(n, 6, size, size, dtype=torch.uint8),
    )


@pytest.mark.parametrize("level", LEVELS)
def test_rician_mean_and_sd(level):
    sd = 0.7
    law = stats.rice(level, scale=sd)
    amplitude = torch.tensor([level * sd], dtype=torch.float64)
    noise = torch.tensor([sd], dtype=torch.float64)
    assert float(rician_mean(amplitude, noise)) == pytest.approx(law.mean(), rel=1e-6)
    assert float(rician_sd(amplitude, noise)) == pytest.approx(law.std(), rel=1e-5)
    table = rician_excess(*(t.float().reshape(1, 1, 1, 1) for t in (amplitude, noise)))
    assert float(table) == pytest.approx(law.mean() - level * sd, abs=1e-4 * sd)


def test_rician_sd_in_single_precision_at_high_signal():
    assert float(rician_sd(torch.tensor(1.0), torch.tensor(1e-3))) == pytest.approx(1e-3, rel=1e-3)


def test_rician_excess_between_and_beyond_the_table():
    level = np.array([0.007, 1.2345, 31.99, 32.0, 33.0, 1000.0])
    found = rician_excess(torch.tensor(level).float().reshape(1, 1, 1, 6), torch.ones(1, 1, 1, 6))
    found = found.flatten().numpy()
    expected = [stats.rice(x).mean() - x if x < 100 else 0.5 / x for x in level]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("repeats", [1, 4, 25])
def test_averaged_magnitude_has_mean_and_variance_of_an_average(level, repeats):
    """Against means of r magnitudes, really drawn."""
    n = 40_000
    white = torch.randn(2, n, generator=generator())
    white = white.reshape(2, 1, 1, 1, n)
    one = torch.ones(1, 1, 1, n)
    found = averaged_magnitude(level * one, one, torch.tensor(float(repeats)), white)
    drawn = torch.randn(2, repeats, n, generator=generator(1))
    truth = torch.hypot(level + drawn[0], drawn[1]).mean(0)
    standard_error = float(truth.std()) / math.sqrt(n)
    assert float(found.mean()) == pytest.approx(float(truth.mean()), abs=6 * standard_error)
    assert float(found.std()) == pytest.approx(float(truth.std()), rel=0.02)


def test_magnitude_difference_at_high_static_signal_is_gaussian():
    """Mean ΔM, sd of a difference of two averages."""
    shape, one = (1, 2, 100, 100), (1, 1, 100, 100)
    white = torch.randn(4, *shape, generator=generator())
    repeats = torch.tensor([[1.0, 9.0]])
    delta, static, sd = torch.full(shape, 0.006), torch.full(one, 0.5), torch.full(one, 0.002)
    signal = magnitude_difference(delta, static, sd, repeats, white)
    for i, spread in enumerate((0.002 * math.sqrt(2), 0.002 * math.sqrt(2) / 3)):
        assert float(signal[:, i].mean()) == pytest.approx(0.006, abs=5 * spread / 100)
        assert float(signal[:, i].std()) == pytest.approx(spread, rel=0.03)


def test_magnitude_difference_where_the_static_signal_drowns():
    """Rician bias of ΔM, by the distribution of scipy; 16 repeats don't average it away."""
    shape = (1, 1, 200, 200)
    static, delta, repeats, sd = 0.02, 0.008, 16, 0.012
    signal = magnitude_difference(
        torch.full(shape, delta),
        torch.full(shape, static),
        torch.full(shape, sd),
        torch.tensor([[float(repeats)]]),
        torch.randn(4, *shape, generator=generator()),
    )
    control = stats.rice(static / sd, scale=sd)
    label = stats.rice((static - delta) / sd, scale=sd)
    assert float(signal.mean()) == pytest.approx(control.mean() - label.mean(), rel=0.01)
    assert control.mean() - label.mean() < 0.8 * delta
    spread = math.sqrt((control.var() + label.var()) / repeats)
    assert float(signal.std()) == pytest.approx(spread, rel=0.02)


def test_snr_is_reference_signal_over_sd_of_an_averaged_measurement():
    """The reference is the consensus acquisition's grey-matter signal, by its own formula."""
    t1, alpha, partition = 1.65, 0.85, 0.9
    cbf = 60 / 6000
    decay = math.exp(-1.8 / t1) * (1 - math.exp(-1.8 / t1))
    reference = 2 * alpha * cbf * t1 * decay / partition
    assert pytest.approx(reference, rel=1e-12) == REFERENCE_SIGNAL
    snr = torch.tensor([5.0, 10.0])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    same = thermal_sd(snr, torch.full((2, 3), 8.0), valid)
    exactly = {"rtol": 1e-5, "atol": 0.0}
    torch.testing.assert_close(same[0], torch.full((3,), reference / 5), **exactly)
    torch.testing.assert_close(same[1, :2], torch.full((2,), reference / 10), **exactly)
    repeats = torch.tensor([[1.0, 4.0, 16.0], [1.0, 4.0, 9.0]])
    sd = thermal_sd(snr, repeats, valid)
    # The same noise in every image, and the stated root mean square over measurements.
    torch.testing.assert_close(sd[0] * repeats[0].sqrt(), sd[0, :1].expand(3), **exactly)
    assert float(sd[0].square().mean().sqrt()) == pytest.approx(reference / 5, rel=1e-5)
    assert float(sd[1, :2].square().mean().sqrt()) == pytest.approx(reference / 10, rel=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_simulated_noise_is_what_was_asked_for(kind):
    """A thousand measurements of one voxel: mean, sd, no correlation in space or between."""
    phantoms = flat_phantoms(64)
    physics = draw_physics(
        DomainConfig("pcasl 6", spread=0.0, nominal_random=False), 64, generator()
    )
    config = replace(thermal_only(4.0), noise_type=kind, static_signal=(0.5, 0.5))
    batch = simulate(phantoms, physics, config, generator(1))
    clean = phantoms.cbf[:, None] * physics.truth.response(phantoms.att)
    residual = batch.observation.delta_m - clean
    sd = REFERENCE_SIGNAL / 4
    count = residual.numel()
    assert float(residual.std()) == pytest.approx(sd, rel=6 / math.sqrt(2 * count))
    assert float(residual.mean()) == pytest.approx(0, abs=5 * sd / math.sqrt(count))
    assert float(batch.observation.noise_sd.mean()) == pytest.approx(sd, rel=2e-3)
    unit = residual / sd
    assert abs(float((unit[..., 1:] * unit[..., :-1]).mean())) < 0.02
    assert abs(float((unit[:, 1:] * unit[:, :-1]).mean())) < 0.02
    assert (batch.snr == 4.0).all()


def test_told_noise_is_true_within_the_stated_error():
    """All stationary components on: the sd over many draws of one series, against what is told."""
    n = 400
    config = NoiseConfig(
        snr=(5.0, 5.0),
        static_signal=(0.05, 0.05),
        g_factor=(0.0, 0.0),
        physiological=(0.6, 0.6),
        drift=(0.0, 0.0),
        spike_chance=0.0,
        motion=(0.0, 0.0),
        pair_motion=(0.0, 0.0),
        correlation=(0.7, 0.7),
        correlation_chance=1.0,
        reported_flat=0.0,
    )
    physics = draw_physics(
        DomainConfig("pcasl 6", spread=0.0, nominal_random=False), n, generator()
    )
    batch = simulate(flat_phantoms(n), physics, config, generator(1))
    found = batch.observation.delta_m.std(0).mean()
    told = batch.observation.noise_sd.mean((1, 2, 3))
    ratio = told / found
    # The static level differs by 15 % between draws, hence the last two hundredths.
    assert float(ratio.min()) > 0.88
    assert float(ratio.max()) < 1.12
    assert float(ratio.max() - ratio.min()) > 0.15
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
    # Physiology adds in squares to thermal noise.
    assert float(found) == pytest.approx(REFERENCE_SIGNAL / 5 * math.sqrt(1 + 0.36), rel=0.03)


def test_noise_map_varies_but_keeps_the_mean_square():
    config = NoiseConfig(g_factor=(0.3, 0.3))
    factor = noise_map(config, 200, 32, generator())
    torch.testing.assert_close(factor.square().mean((1, 2, 3)), torch.ones(200))
    assert 0.15 < float(factor.log().std((2, 3)).mean()) < 0.35
    assert (noise_map(NoiseConfig(g_factor=(0.0, 0.0)), 3, 32, generator()) == 1).all()


def test_simulated_noise_follows_the_map_that_is_told():
    config = replace(thermal_only(3.0), g_factor=(0.4, 0.4))
    phantoms = flat_phantoms(48, size=32)
    physics = draw_physics(DomainConfig(spread=0.0), 48, generator())
    batch = simulate(phantoms, physics, config, generator(1))
    clean = (
        phantoms.cbf[:, None]
        * physics.truth.response(phantoms.att)
        * physics.m0_scale[:, None, None, None]
    )
    told = batch.observation.noise_sd
    unit = ((batch.observation.delta_m - clean) / told)[physics.valid]
    told = told[physics.valid]
    for low in (True, False):
        part = unit[(told < told.median()) == low]
        assert float(part.std()) == pytest.approx(1, abs=0.02)
    assert float(told.amax((1, 2)).div(told.amin((1, 2))).median()) > 1.5


def test_correlation_is_switched_on_as_often_as_asked():
    config = NoiseConfig(correlation=(0.5, 0.8), correlation_chance=0.3)
    sigma = draw_correlation(config, 4000, generator())
    on = sigma > 0
    assert abs(float(on.float().mean()) - 0.3) < 4 * math.sqrt(0.21 / 4000)
    assert float(sigma[on].min()) >= 0.5
    assert float(sigma[on].max()) <= 0.8


def test_correlation_length_of_simulated_noise():
    config = replace(thermal_only(3.0), correlation=(0.9, 0.9), correlation_chance=1.0)
    phantoms = flat_phantoms(64, size=24)
    physics = draw_physics(DomainConfig("pcasl 6", spread=0.0), 64, generator())
    batch = simulate(phantoms, physics, config, generator(1))
    clean = (
        phantoms.cbf[:, None]
        * physics.truth.response(phantoms.att)
        * physics.m0_scale[:, None, None, None]
    )
    residual = batch.observation.delta_m - clean
    variance = residual.square().mean()
    for distance in (1, 2, 3):
        theory = math.exp(-(distance**2) / (4 * 0.9**2))
        for axis in (2, 3):
            a = residual.narrow(axis, 4, 12)
            b = residual.narrow(axis, 4 + distance, 12)
            assert float((a * b).mean() / variance) == pytest.approx(theory, abs=0.02)


def test_physiological_noise_has_its_sd_and_is_half_in_step():
    sd = torch.full((2000, 2), 0.001)
    noise = physiological(sd, 24, generator())
    assert float(noise.std()) == pytest.approx(0.001, rel=0.05)
    torch.testing.assert_close(noise.std(0).mean((1, 2)), sd[0], rtol=0.05, atol=0)
    # Opposite corners share only the common half.
    corners = (noise[..., 0, 0] * noise[..., -1, -1]).mean() / noise.square().mean()
    assert float(corners) == pytest.approx(0.5, abs=0.08)
    between = (noise[:, 0] * noise[:, 1]).mean() / noise.square().mean()
    assert abs(float(between)) < 0.05


def test_drift_scales_the_signal_in_time_and_adds_static_signal():
    signal = torch.full((2, 3, 4, 4), 0.01)
    static = torch.full((2, 1, 4, 4), 0.3)
    repeats = torch.tensor([[2.0, 2.0, 4.0]]).expand(2, 3)
    valid = torch.ones(2, 3, dtype=torch.bool)
    slope = torch.tensor([0.04, 0.04])
    found = drift(signal, static, repeats, valid, slope, torch.tensor([True, False]))
    # 8 pairs, 16 images: the measurements' mid times are 1/8, 3/8 and 6/8 of the series.
    offset = 0.3 * 0.04 / 16
    expected = torch.tensor([[1 / 8, 3 / 8, 6 / 8], [0.5, 0.5, 0.5]])
    expected = 0.01 * (1 + 0.04 * expected) + offset
    torch.testing.assert_close(found[..., 0, 0], expected, rtol=1e-5, atol=0)
    gone = drift(
        signal, static, repeats, torch.tensor([[True, True, False]] * 2), slope, valid[:, 0]
    )
    # The third doesn't exist: 4 pairs.
    assert float(gone[0, 1, 0, 0]) == pytest.approx(0.01 * (1 + 0.04 * 0.75) + 0.3 * 0.04 / 8)
    assert float(gone[0, 2, 0, 0] - 0.01 * (1 + 0.04)) == pytest.approx(0, abs=1e-9)


def test_drift_offset_equals_a_series_acquired_image_by_image():
    """Label, control, label, control … under a linear gain, averaged by hand."""
    pairs, slope, static, delta = 6, 0.05, 0.4, 0.008
    times = (np.arange(2 * pairs) + 0.5) / (2 * pairs)
    gain = 1 + slope * times
    images = np.where(np.arange(2 * pairs) % 2 == 0, static - delta, static) * gain
    expected = (images[1::2] - images[::2]).mean()
    found = drift(
        torch.full((1, 1, 1, 1), delta),
        torch.full((1, 1, 1, 1), static),
        torch.tensor([[float(pairs)]]),
        torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([slope]),
        torch.tensor([True]),
    )
    # To first order in the slope the two agree; the rest is slope * delta / images.
    assert float(found) == pytest.approx(expected, abs=slope * delta / (2 * pairs))


def test_spikes_rate_amplitude_and_pattern():
    config = NoiseConfig(spike_chance=0.1, spike_size=(3.0, 5.0))
    sd = torch.full((400, 10), 0.002)
    noise = add_spikes(torch.zeros(400, 10, 32, 32), sd, config, generator())
    hit = noise.abs().amax((2, 3)) > 0
    assert abs(float(hit.float().mean()) - 0.1) < 4 * math.sqrt(0.09 / 4000)
    top = noise.abs().amax((2, 3))[hit] / 0.002
    assert float(top.min()) > 2.5
    assert float(top.max()) <= 5.0
    # One spike in k-space: nearly all energy in a few neighbours of one frequency (and its
    # mirror image).
    power = torch.fft.fft2(noise[hit]).abs().square().flatten(1).sort(1, descending=True).values
    assert float((power[:, :32].sum(1) / power.sum(1)).median()) > 0.85
    other = add_spikes(torch.ones(400, 10, 32, 32), sd, config, generator())
    torch.testing.assert_close(other - 1, noise, rtol=1e-3, atol=1e-6)
    clean = torch.zeros(400, 10, 8, 8)
    assert (add_spikes(clean, sd, NoiseConfig(spike_chance=0.0), generator()) == 0).all()


def test_displacement_to_first_order():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    ramp = (2 * y - 3 * x)[None, None]
    shift = torch.tensor([[[0.25, -0.1]]])
    torch.testing.assert_close(displaced(ramp, shift), ramp - 2 * 0.25 - 3 * 0.1)

    def blob(dy, dx):
        return torch.exp(-((y - 12 - dy) ** 2 + (x - 10 - dx) ** 2) / (2 * 3.0**2))

    moved = displaced(blob(0, 0)[None, None], shift)[0, 0]
    assert float((moved - blob(0.25, -0.1)).abs().max()) < 0.02
    assert float((blob(0, 0) - blob(0.25, -0.1)).abs().max()) > 0.04


def test_pair_motion_shows_at_edges_only():
    """A step of static tissue gives a rim of size step/2 times displacement, flat areas none."""
    phantoms = flat_phantoms(300, cbf=0.0)
    tissue = phantoms.tissue.clone()
    tissue[:, :, 8:] = 3
    phantoms = replace(phantoms, tissue=tissue)
    physics = draw_physics(DomainConfig("pcasl 6"), 300, generator())
    config = replace(thermal_only(1e9), pair_motion=(0.05, 0.05), static_signal=(0.5, 0.5))
    signal = simulate(phantoms, physics, config, generator(1)).observation.delta_m
    assert float(signal[..., 2:6].abs().max()) < 1e-6
    assert float(signal[..., 10:14].abs().max()) < 1e-6
    # Levels 0.82 and 1.0 of M0, 15 % each, half suppressed; gradient over two pixels.
    step = 0.5 * np.hypot(1.0 - 0.82, 0.15 * np.hypot(1.0, 0.82))
    assert float(signal[..., 8].std()) == pytest.approx(0.05 * step / 2, rel=0.15)


@pytest.mark.parametrize(
    "changes",
    [
        {"reported_error": 0.1},
        {"g_factor": (0.3, 0.3)},
        {"physiological": (0.5, 0.5)},
        {"drift": (0.03, 0.03)},
        {"spike_chance": 1.0, "spike_size": (3.0, 3.0)},
        {"motion": (0.2, 0.2)},
        {"pair_motion": (0.02, 0.02)},
        {"correlation": (0.8, 0.8), "correlation_chance": 1.0},
        {"noise_type": "rician", "static_signal": (0.05, 0.05)},
    ],
    ids=lambda c: next(iter(c)),
)
def test_every_component_can_be_switched(changes):
    """Each one alone changes the observation, and no other."""
    phantoms = flat_phantoms(4)
    phantoms.cbf[:, :, 8:] = 20.0
    physics = draw_physics(DomainConfig("pcasl 6"), 4, generator())
    plain = simulate(phantoms, physics, thermal_only(5.0), generator(1)).observation
    again = simulate(phantoms, physics, thermal_only(5.0), generator(1)).observation
    assert torch.equal(plain.delta_m, again.delta_m)
    changed = simulate(
        phantoms, physics, replace(thermal_only(5.0), **changes), generator(1)
    ).observation
    same_signal = torch.allclose(plain.delta_m, changed.delta_m, rtol=1e-4, atol=1e-7)
    same_noise = torch.allclose(
        plain.noise_sd.expand_as(plain.delta_m), changed.noise_sd.expand_as(plain.delta_m)
    )
    assert not (same_signal and same_noise)


DISTURBED = {
    "physiological": (0.5, 0.5),
    "drift": (0.3, 0.3),
    "spike_chance": 1.0,
    "motion": (0.2, 0.2),
    "pair_motion": (0.02, 0.02),
    "g_factor": (0.4, 0.4),
    "correlation": (0.8, 0.8),
    "correlation_chance": 1.0,
}


def test_some_slices_have_thermal_noise_only():
    """Where nothing else disturbs, the residual is what is told, white in space."""
    n, config = 400, replace(thermal_only(20.0), **DISTURBED)
    phantoms, random = flat_phantoms(n), generator(1)
    physics = draw_physics(DomainConfig("pcasl 6", spread=0.0), n, generator())
    clean = phantoms.cbf[:, None] * physics.truth.response(phantoms.att)

    def excess(chance):
        seen = simulate(phantoms, physics, replace(config, thermal_chance=chance), random)
        off = (seen.observation.delta_m - clean) / seen.observation.noise_sd
        inner = off[..., 4:12, 4:12]
        neighbours = (inner[..., 1:] * inner[..., :-1]).mean()
        return inner.square().mean((1, 2, 3)), float(neighbours)

    quiet, white = excess(1.0)
    assert float(quiet.mean()) == pytest.approx(1.0, abs=0.02)
    assert abs(white) < 0.02
    rough, shared = excess(0.0)
    assert float(rough.quantile(0.1)) > 1.5
    assert shared > 0.5
    some, _ = excess(0.3)
    assert float((some < 1.4).float().mean()) == pytest.approx(0.3, abs=0.08)


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="spike_chance: found 2"):
        NoiseConfig(spike_chance=2)
    with pytest.raises(ValueError, match="noise_type: found 'ricean', expected one of rician"):
        NoiseConfig(noise_type="ricean")
    with pytest.raises(ValueError, match="snr"):
        NoiseConfig(snr=(0.0, 5.0))
