"""The same function in several processes: order, errors, threads."""

import os
import time

import pytest
import torch

from asl_bids_app.training.parallel import in_processes


def slow_square(number, seconds):
    time.sleep(seconds)
    return number * number, os.getpid(), torch.get_num_threads()


def refuse(number):
    if number == 1:
        raise KeyError(f"number {number}")
    return number


def test_results_come_in_the_order_of_the_jobs():
    jobs = [(1, 0.4), (2, 0.0), (3, 0.2)]
    found = list(in_processes(slow_square, jobs, 2))
    assert [square for square, _, _ in found] == [1, 4, 9]
    processes = {process for _, process, _ in found}
    assert len(processes) == 2
    assert os.getpid() not in processes
    share = max(1, (os.cpu_count() or 1) // 2)
    assert {threads for _, _, threads in found} == {share}


def test_one_worker_or_one_job_needs_no_process():
    for jobs, workers in (([(2, 0.0), (3, 0.0)], 1), ([(4, 0.0)], 3)):
        assert {process for _, process, _ in in_processes(slow_square, jobs, workers)} == {
            os.getpid()
        }
    assert list(in_processes(slow_square, [], 2)) == []


def test_errors_come_out():
    for workers in (1, 2):
        with pytest.raises(KeyError, match="number 1"):
            list(in_processes(refuse, [(0,), (1,), (2,)], workers))
    with pytest.raises(ValueError, match="workers: found 0"):
        list(in_processes(refuse, [(0,)], 0))
