"""What surrounds the code: commands, documents, the wheel, who may import whom."""

import configparser
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import asl_bids_app


def test_generated_blocks_are_up_to_date(root):
    spec = importlib.util.spec_from_file_location("generate", root / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path in [root / "README.md", *(root / "docs").glob("*.md")]:
        text = path.read_text()
        assert generate.fill(text) == text, f"{path.name}: run docs/generate.py"


@pytest.mark.parametrize("document", ["README.md", "docs/outputs.md"])
def test_every_output_is_documented(root, document):
    from asl_bids_app.bids.outputs import OUTPUTS

    documented = re.findall(
        r"^\| `(<source>[^`]*)` \|", (root / document).read_text(), re.MULTILINE
    )
    assert documented == [output.pattern for output in OUTPUTS.values()]


def test_links_between_documents_hold(root):
    for path in [root / "README.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / target).is_file(), f"{path.name}: {target}"
    nav = yaml.safe_load((root / "mkdocs.yml").read_text())["nav"]
    pages = {page for entry in nav for page in entry.values()}
    assert pages == {path.name for path in (root / "docs").glob("*.md")}


def test_version_is_told_once(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == asl_bids_app.__version__
    assert citation["license"] == "Apache-2.0"
    assert metadata.version("asl-bids-app") == asl_bids_app.__version__


def make(root, tmp_path, *arguments):
    run = subprocess.run(
        ["make", "-C", root, f"VENV={tmp_path / 'venv'}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def test_a_half_made_environment_does_not_count(root, tmp_path):
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\n[ "$2" = venv ] && mkdir -p "$3/bin" && exit 1\n'
        f'[ "$2" = virtualenv ] && exit 1\nexec {sys.executable} "$@"\n'
    )
    fake.chmod(0o755)
    status, said = make(root, tmp_path, f"PYTHON={fake}", "test")
    assert status != 0
    assert re.search(r"apt-get install python3\.\d+-venv", said)
    assert not (tmp_path / "venv").exists()


def test_an_old_python_is_refused(root, tmp_path):
    status, said = make(root, tmp_path, "PYTHON=/bin/false", "demo")
    assert status != 0
    assert "Python 3.11 or newer" in said


def test_stamp_is_made_last(root, tmp_path):
    """A failing installation leaves no stamp."""
    status, said = make(root, tmp_path, "-n", "test")
    assert status == 0
    lines = said.splitlines()
    stamp = next(i for i, line in enumerate(lines) if "touch" in line and "installed-app" in line)
    assert stamp > next(i for i, line in enumerate(lines) if "install -q -e ." in line)
    assert "torch==" in said


CI_MAKEFILE = "test:\n\t@echo tested\nlint:\n\t@false\nwheel docs demo:\n\t@true\n"


@pytest.mark.parametrize(
    ("stages", "status", "said"),
    [
        (["test", "docs"], 0, r"test +\d+  passed"),
        (["test", "lint"], 1, r"lint +\d+  FAILED: exit status 2"),
        (["nonsense"], 2, "no stage named nonsense"),
    ],
)
def test_ci_run_fails_if_a_stage_fails(root, tmp_path, stages, status, said):
    (tmp_path / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text(CI_MAKEFILE)
    run = subprocess.run(
        ["bash", ".ci/run", *stages], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == status, run.stdout + run.stderr
    assert re.search(said, run.stdout + run.stderr)


@pytest.mark.parametrize(("code", "said"), [(5, "no tests of this kind"), (1, "FAILED")])
def test_ci_run_knows_no_tests_from_failed_ones(root, tmp_path, code, said):
    (tmp_path / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", tmp_path / ".ci" / "run")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    run = subprocess.run(
        ["bash", ".ci/run", "slow"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said in run.stdout
    assert run.returncode == (0 if code == 5 else 1)


def files_of_the_package(root):
    return {
        path.relative_to(root).as_posix()
        for path in (root / "asl_bids_app").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_what_is_installed_is_the_whole_package(root, monkeypatch):
    """By setuptools' own lists, which a wheel is made from."""
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(root)
    distribution = setuptools.Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    outputs = build.get_outputs(include_bytecode=False)
    assert {Path(name).relative_to(build.build_lib).as_posix() for name in outputs} == (
        files_of_the_package(root)
    )


@pytest.mark.slow
def test_wheel_holds_what_the_app_needs(root, tmp_path):
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "asl_bids_app", source / "asl_bids_app", ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source / name)
    arguments = ["--no-deps", "--no-build-isolation", "-q", "-w", tmp_path / "dist", source]
    if importlib.util.find_spec("setuptools") is None:
        arguments.remove("--no-build-isolation")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *arguments], check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    found = {name for name in names if name.startswith("asl_bids_app/")}
    assert found == files_of_the_package(root)
    assert "asl_bids_app/py.typed" in names
    assert any(n.endswith(".nii.gz") for n in names)


def test_console_scripts_exist(root):
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    for script in filter(None, scripts):
        module, _, function = script.split("=")[1].strip().partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_room_does_without_training(root):
    """A new room is in the contract of the imports, too."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    listed = setup["importlinter:contract:training"]["source_modules"].split()
    rooms = {path.stem for path in (root / "asl_bids_app").glob("[a-z]*.py")}
    rooms |= {path.parent.name for path in (root / "asl_bids_app").glob("*/__init__.py")}
    assert listed == [f"asl_bids_app.{room}" for room in sorted(rooms - {"training"})]


def normal(name):
    return re.split(r"[ <>=\[;]", name.strip())[0].lower().replace("_", "-")


# The atlas is only read; the script that made it needs what the tests need.
EXTRA_OF = {"training": "train", "docker": "docker", "atlas": "test"}

# What comes with a declared package, which itself can't do without it.
COMES_WITH = {"sqlalchemy": "pybids", "markupsafe": "jinja2", "typing-extensions": "torch"}


IMPORT = re.compile(r"^ *(?:from (\w+)[\w.]* import|import (\w+))\b", re.MULTILINE)


def test_every_import_is_declared(root):
    """What a room imports stands in setup.cfg, always or in the extra of that room."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    needed = {normal(n) for n in setup["options"]["install_requires"].split("\n") if n}
    needed |= {part for part, whole in COMES_WITH.items() if whole in needed}
    extras = {
        extra: {normal(n) for n in names.split("\n") if n}
        for extra, names in setup["options.extras_require"].items()
    }
    owners = metadata.packages_distributions()
    undeclared = set()
    for path in (root / "asl_bids_app").rglob("*.py"):
        room = path.relative_to(root).parts[1]
        declared = needed | extras.get(EXTRA_OF.get(room), set())
        # Examples in docstrings begin by >>>, and relative imports by a dot.
        for top in {found[1] or found[2] for found in IMPORT.finditer(path.read_text())}:
            if top in sys.stdlib_module_names or top == "asl_bids_app":
                continue
            if not declared & {normal(n) for n in owners.get(top, [top])}:
                undeclared.add(f"{path.relative_to(root)}: {top}")
    assert sorted(undeclared) == []


def test_no_two_modules_share_a_name(root):
    """A name in a traceback, or in an editor's tab, says which file is meant."""
    by_name = {}
    for path in (root / "asl_bids_app").rglob("*.py"):
        by_name.setdefault(path.name, []).append(path.relative_to(root).as_posix())
    shared = {n: p for n, p in by_name.items() if len(p) > 1 and n not in SEVERAL}
    assert not shared


SEVERAL = {"__init__.py", "__main__.py"}
"""Files that Python itself looks for in a package."""
