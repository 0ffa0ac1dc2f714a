"""The same function in several processes: order, errors, threads."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jobs as functions
import pytest
from jobs import refuse, square

from asl_bids_app.allocation import processors
from asl_bids_app.training.worker_processes import in_processes


@pytest.mark.slow
def test_results_come_in_the_order_of_the_jobs(tmp_path):
    # The first job ends only when the third has begun, so that two processes are needed.
    jobs = [(1, None, tmp_path / "third"), (2,), (3, tmp_path / "third")]
    found = list(in_processes(square, jobs, 2))
    assert [number for number, _, _ in found] == [1, 4, 9]
    processes = {process for _, process, _ in found}
    assert len(processes) == 2
    assert os.getpid() not in processes
    share = max(1, processors() // 2)
    assert {threads for _, _, threads in found} == {share}


def test_one_worker_or_one_job_needs_no_process():
    for jobs, workers in (([(2,), (3,)], 1), ([(4,)], 3)):
        assert {process for _, process, _ in in_processes(square, jobs, workers)} == {os.getpid()}
    assert list(in_processes(square, [], 2)) == []


def alive(process):
    try:
        # A process that has ended may wait for its parent to notice.
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    jobs = f"[(Path({str(tmp_path)!r}), n) for n in range(2)]"
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from jobs import note_and_wait\n"
        "from asl_bids_app.training.worker_processes import in_processes\n"
        f"if __name__ == '__main__':\n    list(in_processes(note_and_wait, {jobs}, 2))\n"
    )
    path = os.pathsep.join([str(Path(functions.__file__).parent), *sys.path])
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": path})
    try:
        notes = [tmp_path / "0", tmp_path / "1"]
        wait_until(lambda: all(note.exists() and note.read_text() for note in notes))
        workers = [int(note.read_text()) for note in notes]
        assert all(map(alive, workers))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(map(alive, workers)))


def wait_until(true):
    while not true():
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_errors_come_out(workers):
    with pytest.raises(KeyError, match="number 1"):
        list(in_processes(refuse, [(0,), (1,), (2,)], workers))


def test_no_worker_at_all_is_refused():
    with pytest.raises(ValueError, match="workers: found 0"):
        list(in_processes(refuse, [(0,)], 0))
