"""The wheel in an empty environment: what a user gets by `pip install`."""

import json
import shutil
import sys

import pytest
from shell import call

from asl_bids_app import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def environment(root, tmp_path_factory):
    """An environment that holds the wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "asl_bids_app", source / "asl_bids_app", ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    pip = [sys.executable, "-m", "pip"]
    built = call([*pip, "wheel", "-q", "--no-deps", "-w", folder / "dist", source], 300)
    assert built.returncode == 0
    [wheel] = (folder / "dist").glob("*.whl")
    shutil.rmtree(source)
    python = folder / "env" / "bin" / "python"
    for module in ("venv", "virtualenv"):
        if call([sys.executable, "-m", module, folder / "env"], 120).returncode == 0:
            break
    else:
        pytest.skip("neither venv nor virtualenv can make an environment here")
    versions = root / "container" / "requirements.txt"
    [torch] = [line for line in versions.read_text().splitlines() if line.startswith("torch==")]
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "-c", versions]
    # Any build of PyTorch will do; that for the CPU is ten times smaller.
    if call([*install, f"{torch}+cpu"], 600).returncode:
        print("no CPU build of PyTorch found: installing the default one")
    assert call([*install, wheel], 900).returncode == 0
    yield python.parent
    shutil.rmtree(folder)


def test_nothing_is_missing(environment):
    assert call([environment / "python", "-m", "pip", "check"], 120).returncode == 0
    version = call([environment / "asl-app", "--version"], 60, environment)
    assert version.stdout == f"asl-app {__version__}\n"
    for command in ("asl-app", "asl-docker", "asl-train"):
        assert call([environment / command, "--help"], 60).returncode == 0


def test_the_model_came_along_whole(environment):
    """Every file that the model lists is installed, with the hash that it lists."""
    code = (
        "import hashlib, json, pathlib, asl_bids_app.models.store as s\n"
        "folder = pathlib.Path(s.__file__).parent / s.DEFAULT_MODEL\n"
        "files = json.loads((folder / 'model.json').read_text())['files']\n"
        "for name, wanted in files.items():\n"
        "    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == wanted, name\n"
        "print(len([f for f in files if f.endswith('.safetensors')]))\n"
        "training = pathlib.Path(s.__file__).parents[1] / 'training'\n"
        "assert (training / 'recipes' / 'laptop.yaml').is_file()\n"
    )
    found = call([environment / "python", "-c", code], 60, environment)
    assert (found.returncode, found.stdout) == (0, "5\n")


def test_the_example_runs(environment, tmp_path):
    """Simulated, quantified and compared with the truth, away from the checkout."""
    cases = ["--cases", "joint", "--voxel-scale", "2", "--snr", "50"]
    python = environment / "python"
    assert call([python, "-m", "asl_bids_app.demo", "bids", *cases], 300, tmp_path).returncode == 0
    run = [environment / "asl-app", "bids", "out", "participant", "-w", "work", "--nprocs", "1"]
    assert call(run, 600, tmp_path).returncode == 0
    compare = [python, "-m", "asl_bids_app.demo.compare", "out", "bids/derivatives/truth"]
    assert call([*compare, "--json", "scores.json"], 120, tmp_path).returncode == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    grey = {s["quantity"]: s for s in scores if s["tissue"] == "GM"}
    assert abs(grey["cbf"]["bias"]) < 5, "mL/100 g/min"
    assert abs(grey["att"]["bias"]) < 0.1, "s"
    [sidecar] = (tmp_path / "out").glob("sub-01/**/*_desc-std_cbf.json")
    assert json.loads(sidecar.read_text())["EstimationMethod"] == "ensemble"
    assert (tmp_path / "out" / "sub-01.html").stat().st_size > 100_000
