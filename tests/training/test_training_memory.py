"""Out of memory, devices that are missing, batches from other processes, and the GPU's way."""

from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch

from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.training import random_fields
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.data import loading
from asl_bids_app.training.data.batches import Batches
from asl_bids_app.training.data.loading import load_batches, loading_processes
from asl_bids_app.training.data.parts import PARTS, generate_part
from asl_bids_app.training.data.phantom_store import PhantomStore
from asl_bids_app.training.fit import accelerator
from asl_bids_app.training.fit.accelerator import find_device, given_gpu
from asl_bids_app.training.fit.callbacks import average_module
from asl_bids_app.training.fit.curves import read_curves
from asl_bids_app.training.fit.fit_member import fit_member
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.run_members import build_member
from asl_bids_app.training.fit.training_run import NormStats, RunFolder
from asl_bids_app.training.simulate import disturbances, rician
from asl_bids_app.training.simulate.rician import rician_excess, rician_mean

TINY = (
    *("phantoms.size=32", "phantoms.voxel_size=[5, 8]", "phantoms.smallest_brain=60"),
    *("data.phantoms=40", "data.phantoms_per_shard=16", "data.validation_phantoms=8"),
    *("network.arguments.features=[4, 8]", "training.steps=4", "training.batch_size=4"),
    *("training.crop=16", "training.validate_every=4", "training.checkpoint_every=2"),
    *("training.compile=never", "training.log_every=1", "logging.tensorboard=false"),
)
STATS = NormStats(34.0, 21.0, 1550.0, 560.0)


@pytest.fixture(scope="module")
def config():
    return load("smoke", TINY)


@pytest.fixture(scope="module")
def dataset(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    for part in PARTS[:2]:
        generate_part(config, folder, part)
    return folder


def on_a_gpu():
    """The code takes the way of a GPU, on the processor's numbers."""
    stack = ExitStack()
    for module in (random_fields, disturbances, rician):
        stack.enter_context(patch.object(module, "search_pays", lambda _: False))
    return stack


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        pytest.param(
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["cuda", "cpu"],
)
def test_memory_that_runs_out_halves_what_is_worked_on(
    config, dataset, tmp_path, monkeypatch, caplog, fault
):
    """A fault whenever more than two slices are in the network at a time."""
    caplog.set_level("INFO")
    sizes = []
    original = MemberModule._losses

    def limited(self, made, cycle):
        sizes.append(len(made))
        if len(made) > 2:
            raise fault
        return original(self, made, cycle)

    monkeypatch.setattr(MemberModule, "_losses", limited)
    result = fit_member(config, dataset, tmp_path, 0)
    assert result.finished
    assert result.step == 4  # steps of whole batches
    assert max(sizes[1:]) == 2
    assert "memory ran out with 4 slices at a time; going on with 2" in caplog.text
    rows = read_curves(RunFolder(tmp_path).logs(0) / "metrics.csv")
    assert [step for step, name, _ in rows if name == "train/loss"] == [0, 1, 2, 3]


@pytest.mark.slow
def test_memory_that_no_slice_fits_into_is_one_line(config, dataset, tmp_path, monkeypatch):
    def never(self, made, cycle):
        raise MemoryError

    monkeypatch.setattr(MemberModule, "_losses", never)
    with pytest.raises(AslAppError, match=r"memory ran out.*1 slices.*training.batch_size") as met:
        fit_member(config, dataset, tmp_path, 0)
    assert "\n" not in str(met.value)


def test_other_faults_are_not_taken_for_memory(config, dataset, tmp_path, monkeypatch):
    def broken(self, made, cycle):
        raise RuntimeError("shapes don't match")

    monkeypatch.setattr(MemberModule, "_losses", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        fit_member(config, dataset, tmp_path, 0)


@pytest.mark.parametrize("changes", [(), ("training.lesion_weight=3",)])
def test_gradients_of_pieces_sum_to_those_of_the_whole_batch(config, dataset, changes):
    config = load("smoke", (*TINY, *changes))
    batch = Batches(PhantomStore(dataset / "train"), config.training, 1, 0).batch(0)
    torch.manual_seed(0)
    module = MemberModule(config, build_member(config, STATS), 10)
    whole = module._prepared(batch)
    (made,) = whole

    def gradient(pieces):
        module.zero_grad()
        loss, parts = module._losses_of_all(pieces, 0)
        loss.backward()
        values = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        return float(loss.detach()), float(parts["cbf_mae"]), values

    loss, error, expected = gradient(whole)
    loss_of_pieces, error_of_pieces, found = gradient([made[:1], made[1:3], made[3:]])
    assert loss_of_pieces == pytest.approx(loss, rel=1e-5)
    assert error_of_pieces == pytest.approx(error, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, ""),
        ({"SLURM_JOB_GPUS": "0"}, "SLURM_JOB_GPUS=0"),
        ({"SLURM_GPUS_ON_NODE": "2"}, "SLURM_GPUS_ON_NODE=2"),
        ({"SLURM_GPUS_ON_NODE": "0"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5ac"}, "CUDA_VISIBLE_DEVICES=GPU-5ac"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ""),
    ],
)
def test_a_job_that_was_given_a_gpu_and_sees_none_stops(monkeypatch, environment, given):
    assert given_gpu(environment) == given
    monkeypatch.setattr(accelerator.os, "environ", environment)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("cpu") == "cpu"
    if given:
        with pytest.raises(InputError, match=given):
            find_device("auto")
    else:
        assert find_device("auto") == "cpu"


def test_no_product_is_rounded_but_the_trunks(config, dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        fit_member(config, dataset, tmp_path, 0)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
    assert "member 0 trains on CPU" in caplog.text


@pytest.mark.slow
def test_batches_of_other_processes_are_the_same_in_the_same_order(config, dataset, monkeypatch):
    monkeypatch.setattr(loading, "loading_processes", lambda *_: 2)
    batches = Batches(
        PhantomStore(dataset / "train"), config.training, 1, 0, 3, domain=config.domain
    )
    alone = iter(batches)
    for number, step in zip(range(5), iter(load_batches(batches, "mps")), strict=False):
        expected = next(alone)
        assert step.step == expected.step == 3 + number
        assert step.seed == expected.seed
        for one, other in zip(step.fresh, expected.fresh, strict=True):
            assert torch.equal(one.phantoms.cbf, other.phantoms.cbf)
            assert torch.equal(one.physics.truth.delay, other.physics.truth.delay)


def test_the_processor_keeps_its_cores_for_training(monkeypatch):
    monkeypatch.setattr(loading, "processors", lambda: 8)
    assert loading_processes("cpu") == 0
    assert loading_processes("cuda") == 4
    assert loading_processes("cuda", ranks=4) == 1
    monkeypatch.setattr(loading, "processors", lambda: 1)
    assert loading_processes("cuda") == 0


def test_correlated_noise_is_the_same_by_a_gpus_way():
    sigma = torch.tensor([0.0, 0.7, 0.0, 1.5])

    def drawn():
        generator = torch.Generator().manual_seed(3)
        return random_fields.correlated(generator, 5, 12, 10, sigma)

    searched = drawn()
    with on_a_gpu():
        torch.testing.assert_close(drawn(), searched, rtol=1e-6, atol=1e-6)


def test_rician_excess_is_right_by_a_gpus_way():
    level = torch.linspace(0, 60, 400).reshape(4, 1, 10, 10)
    sd = torch.full((4, 1, 10, 10), 0.02)
    right = (rician_mean(level.double() * 0.02, sd.double()) - level.double() * 0.02).float()
    with on_a_gpu():
        found = rician_excess(level * 0.02, sd)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-4 * 0.02 + 1e-6)


def test_spikes_are_as_many_and_as_high_by_a_gpus_way():
    noise = load("smoke").noise
    sd = torch.full((400, 8), 0.01)
    signal = torch.zeros(400, 8, 6, 6)

    def struck():
        made = disturbances.add_spikes(signal, sd, noise, torch.Generator().manual_seed(5))
        highest = made.abs().amax((2, 3))
        return float((highest > 0).float().mean()), float(highest.max())

    share, height = struck()
    with on_a_gpu():
        dense_share, dense_height = struck()
    for found, top in ((share, height), (dense_share, dense_height)):
        assert found == pytest.approx(noise.spike_chance, abs=0.005)
        assert 0.01 < top <= 0.01 * noise.spike_size[1] * 1.0001


def test_the_average_of_weights_is_the_moving_average():
    torch.manual_seed(0)
    weights = [torch.randn(3, 2) for _ in range(40)]
    module, average = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    expected = None
    for step, value in enumerate(weights):
        module.weight.data = value
        average_module(average, module, step, 0.9)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.weight.detach(), expected, rtol=1e-5, atol=1e-6)
