"""Measure a cohort: planning, the index, one process, a SLURM array, the group level, memory.

    python benchmarks/cohort.py FOLDER                        what needs no cluster
    SLURM_CONF=... python benchmarks/cohort.py FOLDER --array 22

It simulates 500 participants in FOLDER (images of 12x16x8 voxels; some are cut off, some have not
been fetched, some have no ASL). All of them are planned and indexed; as many as ``--processed``
and ``--array`` say are computed. The group level sees all: the derivatives of the others are
copies of those that were computed, under other names in all files.

For the array a cluster must be there (its clients and SLURM_CONF). ``--image`` names an Apptainer
image; without one, the plain installation runs in its place.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
from whole_run import memory_mb

APP = [sys.executable, "-m", "asl_bids_app.cli.app"]
CASES = {"single": "08", "pcasl": "02"}
CUT_OFF, NOT_FETCHED, NO_ASL = 19, 31, 40
"""Every so-manieth participant has this fault."""
FIRST = 18
"""Participants before those that are computed: the first 22 of the others have all faults."""


def labels_of(number: int) -> list[str]:
    """Return the labels of the cohort."""
    return [f"{k:04d}" for k in range(1, number + 1)]


def renamed(text: str, old: str, new: str) -> str:
    """Return a text in which one participant is another."""
    text = re.sub(rf"sub-{old}(?![0-9A-Za-z])", f"sub-{new}", text)
    return text.replace(f'"{old}"', f'"{new}"')


def simulate(bids: Path, labels: Sequence[str]) -> None:
    """Write the cohort: a simulated head for each, with noise of its own."""
    templates = bids.parent / "templates"
    demo = [sys.executable, "-m", "asl_bids_app.demo", str(templates), "--voxel-scale", "4"]
    subprocess.run([*demo, "--cases", *CASES], check=True, stdout=subprocess.DEVNULL)
    bids.mkdir()
    shutil.copy(templates / "dataset_description.json", bids)
    sources = {
        case: sorted((templates / f"sub-{old}" / "perf").iterdir()) for case, old in CASES.items()
    }
    images = {p: nib.load(p) for paths in sources.values() for p in paths if p.suffix == ".gz"}
    values = {path: image.get_fdata(dtype=np.float32) for path, image in images.items()}
    for number, label in enumerate(labels, 1):
        case = list(CASES)[number % len(CASES)]
        folder = bids / f"sub-{label}" / ("anat" if number % NO_ASL == 0 else "perf")
        folder.mkdir(parents=True)
        if number % NO_ASL == 0:
            (folder / f"sub-{label}_T1w.json").write_text("{}\n")
            continue
        rng = np.random.default_rng(number)
        for path in sources[case]:
            target = folder / renamed(path.name, CASES[case], label)
            if path not in images:
                target.write_text(renamed(path.read_text(), CASES[case], label))
                continue
            data = values[path] + rng.normal(0, 2e-3 * values[path].max(), values[path].shape)
            nib.Nifti1Image(data.astype(np.float32), images[path].affine).to_filename(target)
            spoil(target, number)
    shutil.rmtree(templates)


def spoil(image: Path, number: int) -> None:
    """Cut an image off, or leave but a link to it, for a few participants."""
    if number % CUT_OFF == 0:
        image.with_name("whole").write_bytes(image.read_bytes())
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    elif number % NOT_FETCHED == 0:
        image.unlink()
        image.symlink_to("../../.git/annex/objects/aa/bb/key/key")


def mend(bids: Path, labels: Sequence[str]) -> None:
    """Put the whole images of some participants in the place of those that were cut off."""
    for whole in [path for label in labels for path in bids.glob(f"sub-{label}/perf/whole")]:
        [image] = whole.parent.glob("*_asl.nii.gz")
        whole.replace(image)


class Watched:
    """A command whose memory, CPU time and work folder are looked at while it runs."""

    def __init__(self, command: Sequence[str | Path], work: Path, log: Path) -> None:
        self.rows: list[tuple[int, float]] = []
        self.size = self.files = 0
        begun, looked = time.perf_counter(), 0.0
        usage = os.times()
        with log.open("w") as stream:
            process = subprocess.Popen([*map(str, command)], stderr=stream, stdout=stream)
            while process.poll() is None:
                if time.perf_counter() - looked > 2:
                    self.look(process.pid, work)
                    looked = time.perf_counter()
                time.sleep(0.1)
        self.code, self.wall = process.returncode, time.perf_counter() - begun
        after = os.times()
        self.cpu = sum(after[2:4]) - sum(usage[2:4])

    def look(self, pid: int, work: Path) -> None:
        """Note the memory with the number of finished participants, and the work folder."""
        done = len(list(work.parent.glob("out/sub-*.html")))
        self.rows.append((done, memory_mb(pid)))
        found = [entry.stat() for entry in tree(work)]
        self.size = max(self.size, sum(entry.st_size for entry in found))
        self.files = max(self.files, len(found))

    def growth(self) -> tuple[float, float]:
        """Return the largest memory, MB, in the first and in the last third of the samples."""
        third = max(1, len(self.rows) // 3)
        memory = [value for _, value in self.rows]
        return max(memory[:third]), max(memory[-third:])


def tree(folder: Path) -> Iterator[Path]:
    """Yield all that lies in a folder; what goes away meanwhile is passed over."""
    for path in folder.rglob("*") if folder.exists() else ():
        if path.exists():
            yield path


def one_process(bids: Path, place: Path, labels: Sequence[str], words: Sequence[str]) -> Path:
    """Run some participants in one process and print what it took."""
    place.mkdir()
    command = [*APP, bids, place / "out", "participant", "-w", place / "work", "--nprocs", "2"]
    asked = ["--participant-label", *labels]
    run = Watched([*command, *words, *asked], place / "work", place / "log")
    [last] = re.findall(r"\d+ of \d+ participants complete", (place / "log").read_text())
    first, end = run.growth()
    print(f"one process, --nprocs 2: {last}, exit code {run.code}")
    record = json.loads(next(place.glob("out/logs/*/run.json")).read_text())
    units = [unit for person in record["participants"] for unit in person["units"]]
    # Workers are no children of this process: their CPU time is in the record.
    cpu = sum(sum(unit["processor_timing"].values()) for unit in units) + run.cpu
    print(f"  {run.wall / len(labels):.1f} s and {cpu / len(labels):.1f} s of CPU each")
    print(f"  memory: {first:.0f} MB at most in the first third, {end:.0f} MB in the last")
    print(f"  work folder at most: {run.size / 1e6:.0f} MB in {run.files} files and folders")
    cures = re.findall(r"Cure: (datalad get [^\s,]+)", (place / "log").read_text())
    print(f"  not fetched: {len(set(cures))} lines such as '{cures[0] if cures else ''}'")
    return place / "out"


def seconds_to_find(bids: Path, label: str, database: Path | None) -> float:
    """Return the CPU seconds that a fresh process takes to find the runs of one participant."""
    code = (
        "import sys, time, bids; from asl_bids_app.bids.layout import find_runs\n"
        "start = time.process_time(); find_runs(sys.argv[1], [sys.argv[2]], None, None, "
        "sys.argv[3] or None); print(time.process_time() - start)"
    )
    command = [sys.executable, "-c", code, str(bids), label, str(database or "")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def index(bids: Path, place: Path) -> None:
    """Compare finding one participant's runs with and without a shared index."""
    made = seconds_to_find(bids, "0001", place / "index")
    by = {
        name: median(seconds_to_find(bids, "0007", path) for _ in range(5))
        for name, path in (("without", None), ("with", place / "index"))
    }
    size = sum(path.stat().st_size for path in (place / "index").iterdir()) / 1e6
    print(f"index: made once in {made:.1f} s of CPU, {size:.1f} MB; a task finds its files in")
    print(f"  {by['without']:.2f} s of CPU without it, {by['with']:.2f} s with it")
    start = time.perf_counter()
    command = [*APP, bids, place / "plan", "participant", "--dry-run"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    print(f"dry run of all: {time.perf_counter() - start:.1f} s, exit code {done.returncode}")


def copy_derivatives(source: Path, target: Path, labels: Sequence[str]) -> None:
    """Make the derivatives of a whole cohort from a few, as an array leaves them."""
    done = sorted(p.name[4:] for p in source.glob("sub-*") if list(p.glob("perf/*_cbf.nii.gz")))
    log = max(source.glob("logs/*/run.json")).parent
    run = json.loads((log / "run.json").read_text())
    target.mkdir()
    shutil.copy(source / "dataset_description.json", target)
    for number, label in enumerate(labels):
        old = done[number % len(done)]
        for path in [*(source / f"sub-{old}").rglob("*"), source / f"sub-{old}.html"]:
            if path.is_dir():
                continue
            copy = target / renamed(str(path.relative_to(source)), old, label)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".gz":
                os.link(path, copy)
            else:
                copy.write_text(renamed(path.read_text(), old, label))
        folder = target / "logs" / f"{log.name[:9]}{number:06d}-{label}"
        folder.mkdir(parents=True)
        record = json.loads(renamed((log / f"sub-{old}.json").read_text(), old, label))
        (folder / f"sub-{label}.json").write_text(json.dumps(record))
        (folder / "run.json").write_text(json.dumps(run | {"participants": [record]}))
        config = json.loads((log / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"participants": [label]}))


def group(source: Path, place: Path, labels: Sequence[str]) -> None:
    """Time the group level of the whole cohort."""
    copy_derivatives(source, place / "all", labels)
    run = Watched([*APP, place, place / "all", "group"], place / "work", place / "group.log")
    rows = len((place / "all" / "group_cbf.tsv").read_text().splitlines()) - 1
    memory = max(value for _, value in run.rows)
    print(f"group: {run.wall:.1f} s, {run.cpu:.1f} s of CPU, {memory:.0f} MB, {rows} rows")


def submit(place: Path, *words: str | Path, **settings: str) -> float:
    """Submit an array, wait for its end, and return the seconds."""
    script = Path(__file__).parents[1] / "docs" / "hpc" / "submit.sh"
    start = time.perf_counter()
    subprocess.run([*map(str, [script, *words])], check=True, env={**os.environ, **settings})
    while subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout.strip():
        time.sleep(1)
    return time.perf_counter() - start


def tell_array(title: str, out: Path, wall: float) -> int:
    """Print what the tasks of the newest array say of themselves; return how many failed."""
    state = out / "logs" / "slurm"
    folder = state / (state / "last").read_text().strip()
    logs = [path.read_text() for path in folder.glob("task-*.log")]
    ended = [re.search(r"exit status (\d+) after (\d+) s", text) for text in logs]
    seconds = [int(found[2]) for found in ended if found]
    failed = sum(found is None or found[1] != "0" for found in ended)
    plans = [json.loads(p.read_text())["seconds"]["plan"] for p in out.glob("logs/*/run.json")]
    print(f"{title}: {len(logs)} tasks, {failed} failed, {wall:.0f} s in all")
    print(
        f"  a task: {median(seconds)} s, {median(plans):.2f} s of them for its plan (all arrays)"
    )


def array(
    bids: Path, place: Path, labels: Sequence[str], words: Sequence[str], image: Path | None
) -> None:
    """Run participants through the array, half with a shared index; then the failed ones."""
    settings = {"ASL_MAX_TASKS": "2", "ASL_GROUP": "afterany"}
    if image is None:
        image, stand_in = place / "plain.sif", place / "plain"
        image.touch()
        stand_in.write_text(
            f'#!/bin/bash\nwhile [ "$1" != "{image}" ]; do shift; done\nshift\n'
            f'exec "{sys.executable}" -m asl_bids_app.cli.app "$@"\n'
        )
        stand_in.chmod(0o755)
        settings["APPTAINER"] = str(stand_in)
    half = len(labels) // 2
    for title, part, extra in (
        ("array with the shared index", labels[:half], {}),
        ("array without it", labels[half:], {"ASL_INDEX": "none"}),
    ):
        out = place / f"array-{len(extra)}"
        (place / "list").write_text("\n".join(part))
        more = {**settings, **extra, "ASL_PARTICIPANTS": str(place / "list")}
        if tell_array(title, out, submit(place, image, bids, out, *words, **more)):
            mend(bids, part)
            took = submit(place, "--failed", image, bids, out, *words, **more)
            tell_array(f"{title}, --failed", out, took)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder for everything")
    parser.add_argument("--participants", type=int, default=500)
    parser.add_argument("--processed", type=int, default=22, help="of these, in one process")
    parser.add_argument("--array", type=int, default=0, help="of these, through SLURM")
    parser.add_argument("--image", type=Path, help="an Apptainer image for the array")
    parser.add_argument("--options", default="", help="options of asl-app, in quotes")
    options = parser.parse_args()
    place, words = options.folder.absolute(), options.options.split()
    place.mkdir(parents=True)
    labels = labels_of(options.participants)
    print(
        f"{datetime.now(tz=UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {sys.version.split()[0]}, torch {version('torch')}, nipype {version('nipype')}"
    )
    start = time.perf_counter()
    simulate(place / "bids", labels)
    print(f"simulated {len(labels)} participants in {time.perf_counter() - start:.0f} s")
    index(place / "bids", place)
    first = min(FIRST, max(0, len(labels) - options.processed))
    out = one_process(place / "bids", place / "one", labels[first:][: options.processed], words)
    group(out, place, labels)
    if options.array:
        array(place / "bids", place, labels[FIRST:][: options.array], words, options.image)


if __name__ == "__main__":
    main()
