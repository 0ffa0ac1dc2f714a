"""Domain randomisation: protocols, calibrations, and the signal against independent physics."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from noise_settings import thermal_only
from scipy.integrate import quad

from asl_bids_app.protocol import Protocol
from asl_bids_app.schemes import Scheme
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.drawing import Phantoms, draw
from asl_bids_app.training.simulate.physics import draw_physics, training_domain
from asl_bids_app.training.simulate.schedules import MOST, PROTOCOLS, draw_schedule
from asl_bids_app.training.simulate.simulation import simulate

QUIET = thermal_only(1e9)
SCHEMES = [scheme.value for scheme in Scheme]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def physics():
    """Random acquisitions of the default settings."""
    return draw_physics(DomainConfig(), 3000, generator())


@pytest.fixture(scope="module")
def schedule():
    return draw_schedule(3000, generator(2))


def maps(cbf, att):
    """Phantoms of given maps (n, H, W), brain everywhere."""
    n = len(cbf)
    codes = torch.zeros(n, dtype=torch.uint8)
    return Phantoms(
        cbf,
        att,
        torch.ones(cbf.shape, dtype=torch.uint8),
        codes,
        codes,
        codes,
        torch.zeros(n, 6, *cbf.shape[1:], dtype=torch.uint8),
    )


def kinetic_integral(arrival, delay, duration, efficiency, t1_blood, t1_tissue, partition, att):
    """General kinetic model by adaptive quadrature: label that arrives at t, then decays."""
    seen = delay + duration if arrival == 0 else delay
    first = 0.0 if arrival == 2 else att
    last = min(seen, min(att, duration) if arrival == 2 else att + duration)
    if last <= first:
        return 0.0

    def arriving(t):
        age = att if arrival == 0 else t
        return math.exp(-age / t1_blood) * math.exp(-(seen - t) / t1_tissue)

    value, _ = quad(arriving, first, last, epsabs=1e-12)
    return 2 * efficiency / partition / 6000 * value


def test_signal_without_noise_is_the_integral_of_the_true_physics():
    n = 24
    physics = draw_physics(DomainConfig(), n, generator(3))
    random = generator(4)
    cbf = 100 * torch.rand((n, 2, 3), generator=random)
    att = 0.3 + 3.4 * torch.rand((n, 2, 3), generator=random)
    batch = simulate(maps(cbf, att), physics, QUIET, random)
    truth = physics.truth
    for b in range(n):
        for i in range(physics.valid.shape[1]):
            for y, x in ((0, 0), (1, 2)):
                found = float(batch.observation.delta_m[b, i, y, x])
                if not physics.valid[b, i]:
                    assert found == 0
                    continue
                expected = kinetic_integral(
                    int(truth.arrival[b, i]),
                    *(
                        float(t[b, i])
                        for t in (truth.delay, truth.label_duration, truth.efficiency)
                    ),
                    *(
                        float(t[b])
                        for t in (truth.t1_blood, truth.t1_tissue, truth.partition_coefficient)
                    ),
                    float(att[b, y, x]),
                )
                expected *= float(cbf[b, y, x]) * float(physics.m0_scale[b])
                assert found == pytest.approx(expected, rel=2e-4, abs=2e-8)


def test_published_joint_protocol_in_closed_form():
    """PCASL and VSASL with T1 of tissue as of blood: the formulas of the papers."""
    physics = draw_physics(
        DomainConfig("joint 6+6", spread=0.0, nominal_random=False), 1, generator()
    )
    cbf, att = torch.tensor([[[50.0, 30.0]]]), torch.tensor([[[0.9, 2.2]]])
    signal = simulate(maps(cbf, att), physics, QUIET, generator()).observation.delta_m[0, :, 0]
    t1, tau, flow = 1.65, 1.8, np.array([50.0, 30.0]) / 6000
    delta = np.array([0.9, 2.2])
    for i, w in enumerate([0.5, 1.0, 1.5, 2.0, 2.5, 3.0]):
        start = np.maximum(w, delta)
        pcasl = 2 * 0.85 / 0.9 * flow * t1 * (np.exp(-start / t1) - np.exp(-(w + tau) / t1))
        pcasl = np.where(w + tau > delta, pcasl, 0)
        vsasl = 2 * 0.56 / 0.9 * flow * np.minimum(w, delta) * np.exp(-w / t1)
        np.testing.assert_allclose(signal[i], pcasl, rtol=1e-4)
        np.testing.assert_allclose(signal[6 + i], vsasl, rtol=1e-4)


def test_calibration_known(physics):
    known = draw_physics(DomainConfig(spread=0.0), 200, generator(5))
    for name in ("delay", "label_duration", "efficiency", "t1_blood", "t1_tissue"):
        torch.testing.assert_close(getattr(known.truth, name), getattr(known.nominal, name))
    assert (known.m0_scale == 1).all()
    assert not torch.allclose(physics.truth.t1_blood, physics.nominal.t1_blood, rtol=0.01)


def test_nominal_calibration_lies_in_its_ranges(physics):
    nominal, config = physics.nominal, DomainConfig()
    assert nominal.t1_blood.min() >= 1.55
    assert nominal.t1_blood.max() <= 2.15
    assert nominal.t1_blood.max() - nominal.t1_blood.min() > 0.55
    assert nominal.t1_tissue.min() >= 1.2
    assert (nominal.t1_tissue <= nominal.t1_blood + 1e-6).all()
    equal = (nominal.t1_tissue == nominal.t1_blood).float().mean()
    assert abs(float(equal) - config.t1_tissue_as_blood) < 4 * math.sqrt(0.25 / 3000)
    domain = training_domain(config)
    arrivals = {"PCASL": (0.6, 0.95), "PASL": (0.765, 1.0), "VSASL": (0.34, 0.7)}
    for code, (name, (low, high)) in enumerate(arrivals.items()):
        chosen = physics.valid & (nominal.arrival == code)
        efficiency = nominal.efficiency[chosen]
        assert efficiency.min() >= low - 0.1 * (name == "PCASL")  # CASL flows as PCASL does
        assert efficiency.max() <= high
        assert domain["schemes"][name]["efficiency"][1] == high


def test_truth_is_median_unbiased_with_the_stated_spread(physics):
    nominal, truth = physics.nominal, physics.truth
    off = physics.calibration_uncertainty == 1
    valid = physics.valid[:, 0] & off
    n = int(off.sum())
    # Standard error of a median: 1.25 sd / sqrt(n).
    for name, sd in (("t1_blood", 0.045), ("t1_tissue", math.hypot(0.045, 0.05))):
        ratio = (getattr(truth, name) / getattr(nominal, name)).log()[off]
        assert abs(float(ratio.median())) < 5 * 1.25 * sd / math.sqrt(n)
        assert float(ratio.std()) == pytest.approx(sd, rel=0.06)
    scale = physics.m0_scale[off].log()
    assert abs(float(scale.median())) < 5 * 1.25 * 0.05 / math.sqrt(n)
    assert float(scale.std()) == pytest.approx(0.05, rel=0.06)
    for code, own in ((0, 0.06), (2, 0.07)):
        chosen = valid & (nominal.arrival[:, 0] == code)
        ratio = (truth.efficiency / nominal.efficiency)[:, 0][chosen].log()
        sd = math.hypot(own, 0.02)
        assert abs(float(ratio.median())) < 5 * 1.25 * sd / math.sqrt(len(ratio))
        # Efficiencies are cut at 1, which takes a little off the spread.
        assert float(ratio.std()) == pytest.approx(sd, rel=0.12)
    assert truth.efficiency.max() <= 1


def test_calibration_told_to_be_exact_is(physics):
    nominal, truth = physics.nominal, physics.truth
    exact = physics.calibration_uncertainty == 0
    assert set(physics.calibration_uncertainty.tolist()) == {0.0, 1.0}
    assert abs(float(exact.float().mean()) - 0.3) < 4 * math.sqrt(0.21 / len(physics))
    for name in ("label_duration", "efficiency", "t1_blood", "t1_tissue"):
        torch.testing.assert_close(getattr(truth, name)[exact], getattr(nominal, name)[exact])
    assert (physics.m0_scale[exact] == 1).all()
    assert (truth.t1_blood != nominal.t1_blood)[~exact].all()
    # Nobody can tell that a calibration drawn from wide ranges is right.
    wide = draw_physics(DomainConfig(truth_from_ranges=True), 50, generator(3))
    assert (wide.calibration_uncertainty == 1).all()


def test_deviation_is_one_per_scheme_and_slice(physics):
    """Measurements of one scheme share an efficiency; it isn't noise."""
    ratio = physics.truth.efficiency / physics.nominal.efficiency
    for b in range(100):
        for code in range(3):
            chosen = physics.valid[b] & (physics.nominal.arrival[b] == code)
            if chosen.sum() > 1:
                assert float(ratio[b][chosen].std()) < 1e-5


def test_wrong_calibration_biases_no_median():
    """With the nominal constants, the median CBF over many scanners is the true one."""
    n = 6000
    physics = draw_physics(DomainConfig("pcasl 6"), n, generator(8))
    att = torch.full((n, 1, 1), 1.0)
    signal = 60 * physics.truth.response(att) * physics.m0_scale[:, None, None, None]
    estimate = (signal / physics.nominal.response(att))[:, 2, 0, 0]
    assert float(estimate.median()) == pytest.approx(60, abs=0.4)
    assert 4 < float(estimate.std()) < 8


@pytest.mark.parametrize("name", ["t1_blood", "efficiency", "m0", "label_duration"])
def test_each_spread_can_be_switched_off(name):
    off = [f for f in DomainConfig.__dataclass_fields__ if f.endswith("_spread") and name in f]
    off += ["bolus_duration_spread"] if name == "label_duration" else []
    off += ["suppression_spread"] if name == "efficiency" else []
    physics = draw_physics(replace(DomainConfig(), **dict.fromkeys(off, 0.0)), 50, generator())
    if name == "m0":
        assert (physics.m0_scale == 1).all()
    else:
        torch.testing.assert_close(getattr(physics.truth, name), getattr(physics.nominal, name))


def test_published_randomisation_keeps_the_nominal_fixed():
    config = DomainConfig("joint 6+6", nominal_random=False, truth_from_ranges=True)
    physics = draw_physics(config, 2000, generator())
    assert (physics.nominal.t1_blood == 1.65).all()
    torch.testing.assert_close(
        physics.nominal.efficiency[0], torch.tensor([0.85] * 6 + [0.56] * 6)
    )
    truth = physics.truth
    assert truth.t1_blood.min() < 1.57
    assert truth.t1_blood.max() > 2.13
    assert 0.63 < truth.efficiency[:, :6].min() < 0.67
    assert 0.93 < truth.efficiency[:, :6].max() <= 0.95
    # Published: label duration within 10 % of nominal.
    for ratio in (truth.label_duration[:, 0] / 1.8, physics.m0_scale):
        assert 0.9 <= ratio.min() < 0.91
        assert 1.09 < ratio.max() <= 1.1


def test_random_protocols_are_valid(schedule):
    """Every sample passes the checks of the protocol that the app itself uses."""
    seen = set()
    for b in range(600):
        keep = schedule.valid[b]
        assert keep.any()
        # Measurements that exist come first.
        assert bool((keep[:-1] | ~keep[1:]).all())
        schemes = tuple(list(Scheme)[k] for k in schedule.scheme[b][keep].tolist())
        n = len(schemes)
        Protocol(
            schemes, schedule.delay[b][keep], schedule.label_duration[b][keep], torch.zeros(1, n)
        )
        kinds = tuple(dict.fromkeys(schemes))
        assert len(kinds) <= 2
        assert all(schemes.count(kind) <= MOST for kind in kinds)
        seen.add("+".join(k.value for k in kinds))
        assert (schedule.repeats[b] >= 1).all()
        assert torch.equal(schedule.repeats[b], schedule.repeats[b].round())
    assert {"PCASL", "PASL", "VSASL", "CASL", "PCASL+VSASL"} <= seen


def test_random_protocols_reach_every_corner(schedule):
    count = schedule.valid.sum(1)
    assert int(count.min()) == 1
    assert int(count.max()) > MOST
    for code, name in enumerate(SCHEMES):
        per_sample = (schedule.valid & (schedule.scheme == code)).sum(1)
        expected = (
            {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12} if name in {"PCASL", "VSASL"} else {1, 6, 10}
        )
        assert expected <= set(per_sample.tolist())
    pcasl = schedule.valid & (schedule.scheme == 0)
    # Label durations that differ within a series, some with no delay at all.
    different = [
        d[v].std() > 0.05
        for d, v in zip(schedule.label_duration, pcasl, strict=True)
        if v.sum() > 2
    ]
    assert 0.08 < float(np.mean(different)) < 0.4
    assert (schedule.delay[pcasl] < 0.05).any()
    assert 1.4 < float(_slice_times(schedule).max()) <= 5.5
    vsasl = schedule.valid & (schedule.scheme == 3)
    uncut = torch.isinf(schedule.label_duration[vsasl]).float().mean()
    assert 0.4 < float(uncut) < 0.8


def _slice_times(schedule):
    return torch.where(schedule.valid, schedule.delay, torch.inf).amin(1)


def test_time_encoded_boluses_follow_each_other(schedule):
    """Each sub-bolus ends where the next begins: delay_k = delay_k+1 + duration_k+1."""
    chained = uneven = 0
    for b in range(len(schedule.valid)):
        keep = schedule.valid[b] & (schedule.scheme[b] == 0)
        delay, duration = schedule.delay[b][keep], schedule.label_duration[b][keep]
        if len(delay) >= 3 and torch.allclose(delay[:-1], delay[1:] + duration[1:], atol=1e-4):
            chained += 1
            uneven += float(duration.std()) > 0.03
            assert float(duration.sum()) < 4.8
    assert chained > 40
    assert uneven > 20


# What scanners really did: the five examples of BIDS, and the data of the tests.
REAL = [
    ("asl001", "PCASL", [2.025], 1.45, 0.0),
    ("asl002", "PCASL", [2.0], 1.8, 19 * 0.0385),
    ("asl003", "PASL", [0.3 * k for k in range(1, 11)], 0.7, 0.0),
    ("asl004", "PCASL", [0.25 * k for k in range(1, 7)], 1.4, 23 * 0.0452),
    ("asl005", "PCASL", [2.0], 1.8, 0.0),
    ("joint", "PCASL", [0.5 * k for k in range(1, 7)], 1.8, 0.0),
    ("joint", "VSASL", [0.5 * k for k in range(1, 7)], float("inf"), 0.0),
    ("oxford", "PCASL", [0.25 * k for k in range(1, 7)], 1.4, 1.07),
]


@pytest.mark.parametrize(("name", "scheme", "delays", "duration", "slice_time"), REAL)
def test_real_protocols_lie_inside(schedule, name, scheme, delays, duration, slice_time):
    """Inside the stated ranges, and with near neighbours among random protocols."""
    ranges = training_domain(DomainConfig())["schemes"][scheme]
    assert ranges["delay"][0] <= min(delays)
    assert max(delays) + slice_time <= ranges["delay"][1]
    assert ranges["label_duration"][0] <= duration <= ranges["label_duration"][1]
    code = SCHEMES.index(scheme)
    own = schedule.valid & (schedule.scheme == code)
    first = torch.where(own, schedule.delay, torch.inf).amin(1)
    last = torch.where(own, schedule.delay, -torch.inf).amax(1)
    length = torch.where(own, schedule.label_duration, -torch.inf).amax(1)
    near = (own.sum(1) - len(delays)).abs() <= 2
    near &= (length == duration) if math.isinf(duration) else ((length - duration).abs() < 0.4)
    for offset in {0.0, slice_time}:
        close = near & ((first - min(delays) - offset).abs() < 0.5)
        close &= (last - max(delays) - offset).abs() < 0.7
        assert int(close.sum()) >= 2, name


def test_real_dataset_lies_inside(real_data):
    sidecar = next(real_data.glob("sub-*/perf/*_asl.json"))
    metadata = json.loads(sidecar.read_text())
    delays = [d for d in metadata["PostLabelingDelay"] if d > 0]
    durations = {d for d in metadata["LabelingDuration"] if d > 0}
    ranges = training_domain(DomainConfig())["schemes"]["PCASL"]
    assert ranges["delay"][0] <= min(delays)
    assert max(delays) + max(metadata["SliceTiming"]) <= ranges["delay"][1]
    assert ranges["label_duration"][0] <= min(durations)
    assert max(durations) <= ranges["label_duration"][1]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_fixed_protocols(name):
    physics = draw_physics(DomainConfig(name), 3, generator())
    protocol = PROTOCOLS[name]
    assert physics.valid.all()
    torch.testing.assert_close(physics.nominal.delay[1], protocol.post_labeling_delay)
    assert torch.equal(physics.nominal.arrival[2], protocol.arrival)
    assert set(training_domain(DomainConfig(name))["schemes"]) == set(protocol.schemes)


def test_unknown_protocol_and_bad_settings():
    with pytest.raises(ValueError, match="protocol: found 'joint', expected random or one of"):
        draw_physics(DomainConfig("joint"), 2, generator())
    with pytest.raises(ValueError, match="t1_blood: found"):
        DomainConfig(t1_blood=(1650.0, 1650.0))


def test_batch_is_what_an_estimator_takes():
    """Padding carries no information; outside the brain there is nothing; all is finite."""
    phantoms = draw(PhantomConfig(size=32, smallest_brain=20), 48, seed=3)
    physics = draw_physics(DomainConfig(), 48, generator())
    batch = simulate(phantoms, physics, NoiseConfig(), generator())
    seen = batch.observation
    assert torch.isfinite(seen.delta_m).all()
    valid = physics.valid
    assert torch.isinf(seen.noise_sd[~valid]).all()
    assert (seen.delta_m[~valid] == 0).all()
    assert torch.isfinite(seen.noise_sd[valid]).all()
    assert (seen.noise_sd[valid] > 0).all()
    assert torch.equal(seen.mask, phantoms.tissue > 0)
    assert (seen.delta_m.abs().sum(1)[~seen.mask] == 0).all()
    assert batch.snr.min() >= 2
    assert batch.snr.max() <= 25
    torch.testing.assert_close(seen.t1_blood, physics.nominal.t1_blood)
    torch.testing.assert_close(seen.efficiency, physics.nominal.efficiency)
    # The response that the estimator computes is that of the nominal kinetics.
    told, meant = seen.response(batch.att), physics.nominal.response(batch.att)
    torch.testing.assert_close(told, meant, rtol=1e-5, atol=0)
    assert len(seen[torch.tensor([1, 3])]) == 2


def test_same_seed_same_batch():
    phantoms = draw(PhantomConfig(size=32, smallest_brain=20), 8, seed=3)

    def made(seed):
        random = generator(seed)
        physics = draw_physics(DomainConfig(), 8, random)
        return simulate(phantoms, physics, NoiseConfig(), random).observation.delta_m

    assert torch.equal(made(1), made(1))
    first, other = made(1), made(2)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_neighbours_get_similar_numbers_of_measurements():
    """Padding costs time: in a batch of 16 most of the rectangle is filled."""
    filled = [
        float(draw_schedule(16, generator(seed)).valid.float().mean()) for seed in range(100)
    ]
    assert np.mean(filled) > 0.55


def test_combinations_of_schemes_are_those_that_are_drawn(schedule):
    drawn = set()
    for b in range(len(schedule.valid)):
        codes = schedule.scheme[b][schedule.valid[b]].unique().tolist()
        drawn.add(tuple(sorted(list(Scheme)[code].value for code in codes)))
    assert drawn == set(training_domain(DomainConfig())["combinations"])
    assert training_domain(DomainConfig("joint 6+6"))["combinations"] == [("PCASL", "VSASL")]
