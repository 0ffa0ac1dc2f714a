"""The cluster recipe of training/ on a real SLURM of one node."""

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = 60

SETTINGS = {
    "ASL_VENV": str(Path(sys.executable).parents[1]),
    "ASL_GPUS": "0",
    "ASL_GENERATE_MEM": "3G",
    "ASL_GENERATE_TIME": "00:20:00",
    "ASL_TRAIN_CPUS": "1",
    "ASL_TRAIN_MEM": "4G",
    "ASL_TRAIN_TIME": "00:30:00",
    "ASL_VALIDATE_CPUS": "1",
    "ASL_VALIDATE_MEM": "4G",
    "ASL_VALIDATE_TIME": "00:30:00",
    "ASL_SHARDS_PER_TASK": "2",
    # Checkpoints close together, so that something is there to go on from.
    "ASL_OPTIONS": "--set training.checkpoint_every=2",
}


class Cluster:
    """The client commands, each limited in time: they hang when the controller is away."""

    def __init__(self, slurm, root):
        self.environment = {**os.environ, **SETTINGS, **slurm}
        self.scripts = root / "training"

    def call(self, *words, seconds=20, status=0):
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        print("$", *words, f"\n{done.stdout}{done.stderr}-> {done.returncode}")
        if status is not None:
            assert done.returncode == status, done.stderr
        return done

    def pipeline(self, run, *words, status=0):
        script = self.scripts / "run_production_pipeline.sh"
        return self.call(
            script, "--config", "smoke", "--output-dir", run, *words, seconds=200, status=status
        )

    def states(self):
        """Return the state of every job and task by its number."""
        listed = self.call("squeue", "--noheader", "--states=all", "--array", "--format=%i %T")
        return dict(line.split() for line in listed.stdout.splitlines())

    def wait(self, until, seconds, what):
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"{what}: not within {seconds} s; {self.states()}"
            time.sleep(0.5)

    def idle(self):
        return not self.call("squeue", "--noheader").stdout.strip()


@pytest.fixture
def cluster(slurm, root):
    return Cluster(slurm, root)


def numbers(result):
    """Return the job numbers that a submission tells, by name."""
    return {
        name: re.search(rf"{name} ([0-9]+)", result.stderr)[1]
        for name in ("phantoms: array", "training: array", "validation: job", "export: job")
        if name in result.stderr
    }


def steps(run, member):
    """Return the steps of a member's curve that validations were made at."""
    with (run / f"logs/member_{member}/metrics.csv").open() as source:
        return [int(row[0]) for row in csv.reader(source) if row[1] == "val/loss"]


@pytest.mark.slurm
@pytest.mark.timeout(1150)
def test_pipeline_goes_on_after_a_time_limit_and_after_a_cancelled_job(cluster, tmp_path):
    run = tmp_path / "run"
    first = cluster.pipeline(run)
    job = numbers(first)
    assert set(job) == {"phantoms: array", "training: array", "validation: job", "export: job"}
    again = cluster.pipeline(run, status=2)
    assert "still in the queue" in again.stderr

    # Member 0 gets the signal that SLURM sends before the time limit, member 1 is cancelled.
    training = job["training: array"]
    checkpoints = [run / f"checkpoints/member_{member}/last.ckpt" for member in (0, 1)]
    cluster.wait(lambda: all(c.is_file() for c in checkpoints), 400, "two checkpoints")
    cluster.call("scancel", "--batch", "--signal=USR1", f"{training}_0")
    cluster.call("scancel", f"{training}_1")
    out = run / "slurm.out"
    cluster.wait(lambda: "member 0 goes back into the queue" in out.read_text(), 100, "requeue")
    cluster.wait(lambda: f"job {training}_0 restart 1" in out.read_text(), 200, "the restart")
    cluster.wait(cluster.idle, 400, "the end of the first jobs")
    print(out.read_text(), (run / "slurm.err").read_text())
    states = cluster.states()
    assert states[f"{training}_0"] == "COMPLETED"
    assert states[f"{training}_1"] == "CANCELLED"
    # Nothing is made of half an ensemble.
    assert states[job["validation: job"]] == states[job["export: job"]] == "CANCELLED"
    assert not (run / "model").exists()
    # One curve, no step twice, none missing.
    assert steps(run, 0) == [19, 39, 59]

    done_at = (run / "trained_models/ensemble_model_0.pt").stat().st_mtime_ns
    second = numbers(cluster.pipeline(run, "--train-only"))
    assert "phantoms: array" not in second
    cluster.wait(cluster.idle, 500, "the end of the second jobs")
    print(out.read_text(), (run / "slurm.err").read_text())
    states = cluster.states()
    assert states[f"{second['training: array']}_1"] == "COMPLETED"
    assert states[second["validation: job"]] == states[second["export: job"]] == "COMPLETED"
    assert (run / "trained_models/ensemble_model_0.pt").stat().st_mtime_ns == done_at
    assert steps(run, 1) == [19, 39, 59]
    assert (run / "validation_results/llm_analysis_report.md").is_file()
    assert (run / "model/model.json").is_file()
    assert (run / "onnx/member-1.onnx").is_file()
    for name in ("config.yaml", "norm_stats.json", "research_config.json", "slurm.out"):
        assert (run / name).is_file()
    assert "Traceback" not in (run / "slurm.err").read_text()


def test_scripts_are_clean(root):
    """Shellcheck finds nothing."""
    folder = Path(sys.executable).parent
    tool = shutil.which("shellcheck", path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.skip("shellcheck is not installed: it comes with the test extra")
    scripts = sorted((root / "training").glob("*.sh"))
    assert len(scripts) == 5
    done = subprocess.run(
        [tool, "-x", "-P", root / "training", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--confg", "smoke"], "expected --train-only"),
        (["--config"], "expected a value"),
        (["--config", "smok"], "did you mean smoke"),
    ],
)
def test_wrong_options_are_told_before_anything_is_submitted(root, tmp_path, words, message):
    done = subprocess.run(
        [root / "training" / "run_production_pipeline.sh", *words],
        env={**os.environ, **SETTINGS, "ASL_OUTPUT": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr


def test_help_tells_the_options(root):
    done = subprocess.run(
        [root / "training" / "run_production_pipeline.sh", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--train-only" in done.stdout
    assert "set -euo" not in done.stdout
