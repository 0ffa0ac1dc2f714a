"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Parallel test processes share the cores; more threads in each only make them wait. Set
# before torch or ITK are imported, by whoever does it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]
DATA_HOME = Path(os.environ.get("ASL_APP_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def one_thread():
    """Bring torch back to one thread: what a test has set would slow all those after it."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def quick_disk():
    """Don't wait for the disk after each file; `test_atomic` looks at the order of calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def root():
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data():
    """A real BIDS dataset: one participant, 2D PCASL with six delays, M0 included."""
    path = DATA_HOME / "oxford_pcasl"
    if not (path / "dataset_description.json").is_file():
        pytest.skip(f"no real data in {path}; ASL_APP_TEST_DATA names the folder that has them")
    return path


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory):
    """A simulated dataset of large voxels and little noise: a joint and a PCASL participant.

    Shared by all tests: read it, never write to it. The truth is in derivatives/truth.
    """
    from asl_bids_app.demo.dataset import simulate

    return simulate(
        tmp_path_factory.mktemp("demo") / "simulated", seed=7, snr=50.0, voxel_scale=2.0
    )


@pytest.fixture
def without_pictures(monkeypatch):
    """Leave the figures out of reports, which take most of a small run's time.

    For tests of whole runs that look at anything else; the figures have tests of their own.
    """
    leave_pictures_out(monkeypatch)


@pytest.fixture
def without_charts(monkeypatch):
    """Leave the figures by matplotlib out of a report, nearly all of its time; maps are there."""
    leave_charts_out(monkeypatch)


@pytest.fixture(scope="module")
def module_without_pictures():
    """Leave the figures out of the reports of a module's shared runs."""
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_out(patch)
        yield


def nothing(*_, **__):
    return None


def leave_charts_out(patch):
    from asl_bids_app.reports import charts, pictures, section

    patch.setattr(charts, "timing", nothing)
    patch.setattr(section, "draw_time_course", nothing)
    patch.setattr(pictures, "draw_distributions", nothing)


def leave_pictures_out(patch):
    from asl_bids_app.reports import pictures

    leave_charts_out(patch)
    for name in ("m0", "delta_m", "maps", "flags"):
        patch.setattr(pictures, f"draw_{name}", nothing)
