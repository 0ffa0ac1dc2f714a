"""Real image builds, a real Apptainer and a real SLURM, brought up on this machine.

The scripts that bring them up lie beside the checkout in ../shared/ci (ASL_APP_CI_SCRIPTS names
another place). What takes minutes to make is kept in ASL_APP_LAB (by default a folder of the
system's temporary folder) for the next run; a test without its tool is skipped and says why.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from shell import call

from asl_bids_app import __version__

TAG = f"localhost/asl-app:{__version__}"
LAB = Path(os.environ.get("ASL_APP_LAB", Path(tempfile.gettempdir()) / "asl-app-lab"))


def tool(command, seconds, cwd=None, **environment):
    """Bring a tool up, or skip."""
    result = call(command, seconds, cwd, **environment)
    if result.returncode:
        last = (result.stdout + result.stderr).strip().splitlines()[-1:]
        pytest.skip(f"{Path(command[1]).name}: the tool can't be had here: {last}")
    return result


@pytest.fixture(scope="session")
def scripts(root):
    folder = Path(os.environ.get("ASL_APP_CI_SCRIPTS", root.parent / "shared" / "ci"))
    if not (folder / "image_build.sh").is_file():
        pytest.skip(f"no scripts in {folder}; ASL_APP_CI_SCRIPTS names the folder that has them")
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("installing the tools needs root and Debian's apt-get")
    LAB.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def context(root):
    """The files of the checkout that images are made of, where every tool can see them."""
    folder = Path(tempfile.mkdtemp(prefix="asl-app-context-"))
    shutil.copy(root / ".dockerignore", folder)
    for line in (root / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source = root / line[1:]
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, folder / line[1:], ignore=ignore)
            else:
                shutil.copy(source, folder)
    for name in ("Dockerfile", "singularity.def"):
        shutil.copy(root / name, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def engine(scripts):
    """The image builder with its base image. Podman runs what it builds."""
    lab = LAB / "image"
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "Dockerfile").write_text("FROM docker.io/library/python:3.11-slim-bookworm\n")
        build = ["bash", scripts / "image_build.sh", Path(empty, "Dockerfile"), empty, "base:1"]
        tool([*build, "--", "python3", "--version"], 900, IMG_LAB=str(lab))
    environment = {
        "IMG_LAB": str(lab),
        "CONTAINERS_STORAGE_CONF": str(lab / "storage.conf"),
        "CONTAINERS_CONF": str(lab / "containers.conf"),
    }
    return SimpleNamespace(lab=lab, environment=environment)


def torch_index():
    """Build arguments for the CPU build of PyTorch: none where pip finds it by itself."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [*command, "--dest", folder, "torch==2.13.0+cpu"],
            capture_output=True,
            timeout=300,
            check=False,
        )
    return "--build-arg TORCH_INDEX=" if found.returncode == 0 else ""


@pytest.fixture(scope="session")
def image(scripts, engine, context):
    """The image of the Dockerfile, built by buildah from nothing but its base."""
    build = ["bash", scripts / "image_build.sh", context / "Dockerfile", context, TAG]
    result = call(
        [*build, "--read-only", "--user=4321:4321", "--", "--version"],
        1200,
        BUILD_ARGS=f"--no-cache {torch_index()}",
        **engine.environment,
    )
    assert result.returncode == 0, "the image could not be built"
    assert result.stdout.splitlines()[-1] == f"asl-app {__version__}"

    def run(*words, seconds=900, options=()):
        return call(
            ["podman", "run", "--rm", "--pull=never", "--network=none", *options, TAG, *words],
            seconds,
            **engine.environment,
        )

    yield SimpleNamespace(tag=TAG, run=run, seconds=result.seconds)
    # What earlier builds have left has no name any more.
    call(["podman", "image", "prune", "--force"], 120, **engine.environment)


@pytest.fixture(scope="session")
def apptainer(scripts):
    """The command of a real Apptainer."""
    lab = LAB / "apptainer"
    # Apptainer sees only some folders of the machine, so it is called in one of them.
    tool(["bash", scripts / "apptainer_up.sh"], 600, LAB, APPT_LAB=str(lab))
    return lab / "apptainer"


@pytest.fixture(scope="session")
def sif(apptainer, image, engine, context):
    """The Apptainer image, from the definition file and the Docker image."""
    folder = Path(tempfile.mkdtemp(prefix="asl-app-sif-"))
    archive, target = folder / "app.tar", folder / "asl-app.sif"
    push = ["buildah", "push", "--disable-compression"]
    push += ["--signature-policy", engine.lab / "policy.json"]
    pushed = call(
        [*push, image.tag, f"docker-archive:{archive}"],
        600,
        **engine.environment,
    )
    assert pushed.returncode == 0
    build = [apptainer, "build", "--build-arg", "BOOTSTRAP=docker-archive"]
    build += ["--build-arg", f"BASE={archive}", target, "singularity.def"]
    built = call(build, 1200, cwd=context)
    archive.unlink()
    assert built.returncode == 0, "the Apptainer image could not be built, or its test failed"
    yield SimpleNamespace(path=target, log=built.stdout + built.stderr, seconds=built.seconds)
    shutil.rmtree(folder)


def free_port():
    """Return the first of three ports that are free."""
    for base in range(18017, 19017, 10):
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for offset, probe in enumerate((one, two, three)):
                    probe.bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            return base
    pytest.skip("no free ports for SLURM")


@pytest.fixture(scope="session")
def slurm(scripts):
    """A cluster of one node; gives the environment of its client commands."""
    lab = LAB / f"slurm-{os.getpid()}"
    settings = {
        "SLURM_LAB": str(lab),
        "SLURM_LAB_PORT": str(free_port()),
        "SLURM_LAB_CPUS": "4",
        "SLURM_LAB_MEM": "16000",
    }
    tool(["bash", scripts / "slurm_up.sh"], 300, **settings)
    yield {"SLURM_CONF": str(lab / "slurm.conf")}
    call(["bash", scripts / "slurm_down.sh", "--purge"], 120, **settings)


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """The example dataset: a joint acquisition, and one of PCASL alone."""
    folder = tmp_path_factory.mktemp("example") / "bids"
    made = call([sys.executable, "-m", "asl_bids_app.demo", folder], 300)
    assert made.returncode == 0
    return folder


@pytest.fixture(scope="session")
def plain(example, context, tmp_path_factory):
    """The derivatives of the plain installation, and how long they took.

    It runs the files that the images are made of, even if the checkout has moved on.
    """
    folder = tmp_path_factory.mktemp("plain")
    app = [sys.executable, "-m", "asl_bids_app.cli.app"]
    options = ["-w", folder / "work", "--nprocs", "1"]
    result = call([*app, example, folder / "out", "participant", *options], 900, cwd=context)
    assert result.returncode == 0
    return folder / "out", result.seconds


@pytest.fixture(scope="session")
def one_thread():
    """Settings under which sums have one order; the tests themselves run with them."""
    return [f"{library}_NUM_THREADS=1" for library in ("OMP", "OPENBLAS", "MKL")] + [
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1"
    ]


@pytest.fixture(scope="session")
def assert_same_maps():
    """Give a function that compares all images of two folders."""

    def maps(folder):
        return {p.relative_to(folder): nib.load(p).get_fdata() for p in folder.rglob("*.nii.gz")}

    def compare(one, other, *, same_threads=True):
        first, second = maps(one), maps(other)
        assert set(first) == set(second)
        assert any(name.name.endswith("_cbf.nii.gz") for name in first)
        for name, values in first.items():
            difference = np.abs(second[name] - values)
            scale = np.percentile(np.abs(values), 99)
            if same_threads:
                assert difference.max() <= 1e-6 * scale, name
            # Sums in another order: where the data say little, a fit may end elsewhere.
            assert np.percentile(difference, 99.5) <= 0.01 * scale, name

    return compare
