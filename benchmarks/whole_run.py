"""Time a whole run of the app on real data, from the shell's prompt to the report, step by step.

    python benchmarks/whole_run.py --data ../shared/data/oxford_pcasl

Prints how long start-up, the reading of the dataset, each step and the report took, the CPU time
of each step and of all processes together. A run before it is watched for memory, which takes time
itself, and leaves the compiled modules that an installation has.
Memory is the largest sum over all its processes of the proportional set size, in which what
processes share counts once (the sum of their resident sizes, also printed, counts it in each).
Other work on the machine makes the wall times longer: the load is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def family(pid: int) -> list[int]:
    """Return all processes under one, itself included."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def memory_mb(pid: int, kind: str = "Pss") -> float:
    """Return the proportional (or another) set size of a family of processes, MB."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")), 0)
    return total / 1024


def processor_seconds(pid: int) -> dict[int, float]:
    """Return the CPU seconds of each of a family of processes."""
    found = {}
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[member] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


@dataclass(frozen=True)
class Run:
    """What a run took: seconds, CPU seconds, largest memory (MB), and what it says itself."""

    wall: float
    used: float
    shared_once: float
    resident: float
    record: dict[str, Any]


def as_installed(folder: Path) -> dict[str, str]:
    """Return an environment in which Python keeps compiled modules in a folder, as pip does."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def run(
    data: Path, folder: Path, arguments: list[str], env: dict[str, str], watched: bool = False
) -> Run:
    """Run the app, and watch its memory if that is asked for."""
    folder.mkdir()
    report = folder / "run.json"
    command = [sys.executable, "-m", "asl_bids_app.cli.app", str(data), str(folder / "out")]
    command += ["participant", "-w", str(folder / "work"), "-q", "--run-report", str(report)]
    start = time.perf_counter()
    used: dict[int, float] = {}
    memory = [(0.0, 0.0)]
    process = subprocess.Popen([*command, *arguments], env=env)
    while process.poll() is None:
        used |= processor_seconds(process.pid)
        if watched:
            memory.append((memory_mb(process.pid), memory_mb(process.pid, "Rss")))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"asl-app failed with exit code {process.returncode}")
    wall = time.perf_counter() - start
    shared_once, resident = (max(sizes) for sizes in zip(*memory, strict=True))
    record = json.loads(report.read_text())
    return Run(wall, sum(used.values()), shared_once, resident, record)


def seconds_of(statement: str) -> float:
    """Return the seconds that a fresh interpreter needs for a statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def show(title: str, done: Run) -> None:
    """Print the split of one run."""
    print(f"{title}: {done.wall:.1f} s, {done.used:.1f} s CPU in all processes")
    record, wall = done.record, done.wall
    parts = record["seconds"]
    rows = [("start-up and end", wall - sum(parts.values()), None)]
    rows.append(("reading the dataset", parts["plan"], None))
    steps = 0.0
    for participant in record["participants"]:
        for unit in participant["units"]:
            used = unit["processor_timing"]
            for step, seconds in unit["timing"].items():
                rows.append((step, seconds, used.get(step)))
                steps += seconds
    rows.append(("between steps (less than 0: side by side)", parts["workflow"] - steps, None))
    rows.append(("report", parts["reports"], None))
    for name, seconds, used in rows:
        print(f"  {name:42}{seconds:7.2f} s" + ("" if used is None else f"{used:8.2f} s CPU"))


def main() -> None:
    """Print the split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--no-hmc", action="store_true", help="also without motion correction")
    options = parser.parse_args()
    print(
        f"{datetime.now(tz=UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, torch {version('torch')}"
    )
    bare = seconds_of("pass")
    for name in ("torch", "nipype.pipeline.engine", "bids", "SimpleITK", "matplotlib.figure"):
        print(f"  import {name:35}{seconds_of(f'import {name}') - bare:7.2f} s")
    cases: list[tuple[str, list[str]]] = [("default options", [])]
    cases += [("--no-hmc", ["--no-hmc"])] * options.no_hmc
    for title, extra in cases:
        arguments = ["--nprocs", str(options.nprocs), *extra]
        with tempfile.TemporaryDirectory() as folder:
            env = as_installed(Path(folder))
            done = run(options.data, Path(folder) / "one", arguments, env, watched=True)
            show(title, run(options.data, Path(folder) / "two", arguments, env))
        print(
            f"  largest memory: {done.shared_once:.0f} MB (proportional set size), "
            f"{done.resident:.0f} MB (resident, what is shared counted in each process)"
        )


if __name__ == "__main__":
    main()
