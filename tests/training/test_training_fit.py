"""Training: the same curve whatever interrupts it, losses, order of the data."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.networks.corrections import Estimate
from asl_bids_app.observation import Observation
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.config.sections import NetworkConfig
from asl_bids_app.training.data.augmentation import cropped, turned
from asl_bids_app.training.data.batches import Batches
from asl_bids_app.training.data.parts import PARTS, generate_part
from asl_bids_app.training.data.phantom_store import PhantomStore
from asl_bids_app.training.data.pool import Draw, Pool, draw_from, prepared
from asl_bids_app.training.fit import lightning_module
from asl_bids_app.training.fit.curves import read_curves
from asl_bids_app.training.fit.fit_member import fit_member
from asl_bids_app.training.fit.learning_rate import in_cycle, rate
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.losses import losses, quantile_loss
from asl_bids_app.training.fit.run_members import build_member, inner_network, start_from
from asl_bids_app.training.fit.trainer import FitOptions
from asl_bids_app.training.fit.training_run import NormStats, RunFolder, load_member, save_member
from asl_bids_app.training.phantoms.tissue_codes import CORE
from asl_bids_app.training.simulate.simulation import Batch

TINY = (
    "phantoms.size=32",
    "phantoms.voxel_size=[5, 8]",
    "phantoms.smallest_brain=60",
    "data.phantoms=40",
    "data.phantoms_per_shard=16",
    "data.validation_phantoms=8",
    "network.arguments.features=[4, 8]",
    "training.steps=12",
    "training.batch_size=4",
    "training.crop=16",
    "training.validate_every=4",
    "training.checkpoint_every=3",
    "training.compile=never",
    "training.log_every=1",
    "logging.tensorboard=false",
)


@pytest.fixture(scope="module")
def config():
    return load("smoke", TINY)


@pytest.fixture(scope="module")
def dataset(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    for part in PARTS[:2]:
        generate_part(config, folder, part)
    return folder


@pytest.fixture(scope="module")
def unbroken(config, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    result = fit_member(config, dataset, folder, 0)
    assert result.finished
    assert result.step == 12
    return folder


def curve(folder, member=0):
    return read_curves(RunFolder(folder).logs(member) / "metrics.csv")


def weights(folder, member=0):
    return load_member(RunFolder(folder).model(member))["model_state_dict"]


def interrupt_at(monkeypatch, step, number=signal.SIGUSR1):
    """Let the process get a signal in the middle of a step."""
    original = MemberModule.training_step

    def training_step(self, batch, batch_idx):
        if batch.step == step:
            os.kill(os.getpid(), number)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(MemberModule, "training_step", training_step)


# Before, at and after a checkpoint; at a validation, where state changes most.
@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=pytest.mark.slow) for n in (0, 2, 3, 7, 10)]
)
def test_resumed_training_gives_the_curve_of_an_unbroken_one(
    config, dataset, unbroken, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        stopped = fit_member(config, dataset, tmp_path, 0)
    assert not stopped.finished
    assert stopped.reason == "SIGUSR1"
    assert stopped.step == step + 1
    assert (
        not RunFolder(tmp_path).model(0).is_file()
        or not load_member(RunFolder(tmp_path).model(0))["complete"]
    )

    resumed = fit_member(config, dataset, tmp_path, 0)
    assert resumed.finished
    assert curve(tmp_path) == curve(unbroken)
    expected = weights(unbroken)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 8])
def test_resumed_training_fills_its_pool_again(dataset, tmp_path, monkeypatch, step):
    config = load("smoke", (*TINY, "training.reuse=3", "training.reuse_batches=3"))
    assert fit_member(config, dataset, tmp_path / "unbroken", 0).finished
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        assert not fit_member(config, dataset, tmp_path / "broken", 0).finished
    assert fit_member(config, dataset, tmp_path / "broken", 0).finished
    assert curve(tmp_path / "broken") == curve(tmp_path / "unbroken")
    expected = weights(tmp_path / "unbroken")
    for name, value in weights(tmp_path / "broken").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.slow
def test_every_simulated_slice_serves_as_often_as_is_asked(config, dataset):
    training = replace(config.training, reuse=3, reuse_batches=5)
    batches = Batches(PhantomStore(dataset / "train"), training, 1, 0)
    steps = [batches.step(number) for number in range(60)]
    assert [len(step.fresh) for step in steps] == [1, 0, 0] * 20
    assert [step.fresh[0].step for step in steps[::3]] == list(range(20))
    # Where it resumes, all that the pool held by then, in the same order.
    again = batches.step(40, resumed=True)
    assert [batch.step for batch in again.fresh] == [9, 10, 11, 12, 13]
    assert again.seed == steps[40].seed
    counts = torch.zeros(200, training.batch_size)
    held = 0
    for number in range(600):
        held = number // 3
        first = max(0, held - 4)
        draw = draw_from(held - first + 1, training.batch_size, batches.step(number).seed)
        counts.index_put_((first + draw.place, draw.row), torch.ones(4), accumulate=True)
    served = counts[10:-10]
    assert float(served.mean()) == pytest.approx(3, abs=0.1)
    assert float(served.std()) == pytest.approx(3**0.5, rel=0.15)


def test_a_pool_gives_back_what_the_network_would_have_seen(config, dataset):
    module = MemberModule(config, build_member(config, None), 10)
    torch.nn.init.normal_(module.network.head.weight, std=0.1)
    batches = Batches(PhantomStore(dataset / "train"), config.training, 1, 0)
    made = [module.simulated(batches.batch(number)) for number in range(3)]
    pool = Pool(2)
    for batch in made:
        pool.add(prepared(module.network, batch))
    assert len(pool) == 2
    rows = torch.tensor([3, 0, 2, 2])
    draw = Draw(torch.tensor([1, 0, 1, 0]), rows, (-1,), turned=True)
    with torch.no_grad():
        got = pool.take(draw)
        answer = module.network.corrections(got.maps)
        found = module.network.correct(got.context, answer, got.mask, got.calibration_uncertainty)
        for index, (place, row) in enumerate(zip(draw.place, rows, strict=True)):
            batch = made[1 + int(place)]
            # The middle of three slices.
            middle = 3 * int(row) + 1
            assert torch.equal(got.cbf[index], batch.cbf[middle].flip(-1).mT)
            assert torch.equal(got.tissue[index], batch.tissue[middle].flip(-1).mT)
            turned = prepared(module.network, batch).maps[row : row + 1].flip(-1).mT
            assert torch.allclose(got.maps[index], turned[0], atol=5e-3)
            mask = batch.mask[middle].flip(-1).mT
            # The estimate lies where the voxels of the same slice do.
            posterior = prepared(module.network, batch).context.cbf[row].flip(-1).mT
            off = (found.cbf[index] - posterior)[mask].abs() / posterior[mask].abs().clamp(min=5)
            assert float(off.median()) < 0.5


def test_slices_that_nobody_looks_at_are_not_simulated(config, dataset):
    batch = Batches(PhantomStore(dataset / "train"), config.training, 1, 0).batch(0)
    inner = batch.phantoms.inner
    for beside, seen in ((8, torch.ones(12).bool()), (0, inner)):
        changed = load("smoke", (*TINY, f"network.arguments.beside={beside}"))
        made = MemberModule(changed, build_member(changed, None), 10).simulated(batch)
        assert torch.equal(made.cbf, batch.phantoms.cbf[seen])
        assert int(made.asked.sum()) == 4
        assert len(made.observation) == int(seen.sum())


@pytest.mark.slow
def test_a_pool_serves_networks_of_a_fixed_protocol(dataset, tmp_path):
    fixed = (
        "network.name=SpatialASLNet",
        "network.arguments.n_plds=6",
        "domain.protocol=joint 6+6",
        "domain.nominal_random=false",
        "training.reuse=3",
    )
    assert fit_member(load("smoke", (*TINY, *fixed)), dataset, tmp_path, 0).finished
    assert len(curve(tmp_path)) > 12


def test_slices_without_their_signals_serve_no_data_consistency():
    changes = ("training.reuse=2", "training.dc_weight=0.1")
    with pytest.raises(InputError, match=r"training.reuse: found 2.*dc_weight"):
        load("smoke", changes, allow_noncritical=True)


def test_curve_has_every_step_and_every_validation(unbroken):
    rows = curve(unbroken)
    assert [step for step, name, _ in rows if name == "train/loss"] == list(range(12))
    assert [step for step, name, _ in rows if name == "val/loss"] == [3, 7, 11]
    assert all(math.isfinite(float(value)) for _, _, value in rows)


def test_training_that_breaks_down_stops_and_keeps_the_last_checkpoint(
    config, dataset, tmp_path, monkeypatch
):
    original = MemberModule.training_step

    def training_step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        if batch.step == 7:
            self.latest["loss"] = loss.detach() * float("nan")
        return loss

    monkeypatch.setattr(MemberModule, "training_step", training_step)
    with pytest.raises(AslAppError, match="step 8"):
        fit_member(config, dataset, tmp_path, 0)
    state = torch.load(RunFolder(tmp_path).checkpoint(0), weights_only=True)
    assert state["global_step"] == 6


@pytest.fixture
def command(config, dataset, tmp_path):
    """The command line that trains member 0 into tmp_path, as a subprocess would get it."""
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    words = [sys.executable, "-m", "asl_bids_app.training.cli", "fit", "--config", str(path)]
    words += ["--dataset", str(dataset), "--output-dir", str(tmp_path / "run"), "--members", "0"]
    return words


@pytest.mark.slow
def test_killed_training_loses_only_what_came_after_the_last_checkpoint(
    command, tmp_path, unbroken
):
    checkpoint = RunFolder(tmp_path / "run").checkpoint(0)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not checkpoint.is_file() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    state = torch.load(checkpoint, weights_only=True)  # whole, not torn
    assert state["global_step"] >= 3

    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert curve(tmp_path / "run") == curve(unbroken)


@pytest.mark.slow
def test_time_limit_stops_with_status_75_and_the_same_command_goes_on(command, tmp_path, unbroken):
    limited = subprocess.run([*command, "--max-hours", "0"], check=False, capture_output=True)
    assert limited.returncode == 75
    assert not RunFolder(tmp_path / "run").model(0).is_file()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert curve(tmp_path / "run") == curve(unbroken)


@pytest.mark.slow
def test_two_processes_train_one_network_together(config, dataset, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    words = [sys.executable, "-m", "asl_bids_app.training.cli", "fit", "--config", str(path)]
    words += ["--dataset", str(dataset), "--output-dir", str(tmp_path / "run"), "--members", "0"]
    words += ["--devices", "2", "--device", "cpu"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = curve(tmp_path / "run")
    assert [step for step, name, _ in rows if name == "train/loss"] == list(range(12))
    assert load_member(RunFolder(tmp_path / "run").model(0))["complete"]


@pytest.mark.slow
def test_members_differ(config, dataset, tmp_path, unbroken):
    fit_member(config, dataset, tmp_path, 1)
    first, second = weights(unbroken), weights(tmp_path, 1)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert curve(tmp_path, 1)[0] != curve(unbroken)[0]


def test_run_folder_refuses_other_settings(config, dataset, unbroken):
    other = replace(config, training=replace(config.training, learning_rate=1e-3))
    with pytest.raises(InputError, match=r"training\.learning_rate"):
        fit_member(other, dataset, unbroken, 0)


def test_start_from_earlier_weights(config, dataset, unbroken, tmp_path):
    begun = FitOptions(init_from=unbroken, max_hours=0)
    fit_member(config, dataset, tmp_path, 0, begun)
    state = torch.load(RunFolder(tmp_path).checkpoint(0), weights_only=True)
    # One step of a warm-up moves a weight by at most the learning rate (plus the decay).
    highest = config.training.learning_rate
    for name, value in weights(unbroken).items():
        begun_at = state["current_model_state"][f"network.{name}"]
        assert (begun_at - value).abs().max() <= 1.1 * highest
    other = replace(config, network=replace(config.network, arguments={"features": [4, 6]}))
    with pytest.raises(InputError, match="shape"):
        fit_member(other, dataset, tmp_path / "other", 0, begun)


@pytest.mark.parametrize("name", ["PosteriorASLNet", "SpatialASLNet", "DualEncoderSpatialASLNet"])
def test_a_wider_network_starts_with_the_answers_of_a_narrow_one(config, tmp_path, name):
    def built(*features):
        network = NetworkConfig(name, {"features": list(features)})
        return build_member(replace(config, network=network), NormStats(40.0, 20.0, 1400.0, 500.0))

    torch.manual_seed(1)
    narrow = built(4, 6, 8)
    for parameter in narrow.parameters():  # heads start at zero, which would hide everything
        torch.nn.init.normal_(parameter, std=0.3)
    file = tmp_path / "narrow.pt"
    save_member(file, {"model_state_dict": inner_network(narrow).state_dict()})
    wide = built(12, 18, 24)
    start_from(wide, file, 0)

    def answer(member):
        core = inner_network(member)
        if name != "PosteriorASLNet":
            return torch.cat(core(0.3 * torch.randn(2, 12, 16, 12, generator=noise(2))), 1)
        maps = torch.randn(2, core.in_channels, 16, 12, generator=noise(2))
        maps[:, 5] = 1
        return core.corrections(maps)

    def noise(seed):
        return torch.Generator().manual_seed(seed)

    expected = answer(narrow)
    assert expected.std() > 0.1
    torch.testing.assert_close(answer(wide), expected, rtol=1e-3, atol=1e-4)
    # Copies that learn the same would stay copies.
    answer(wide).square().mean().backward()
    decoder = inner_network(wide).decoder.levels[0].first.conv
    first, second = decoder.weight.grad[0], decoder.weight.grad[1]
    assert (first - second).abs().max() > 0.05 * first.abs().max()
    with pytest.raises(InputError, match="shape"):
        start_from(built(8, 12, 24), file, 0)


# --- order of the data


def test_every_phantom_is_seen_once_a_pass(config, dataset):
    store = PhantomStore(dataset / "train")
    training = replace(config.training, crop=0, augment=False)
    batches = Batches(store, training, 1, 0)
    whole = store.first(len(store))
    seen = [batches.batch(step).phantoms for step in range(10, 20)]
    sums = np.concatenate([part.cbf.sum((1, 2)).numpy() for part in seen])
    np.testing.assert_allclose(np.sort(sums), np.sort(whole.cbf.sum((1, 2)).numpy()), rtol=1e-6)


def test_processes_get_different_halves_of_the_batch(config, dataset):
    store = PhantomStore(dataset / "train")
    training = replace(config.training, crop=0, augment=False)
    one = Batches(store, training, 1, 0).batch(5).phantoms
    halves = [Batches(store, training, 1, 0, rank=r, world=2).batch(5) for r in (0, 1)]
    assert torch.equal(torch.cat([h.phantoms.cbf for h in halves]), one.cbf)
    assert halves[0].seed != halves[1].seed


def test_crops_show_brain_and_turns_keep_it(config, dataset):
    whole = PhantomStore(dataset / "train").first(40)
    generator = torch.Generator().manual_seed(0)
    cut = cropped(whole, 16, generator)
    assert cut.cbf.shape == (3 * 40, 16, 16)
    assert (cut.mask[cut.inner].flatten(1).sum(1) > 0).all()
    turn = turned(whole, generator)
    before, after = (maps.cbf[maps.inner].flatten(1).sort(1).values for maps in (whole, turn))
    assert torch.equal(before, after)
    # Maps turn together: CBF and tissue still belong to one another.
    assert torch.equal(turn.mask, turn.cbf + turn.att > 0) or bool(
        ((turn.cbf > 0) <= turn.mask).all()
    )


# --- loss


def made(cbf, att, cbf_sd, att_sd, truth=(50.0, 1.0), tissue=1, measurements=1):
    """An estimate of one voxel in the mask beside one outside it, and the truth."""
    shape = (1, 1, 2)
    mask = torch.tensor([[[True, False]]])

    def voxel(value):
        return torch.tensor([[[value, 7.0]]])

    one = torch.ones(1)
    observation = Observation(
        torch.zeros(1, 1, *shape[1:]), torch.ones(1, 1, 1, 1), mask, torch.zeros(1, 1).long(),
        one[:, None], one[:, None], one[:, None], one, one, one, one, one.long(), one[:, None],
        torch.zeros(1, 3, *shape[1:]),
    )  # fmt: skip
    estimate = Estimate(
        voxel(cbf).requires_grad_(),
        voxel(att).requires_grad_(),
        voxel(math.log(cbf_sd)).requires_grad_(),
        voxel(math.log(att_sd)).requires_grad_(),
    )
    physics = SimpleNamespace(valid=torch.ones(1, measurements, dtype=torch.bool))
    batch = Batch(
        observation,
        voxel(truth[0]),
        voxel(truth[1]),
        tissue * mask.byte(),
        one.byte(),
        one,
        physics,
        mask.any((1, 2)),
        voxel(0.0),
        torch.zeros(1, 2, *shape[1:]),
    )
    return estimate, batch


def test_loss_is_the_formula(config):
    estimate, batch = made(60.0, 1.35, 5.0, 0.2)
    loss, parts = losses(estimate, batch, config.training)
    nll = math.log(5) + math.sqrt(2) * 10 / 5 + math.log(0.2) + math.sqrt(2) * 0.35 / 0.2
    assert float(loss.detach()) == pytest.approx(10 / 25 + 0.35 / 0.7 + 0.05 * nll, rel=1e-5)
    assert float(parts["cbf_mae"]) == pytest.approx(10)
    assert float(parts["att_mae_ms"]) == pytest.approx(350, rel=1e-5)


def lesion_beside_healthy(measurements):
    """An estimate that is off by 10 in a lesion and by 20 beside it, and the truth."""
    estimate, batch = made(60.0, 1.0, 5.0, 0.2, tissue=CORE, measurements=measurements)
    truth = replace(
        batch,
        observation=replace(batch.observation, mask=torch.ones(1, 1, 2, dtype=torch.bool)),
        cbf=estimate.cbf.detach() - torch.tensor([[[10.0, 20.0]]]),
        att=estimate.att.detach(),
        tissue=torch.tensor([[[CORE, 1]]]),
    )
    return estimate, truth


@pytest.mark.parametrize(("measurements", "weight"), [(1, 1.0), (6, 3.0)])
def test_lesions_weigh_more_where_the_data_can_tell_them(config, measurements, weight):
    """Against a healthy voxel with twice the error: a weighted mean of the two."""
    training = replace(config.training, lesion_weight=3.0, uncertainty_weight=0.0)
    estimate, both = lesion_beside_healthy(measurements)
    expected = (weight * 10 + 20) / (weight + 1) / 25
    assert float(losses(estimate, both, training)[0].detach()) == pytest.approx(expected)


def test_relative_slices_pull_by_what_a_per_cent_of_their_error_is(config):
    """Slices with errors of 5 and 50: the slope of each is one over its error."""
    relative = replace(config.training, slices_count="relative", uncertainty_weight=0.0)
    cbf = torch.tensor([[[45.0, 55.0]], [[100.0, 100.0]], [[50.0, 50.0]]], requires_grad=True)
    att = torch.full_like(cbf, 1.7, requires_grad=True)
    mask = torch.tensor([[[1, 1]], [[1, 1]], [[0, 0]]], dtype=torch.bool)
    truth = torch.full_like(cbf, 50.0).detach()
    batch = SimpleNamespace(
        mask=mask,
        cbf=truth,
        att=torch.ones_like(truth),
        tissue=torch.ones_like(truth),
        several=torch.ones(3, dtype=torch.bool),
    )
    width = torch.zeros_like(truth)
    loss, parts = losses(Estimate(cbf, att, width, width), batch, relative)
    of_cbf = (math.log(5 / 25 + 0.01) + math.log(50 / 25 + 0.01)) / 2
    assert float(loss.detach()) == pytest.approx(0.2 * (of_cbf + math.log(0.7 / 0.7 + 0.01)))
    assert float(parts["cbf_mae"]) == pytest.approx(27.5)
    loss.backward()
    slope = cbf.grad.abs().sum((1, 2))
    assert float(slope[0] / slope[1]) == pytest.approx((2 + 0.01) / (0.2 + 0.01))
    assert float(slope[2]) == 0
    assert torch.isfinite(att.grad).all()


def test_uncertainty_does_not_move_the_mean_and_settles_at_the_error(config):
    estimate, batch = made(60.0, 1.35, 5.0, 0.2)
    losses(estimate, batch, config.training)[0].backward()
    # The slope of L1 alone: 1/25 and 1/0.7, whatever the standard deviations say.
    assert float(estimate.cbf.grad[0, 0, 0]) == pytest.approx(1 / 25)
    assert float(estimate.att.grad[0, 0, 0]) == pytest.approx(1 / 0.7)
    assert float(estimate.cbf.grad[0, 0, 1]) == 0
    # d/dlog(sd) [log sd + sqrt(2)|e|/sd] = 0 at sd = sqrt(2)|e|, Laplace's sd for that scale.
    settled, batch = made(60.0, 1.35, math.sqrt(2) * 10, math.sqrt(2) * 0.35)
    losses(settled, batch, config.training)[0].backward()
    assert float(settled.cbf_log_sd.grad.abs().max()) < 1e-6


def test_quantile_loss_is_least_where_intervals_cover_what_they_claim():
    error = torch.from_numpy(np.random.default_rng(0).standard_normal(100_000)) * 7
    widths = torch.linspace(5, 9, 81, dtype=torch.float64)
    loss = [float(quantile_loss(error, width.log().expand_as(error)).mean()) for width in widths]
    assert float(widths[int(np.argmin(loss))]) == pytest.approx(7, abs=0.15)
    log_width = torch.tensor(-9.0, dtype=torch.float64, requires_grad=True)
    moving = error.clone().requires_grad_()
    quantile_loss(moving, log_width.expand_as(error)).mean().backward()
    assert moving.grad is None
    # However far off it is, no more than 0.68 + 0.95, which is where every error lies outside.
    assert float(log_width.grad) == pytest.approx(-(0.682689 + 0.95), rel=1e-3)


def test_learning_rate_warms_up_and_ends_at_zero():
    curve = [rate(step, 1000, 100) for step in range(1001)]
    assert curve[0] == pytest.approx(1 / 101)
    assert max(curve) == pytest.approx(1)
    assert curve[550] == pytest.approx(0.5, abs=0.01)
    assert curve[1000] == pytest.approx(0)


def test_learning_rate_begins_anew_at_half_its_height():
    once = [rate(step, 500, 100) for step in range(500)]
    curve = [rate(step, 1500, 100, 3) for step in range(1501)]
    # Whoever stopped at the end of a cycle can go on as if more had been asked for at once.
    assert curve[:500] == pytest.approx(once)
    assert curve[499] < 1e-4
    assert curve[500] == pytest.approx(0.5)
    assert curve[750] == pytest.approx(0.25)
    assert curve[1000] == pytest.approx(0.25)
    assert curve[1500] == pytest.approx(0)


@pytest.mark.parametrize(
    ("slices_count", "expected"),
    [
        ("by_error", ["by_error"] * 3),
        ("relative", ["relative"] * 3),
        ("relative_in_last_cycle", ["by_error", "by_error", "relative"]),
    ],
)
def test_slices_may_count_by_error_first_and_relatively_at_last(config, slices_count, expected):
    training = replace(config.training, slices_count=slices_count, cycles=3)
    assert [in_cycle(training, cycle).slices_count for cycle in range(3)] == expected


@pytest.mark.slow
def test_training_knows_when_its_last_cycle_begins(dataset, tmp_path, monkeypatch):
    told = {True: [], False: []}

    def watched(estimate, batch, config):
        told[torch.is_grad_enabled()].append((config.slices_count, config.lesion_weight))
        return losses(estimate, batch, config)

    monkeypatch.setattr(lightning_module, "losses", watched)
    changing = (
        "training.cycles=3",
        "training.slices_count=relative_in_last_cycle",
        "training.lesion_weight=2",
        "training.lesion_weight_in_last_cycle=5",
    )
    fit_member(load("smoke", (*TINY, *changing)), dataset, tmp_path, 0)
    assert told[True] == 8 * [("by_error", 2)] + 4 * [("relative", 5)]
    # What is watched is one curve: the weights that are best by it are kept.
    assert set(told[False]) == {("relative", 5)}


@pytest.mark.parametrize(("at_last", "weights"), [(5.0, (2.0, 5.0)), (0.0, (2.0, 2.0))])
def test_lesions_may_weigh_more_in_the_last_cycle(config, at_last, weights):
    training = replace(config.training, lesion_weight=2.0, cycles=2)
    training = replace(training, lesion_weight_in_last_cycle=at_last)
    estimate, both = lesion_beside_healthy(measurements=2)
    for cycle, weight in enumerate(weights):
        found = losses(estimate, both, in_cycle(training, cycle))[1]["fit"].item()
        assert found == pytest.approx((weight * 10 + 20) / (weight + 1) / 25)


def test_relative_slices_count_by_what_their_voxels_weigh(config):
    training = replace(config.training, slices_count="relative", lesion_weight=4.0)
    training = replace(training, uncertainty_weight=0.0)
    off = torch.tensor([[[5.0]], [[50.0]]])
    truth, width = torch.full_like(off, 50.0), torch.zeros_like(off)
    batch = SimpleNamespace(
        mask=torch.ones(2, 1, 1, dtype=torch.bool),
        cbf=truth,
        att=width,
        tissue=torch.tensor([[[CORE]], [[1]]]),
        several=torch.ones(2, dtype=torch.bool),
    )
    loss, _ = losses(Estimate(truth + off, width, width, width), batch, training)
    of_cbf = (4 * math.log(5 / 25 + 0.01) + math.log(50 / 25 + 0.01)) / 5
    assert loss.item() == pytest.approx(0.2 * (of_cbf + math.log(0.01)), rel=1e-5)
