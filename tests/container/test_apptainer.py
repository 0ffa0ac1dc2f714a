"""The Apptainer image: built from the definition file, run as a cluster runs it."""

import json

import pytest
from shell import call

from asl_bids_app import __version__

pytestmark = [pytest.mark.container, pytest.mark.timeout(1500)]


def binds(example, folder):
    (folder / "out").mkdir()
    (folder / "work").mkdir()
    return [
        *("--bind", f"{example}:/bids_dir:ro"),
        *("--bind", f"{folder / 'out'}:/out"),
        *("--bind", f"{folder / 'work'}:/work"),
    ]


def test_the_build_ran_the_test_of_the_definition(sif):
    print(f"{sif.path.stat().st_size / 1e9:.2f} GB, built in {sif.seconds:.0f} s")
    assert "1 of 1 participants complete" in sif.log


def test_labels_and_help(apptainer, sif):
    labels = call([apptainer, "inspect", "--json", sif.path], 120, sif.path.parent).stdout
    labels = json.loads(labels)["data"]["attributes"]["labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert "asl-app" in call([apptainer, "run-help", sif.path], 120, sif.path.parent).stdout


def test_run_and_exec(apptainer, sif):
    run = call([apptainer, "run", "--containall", sif.path, "--version"], 120, sif.path.parent)
    execute = call(
        [apptainer, "exec", "--containall", sif.path, "asl-app", "--version"], 120, sif.path.parent
    )
    assert run.stdout == execute.stdout == f"asl-app {__version__}\n"


def test_the_hosts_python_stays_outside(apptainer, sif, tmp_path):
    """A module of the user's must not shadow one of the image."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "numpy.py").write_text("raise SystemExit('the wrong numpy')\n")
    code = "import numpy, asl_bids_app; print(asl_bids_app.__file__)"
    command = [apptainer, "exec", sif.path, "python", "-c", code]
    result = call(command, 120, tmp_path, PYTHONPATH=str(mine))
    assert result.returncode == 0
    assert result.stdout.startswith("/opt/asl-app/")


def test_maps_are_those_of_the_plain_installation(
    apptainer, sif, example, plain, one_thread, assert_same_maps, tmp_path
):
    """Read-only, contained, without network and home."""
    run = [apptainer, "run", "--containall", "--no-home", "--net", "--network=none"]
    run += [word for setting in one_thread for word in ("--env", setting)]
    words = ["/bids_dir", "/out", "participant", "-w", "/work", "--nprocs", "1"]
    result = call([*run, *binds(example, tmp_path), sif.path, *words], 900, tmp_path)
    assert result.returncode == 0
    assert_same_maps(plain[0], tmp_path / "out")
    print(f"plain {plain[1]:.1f} s, contained {result.seconds:.1f} s")
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Container"] == {
        "Type": "apptainer",
        "Tag": f"asl-app:{__version__}",
    }
