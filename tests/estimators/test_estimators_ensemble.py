"""The ensemble: its arithmetic, cropping, flips, batches and what it does without memory."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from slices import PROTOCOLS, maps, series_of

from asl_bids_app.errors import InputError
from asl_bids_app.estimators import ensemble as module
from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.bayes import Bayes, observe_usable
from asl_bids_app.estimators.boxes import brain_box, with_neighbours
from asl_bids_app.estimators.devices import find_device, is_out_of_memory, side_by_side
from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.features import roughness
from asl_bids_app.estimators.members import ANSWERS, orientations
from asl_bids_app.models import uncertainty
from asl_bids_app.models.spec import Channel, ModelSpec
from asl_bids_app.models.store import Model
from asl_bids_app.models.uncertainty import (
    FEATURES,
    KINDS,
    calibration_factors,
    kind_of,
    total_variance,
)
from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.posterior import PosteriorASLNet
from asl_bids_app.networks.spatial import ChannelNetwork, SpatialASLNet, Standardisation
from asl_bids_app.options.groups import ERROR_BARS
from asl_bids_app.protocol import Protocol
from asl_bids_app.scheme_fields import Arrival


def members(count, std=0.2, features=(8, 8, 8, 8), **arguments):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = PosteriorASLNet(features, **arguments)
        torch.nn.init.normal_(network.head.weight, std=std)
        torch.nn.init.normal_(network.head.bias, std=std)
        torch.nn.init.normal_(network.encoder.levels[0].first.conv.weight, std=0.1)
        made.append(network.eval())
    return tuple(made)


def model(networks, **spec):
    described = ModelSpec("test", "1", "PosteriorASLNet", **spec)
    return Model(described, tuple(networks), Path(), "0" * 64)


def a_series(shape=(3, 24, 24), protocol="joint", snr=8, seed=0):
    return series_of(PROTOCOLS[protocol], *maps(shape, seed), snr, seed)


def table(cbf=0.0, att=0.0, **weights):
    """Calibration: one hidden unit that sees the features named, and the factors' logarithms."""
    row = [weights.get(name, 0.0) for name in FEATURES]
    return {
        "low": [-1.0] * len(FEATURES),
        "high": [1.0] * len(FEATURES),
        "hidden_weight": [row],
        "hidden_bias": [0.0],
        "weight": [[1.0], [0.0]],
        "bias": [cbf, att],
    }


def test_untrained_ensemble_is_the_voxelwise_posterior():
    series = a_series()
    networks = [PosteriorASLNet((8, 8, 8, 8)).eval() for _ in range(3)]
    found = Ensemble(model(networks), error_bars="noise", arterial=False).fit(series)
    bayes = Bayes(arterial=False).fit(series)
    for name in ("cbf", "att", "cbf_sd", "att_sd", "residual"):
        assert torch.allclose(getattr(found, name), getattr(bayes, name), atol=1e-3), name
    assert found.estimator == "ensemble"


def test_total_variance_by_hand():
    means, variances = torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[4.0], [1.0], [1.0]])
    mean, variance = total_variance(means, variances)
    assert float(mean) == 4
    # Mean variance 2; squared distances from 4 are 9, 1 and 16.
    assert float(variance) == pytest.approx(2 + 26 / 3)


def test_ensemble_is_the_mixture_of_its_members():
    series, networks = a_series(), members(3)
    how = {"tta": False, "error_bars": "noise"}
    whole = Ensemble(model(networks), **how).fit(series)
    single = [Ensemble(model([n]), **how).fit(series) for n in networks]
    inside = series.mask
    for name in ("cbf", "att"):
        values = np.stack([getattr(each, name)[inside].double().numpy() for each in single])
        sds = np.stack([getattr(each, f"{name}_sd")[inside].double().numpy() for each in single])
        sd = np.sqrt((sds**2).mean(0) + values.var(0))
        assert np.allclose(getattr(whole, name)[inside], values.mean(0), rtol=1e-3, atol=1e-3)
        assert np.allclose(getattr(whole, f"{name}_sd")[inside], sd, rtol=1e-3)


FLIPS = ((-1,), (-2,), (-2, -1))


def test_flips_make_it_symmetric():
    """With the mean over flips, a flipped brain gives the flipped maps; without, it doesn't."""
    series, one = a_series((2, 16, 16)), members(1, std=0.6)
    # Of several members each sees half of the flips: two that are alike see all.
    both = ((-1,), True, one), ((-1,), False, one), ((-2, -1), False, one * 2)
    for axes, tta, networks in (*both, *((axes, True, one * 2) for axes in FLIPS)):
        flipped = replace(series, delta_m=series.delta_m.flip(axes), mask=series.mask.flip(axes))
        estimator = Ensemble(model(networks), tta=tta)
        there, back = estimator.fit(series).cbf, estimator.fit(flipped).cbf.flip(axes)
        assert torch.allclose(there, back, atol=1e-2) == tta


def test_neighbouring_members_see_other_flips():
    assert orientations(1, True) == [((), (-2, -1), (-1,), (-2,))]
    first, second, third = orientations(3, True)
    assert set(first + second) == {(), (-1,), (-2,), (-2, -1)}
    assert first == third
    assert orientations(2, False) == [((),), ((),)]
    every = orientations(5, True)
    assert {len(seen) for seen in every} == {1}
    assert set(sum(every, ())) == {(), (-1,), (-2,), (-2, -1)}


def test_batches_do_not_matter():
    series, networks = a_series((5, 16, 16)), members(2)
    first, second = (Ensemble(model(networks), batch_size=n).fit(series) for n in (1, 4))
    assert torch.allclose(first.cbf, second.cbf, atol=1e-3)
    assert torch.allclose(first.att_sd, second.att_sd, atol=1e-4)


def test_slices_beside_are_seen_across_batches():
    """Whatever the batch, a slice hears of those beside it, and of no others."""
    networks = members(2, noise_apart=True, beside=6)
    series = a_series((5, 16, 16))
    whole = Ensemble(model(networks), batch_size=5).fit(series)
    for size in (1, 2, 4):
        parts = Ensemble(model(networks), batch_size=size).fit(series)
        for name in ("cbf", "att", "cbf_sd", "att_sd"):
            assert torch.allclose(getattr(parts, name), getattr(whole, name), atol=1e-3), name
    # Without its third slice the volume falls apart into two.
    mask = series.mask.clone()
    mask[2] = False
    split = Ensemble(model(networks), batch_size=5).fit(replace(series, mask=mask))
    mask = mask.clone()
    mask[:3] = False
    upper = Ensemble(model(networks), batch_size=5).fit(replace(series, mask=mask))
    assert torch.allclose(split.cbf[3:], upper.cbf[3:], atol=1e-3)
    assert not torch.allclose(split.cbf[3], whole.cbf[3], atol=0.1)


def test_slices_that_are_asked_for_only():
    observation, _ = observe_usable(a_series((5, 16, 16)))
    asked = torch.tensor([False, True, False, False, True])
    for arguments in ({}, {"noise_apart": True, "beside": 6}):
        estimator = Ensemble(model(members(2, **arguments)), batch_size=1)
        every, some = estimator.estimate(observation), estimator.estimate(observation, asked)
        assert some.shape == every[:, asked].shape
        assert torch.allclose(some, every[:, asked], atol=1e-3)


def test_no_more_slices_are_prepared_than_are_looked_at(monkeypatch):
    observation, _ = observe_usable(a_series((7, 16, 16)))
    for arguments, most in (({}, 2), ({"noise_apart": True, "beside": 6}, 4)):
        network = members(1, **arguments)[0]
        seen, real = [], network.prepare
        monkeypatch.setattr(network, "prepare", lambda o, f=real, s=seen: s.append(len(o)) or f(o))
        Ensemble(model([network]), batch_size=2).estimate(observation)
        assert max(seen) == most


def test_places_of_slices_and_those_beside():
    chosen = torch.tensor([0, 1, 4, 6])
    around, rows = with_neighbours(chosen, 1, 7)
    assert around.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert around[rows].tolist() == chosen.tolist()
    around, rows = with_neighbours(torch.tensor([2, 5]), 1, 9)
    assert around.tolist() == [1, 2, 3, 4, 5, 6]
    assert rows.tolist() == [1, 4]
    around, rows = with_neighbours(chosen, 0, 7)
    assert around.tolist() == chosen.tolist()
    assert rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("anatomy", [False, True])
def test_air_and_empty_slices_do_not_matter(anatomy):
    series, networks = a_series((2, 16, 16)), members(2, anatomy=anatomy)
    shown = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(4))
    series = replace(series, anatomy=(0.2 + shown) * series.mask[:, None])

    def grown(values):
        wider = torch.nn.functional.pad(values.float(), (11, 13, 5, 16)).to(values.dtype)
        return torch.cat([torch.zeros_like(wider[:1]), wider])

    flat = Protocol(
        series.protocol.schemes,
        series.protocol.post_labeling_delay,
        series.protocol.label_duration,
        series.protocol.slice_time[:1],
    )
    series = replace(series, protocol=flat)
    wide = replace(
        series,
        delta_m=grown(series.delta_m),
        mask=grown(series.mask),
        anatomy=grown(series.anatomy),
    )
    small, large = (Ensemble(model(networks)).fit(each) for each in (series, wide))
    inner = large.cbf[1:, 5:21, 11:27]
    # The noise is pooled over the brain only, so that the two see the same.
    assert torch.allclose(small.cbf[series.mask], inner[series.mask], atol=0.05)
    assert not bool(large.cbf[0].any())


def test_empty_mask_gives_empty_maps():
    series = a_series((2, 16, 16))
    series = replace(
        series, mask=torch.zeros_like(series.mask), delta_m=torch.zeros_like(series.delta_m)
    )
    found = Ensemble(model(members(1))).fit(series)
    assert not bool(found.cbf.any())
    assert not bool(found.cbf_sd.any())


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [((3, 11), (5, 6), (24, 24)), ((0, 1), (20, 24), (24, 24)), ((1, 22), (0, 9), (23, 10))],
)
def test_box_holds_the_brain_and_fits_the_networks(rows, columns, size):
    mask = torch.zeros(2, *size, dtype=torch.bool)
    mask[0, rows[0], columns[0]] = True
    mask[1, rows[1] - 1, columns[1] - 1] = True
    for found, (first, end), whole in zip(brain_box(mask), (rows, columns), size, strict=True):
        assert 0 <= found.start <= first
        assert end <= found.stop <= whole
        length = found.stop - found.start
        assert length % 8 == 0 or length == whole


def features(count, **values):
    ones = {name: torch.ones(count) for name in FEATURES}
    return {**ones, **{name: torch.tensor(value) for name, value in values.items()}}


def test_calibration_by_hand():
    cbf_sd = [1.0, math.exp(0.5), math.exp(-0.5), math.exp(9), math.exp(-9)]
    found = calibration_factors(table(0.2, -0.3, cbf_sd=2.0), features(5, cbf_sd=cbf_sd))
    # Logarithms of widths, constant beyond the ends -1 and 1.
    seen = [0.0, 0.5, -0.5, 1.0, -1.0]
    expected = [math.exp(0.2 + math.tanh(2 * each)) for each in seen]
    assert torch.allclose(found[0], torch.tensor(expected))
    assert torch.allclose(found[1], torch.tensor(math.exp(-0.3)).expand(5))


def test_each_kind_of_data_has_a_calibration_of_its_own():
    counts = {"continuous": [3, 0, 0, 6, 1, 6], "pulsed": [0, 4, 0, 0, 1, 0]}
    counts["velocity_selective"] = [0, 0, 5, 6, 1, 0]
    told = features(6, **{f"measurements_{name}": 1.0 * np.array(n) for name, n in counts.items()})
    kinds = ["continuous", "pulsed", "velocity_selective", "several", "several", "continuous"]
    assert [KINDS[number] for number in kind_of(told).tolist()] == kinds
    by_log = {"continuous": (0.1, 0.2), "pulsed": (0.3, -0.4), "several": (-0.5, 0.6)}
    of_each = {name: table(*logs) for name, logs in by_log.items()}
    # Nothing was calibrated on velocity-selective data alone: those stay as they are.
    expected = torch.tensor([by_log.get(kind, (0.0, 0.0)) for kind in kinds]).exp()
    for found, wanted in zip(
        calibration_factors({"kinds": of_each}, told), expected.T, strict=True
    ):
        assert torch.allclose(found, wanted.to(found))
    # Of maps as of voxels.
    maps = {name: value.reshape(2, 3) for name, value in told.items()}
    factor = calibration_factors({"kinds": of_each}, maps)[0]
    assert torch.allclose(factor.flatten(), expected[:, 0].to(factor))


def test_calibration_sees_the_members_disagreement_relative_to_the_whole():
    spread = features(2, att_sd=[0.2, 0.4], att_spread=[0.1, 0.2])
    found = calibration_factors(table(att_spread=1.0), spread)[0]
    expected = math.exp(math.tanh(math.log(0.5)))
    assert torch.allclose(found, torch.tensor(expected).expand(2))
    many = features(2, measurements_continuous=[0.0, 0.5])
    found = calibration_factors(table(measurements_continuous=1.0), many)[0]
    assert torch.allclose(found, torch.tensor([1.0, math.exp(math.tanh(math.log(1.5)))]))


def test_calibration_scales_the_error_bars_only():
    series, networks = a_series(), members(2)
    how = {"error_bars": "noise", "arterial": False}
    plain = Ensemble(model(networks), **how).fit(series)
    by_noise = table(math.log(2), math.log(0.5), posterior_cbf_sd=1.0)
    tabled = model(networks, calibration={"noise": by_noise})
    scaled = Ensemble(tabled, **how).fit(series)
    inside = series.mask
    assert torch.equal(plain.cbf, scaled.cbf)
    assert torch.allclose(scaled.att_sd[inside], 0.5 * plain.att_sd[inside])
    ratio = (scaled.cbf_sd / plain.cbf_sd)[inside]
    noise = Bayes(arterial=False).fit(series).cbf_sd[inside]
    assert torch.allclose(ratio, 2 * noise.log().clamp(-1, 1).tanh().exp(), rtol=1e-4)


def test_what_the_ensemble_tells_of_a_voxel():
    series = a_series(protocol="joint")
    networks = members(3, std=0.3)
    ensemble = Ensemble(model(networks), tta=False)
    observation = observe_usable(series, 1.0)[0]
    found = dict(zip(ANSWERS, ensemble.estimate(observation), strict=True))
    each = [network(observation) for network in networks]
    inside = series.mask
    spread = torch.stack([one.cbf for one in each]).std(0, correction=0)
    assert torch.allclose(found["cbf_spread"][inside], spread[inside], atol=1e-4)
    posterior = voxel_posterior(observation)
    assert torch.allclose(found["posterior_att_sd"][inside], posterior.att_sd[inside])
    for index in range(len(inside)):
        mean = posterior.misfit[index][inside[index]].clamp(max=5).mean()
        assert torch.allclose(found["misfit"][index][inside[index]], mean)
    counts = [int((series.protocol.arrival == arrival).sum()) for arrival in Arrival]
    for arrival, count in zip(Arrival, counts, strict=True):
        told = found[f"measurements_{arrival.name.lower()}"]
        assert bool((told[inside] == count).all())
    assert not any(bool(values[~inside].any()) for values in found.values())


def test_roughness_is_the_spread_over_the_brain_voxels_around():
    """Against the definition, voxel by voxel in double precision."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(2, 9, 11, generator=generator) < 0.7
    values = (1000 + torch.randn(2, 9, 11, generator=generator)) * mask
    found = roughness(values, mask)
    for index, row, column in mask.nonzero().tolist():
        rows = slice(max(0, row - 2), row + 3)
        columns = slice(max(0, column - 2), column + 3)
        around = values[index, rows, columns][mask[index, rows, columns]].double()
        expected = float(around.std(correction=0))
        assert float(found[index, row, column]) == pytest.approx(expected, abs=2e-3)
    assert not bool(found[~mask].any())
    assert not bool(roughness(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=bool)).any())


@pytest.mark.parametrize("key", ["features", "signs"], ids=["today", "of before"])
def test_a_calibration_may_look_at_some_features_only(key):
    told = {name: torch.full((4,), 9.0) for name in uncertainty.FEATURES}
    told["cbf"] = torch.tensor([-1.0, 0, 1, 5])
    few = {
        key: ["cbf"],
        "low": [-1.0],
        "high": [1.0],
        "hidden_weight": [[1.0]],
        "hidden_bias": [0.0],
        "weight": [[1.0], [0.0]],
        "bias": [0.0, math.log(2)],
    }
    cbf, att = uncertainty.calibration_factors(few, told)
    expected = torch.tensor([-1.0, 0, 1, 1]).tanh().exp()
    assert torch.allclose(cbf, expected)
    assert torch.allclose(att, torch.tensor(2.0))


class Doubting(PosteriorASLNet):
    """Makes the error bars of CBF e times wider where the calibration is in doubt."""

    def corrections(self, maps):
        answer = torch.zeros(len(maps), 4 + self.grid.bins, *maps.shape[2:])
        answer[:, 2] = maps[:, 8]
        return answer


def test_error_bars_of_noise_alone(monkeypatch):
    series = a_series()
    # What assumed constants add to total bars has tests of its own.
    monkeypatch.setattr(module, "with_assumed_constants", lambda _, maps, __: maps)
    tables = {"total": table(0.0, math.log(0.5)), "noise": table(math.log(3.0), 0.0)}
    one = model([Doubting((8, 8, 8, 8)).eval()], calibration=tables)
    total, noise = (
        Ensemble(one, error_bars=bars, arterial=False).fit(series) for bars in ("total", "noise")
    )
    bayes = Bayes(arterial=False).fit(series)
    inside = series.mask
    assert torch.equal(total.cbf, noise.cbf)
    assert torch.allclose(noise.cbf_sd[inside], 3 * bayes.cbf_sd[inside], rtol=1e-4)
    assert torch.allclose(noise.att_sd[inside], bayes.att_sd[inside], rtol=1e-4)
    assert torch.allclose(total.att_sd[inside], 0.5 * bayes.att_sd[inside], rtol=1e-4)
    assert torch.allclose(total.cbf_sd[inside], math.e * bayes.cbf_sd[inside], rtol=1e-3)


def test_command_line_knows_the_words_for_error_bars():
    assert tuple(uncertainty.ERROR_BARS) == ERROR_BARS


class Limited(PosteriorASLNet):
    """Runs out of memory beyond a number of slices."""

    most = 1
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def corrections(self, maps):
        if len(maps) > self.most:
            raise self.error
        return super().corrections(maps)


def test_memory_that_runs_out_halves_the_batch(caplog):
    series = a_series((5, 16, 16))
    limited = Limited((8, 8, 8, 8))
    limited.most = 2
    with caplog.at_level(logging.WARNING):
        found = Ensemble(model([limited]), batch_size=5, arterial=False).fit(series)
    assert [r.getMessage() for r in caplog.records] == [
        "cpu ran out of memory: 3 slices at a time",
        "cpu ran out of memory: 2 slices at a time",
    ]
    assert torch.allclose(found.cbf, Bayes(arterial=False).fit(series).cbf, atol=1e-3)


def test_memory_that_never_suffices_is_an_error():
    limited = Limited((8, 8, 8, 8))
    limited.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        Ensemble(model([limited])).fit(a_series((2, 16, 16)))


def test_other_errors_are_not_taken_for_missing_memory():
    limited = Limited((8, 8, 8, 8))
    limited.most, limited.error = 0, RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        Ensemble(model([limited])).fit(a_series((2, 16, 16)))


@pytest.fixture
def two_threads():
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.slow
def test_slices_side_by_side_give_the_same_maps(two_threads, monkeypatch):
    estimator, series = Ensemble(model(members(2)), batch_size=8), a_series((11, 16, 16))
    calls = []
    real = module.estimate_slices

    def watched(observation, chosen, *arguments, **more):
        calls.append((len(chosen), torch.get_num_threads(), torch.is_grad_enabled()))
        return real(observation, chosen, *arguments, **more)

    monkeypatch.setattr(module, "estimate_slices", watched)
    found = estimator.fit(series)
    assert calls == [(4, 1, False), (4, 1, False), (3, 2, False)]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    alone = estimator.fit(series)
    assert calls[3:] == [(8, 1, False), (3, 1, False)]
    for name in ("cbf", "att", "cbf_sd", "att_sd"):
        assert torch.allclose(getattr(found, name), getattr(alone, name), rtol=1e-4, atol=1e-5)


def test_threads_come_back_after_an_error(two_threads):
    def fail(part):
        raise RuntimeError(f"part {int(part[0])}")

    with pytest.raises(RuntimeError, match="part 0"):
        side_by_side(fail, torch.arange(4).chunk(2))
    assert torch.get_num_threads() == 2


def test_gpu_without_memory_hands_over_to_the_cpu(monkeypatch, caplog):
    """The GPU is played by the processor: only its name and its errors differ."""

    class Gpu:
        type = "mps"

        def __str__(self):
            return "mps"

    estimator = Ensemble(model(members(1)), batch_size=4)
    series = a_series((3, 16, 16))
    truth = estimator.fit(series).cbf
    estimator.device = Gpu()
    real = Ensemble._estimate

    def estimate(self, observation, chosen, networks, device, other):
        if device.type != "cpu":
            raise RuntimeError("MPS backend out of memory")
        return real(self, observation, chosen, networks, device, other)

    monkeypatch.setattr(Ensemble, "_estimate", estimate)
    monkeypatch.setattr(Ensemble, "_members", lambda self, device: list(self.model.members))
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        found = estimator.fit(series).cbf
    assert "going on by CPU" in caplog.messages[-1]
    assert torch.equal(found, truth)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("[enforce fail] not enough memory: you tried to allocate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_mean_memory(error, memory):
    assert is_out_of_memory(error) == memory


def test_devices():
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in {"cpu", "cuda", "mps"}
    for wrong in ("toaster", "cuda:99"):
        with pytest.raises(InputError, match="--device"):
            find_device(wrong)
    with pytest.raises(InputError, match="--batch-size"):
        Ensemble(model(members(1)), batch_size=0)


def test_a_single_delay_is_flagged_and_a_signal_of_zero_is_a_measurement():
    series = a_series((2, 20, 20), "single", 15)
    series.delta_m[0, :, 10, 10] = 0
    found = Ensemble(model(members(1))).fit(series)
    inside = series.mask
    assert not bool((found.flags & int(Flag.FAILED)).any())
    assert float(found.cbf[0, 10, 10]) != 0
    assert float(found.cbf[0, 10, 10]) < 0.5 * float(found.cbf[inside].median())
    open_att = found.flags[inside] & int(Flag.ATT_UNIDENTIFIABLE)
    assert float((open_att > 0).float().mean()) > 0.8
    joint = Ensemble(model(members(1))).fit(a_series(snr=15))
    assert not bool((joint.flags & int(Flag.ATT_UNIDENTIFIABLE)).any())


CHANNELS = tuple(Channel(*each) for each in PROTOCOLS["joint"])


def fixed_protocol():
    torch.manual_seed(0)
    network = SpatialASLNet(6, (8, 8, 8, 8))
    torch.nn.init.normal_(network.head.weight, std=0.1)
    scale = Standardisation(10.0, 45.0, 25.0, 1.3, 0.5)
    return model(
        [ChannelNetwork(network, scale).eval()], channels=CHANNELS, calibration={"total": table()}
    )


def test_fixed_protocol_finds_its_channels_in_any_order():
    cbf, att, mask = maps((2, 16, 16))
    series = series_of(PROTOCOLS["joint"], cbf, att, mask, 15)
    order = np.random.default_rng(1).permutation(12).tolist()
    shuffled = replace(
        series,
        protocol=series.protocol.select(order),
        delta_m=series.delta_m[:, order],
        repeats=series.repeats[order],
    )
    estimator = Ensemble(fixed_protocol())
    first, second = estimator.fit(series), estimator.fit(shuffled)
    assert torch.allclose(first.cbf, second.cbf, atol=1e-2)
    assert torch.allclose(first.residual[:, order], second.residual, atol=1e-5)


@pytest.mark.parametrize("change", ["fewer", "delay", "duration", "slice times", "more"])
def test_fixed_protocol_refuses_other_data(change):
    protocol = list(PROTOCOLS["joint"])
    step = 0.0
    if change == "fewer":
        protocol = PROTOCOLS["pcasl"]
    elif change == "delay":
        protocol[3] = ("PCASL", 2.2, 1.8)
    elif change == "duration":
        protocol[3] = ("PCASL", 2.0, 1.4)
    elif change == "slice times":
        step = 0.04
    else:
        protocol.append(("PCASL", 3.5, 1.8))
    series = series_of(protocol, *maps((2, 8, 8)), 15, slice_step=step)
    with pytest.raises(InputError, match=r"channels: found PCASL .* expected PCASL 0.5, 1, 1.5"):
        Ensemble(fixed_protocol()).fit(series)


def test_networks_compute_in_full_precision_and_leave_the_process_as_it_was(monkeypatch):
    """TF32 of a GPU would move CBF and ATT; a program that uses it elsewhere keeps it."""
    seen = []
    exact = Ensemble._estimate

    def watched(self, *given):
        now = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        seen.append(now)
        return exact(self, *given)

    monkeypatch.setattr(Ensemble, "_estimate", watched)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        Ensemble(model(members(1))).fit(a_series((2, 16, 16)))
        after = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {("highest", False)}
    assert after == ("high", True)
