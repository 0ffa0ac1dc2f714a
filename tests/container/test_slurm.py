"""The SLURM scripts of docs/hpc on a real cluster of one node."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from shell import call

pytestmark = pytest.mark.timeout(1500)


def simulate(folder, *cases):
    """Write a small dataset."""
    command = [sys.executable, "-m", "asl_bids_app.demo", folder, "--cases", *cases]
    assert call([*command, "--voxel-scale", "2"], 300).returncode == 0


@pytest.fixture
def cohort(tmp_path):
    """Three small participants, the image of one cut off in the middle; one without ASL."""
    bids = tmp_path / "bids"
    simulate(bids, "joint", "pcasl", "pasl")
    [image] = (bids / "sub-02" / "perf").glob("*_asl.nii.gz")
    shutil.copy(image, tmp_path / "whole.nii.gz")
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    (bids / "sub-anat" / "anat").mkdir(parents=True)
    (bids / "sub-anat" / "anat" / "sub-anat_T1w.json").write_text("{}")
    return bids


def submit(root, slurm, tmp_path, *words, **settings):
    return call([root / "docs" / "hpc" / "submit.sh", *words], 120, tmp_path, **slurm, **settings)


def wait(slurm, seconds):
    """Wait until no job is left in the queue."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = call(["timeout", "10", "squeue", "--noheader"], 20, **slurm)
        if left.returncode == 0 and not left.stdout.strip():
            return
        time.sleep(2)
    pytest.fail(f"jobs still run after {seconds} s:\n{left.stdout}")


def states(slurm, job):
    """Return the state of every task of an array."""
    command = ["timeout", "10", "squeue", "--noheader", "--states=all", "--format=%K %T"]
    listed = call([*command, f"--jobs={job}"], 20, **slurm)
    return dict(sorted(line.split() for line in listed.stdout.splitlines()))


def job_id(output, word):
    return re.search(rf"{word}(?:: job)? ([0-9]+)", output)[1]


def check_array(root, slurm, cohort, tmp_path, command, image):
    """One task fails; the group level waits; only the failed one is run again."""
    out = tmp_path / "out"
    words = [image, cohort, out, "--estimator", "least-squares"]
    settings = {"APPTAINER": str(command), "ASL_MAX_TASKS": "2"}
    first = submit(root, slurm, tmp_path, *words, **settings)
    assert first.returncode == 0
    assert "3 participants" in first.stdout
    assert "without ASL, left out: sub-anat" in first.stdout
    early = submit(root, slurm, tmp_path, "--failed", *words, **settings)
    assert early.returncode == 2
    assert "still running or waiting" in early.stderr
    wait(slurm, 900)
    logs = sorted(out.glob("logs/slurm/*/task-*.log"))
    print("\n".join(f"== {log}\n{log.read_text()}" for log in logs))
    assert states(slurm, job_id(first.stdout, "array")) == {
        "1": "COMPLETED",
        "2": "FAILED",
        "3": "COMPLETED",
    }
    assert states(slurm, job_id(first.stdout, "group level")) == {"N/A": "CANCELLED"}
    assert not (out / "group_cbf.tsv").exists()
    assert "sub-02" in logs[1].read_text()
    assert "Traceback" not in logs[1].read_text()
    assert sorted(p.name for p in (out / "logs/slurm/done").iterdir()) == ["sub-01", "sub-03"]
    untouched = {p: p.stat().st_mtime_ns for p in out.glob("sub-01/perf/*")}
    assert untouched

    [image_file] = (cohort / "sub-02" / "perf").glob("*_asl.nii.gz")
    shutil.copy(tmp_path / "whole.nii.gz", image_file)
    second = submit(root, slurm, tmp_path, "--failed", *words, **settings)
    assert "1 participants" in second.stdout
    wait(slurm, 900)
    for log in sorted(out.glob("logs/slurm/*/*.log")):
        print(f"== {log}\n{log.read_text()}")
    assert states(slurm, job_id(second.stdout, "array")) == {"1": "COMPLETED"}
    assert states(slurm, job_id(second.stdout, "group level")) == {"N/A": "COMPLETED"}
    assert {p: p.stat().st_mtime_ns for p in untouched} == untouched
    table = (out / "group_cbf.tsv").read_text().splitlines()
    assert len({line.split("\t")[0] for line in table[1:]}) == 3
    third = submit(root, slurm, tmp_path, "--failed", *words, **settings)
    assert (third.returncode, third.stdout) == (0, "nothing to do: all participants succeeded\n")


@pytest.mark.container
def test_array_of_the_apptainer_image(root, slurm, cohort, tmp_path, apptainer, sif):
    check_array(root, slurm, cohort, tmp_path, apptainer, sif.path)


@pytest.mark.slurm
def test_array_of_the_plain_installation(root, slurm, cohort, tmp_path):
    """The same with a stand-in that runs the plain app: it takes the binds off."""
    command = tmp_path / "apptainer"
    command.write_text(
        "#!/bin/bash\n"
        'while [ "$1" != image.sif ]; do shift; done; shift\n'
        f'exec "{sys.executable}" -m asl_bids_app.cli.app "$@"\n'
    )
    command.chmod(0o755)
    (tmp_path / "image.sif").touch()
    wrapper = command.read_text().replace("image.sif", str(tmp_path / "image.sif"))
    command.write_text(wrapper)
    check_array(root, slurm, cohort, tmp_path, command, tmp_path / "image.sif")


def stub(folder, name, code):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def queue(tmp_path):
    """Stand-ins for the commands of SLURM, which write down what they are asked."""
    folder = tmp_path / "commands"
    folder.mkdir()
    stub(folder, "sbatch", f'echo "$@" >>"{tmp_path}/asked"; echo 7')
    stub(folder, "squeue", "")
    (tmp_path / "image.sif").touch()
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_participants_without_asl_get_no_task(root, queue, tmp_path):
    bids = tmp_path / "bids"
    (bids / "sub-a" / "anat").mkdir(parents=True)
    (bids / "sub-b" / "ses-1" / "perf").mkdir(parents=True)
    (bids / "sub-b" / "ses-1" / "perf" / "sub-b_ses-1_asl.nii.gz").touch()
    (bids / "sub-c" / "perf").mkdir(parents=True)
    # As DataLad leaves what has not been fetched.
    (bids / "sub-c" / "perf" / "sub-c_asl.nii.gz").symlink_to("../../.git/annex/nowhere")
    words = [tmp_path / "image.sif", bids, tmp_path / "out"]
    done = submit(root, queue, tmp_path, *words)
    assert done.returncode == 0
    assert "without ASL, left out: sub-a\n" in done.stdout
    assert "2 participants" in done.stdout
    assert "--array=1-2%50" in (tmp_path / "asked").read_text()
    state = tmp_path / "out" / "logs" / "slurm"
    for name in ("participants", "all"):
        (listed,) = state.glob(f"*/{name}")
        assert listed.read_text() == "b\nc\n"
    # None of them succeeded; the one without ASL is not among those that come back.
    again = submit(root, queue, tmp_path, "--failed", *words)
    assert "2 participants" in again.stdout

    shutil.rmtree(bids / "sub-b")
    shutil.rmtree(bids / "sub-c")
    nobody = submit(root, queue, tmp_path, *words)
    assert (nobody.returncode, nobody.stdout.count("\n")) == (2, 1)
    assert "found no ASL image" in nobody.stderr
    (tmp_path / "list").write_text("sub-a\nx\n")
    unknown = submit(root, queue, tmp_path, *words, ASL_PARTICIPANTS=str(tmp_path / "list"))
    assert unknown.returncode == 2
    assert "found no folder sub-x" in unknown.stderr


def test_the_index_is_made_once_and_copied_by_each_task(root, queue, tmp_path):
    """submit.sh has the app make it; a task hands a copy of its own to the app."""
    bids = tmp_path / "bids"
    for label in ("a", "b"):
        (bids / f"sub-{label}" / "perf").mkdir(parents=True)
        (bids / f"sub-{label}" / "perf" / f"sub-{label}_asl.nii.gz").touch()
    app = stub(
        tmp_path,
        "apptainer",
        f'echo "$@" >>"{tmp_path}/calls"\n'
        "while [ $# -gt 0 ]; do\n"
        'if [ "$1" = --bids-database-dir ]; then index=$2; fi; shift; done\n'
        '[ -z "${index:-}" ] || { mkdir -p "$index"; echo x >"$index/layout_index.sqlite"; }',
    )
    words = [tmp_path / "image.sif", bids, tmp_path / "out"]
    assert submit(root, queue, tmp_path, *words, APPTAINER=str(app)).returncode == 0
    [made] = (tmp_path / "calls").read_text().splitlines()
    assert "--dry-run --bids-database-dir" in made
    assert "--participant-label a" in made
    [folder] = (tmp_path / "out" / "logs" / "slurm").glob("*/index")
    assert (folder / "layout_index.sqlite").read_text() == "x\n"

    (tmp_path / "marks").mkdir()
    words = [folder.parent / "participants", tmp_path / "marks", *words, "--no-hmc"]
    task = {"APPTAINER": str(app), "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "7"}
    command = [root / "docs" / "hpc" / "participant.sh", *words]
    assert call(command, 60, **task, ASL_WORK=str(tmp_path / "work")).returncode == 0
    asked = (tmp_path / "calls").read_text().splitlines()[-1]
    assert f"--bids-database-dir {tmp_path}/work/sub-b/.index" in asked
    assert asked.endswith("--keep-work failed --no-hmc")
    assert not (tmp_path / "work" / "sub-b" / ".index").exists()

    # Where images can't be run when the array is submitted, or nobody wants it, there is none.
    for settings in ({"APPTAINER": "false"}, {"APPTAINER": str(app), "ASL_INDEX": "none"}):
        out = tmp_path / settings.get("ASL_INDEX", "unable")
        words = [tmp_path / "image.sif", bids, out]
        assert submit(root, queue, tmp_path, *words, **settings).returncode == 0
        assert not list(out.glob("logs/slurm/*/index"))
        call([*command[:1], *out.glob("logs/slurm/*/participants"), *command[2:]], 60, **task)
        asked = (tmp_path / "calls").read_text().splitlines()[-1]
        assert "--bids-database-dir" not in asked


@pytest.mark.parametrize(
    ("record", "status", "marked"),
    [('"status": "no ASL"', 0, True), ('"status": "failed"', 1, False), ("", 1, False)],
)
def test_a_task_whose_filters_leave_no_asl_has_nothing_to_do(
    root, tmp_path, record, status, marked
):
    """The app's record decides, that of this very run."""
    out = tmp_path / "out"
    old, new = out / "logs" / "old", out / "logs" / "new"
    for folder in (old, new, tmp_path / "marks"):
        folder.mkdir(parents=True)
    (old / "sub-1.json").write_text('{\n  "status": "no ASL"\n}')
    os.utime(old / "sub-1.json", (1e9, 1e9))
    write = f"echo '{{{record}}}' >'{new}/sub-1.json'" if record else ":"
    app = stub(tmp_path, "apptainer", f"sleep 0.1; {write}; exit 1")
    (tmp_path / "list").write_text("0\n1\n")
    words = ["list", "marks", "image.sif", "bids", "out"]
    done = call(
        [root / "docs" / "hpc" / "participant.sh", *(tmp_path / word for word in words)],
        60,
        APPTAINER=str(app),
        SLURM_ARRAY_TASK_ID="2",
        SLURM_JOB_ID="7",
    )
    assert done.returncode == status
    assert (tmp_path / "marks" / "sub-1").exists() == marked


@pytest.mark.slurm
def test_steps_as_jobs(root, slurm, tmp_path):
    """Nipype's SLURM plugin by --use-plugin, with the settings of the documentation."""
    simulate(tmp_path / "bids", "pcasl")
    before = states_of_all(slurm)
    app = [sys.executable, "-m", "asl_bids_app.cli.app", tmp_path / "bids", tmp_path / "out"]
    options = ["-w", tmp_path / "work", "--estimator", "least-squares"]
    plugin = ["--use-plugin", root / "docs" / "hpc" / "nipype-slurm.yaml"]
    result = call([*app, "participant", *options, *plugin], 600, LOGNAME="tester", **slurm)
    assert result.returncode == 0
    assert list((tmp_path / "out" / "sub-02" / "perf").glob("*_cbf.nii.gz"))
    jobs = states_of_all(slurm) - before
    assert len(jobs) >= 4
    assert {state for _, state in jobs} == {"COMPLETED"}


def states_of_all(slurm):
    listed = call(
        ["timeout", "10", "squeue", "--noheader", "--states=all", "--format=%i %T"], 20, **slurm
    )
    return {tuple(line.split()) for line in listed.stdout.splitlines()}


def test_scripts_are_clean(root):
    """shellcheck finds nothing; neither does hadolint."""
    scripts = [*(root / "docs" / "hpc").glob("*.sh"), root / "container" / "install.sh"]
    assert len(scripts) >= 4
    tools = Path(sys.executable).parent
    for name, files in (("shellcheck", scripts), ("hadolint", [root / "Dockerfile"])):
        tool = shutil.which(name, path=f"{tools}{os.pathsep}{os.environ['PATH']}")
        if tool is None:
            pytest.skip(f"{name} is not installed: it comes with the test extra")
        result = subprocess.run([tool, *files], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout


def test_examples_are_yaml_with_known_options(root):
    """The example for BABS names only options that the app has."""
    from asl_bids_app.cli.parser import build_parser

    known = {name for action in build_parser()._actions for name in action.option_strings}
    babs = yaml.safe_load((root / "docs" / "hpc" / "babs.yaml").read_text())
    given = {name for name in babs["bids_app_args"] if name.startswith("-")}
    assert given
    assert given <= known
    plugin = yaml.safe_load((root / "docs" / "hpc" / "nipype-slurm.yaml").read_text())
    assert plugin["plugin"] == "SLURM"
