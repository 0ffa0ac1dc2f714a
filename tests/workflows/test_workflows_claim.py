"""A second run of a participant in one work folder says so, and spoils nothing of the first."""

import json

import pytest
from fake_bids import FakeDataset

from asl_bids_app.cli.app import main
from asl_bids_app.workflows.lock import ParticipantLock

pytestmark = pytest.mark.usefixtures("without_pictures")
QUICK = ["--nprocs", "1", "--no-hmc", "--no-tissue", "--estimator", "least-squares", "-q"]


@pytest.fixture
def dataset(tmp_path):
    made = FakeDataset(tmp_path / "bids")
    made.add("01", noise=2e-5)
    made.add("02", noise=2e-5)
    return made


def go(dataset, tmp_path, *arguments):
    places = [str(dataset.root), str(tmp_path / "out"), "participant"]
    return main([*places, "-w", str(tmp_path / "work"), *QUICK, *arguments])


def test_the_others_are_done_and_nothing_is_recorded_of_the_one_in_work(dataset, tmp_path, capsys):
    with ParticipantLock(tmp_path / "work", "01"):
        assert go(dataset, tmp_path) == 1
    told = capsys.readouterr().err.splitlines()
    (line,) = [line for line in told if not line.startswith("warning: sub-02")]
    assert line.startswith("error: sub-01: another run works on this participant")
    assert "process" in line
    assert "Cure: wait for its end" in line
    assert (tmp_path / "out/sub-02/perf/sub-02_cbf.nii.gz").exists()
    # A newer record, or report, would stand in the way of what the first run finds.
    assert not list((tmp_path / "out").rglob("sub-01*"))
    (config,) = (tmp_path / "out").glob("logs/*/config.json")
    assert json.loads(config.read_text())["participants"] == ["02"]
    assert "another run works" in config.with_name("asl-app.log").read_text()
    # The first has ended: now it is this run's turn.
    assert go(dataset, tmp_path, "--participant-label", "01") == 0
    assert not list((tmp_path / "work/locks").glob("sub-*"))


def test_nobody_left_is_an_error_before_anything_is_written(dataset, tmp_path, capsys):
    with ParticipantLock(tmp_path / "work", "02"):
        assert go(dataset, tmp_path, "--participant-label", "02") == 1
    assert capsys.readouterr().err.count("another run works") == 1
    assert not (tmp_path / "out" / "logs").exists()


def test_a_dry_run_waits_for_nobody(dataset, tmp_path):
    with ParticipantLock(tmp_path / "work", "02"):
        assert go(dataset, tmp_path, "--participant-label", "02", "--dry-run") == 0
