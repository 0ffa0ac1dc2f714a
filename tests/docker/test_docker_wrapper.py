"""`asl-docker`: what it hands to Docker, what it refuses, and what it says without a daemon."""

import configparser
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from asl_bids_app import __version__
from asl_bids_app.cli.parser import build_parser, parse
from asl_bids_app.docker import wrapper
from asl_bids_app.docker.arguments import links_outside, read_command
from asl_bids_app.docker.container import ContainerRun
from asl_bids_app.options.readers import pair, path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a dataset, in which the command is given."""
    (tmp_path / "bids" / "sub-01" / "perf").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASL_APP_IMAGE", raising=False)
    return tmp_path


def printed(capsys, *arguments):
    assert wrapper.main(["--print-command", *arguments]) == 0
    return capsys.readouterr().out.strip()


def words(capsys, *arguments):
    return printed(capsys, *arguments).split()


def mounts(line):
    """Return path -> mode of every -v of a `docker run`; both sides must be equal."""
    found = {}
    for source, target, mode in re.findall(r"-v (\S+?):(\S+?):(\w+)", line):
        assert source == target
        found[source] = mode
    return found


def test_the_plain_command(place, capsys):
    line = printed(capsys, "bids", "out", "participant")
    user = f"{os.getuid()}:{os.getgid()}"
    assert line == (
        "docker run --rm --init --network=none --read-only --tmpfs=/tmp "
        f"--user={user} -v {place}/bids:{place}/bids:ro -v {place}/out:{place}/out:rw "
        f"-v {place}/work:{place}/work:rw asl-app:{__version__} {place}/bids {place}/out "
        f"participant --work-dir {place}/work"
    )
    assert not (place / "out").exists(), "printing must not make folders"


def test_the_app_in_the_container_reads_the_same_command(place, capsys):
    """The passed arguments, read by the app itself, mean what the given ones meant."""
    (place / "mask.nii.gz").touch()
    (place / "deriv").mkdir()
    (place / "filter.json").write_text("{}")
    (place / "options.yaml").write_text("t1-blood: 1.7\nno-hmc: true\nbrain-mask: mask.nii.gz\n")
    text = (
        "bids out participant -vv --participant-label sub-01 02 --session_label a -d x=deriv "
        "--labeling-efficiency PCASL=0.8 VSASL=0.5 --no-tta --mem 8G --n-cpus 3 --m0_scale 2 "
        "--config-file options.yaml --bids-filter-file filter.json --run-report rec/run.json "
        "--bids-database-dir db --device cpu --estimator least-squares --random-seed 3 "
        "--stop-on-first-crash -w w"
    )
    given = text.split()
    expected = parse(given)
    command = read_command(given)
    os.chdir("/")  # the container's folder is another
    assert parse(command.arguments) == expected
    os.chdir(place)
    assert mounts(printed(capsys, *given)) == {
        f"{place}/{name}": mode
        for name, mode in {
            "bids": "ro",
            "out": "rw",
            "w": "rw",
            "deriv": "ro",
            "mask.nii.gz": "ro",
            "filter.json": "ro",
            "options.yaml": "ro",
            "rec": "rw",
            "db": "rw",
        }.items()
    }


def test_every_path_option_of_the_app_is_mounted(place):
    """A new option of the app whose value is a path can't be forgotten."""
    (place / "a").mkdir()
    (place / "f").write_text("{}")
    for action in build_parser()._actions:
        if action.type not in {path, pair} or not action.option_strings:
            continue
        name = action.option_strings[0]
        value = {"derivatives": "n=a", "bids_database_dir": "a"}.get(action.dest, "f")
        value = "a" if action.dest in {"work_dir", "propose_sidecars"} else value
        command = read_command(["bids", "out", "participant", name, value])
        target = place / value.removeprefix("n=")
        covered = [m.path for m in command.mounts]
        assert any(m == target or m in target.parents for m in covered), name


def test_model_by_name_and_by_folder(place, capsys):
    (place / "mine").mkdir()
    line = printed(capsys, "bids", "out", "participant", "--model", "mine")
    assert mounts(line)[f"{place}/mine"] == "ro"
    assert line.endswith(f"--model {place}/mine")
    assert printed(capsys, "bids", "out", "participant", "--model", "v1").endswith("--model v1")
    assert wrapper.main(["--print-command", "bids", "out", "participant", "--model", "./no"]) == 1
    assert "--model: found ./no" in capsys.readouterr().err


def test_output_inside_the_dataset_is_mounted_writable_after_it(place, capsys):
    line = printed(capsys, "bids", "bids/derivatives/asl", "participant", "-w", "w")
    assert list(mounts(line).items()) == [
        (f"{place}/bids", "ro"),
        (f"{place}/w", "rw"),
        (f"{place}/bids/derivatives/asl", "rw"),
    ]


def test_what_lies_in_a_mounted_folder_needs_no_mount(place, capsys):
    (place / "bids" / "mask.nii.gz").touch()
    line = printed(
        capsys, "bids", "out", "participant", "-w", "out/w", "--brain-mask", "bids/mask.nii.gz"
    )
    assert list(mounts(line)) == [f"{place}/bids", f"{place}/out"]


def test_steps_up_are_resolved(place, capsys):
    (place / "a").mkdir()
    line = printed(capsys, "a/../bids", "out", "group")
    assert mounts(line) == {f"{place}/bids": "ro", f"{place}/out": "rw"}
    assert ".." not in line


def test_gpu_user_and_image(place, capsys, monkeypatch):
    run = ["bids", "out", "participant"]
    assert "--gpus=all" in words(capsys, *run, "--device", "cuda:1")
    assert not [w for w in words(capsys, *run, "--device", "cpu") if "gpus" in w]
    assert "--gpus=2" in words(capsys, *run, "--gpus", "2")
    # Docker reads the value as CSV: the quotes have to reach it.
    assert "'--gpus=\"device=0,1\"'" in words(capsys, *run, "--gpus", "device=0,1")
    assert "--user=0:0" in words(capsys, *run, "--user", "0:0")
    monkeypatch.setenv("ASL_APP_IMAGE", "lab/asl:7")
    assert "lab/asl:7" in words(capsys, *run)
    assert "other:1" in words(capsys, "--image", "other:1", *run)


def test_dry_run_needs_no_output_folder(place, capsys):
    line = printed(capsys, "bids", "out", "participant", "--dry-run")
    assert mounts(line) == {f"{place}/bids": "ro"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out", "participant"], "nowhere: found no folder"),
        (["bids", "bids/out", "participant"], "inside the raw data"),
        (["bids", "out", "participant", "--brain-mask", "no.nii"], "found no file"),
        (["bids", "out", "participant", "--t1-blood", "1650"], "expected 0.5 to 4"),
        (["--gpus", "many", "bids", "out", "participant"], "found 'many', expected all"),
        (["--user", "me", "bids", "out", "participant"], "expected numbers UID:GID"),
    ],
)
def test_wrong_commands_end_before_docker(place, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        wrapper.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("output", ["/usr/share/asl", "/etc", "/tmp", "/"])
def test_folders_of_the_image_are_not_hidden(place, capsys, output):
    assert wrapper.main(["bids", output, "participant", "-w", "w"]) == 1
    assert "in a folder of the system" in capsys.readouterr().err


def test_names_that_docker_cannot_mount(place, capsys):
    (place / "a:b").mkdir()
    assert wrapper.main(["a:b", "out", "participant"]) == 1
    assert "character that Docker can't mount" in capsys.readouterr().err


def test_links_out_of_the_dataset_are_found(place):
    outside = place / "store"
    outside.mkdir()
    perf = place / "bids" / "sub-01" / "perf"
    (perf / "inside").symlink_to("../../sub-01")
    (perf / "away.nii.gz").symlink_to("../../../store/a.nii.gz")
    (place / "bids" / "sub-02").symlink_to(outside)
    command = read_command(["bids", "out", "participant"])
    assert {link.name for link in links_outside(command)} == {"away.nii.gz", "sub-02"}
    command = read_command(["bids", "out", "participant", "-d", "store=store"])
    assert links_outside(command) == []


def test_settings_for_the_sdk_say_the_same_as_the_command(place):
    pytest.importorskip("docker", reason="the docker extra is not installed")
    command = read_command(["bids", "out", "participant"])
    run = ContainerRun("i:1", command.arguments, command.mounts, "5:6", "device=0,2")
    settings = run.settings()
    assert settings["volumes"] == {
        str(p): {"bind": str(p), "mode": mode}
        for p, mode in ((place / "bids", "ro"), (place / "out", "rw"), (place / "work", "rw"))
    }
    assert settings["user"] == "5:6"
    assert settings["read_only"] is True
    assert settings["network_mode"] == "none"
    assert settings["device_requests"][0]["DeviceIDs"] == ["0", "2"]


def test_without_the_docker_package(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    assert wrapper.main(["bids", "out", "participant"]) == 1
    error = capsys.readouterr().err
    assert "pip install 'asl-bids-app[docker]'" in error
    assert len(error.strip().splitlines()) == 1


def test_without_a_daemon(place, capsys, monkeypatch):
    pytest.importorskip("docker", reason="the docker extra is not installed")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}/no.sock")
    assert wrapper.main(["bids", "out", "participant"]) == 1
    error = capsys.readouterr().err
    assert "found no Docker daemon that answers" in error
    assert len(error.strip().splitlines()) == 1


class _EmptyDaemon(BaseHTTPRequestHandler):
    """A Docker daemon that has no image."""

    def do_GET(self):
        status, content = 404, {"message": "No such image"}
        if self.path.endswith("/version"):
            status, content = 200, {"ApiVersion": "1.44", "Version": "29"}
        if self.path.endswith("/_ping"):
            status, content = 200, "OK"
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def address_string(self):
        return "client"


@pytest.fixture
def empty_daemon(tmp_path_factory, monkeypatch):
    # Sockets want short names.
    socket = tmp_path_factory.mktemp("d") / "s"
    with socketserver.ThreadingUnixStreamServer(str(socket), _EmptyDaemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
        yield
        server.shutdown()


def test_without_the_image(place, capsys, empty_daemon):
    pytest.importorskip("docker", reason="the docker extra is not installed")
    assert wrapper.main(["bids", "out", "participant"]) == 1
    error = capsys.readouterr().err
    assert f"found no image asl-app:{__version__}" in error
    assert f"docker build -t asl-app:{__version__}" in error
    assert (place / "out").stat().st_uid == os.getuid(), "made before Docker could make it root's"


def test_help_and_version_need_nothing_heavy():
    code = (
        "import sys; from asl_bids_app.docker.wrapper import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('docker', 'torch', 'numpy', 'nibabel') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "--print-command" in result.stdout
    assert result.stdout.strip().endswith("[]")


def test_version_of_the_image_is_that_of_the_package(root):
    """The build checks it too; here it shows before anything is built."""
    assert f"ARG VERSION={__version__}" in (root / "Dockerfile").read_text()
    assert f"VERSION={__version__}" in (root / "singularity.def").read_text()


def test_the_image_holds_what_the_package_requires(root):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (root / "container" / "requirements.txt").read_text().splitlines()
    locked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in locked}
    assert all(str(r.specifier).startswith("==") for r in locked)
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    wanted = [Requirement(t) for t in setup["options"]["install_requires"].split("\n") if t]
    assert len(wanted) > 10
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in versions, f"container/requirements.txt lacks {name}"
        assert requirement.specifier.contains(versions[name]), str(requirement)


def locked(path):
    """Return the packages of a lock file with their versions and hashes."""
    text = path.read_text().replace("\\\n", " ")
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {row[0].partition("==")[0]: (row[0].partition("==")[2], row[1:]) for row in rows}


def test_every_package_is_locked_by_hash(root):
    """The lock files hold the versions of requirements.txt, and nothing without a hash."""
    from packaging.utils import canonicalize_name

    folder = root / "container"
    lines = (folder / "requirements.txt").read_text().splitlines()
    wanted = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    wanted = {canonicalize_name(name): version for name, version in wanted.items()}
    locks = {name: locked(folder / f"{name}.lock") for name in ("requirements", "build")}
    locks |= {name: locked(folder / f"torch-{name}.lock") for name in ("cpu", "cuda")}
    for lock in locks.values():
        for name, (version, hashes) in lock.items():
            assert hashes, name
            assert all(h.startswith("--hash=sha256:") and len(h) == 78 for h in hashes), name
            assert version.removesuffix("+cpu") == wanted.get(name, version), name
    for build in ("cpu", "cuda"):
        held = {**locks["requirements"], **locks["build"], **locks[build]}
        assert set(wanted) <= set(held)
    assert set(locks["cpu"]) == {"torch"}
    assert any(name.startswith("nvidia-") for name in locks["cuda"])


def test_one_command_pins_the_base_image_of_all_recipes(root, tmp_path):
    recipes = ("Dockerfile", "singularity.def", "container/neurodesk/build.yaml")
    for name in (*recipes, "container/pin_base.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    script = ["sh", str(tmp_path / "container" / "pin_base.sh")]
    for digit in "ab":  # the second digest takes the place of the first
        subprocess.run([*script, f"sha256:{64 * digit}"], check=True, capture_output=True)
    texts = [(tmp_path / name).read_text() for name in recipes]
    assert "ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:bbb" in texts[0]
    assert f"    BASE=python@sha256:{64 * 'b'}\n" in texts[1]
    assert f"  base-image: python:3.11-slim-bookworm@sha256:{64 * 'b'}\n" in texts[2]
    assert not any("aaa" in text for text in texts)
    wrong = subprocess.run([*script, "latest"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "found 'latest', expected sha256:" in wrong.stderr


def test_the_recipe_for_neurodesk_is_of_this_version_and_has_its_files(root):
    import yaml

    folder = root / "container" / "neurodesk"
    recipe = yaml.safe_load((folder / "build.yaml").read_text())
    tests = yaml.safe_load((folder / "fulltest.yaml").read_text())
    assert {recipe["version"], tests["version"]} == {__version__}
    assert recipe["variables"]["prefix"].endswith(__version__)
    names = {item["filename"] for item in recipe["files"]}
    assert f"asl_bids_app-{__version__}-py3-none-any.whl" in names
    assert all((root / "container" / name).exists() for name in names if "whl" not in name)
    copied = subprocess.run(
        ["make", "-n", "-C", root, "neurodesk"], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in copied for name in names if "whl" not in name)
    [run] = [step["run"] for step in recipe["build"]["directives"] if "run" in step]
    assert all(f'get_file("{name}")' in "".join(run) for name in names)


def test_the_build_context_has_what_the_build_needs(root):
    """What .dockerignore lets through is what is tracked and copied."""
    kept = [
        line[1:]
        for line in (root / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert all((root / name).exists() for name in kept)
    assert {"asl_bids_app", "container", "setup.cfg", "pyproject.toml", "README.md"} <= set(kept)
    definition = (root / "singularity.def").read_text()
    files = re.search(r"%files\n(.*?)\n\n", definition, re.DOTALL)[1]
    assert {line.split()[0] for line in files.splitlines()} == set(kept)
    assert Path(root / "container" / "install.sh").is_file()
