"""Validation: the metrics, the baselines, the calibration, and the report of a small run."""

import json
import math

import numpy as np
import pytest
import torch

from asl_bids_app.errors import InputError
from asl_bids_app.models.uncertainty import FEATURES, calibration_factors
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import Arrival
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.phantoms.tissue_codes import BRIGHT_SPOT, CORE, FLUID, GREY, WHITE
from asl_bids_app.training.simulate.simulation import simulate
from asl_bids_app.training.validate import baselines
from asl_bids_app.training.validate.calibrate import (
    balanced,
    by_kind,
    rank_protocols,
    rounds,
    suitable,
)
from asl_bids_app.training.validate.calibration_fit import fit_calibration
from asl_bids_app.training.validate.scenarios import SCENARIOS, find
from asl_bids_app.training.validate.trials import large_lesions, run_scenario, simulated
from asl_bids_app.training.validate.voxel_errors import GROUPS, compare, errors, win_rate


def test_errors_by_hand():
    truth = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    estimate = np.array([11.0, 18.0, 30.0, 44.0, np.nan])
    found = errors(estimate, truth, np.array([2.0, 1.5, 1.0, 2.0, 9.0]))
    assert found["n"] == 4
    assert found["mae"] == pytest.approx(7 / 4)
    assert found["rmse"] == pytest.approx(math.sqrt(21 / 4))
    assert found["bias"] == pytest.approx(3 / 4)
    assert found["median_bias"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(1 - (21 / 4) / 125)
    # |error|/sd: 0.5, 1.33, 0, 2.
    assert found["coverage_68"] == 0.5
    assert found["coverage_95"] == 0.75
    assert errors(np.array([np.nan]), np.array([1.0]), np.array([1.0])) == {"n": 0}


def test_win_rate_by_hand():
    truth = np.zeros(5)
    mine, theirs = np.array([1.0, 2, 3, np.nan, 0]), np.array([2.0, 1, -3, 0, 1])
    assert win_rate(mine, theirs, truth) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert win_rate(theirs, mine, truth) == pytest.approx(1 - 2.5 / 4)


def test_groups_of_tissue():
    codes = np.array([0, GREY, WHITE, FLUID, CORE, BRIGHT_SPOT])
    assert GROUPS["tissue"](codes).tolist() == [False, True, True, False, True, True]
    assert GROUPS["lesion"](codes).tolist() == [False, False, False, False, True, True]
    assert GROUPS["grey matter"](codes).tolist() == [False, True, False, False, False, False]


def test_tables_have_att_in_ms_and_name_every_rival():
    truth = {"cbf": np.array([50.0, 60]), "att": np.array([1.0, 1.2])}

    def maps(off):
        one = np.ones(2)
        return {
            "cbf": truth["cbf"] + off,
            "att": truth["att"] + off / 100,
            "cbf_sd": one,
            "att_sd": one / 10,
        }

    methods = {baselines.NETWORK: maps(1.0), baselines.STRONG: maps(2.0)}
    table = compare(methods, truth, np.array([True, True]), tuple(methods))
    assert table[baselines.STRONG]["att"]["bias"] == pytest.approx(20)
    assert table[baselines.NETWORK]["cbf"]["win_rate"] == {baselines.STRONG: 1.0}
    assert table[baselines.STRONG]["cbf"]["win_rate"] == {baselines.NETWORK: 0.0}


def test_lesions_of_three_voxels_and_more():
    tissue = torch.full((1, 16, 16), GREY)
    tissue[0, 2:5, 2:5] = BRIGHT_SPOT
    tissue[0, 8:10, 1:12] = CORE
    tissue[0, 12:16, 11:15] = CORE
    found = large_lesions(tissue)[0]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[2:5, 2:5] = True
    expected[12:16, 11:15] = True
    assert torch.equal(found, expected)


# --- calibration


def features(count, **values):
    random = np.random.default_rng(5)
    found = {name: np.exp(random.uniform(-1, 1, count)) for name in FEATURES}
    return {**found, **values}


@pytest.mark.slow
def test_calibration_recovers_factors_that_depend_on_noise_tissue_and_disturbances():
    random = np.random.default_rng(1)
    count = 200_000
    noise = np.exp(random.uniform(np.log(1.5), np.log(30), count))
    cbf = random.uniform(5, 90, count)
    misfit = random.uniform(0.9, 2, count)
    sd = {"cbf": noise, "att": 0.05 * noise}
    # Stated sds are too large by factors that change smoothly.
    true = {"cbf": 0.6 + 0.1 * np.log(noise), "att": (1.5 - 0.005 * cbf) * misfit}
    error = {name: true[name] * sd[name] * random.standard_normal(count) for name in sd}
    told = features(
        count, cbf=cbf, misfit=misfit, posterior_cbf_sd=noise, cbf_sd=sd["cbf"], att_sd=sd["att"]
    )
    table = fit_calibration(error, told, np.ones(count), 0)
    assert json.loads(json.dumps(table)) == table
    tensors = {name: torch.from_numpy(value) for name, value in told.items()}
    for name, found in zip(sd, calibration_factors(table, tensors), strict=True):
        factor = found.numpy()
        off = np.abs(factor / true[name] - 1)
        assert np.quantile(off, 0.95) < 0.07
        for low, high in ((0, 25), (25, 60), (60, 95)):
            part = (cbf >= low) & (cbf < high)
            ratio = np.abs(error[name][part]) / (sd[name][part] * factor[part])
            assert (ratio <= 1).mean() == pytest.approx(0.683, abs=0.012)
            assert (ratio <= 1.96).mean() == pytest.approx(0.95, abs=0.008)


@pytest.mark.slow
def test_calibration_weighs_voxels():
    """Of two kinds of voxels that no sign tells apart, the heavier one's errors count."""
    random = np.random.default_rng(3)
    error = random.standard_normal(20_000)
    error[::10] *= 5
    heavy = np.where(np.arange(20_000) % 10, 0.0, 1.0)
    told = {name: np.ones(20_000) for name in FEATURES}
    for weight, expected in ((heavy, 5.0), (1 - heavy, 1.0)):
        table = fit_calibration({"cbf": error, "att": error}, told, weight, 0)
        tensors = {name: torch.ones(3) for name in FEATURES}
        factor = calibration_factors(table, tensors)[0]
        assert torch.allclose(factor, torch.tensor(expected).expand(3), rtol=0.05)


def test_calibration_parts_voxels_by_the_way_of_arrival():
    count = 3000
    told = features(count)
    for arrival in Arrival:
        told[f"measurements_{arrival.name.lower()}"] = np.zeros(count)
    told["measurements_continuous"][:1500] = 6
    told["measurements_pulsed"][1000:2950] = 4
    told["measurements_velocity_selective"][2950:] = 5
    rows = {**told, "tissue": np.arange(count)}
    parts = by_kind(rows)
    # 50 voxels with velocity-selective labelling are too few.
    assert list(parts) == ["continuous", "pulsed", "several"]
    assert parts["continuous"]["tissue"].tolist() == list(range(1000))
    assert parts["pulsed"]["tissue"].tolist() == list(range(1500, 2950))
    assert parts["several"]["tissue"].tolist() == list(range(1000, 1500))
    few = {name: values[:99] for name, values in rows.items()}
    with pytest.raises(ValueError, match="99 voxels, expected 100 or more of a kind"):
        by_kind(few)


def test_lesions_count_a_third_of_grey_matter_in_the_calibration_however_few_they_are():
    tissue = np.array([GREY] * 700 + [WHITE] * 250 + [CORE] * 50)
    weight = balanced(tissue, np.zeros(1000, dtype=int))
    grey, white, lesion = (weight[tissue == code].sum() for code in (GREY, WHITE, CORE))
    assert grey == pytest.approx(white)
    assert grey == pytest.approx(3 * lesion)
    assert weight.mean() == pytest.approx(1)


def test_any_protocol_counts_as_much_as_common_ones_in_the_calibration_however_rare():
    names = ("joint", "random_thermal", "random_known")
    tissue = np.tile([GREY, GREY, WHITE, CORE], 300)
    counts = (1000, 40, 160)
    for share, there in (((0.4, 0.4, 0.2), (0, 1, 2)), ((2 / 3, 1 / 3), (0, 2))):
        codes = [rank_protocols(find(names[k])) for k in there]
        protocols = np.repeat(codes, [counts[k] for k in there])
        some = tissue[: len(protocols)]
        weight = balanced(some, protocols)
        assert weight.mean() == pytest.approx(1)
        for code, part in zip(codes, share, strict=True):
            chosen = protocols == code
            assert weight[chosen].sum() / weight.sum() == pytest.approx(part)
            grey, lesion = (weight[chosen & (some == tissue)].sum() for tissue in (GREY, CORE))
            assert grey == pytest.approx(3 * lesion)


def test_phantoms_serve_again_only_where_each_has_a_protocol_of_its_own_and_they_are_few():
    counts = {"joint": (1, 1, 1), "random_thermal": (3, 3, 1), "random": (3, 3, 1)}
    for name, expected in counts.items():
        assert tuple(rounds(find(name), n) for n in (32, 160, 2000)) == expected
    assert rounds(find("random"), 300) == 2


def test_calibration_needs_voxels():
    told = {name: np.ones(5) for name in FEATURES}
    with pytest.raises(ValueError, match="5 voxels, expected 100 or more"):
        fit_calibration({"cbf": np.ones(5), "att": np.ones(5)}, told, np.ones(5), 0)


# --- baselines


def observed(snr, seed=0, n=6, scenario="joint"):
    phantoms = draw(PhantomConfig(size=32, voxel_size=(5.0, 8.0), smallest_brain=60), n, seed)
    generator = torch.Generator().manual_seed(seed)
    situation = find(scenario)
    physics = situation.draw(DomainConfig(), n, generator)
    noise = situation.noise(NoiseConfig(reported_error=0.0), snr)
    return simulate(phantoms, physics, noise, generator), phantoms


def mean_error(maps, batch, name, mask):
    return float((getattr(maps, name) - getattr(batch, name))[mask].abs().mean())


def test_scenarios_are_what_they_say():
    batch, _ = observed(10, scenario="joint")
    nominal, truth = batch.physics.nominal, batch.physics.truth
    for name in ("t1_blood", "efficiency", "t1_tissue", "label_duration"):
        assert torch.equal(getattr(nominal, name), getattr(truth, name)), name
    assert bool((batch.physics.m0_scale == 1).all())
    assert nominal.t1_blood.unique().tolist() == pytest.approx([1.65])

    batch, _ = observed(10, scenario="joint_far")
    nominal, truth = batch.physics.nominal, batch.physics.truth
    assert nominal.t1_blood.unique().tolist() == pytest.approx([1.65])
    assert truth.t1_blood.unique().tolist() == pytest.approx([1.85])
    for arrival, told, real in (
        (Arrival.CONTINUOUS, 0.85, 0.78),
        (Arrival.VELOCITY_SELECTIVE, 0.56, 0.48),
    ):
        chosen = nominal.arrival == int(arrival)
        assert chosen.any()
        assert nominal.efficiency[chosen].unique().tolist() == pytest.approx([told])
        assert truth.efficiency[chosen].unique().tolist() == pytest.approx([real])
    assert not find("joint_far").known
    assert find("pcasl").known

    batch, _ = observed(10, scenario="single")
    assert batch.observation.delta_m.shape[1] == 1
    assert batch.observation.delay.unique().tolist() == pytest.approx([2.0])

    batch, _ = observed(10, scenario="pcasl_off", n=24)
    off = (batch.physics.truth.t1_blood / 1.65).log()
    assert 0.02 < float(off.std()) < 0.08
    with pytest.raises(InputError, match="joint_off"):
        find("jointoff")


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_can_be_simulated(name):
    batch, _ = observed(5, n=2, scenario=name)
    assert torch.isfinite(batch.observation.delta_m).all()
    assert batch.observation.mask.any()


def test_scanners_are_the_same_at_every_snr_and_the_noise_is_not():
    phantoms = draw(PhantomConfig(), 8, 4)
    config, scenario = load("smoke"), find("joint_off")
    quiet, noisy, other = (
        simulated(config, scenario, snr, phantoms, seed, "cpu")
        for snr, seed in ((40, 1), (4, 1), (4, 2))
    )
    for name in ("t1_blood", "efficiency", "t1_tissue"):
        same, mine, theirs = (
            getattr(batch.physics.truth, name) for batch in (quiet, noisy, other)
        )
        assert torch.equal(same, mine)
        assert not torch.equal(same, theirs)
    truth = quiet.cbf[:, None] * quiet.physics.truth.response(quiet.att)
    truth = truth * quiet.physics.m0_scale[:, None, None, None]
    inside = quiet.observation.mask[:, None].expand_as(truth)
    errors_by_snr = [
        (batch.observation.delta_m - truth)[inside].flatten() for batch in (quiet, noisy)
    ]
    sizes = [float(e.std()) for e in errors_by_snr]
    assert sizes[1] == pytest.approx(10 * sizes[0], rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack(errors_by_snr))[0, 1])) < 0.05


def test_networks_of_one_protocol_meet_that_one_only():
    names = ["random", "joint", "single", "pcasl_off", "joint_off"]
    assert suitable(load("laptop"), names) == names
    assert suitable(load("laptop_spatial"), names) == ["joint", "joint_off"]
    six = ["network.name=SpatialASLNet", "network.arguments.n_plds=6", "domain.protocol=pcasl 6"]
    assert suitable(load("smoke", six), names) == ["pcasl_off"]


class Silent:
    """An ensemble that says nothing of any voxel."""

    def features(self, observation, asked):
        return {name: torch.zeros(observation.mask[asked].shape) for name in FEATURES}


def test_phantoms_meet_several_scanners_where_the_calibration_is_off():
    phantoms = draw(PhantomConfig(size=32, voxel_size=(5.0, 8.0), smallest_brain=60), 4, 2)
    config = load("smoke", ["validation.scanners=2", "validation.naive_voxels=0"])
    found = run_scenario(config, Silent(), "pcasl_off", 50, phantoms, 1, "cpu")
    numbers = np.unique(found.slice_number)
    assert numbers.tolist() == list(range(8))
    held_out = {int(n) for n in numbers if found.held_out[found.slice_number == n].all()}
    assert held_out == {3, 7}
    assert found.held_out.sum() == sum((found.slice_number == n).sum() for n in held_out)
    for number in range(4):
        first, second = (found.slice_number == n for n in (number, number + 4))
        assert np.array_equal(found.truth["cbf"][first], found.truth["cbf"][second])
        # Both fits see the same brain at little noise; the scanners put them apart.
        ratios = [
            np.median(found.maps[baselines.STRONG]["cbf"][part] / found.truth["cbf"][part])
            for part in (first, second)
        ]
        assert abs(ratios[0] / ratios[1] - 1) > 0.003
    once = run_scenario(config, Silent(), "pcasl", 50, phantoms, 1, "cpu")
    assert np.unique(once.slice_number).tolist() == list(range(4))


def test_the_inner_slices_of_phantoms_are_compared():
    settings = PhantomConfig(size=32, voxel_size=(5.0, 8.0), smallest_brain=60, slices=3)
    phantoms = draw(settings, 5, 2)
    config = load("smoke", ["validation.scanners=1", "validation.naive_voxels=0"])
    found = run_scenario(config, Silent(), "pcasl", 50, phantoms, 2, "cpu")
    inner = phantoms[phantoms.inner]
    assert np.array_equal(found.truth["cbf"], inner.cbf[inner.mask].numpy())
    assert np.array_equal(found.tissue, inner.tissue[inner.mask].numpy())
    count = inner.mask.sum((1, 2))
    assert np.bincount(found.slice_number).tolist() == count.tolist()
    codes = inner.condition.repeat_interleave(count)
    assert np.array_equal(found.condition, codes.numpy())
    assert found.held_out.sum() == count[3:].sum()
    # Little noise: the fit is near the truth of these very voxels.
    assert np.median(np.abs(found.maps[baselines.STRONG]["cbf"] - found.truth["cbf"])) < 2


def test_least_squares_of_all_kinds_find_the_truth_without_noise():
    batch, _ = observed(1e5)
    sure = batch.observation.mask & (batch.cbf > 20) & (batch.att < 2.5)
    places = sure.nonzero()[::40]
    chosen = torch.zeros_like(sure)
    chosen[tuple(places.T)] = True
    for maps in (baselines.strong(batch.observation), baselines.naive(batch.observation, places)):
        assert mean_error(maps, batch, "cbf", chosen) < 0.2
        assert mean_error(maps, batch, "att", chosen) < 0.01


def test_naive_and_strong_agree_where_there_is_one_minimum():
    """SciPy's curve_fit is an independent solver of the same least-squares problem."""
    batch, _ = observed(30, seed=3)
    sure = batch.observation.mask & (batch.cbf > 40) & (batch.att > 0.7) & (batch.att < 1.4)
    places = sure.nonzero()[::30]
    naive = baselines.naive(batch.observation, places)
    strong = baselines.strong(batch.observation)
    where = tuple(places.T)
    close = (naive.cbf[where] - strong.cbf[where]).abs() < 0.05
    assert float(close.float().mean()) > 0.9
    ratio = (naive.cbf_sd[where] / strong.cbf_sd[where])[close]
    assert float(ratio.median()) == pytest.approx(1, abs=0.05)


def test_the_oracle_is_right_where_others_are_told_a_wrong_scanner():
    batch, _ = observed(1e4, scenario="pcasl_off", n=12)
    sure = batch.observation.mask & (batch.cbf > 20) & (batch.att < 2.5)
    oracle = baselines.oracle(batch.observation, batch.physics)
    assert mean_error(oracle, batch, "cbf", sure) < 0.3
    # T1 of blood, efficiency and M0 are each off by 5 % or so: CBF by some units.
    assert mean_error(baselines.strong(batch.observation), batch, "cbf", sure) > 1.5


def test_smoothing_blurs_within_the_mask_and_tells_the_noise_that_is_left(monkeypatch):
    """Checked against a Gaussian blur written out as a double sum."""
    random = torch.Generator().manual_seed(1)
    shape = (1, 2, 13, 13)
    mask = torch.ones(1, 13, 13, dtype=torch.bool)
    mask[:, :, :5] = False
    one = torch.ones(1)
    seen = Observation(
        torch.randn(shape, generator=random) * mask[:, None],
        torch.full((1, 2, 1, 1), 3.0),
        mask,
        torch.zeros(1, 2).long(),
        torch.ones(1, 2),
        torch.ones(1, 2),
        torch.ones(1, 2),
        one,
        one,
        one,
        one,
        one.long(),
        torch.ones(1, 2),
        torch.zeros(1, 3, 13, 13),
    )
    caught = {}
    monkeypatch.setattr(baselines, "strong", lambda blurred: caught.update(blurred=blurred))
    baselines.smoothed(seen, fwhm=2.0)
    sigma = 2 / 2.354820045
    reach = math.ceil(3 * sigma)
    row, column = 6, 6
    weights, values = [], []
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            weight = math.exp(-(i**2 + j**2) / (2 * sigma**2))
            if mask[0, row + i, column + j]:
                weights.append(weight)
                values.append(weight * float(seen.delta_m[0, 1, row + i, column + j]))
    found = caught["blurred"]
    assert float(found.delta_m[0, 1, row, column]) == pytest.approx(
        sum(values) / sum(weights), rel=1e-5
    )
    assert not found.delta_m[:, :, ~mask[0]].any()
    # White noise averaged with normalised weights w has sd sqrt(sum w²).
    axis = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-reach, reach + 1)]
    total = sum(axis) ** 2
    shrink = math.sqrt(sum((a * b / total) ** 2 for a in axis for b in axis))
    assert float(found.noise_sd[0, 0]) == pytest.approx(3 * shrink, rel=1e-5)
