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

from asl_bids_app.training.cli import main

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
@pytest.mark.timeout(1450)
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
    cluster.wait(cluster.idle, 700, "the end of the first jobs")
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
    cluster.wait(cluster.idle, 1300, "the end of the second jobs")
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


@pytest.mark.slurm
@pytest.mark.parametrize("place", ["checkout", "installed"])
@pytest.mark.parametrize("script", ["run_production_pipeline", "generate_production_data"])
def test_scripts_by_sbatch_from_any_folder(cluster, tmp_path, place, script):
    """SLURM runs a copy of the script, so it has to find its own folder."""
    folder = cluster.scripts
    if place == "installed":
        folder = tmp_path / "some where"
        assert main(["slurm-scripts", str(folder)]) == 0
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    cluster.environment |= {"ASL_CONFIG": "smoke", "ASL_OUTPUT": "../run"}
    before = set(cluster.states())
    log = elsewhere / "log"
    words = ["sbatch", "--parsable", f"--chdir={elsewhere}", f"--output={log}"]
    job = cluster.call(*words, "--mem=2G", folder / f"{script}.sh").stdout.strip()

    def ended():
        return cluster.states().get(job) in {"COMPLETED", "FAILED"}

    cluster.wait(ended, 200, "the submitting job")
    said = log.read_text()
    new = set(cluster.states()) - before - {job}
    cluster.call("scancel", *{number.split("_")[0] for number in new})
    cluster.wait(cluster.idle, 300, "the end of what was cancelled")
    assert cluster.states()[job] == "COMPLETED", said
    assert "phantoms: array" in said
    assert len({number.split("_")[0] for number in new}) == (
        5 if script == "run_production_pipeline" else 2
    )
    assert (run / "dataset").is_dir()


def test_the_scripts_of_an_installation_are_those_of_the_checkout(root, tmp_path, capsys):
    assert main(["slurm-scripts", str(tmp_path / "new")]) == 0
    told = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in told} == {path.name for path in (root / "training").glob("*.sh")}
    for path in told:
        assert path.read_bytes() == (root / "training" / path.name).read_bytes()
        assert os.access(path, os.X_OK)
    # Again is no harm; what somebody has changed is.
    assert main(["slurm-scripts", str(tmp_path / "new")]) == 0
    told[0].write_text("mine")
    capsys.readouterr()
    assert main(["slurm-scripts", str(tmp_path / "new")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told[0].name in line
    assert "another script" in line
    assert told[0].read_text() == "mine"


@pytest.mark.parametrize("name", ["common", "train_production"])
def test_a_script_without_its_folder_says_what_to_do(root, tmp_path, name):
    """As SLURM's copy where scontrol knows nothing of the job."""
    script = tmp_path / "slurm_script"
    shutil.copy(root / "training" / "train_production.sh", script)
    environment = {key: v for key, v in os.environ.items() if not key.startswith("SLURM")}
    if name == "common":
        environment["ASL_TRAINING_HOME"] = str(tmp_path)
    done = subprocess.run(
        ["bash", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "found no common.sh" in done.stderr
    assert "ASL_TRAINING_HOME" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_train_only_without_phantoms_fails_at_once(tmp_path, capfd):
    words = ["pipeline", "--config", "smoke", "--train-only", "--output-dir", str(tmp_path / "r")]
    assert main(words) == 1
    (line,) = [text for text in capfd.readouterr().err.splitlines() if "dataset" in text]
    assert "asl-train generate" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_train_only_without_phantoms_fails_before_anything_is_submitted(root, tmp_path):
    commands = tmp_path / "commands"
    commands.mkdir()
    # On the path, but of this checkout; sbatch must never be called.
    for name, code in (
        ("asl-train", f'exec "{sys.executable}" -m asl_bids_app.training.cli "$@"'),
        ("sbatch", f'touch "{tmp_path}/submitted"'),
    ):
        (commands / name).write_text(f"#!/bin/bash\n{code}\n")
        (commands / name).chmod(0o755)
    done = subprocess.run(
        [root / "training/run_production_pipeline.sh", "--config", "smoke", "--train-only"],
        env={
            **os.environ,
            "ASL_VENV": "",
            "PYTHONPATH": str(root),
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "production_model_v1/dataset/train/" in line
    assert "asl-train generate" in line
    assert not (tmp_path / "submitted").exists()
    assert not (tmp_path / "production_model_v1").exists()


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
