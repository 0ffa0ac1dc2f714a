"""What this process may use: processors and memory of its allocation, not of the machine.

Counted are the processors that the process may run on (``taskset``, cpusets), the limits of its
control groups (containers, Kubernetes, systemd, clusters) of either version, and what a scheduler
says that it has given to the job. The least of them holds. Only the standard library is imported
here.

Sources: Linux kernel documentation, admin-guide/cgroup-v2 (``cpu.max``, ``memory.max``) and
scheduler/sched-bwc (``cpu.cfs_quota_us``), cgroup-v1/memory (``memory.limit_in_bytes``);
``man sbatch``, ``qsub``, ``bsub`` for the variables of schedulers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc/self")
_GB: Final = 1e9
_NO_LIMIT_GB: Final = 1e6
"""A control group of version 1 without limit shows a number near 2**63."""

_SCHEDULERS: Final = (
    # What shows that a job runs, and where it tells its processors.
    ("SLURM_JOB_ID", ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")),
    ("PBS_JOBID", ("NCPUS",)),
    ("SGE_TASK_ID", ("NSLOTS",)),
    ("LSB_JOBID", ("LSB_DJOB_NUMPROC",)),
)


@dataclass(frozen=True)
class Allocation:
    """Processors and memory that a process may use, each with what says so.

    Attributes
    ----------
    processors : int
        At least 1. Of 1.5 processors' time one is used.
    processors_from : str
    memory_gb : float or None
        10^9 bytes, to the nearest million; None if nothing tells.
    memory_from : str
    """

    processors: int
    processors_from: str
    memory_gb: float | None
    memory_from: str


def allocation(environment: Mapping[str, str] | None = None, proc: Path = _PROC) -> Allocation:
    """Find out what this process may use.

    Parameters
    ----------
    environment
        Of the process by default.
    proc
        Where the kernel tells about the process.
    """
    environment = os.environ if environment is None else environment
    counts = [_affinity(), *_cgroup_processors(proc), *_job_processors(environment)]
    processors, processors_from = min(counts, key=lambda found: found[0])
    memory = [*_machine_memory(), *_cgroup_memory(proc)]
    memory += _job_memory(environment, processors)
    memory_gb, memory_from = min(memory, key=lambda found: found[0], default=(None, ""))
    memory_gb = None if memory_gb is None else round(memory_gb, 3)
    return Allocation(max(1, int(processors)), processors_from, memory_gb, memory_from)


def processors() -> int:
    """Return how many processors this process may use."""
    return allocation().processors


def _affinity() -> tuple[float, str]:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)), "processors that the process may run on"
    return os.cpu_count() or 1, "processors of the machine"


def _machine_memory() -> Iterator[tuple[float, str]]:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return
    if size > 0:
        yield size / _GB, "memory of the machine"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value > 0 else None


def _job_processors(environment: Mapping[str, str]) -> Iterator[tuple[float, str]]:
    for job, names in _SCHEDULERS:
        if job in environment:
            reported = [(_number(environment.get(name)), name) for name in names]
            yield from [(value, name) for value, name in reported if value][:1]


def _job_memory(environment: Mapping[str, str], count: float) -> Iterator[tuple[float, str]]:
    if "SLURM_JOB_ID" not in environment:
        return
    # Mebibytes, as everywhere in SLURM; 0 means all of the node's.
    for name, times in (("SLURM_MEM_PER_NODE", 1.0), ("SLURM_MEM_PER_CPU", count)):
        value = _number(environment.get(name))
        if value:
            yield value * times * 2**20 / _GB, name


def _groups(proc: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of the process's control groups and all above them, and if version 2."""
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in groups:
        _, names, path = line.split(":", 2) if line.count(":") >= 2 else ("", "?", "")
        if names and controller not in names.split(","):
            continue
        for root, place in _mounted(mounts, controller if names else ""):
            # In a container the group may be listed as the host sees it: then only the place
            # where it is mounted is known, which is the container's own.
            inside = path.removeprefix(root) if root != "/" else path
            folder = place / inside.strip("/")
            while True:
                yield folder, not names
                if folder == place or place not in folder.parents:
                    break
                folder = folder.parent


def _mounted(lines: list[str], controller: str) -> Iterator[tuple[str, Path]]:
    """Yield root and place of the mounts of a controller; empty for version 2."""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if (kind[0] == "cgroup2" and not controller) or (
            kind[0] == "cgroup" and controller and controller in kind[-1].split(",")
        ):
            yield fields[3], Path(fields[4])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []


def _cgroup_processors(proc: Path) -> Iterator[tuple[float, str]]:
    for folder, second in _groups(proc, "cpu"):
        name = "cpu.max" if second else "cpu.cfs_quota_us"
        words = _words(folder / name)
        if not second:
            words += _words(folder / "cpu.cfs_period_us")
        quota, period = (_number(word) for word in [*words, "", ""][:2])
        if quota and period:
            yield quota / period, f"limit of the control group ({name})"


def _cgroup_memory(proc: Path) -> Iterator[tuple[float, str]]:
    for folder, second in _groups(proc, "memory"):
        name = "memory.max" if second else "memory.limit_in_bytes"
        size = _number("".join(_words(folder / name)[:1]))
        if size and size / _GB < _NO_LIMIT_GB:
            yield size / _GB, f"limit of the control group ({name})"
