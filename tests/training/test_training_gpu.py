"""What only a GPU shows. Run by ``python -m pytest -m gpu`` or ``benchmarks/gpu.sh``."""

import subprocess
import sys

import pytest
import torch

from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.members import ANSWERS
from asl_bids_app.models.store import load_model
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.data.parts import PARTS, generate_part
from asl_bids_app.training.fit.curves import read_curves
from asl_bids_app.training.fit.fit_member import fit_member
from asl_bids_app.training.fit.lightning_module import MemberModule
from asl_bids_app.training.fit.trainer import FitOptions
from asl_bids_app.training.fit.training_run import RunFolder, load_member
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.simulate.simulation import simulate
from asl_bids_app.training.validate.scenarios import SCENARIOS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use"),
]

TINY = (
    *("phantoms.size=32", "phantoms.voxel_size=[5, 8]", "phantoms.smallest_brain=60"),
    *("data.phantoms=40", "data.phantoms_per_shard=16", "data.validation_phantoms=8"),
    *("network.arguments.features=[8, 16]", "training.steps=12", "training.batch_size=4"),
    *("training.crop=16", "training.validate_every=4", "training.checkpoint_every=3"),
    *("training.compile=never", "training.log_every=1", "logging.tensorboard=false"),
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


def losses(folder):
    rows = read_curves(RunFolder(folder).logs(0) / "metrics.csv")
    return {step: float(value) for step, name, value in rows if name == "train/loss"}


@pytest.mark.parametrize("scenario", ["joint_off", "pcasl_off", "single_off"])
def test_the_ensemble_gives_the_maps_of_the_processor(scenario):
    phantoms = draw(PhantomConfig(), 4, seed=11)
    generator = torch.Generator().manual_seed(3)
    situation = SCENARIOS[scenario]
    physics = situation.draw(load("laptop").domain, phantoms.count, generator)
    noise = situation.noise(NoiseConfig(), 8.0)
    seen = simulate(phantoms, physics, noise, generator).observation
    model = load_model("any-protocol")
    processor, gpu = (Ensemble(model, device=d).estimate(seen) for d in ("cpu", "cuda"))
    mask = seen.mask
    for name, tolerance in (("cbf", 0.05), ("att", 0.002)):
        place = ANSWERS.index(name)
        one, other = processor[place][mask], gpu[place].cpu()[mask]
        assert float((one - other).abs().max()) < tolerance


def test_training_steps_and_a_resumed_training_on_a_gpu(config, dataset, tmp_path, monkeypatch):
    assert fit_member(config, dataset, tmp_path / "whole", 0, FitOptions("cuda")).finished
    whole = losses(tmp_path / "whole")
    assert sorted(whole) == list(range(12))
    with monkeypatch.context() as patched:
        original = MemberModule.training_step

        def stopped(self, batch, batch_idx):
            if batch.step == 6:
                raise KeyboardInterrupt
            return original(self, batch, batch_idx)

        patched.setattr(MemberModule, "training_step", stopped)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit_member(config, dataset, tmp_path / "broken", 0, FitOptions("cuda"))
    assert fit_member(config, dataset, tmp_path / "broken", 0, FitOptions("cuda")).finished
    # Sums on a GPU have no fixed order.
    for step, value in losses(tmp_path / "broken").items():
        assert value == pytest.approx(whole[step], rel=0.02)


def test_a_gpu_that_runs_out_of_memory_goes_on_with_less(config, dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    big = load("smoke", (*TINY, "training.batch_size=32", "training.steps=2", "training.crop=0"))
    fit_member(big, dataset, tmp_path / "free", 0, FitOptions("cuda"))
    needed = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * needed / total)
    try:
        result = fit_member(big, dataset, tmp_path / "tight", 0, FitOptions("cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.finished
    assert "memory ran out with 32 slices at a time" in caplog.text


def test_no_product_on_a_gpu_is_rounded_to_tf32(config, dataset, tmp_path):
    fit_member(config, dataset, tmp_path, 0, FitOptions("cuda"))
    a = torch.randn(512, 512, dtype=torch.float64)
    exact = a @ a
    error = ((a.float().cuda() @ a.float().cuda()).cpu().double() - exact).abs().max()
    assert float(error / exact.abs().max()) < 1e-5


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_one_network(config, dataset, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    words = [sys.executable, "-m", "asl_bids_app.training.cli", "fit", "--config", str(path)]
    words += ["--dataset", str(dataset), "--output-dir", str(tmp_path / "run"), "--members", "0"]
    done = subprocess.run(
        [*words, "--device", "cuda", "--devices", "2"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert load_member(RunFolder(tmp_path / "run").model(0))["complete"]


def test_two_processes_share_one_gpu(config, dataset, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    words = [sys.executable, "-m", "asl_bids_app.training.cli", "fit", "--config", str(path)]
    words += ["--dataset", str(dataset), "--output-dir", str(tmp_path / "run"), "--device", "cuda"]
    both = [subprocess.Popen([*words, "--members", str(member)]) for member in (0, 1)]
    assert [process.wait() for process in both] == [0, 0]
