"""The Docker image: what it is, and that it computes what a plain installation computes."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shell import call

from asl_bids_app import __version__

pytestmark = [pytest.mark.container, pytest.mark.timeout(1500)]

STRANGER = 4321
"""A user whom neither the image nor this machine knows."""

CLOSED = ("--read-only", "--tmpfs=/tmp", f"--user={STRANGER}:{STRANGER}", "--cap-drop=all")
"""Nothing of the image can be written to, and nothing of root is left."""


def owned_by_stranger(folder):
    """Make a folder that the stranger may write to."""
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    return folder


@pytest.fixture(scope="module")
def contained(image, example, one_thread, tmp_path_factory):
    """The same by the image: nothing but three mounts, no network, a stranger as user."""
    folder = tmp_path_factory.mktemp("contained")
    folder.chmod(0o755)
    out, work = owned_by_stranger(folder / "out"), owned_by_stranger(folder / "work")
    mounts = ["-v", f"{example}:/bids_dir:ro", "-v", f"{out}:/out", "-v", f"{work}:/work"]
    words = ["/bids_dir", "/out", "participant", "-w", "/work", "--nprocs", "1"]
    settings = [f"--env={setting}" for setting in one_thread]
    result = image.run(*words, options=[*CLOSED, *settings, *mounts])
    assert result.returncode == 0
    return out, result


def test_image_is_small(image, engine):
    listed = call(["podman", "image", "inspect", image.tag], 60, **engine.environment)
    facts = json.loads(listed.stdout)[0]
    print(f"size {facts['Size'] / 1e9:.2f} GB, built in {image.seconds:.0f} s")
    assert facts["Size"] < 1.8e9
    assert facts["Config"]["Labels"]["org.opencontainers.image.version"] == __version__
    assert facts["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert facts["Config"]["User"] not in {"", "0", "root"}
    assert facts["Config"]["Entrypoint"] == ["asl-app"]


def test_nothing_of_the_build_machine_stays(image):
    places = ["/etc", "/opt/asl-app/pyvenv.cfg", "/tmp", "/work"]
    result = image.run(
        "-rlE", "find-links|extra-index-url", *places, options=["--entrypoint=grep", "--user=0"]
    )
    assert result.returncode == 1, "grep has read everything and found nothing"
    assert result.stdout == ""


def test_it_starts(image):
    started = image.run("--version", options=["--read-only"])
    assert started.returncode == 0
    print(f"start: {started.seconds:.1f} s")


def test_maps_are_those_of_the_plain_installation(plain, contained, assert_same_maps):
    assert_same_maps(plain[0], contained[0])
    print(f"plain {plain[1]:.1f} s, contained {contained[1].seconds:.1f} s")


def test_no_complaints(contained):
    """Caches that can't be written are a common cause of warnings in containers."""
    output = contained[1].stdout + contained[1].stderr
    for word in ("matplotlib", "cache", "Permission", "Read-only", "HOME", "getpwuid"):
        assert word not in output


def test_provenance_names_the_image(contained):
    description = json.loads((contained[0] / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Container"] == {
        "Type": "docker",
        "Tag": f"asl-app:{__version__}",
    }


def test_files_belong_to_the_user(contained):
    owners = {path.stat().st_uid for path in Path(contained[0]).rglob("*")}
    assert owners == {STRANGER}


def test_group_level(image, contained, example):
    mounts = ["-v", f"{example}:/bids_dir:ro", "-v", f"{contained[0]}:/out"]
    result = image.run("/bids_dir", "/out", "group", options=[*CLOSED, *mounts])
    assert result.returncode == 0
    assert (contained[0] / "group_cbf.tsv").is_file()


def test_unwritable_output_is_told_in_one_line(image, example, tmp_path):
    (tmp_path / "out").mkdir(mode=0o755)
    mounts = ["-v", f"{example}:/bids_dir:ro", "-v", f"{tmp_path}/out:/out"]
    words = ["/bids_dir", "/out", "participant", "-w", "/tmp/work"]
    result = image.run(*words, options=[*CLOSED, *mounts])
    assert result.returncode == 1
    assert "no way to write there" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def daemon(engine, image, tmp_path_factory):
    """Podman behind Docker's interface; gives the address that the Docker SDK is told."""
    pytest.importorskip("docker", reason="the docker extra is not installed")
    # The init process that Docker brings along is a package of its own for Podman.
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "catatonit"],
        capture_output=True,
        timeout=300,
        check=False,
    )
    address = tmp_path_factory.mktemp("d") / "s"
    environment = {**os.environ, **engine.environment}
    with subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{address}"], env=environment
    ) as service:
        while not address.exists():
            assert service.poll() is None, "podman's service has ended"
            time.sleep(0.1)
        yield f"unix://{address}"
        service.terminate()


def asl_docker(daemon, image, *words, cwd):
    wrapper = [sys.executable, "-m", "asl_bids_app.docker.wrapper", "--image", image.tag]
    return call([*wrapper, *words], 900, cwd=cwd, DOCKER_HOST=daemon)


def test_asl_docker_runs_the_image(daemon, image, example, plain, assert_same_maps, tmp_path):
    """The wrapper through the Docker SDK and a real daemon, paths as the user writes them."""
    result = asl_docker(
        daemon, image, example, "out", "participant", "-w", "work", "--nprocs", "1",
        "--participant-label", "02", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0
    assert "1 of 1 participants complete" in result.stderr
    assert_same_maps(plain[0] / "sub-02", tmp_path / "out" / "sub-02", same_threads=False)
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetLinks"]["raw"] == example.as_uri(), "a path of the machine"


def test_asl_docker_passes_the_exit_code_on(daemon, image, example, tmp_path):
    result = asl_docker(
        daemon, image, example, "out", "participant", "--participant-label", "99", cwd=tmp_path
    )
    assert result.returncode == 2, "a fault of the command line, as asl-app itself answers"
    assert "99" in result.stderr.strip().splitlines()[-1]


def test_the_printed_command_works(daemon, engine, image, example, tmp_path):
    printed = asl_docker(
        daemon, image, "--print-command", example, "out", "participant", "--dry-run", cwd=tmp_path
    ).stdout
    command = shlex.split(printed)
    assert command[:2] == ["docker", "run"]
    result = call(["podman", "run", "--pull=never", *command[2:]], 300, **engine.environment)
    assert result.returncode == 0
    assert "sub-01" in result.stdout
