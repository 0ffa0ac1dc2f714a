"""Time a whole run of the app on real data from the shell, step by step, with its memory.

    python tests/benchmarks/app_timing.py --data ../shared/data/oxford_pcasl

Prints, with and without motion correction, the wall time, the largest sum of the memory of
all its processes (proportional set size), and the seconds of each step.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path


def family(pid):
    """All processes under one, itself included."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def memory_mb(pid):
    """Proportional set size of a family of processes, MB."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def run(data, folder, arguments):
    """Run the app; return wall seconds, peak MB and the record of the run."""
    report = folder / "run.json"
    command = [sys.executable, "-m", "asl_bids_app.cli.app", str(data), str(folder / "out")]
    command += ["participant", "-w", str(folder / "work"), "-q", "--run-report", str(report)]
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([*command, *arguments])
    while process.poll() is None:
        peak = max(peak, memory_mb(process.pid))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"asl-app failed with exit code {process.returncode}")
    return time.perf_counter() - start, peak, json.loads(report.read_text())


def seconds_of(statement):
    """Seconds that a fresh interpreter needs for a statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--estimator", default="least-squares")
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {date.today()}")
    bare = seconds_of("pass")
    for name in ("torch", "nipype.pipeline.engine", "bids", "SimpleITK"):
        print(f"  import {name}: {seconds_of(f'import {name}') - bare:.2f} s")
    for title, extra in (("with motion correction", []), ("without", ["--no-hmc"])):
        arguments = ["--nprocs", str(options.nprocs), "--estimator", options.estimator, *extra]
        with tempfile.TemporaryDirectory() as folder:
            wall, peak, report = run(options.data, Path(folder), arguments)
        print(f"{title}: {wall:.1f} s, {peak:.0f} MB at most, {options.nprocs} processors")
        print(f"  parts: {report['seconds']}")
        for participant in report["participants"]:
            for unit in participant["units"]:
                print(f"  steps of sub-{participant['participant']}: {unit['timing']}")


if __name__ == "__main__":
    main()
