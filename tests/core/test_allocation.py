"""What a process may use: the least of affinity, control groups and scheduler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asl_bids_app.allocation import allocation

MEBIBYTE = 1024 * 1024
ROOT = Path(__file__).parents[2]


def machine(tmp_path, cgroup, mounts, files):
    """Write what the kernel of a made-up machine tells."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mounts.format(tmp=tmp_path))
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc


@pytest.fixture(autouse=True)
def many(monkeypatch):
    """A machine of 64 processors and 256 GB, whatever the tests run on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256 * 10**9 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


V2 = "31 23 0:28 / {tmp}/cg rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 {root} {tmp}/cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {root} {tmp}/cg/memory rw - cgroup cgroup rw,memory\n"
)


def test_without_limits_all_of_the_machine_counts(tmp_path):
    files = {"cg/cpu.max": "max 100000\n", "cg/memory.max": "max\n"}
    proc = machine(tmp_path, "0::/\n", V2, files)
    for place in (proc, tmp_path / "nowhere"):
        found = allocation({}, place)
        assert (found.processors, found.memory_gb) == (64, pytest.approx(256, abs=1e-3))
        assert "run on" in found.processors_from
        assert "machine" in found.memory_from


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("150000 100000", 1), ("25000 100000", 1), ("800000 50000", 16)],
)
def test_a_kubernetes_pod_sees_its_own_group_as_the_root(tmp_path, quota, expected):
    files = {"cg/cpu.max": quota + "\n", "cg/memory.max": "2000000000\n"}
    found = allocation({}, machine(tmp_path, "0::/\n", V2, files))
    assert (found.processors, found.memory_gb) == (expected, 2)
    assert "cpu.max" in found.processors_from
    assert "memory.max" in found.memory_from


def test_a_limit_of_a_group_above_holds_too(tmp_path):
    """SLURM limits the job or the step, systemd the slice: not the group of the process."""
    job = "cg/system.slice/slurmstepd.scope/job_7"
    files = {
        f"{job}/step_batch/user/task_0/cpu.max": "max 100000\n",
        f"{job}/step_batch/user/task_0/memory.max": "max\n",
        f"{job}/memory.max": "4000000000\n",
        f"{job}/cpu.max": "300000 100000\n",
        "cg/system.slice/memory.max": "64000000000\n",
    }
    group = "0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0\n"
    found = allocation({}, machine(tmp_path, group, V2, files))
    assert (found.processors, found.memory_gb) == (3, 4)


@pytest.mark.parametrize(
    ("path", "root", "folder"),
    [
        ("/docker/abc", "/", "docker/abc/"),
        ("/docker/abc", "/docker/abc", ""),
        ("/kubepods/burstable/pod1/abc", "/somewhere/else", ""),
    ],
)
def test_the_first_version_of_control_groups(tmp_path, path, root, folder):
    cgroup = f"9:name=systemd:/\n4:memory:{path}\n3:cpu,cpuacct:{path}\n0::/\n"
    files = {
        f"cg/cpu/{folder}cpu.cfs_quota_us": "400000\n",
        f"cg/cpu/{folder}cpu.cfs_period_us": "100000\n",
        f"cg/memory/{folder}memory.limit_in_bytes": "8000000000\n",
    }
    proc = machine(tmp_path, cgroup, V1.replace("{root}", root), files)
    found = allocation({}, proc)
    assert (found.processors, found.memory_gb) == (4, 8)
    # As it looks without limits.
    (tmp_path / f"cg/cpu/{folder}cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / f"cg/memory/{folder}memory.limit_in_bytes").write_text("9223372036854771712\n")
    found = allocation({}, proc)
    assert (found.processors, found.memory_gb) == (64, pytest.approx(256, abs=1e-3))


@pytest.mark.parametrize(
    ("environment", "count", "memory"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "8"}, 3, None),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8"}, 8, None),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "4000"}, 64, 4000 * MEBIBYTE / 1e9),
        (
            {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "SLURM_MEM_PER_CPU": "1000"},
            2,
            2000 * MEBIBYTE / 1e9,
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "128", "SLURM_MEM_PER_NODE": "0"}, 64, None),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "many"}, 64, None),
        # Left over in a shell: there is no job.
        ({"SLURM_CPUS_PER_TASK": "3"}, 64, None),
        ({"PBS_JOBID": "1.x", "NCPUS": "5"}, 5, None),
        ({"SGE_TASK_ID": "undefined", "NSLOTS": "6"}, 6, None),
        ({"LSB_JOBID": "1", "LSB_DJOB_NUMPROC": "7"}, 7, None),
    ],
)
def test_what_a_scheduler_has_given(tmp_path, environment, count, memory):
    found = allocation(environment, tmp_path)
    assert found.processors == count
    assert found.memory_gb == pytest.approx(256 if memory is None else memory, abs=1e-3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_one_processor_by_taskset_is_one_everywhere(tmp_path):
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from asl_bids_app.allocation import processors\n"
        "from asl_bids_app.cli.parser import build_parser\n"
        "from asl_bids_app.workflows.execute import machine\n"
        "print(processors(), build_parser().get_default('nprocs'),"
        " machine()['machine']['processors'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == ["1", "1", "1"]
