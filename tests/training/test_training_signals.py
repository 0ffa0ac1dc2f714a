"""Signals, locks and temporary files of a training: on any file system, at any moment."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from asl_bids_app.training import cli, whole_files
from asl_bids_app.training.progress_lines import ProgressLines
from asl_bids_app.training.stop_signals import INTERRUPTED, Interrupted, StopSignals
from asl_bids_app.training.whole_files import locked, remove_left, replacing_file


@pytest.fixture(autouse=True)
def handlers():
    """The command line sets the handlers of the log, here of a stream that is closed later."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("words", [["fit", "--dataset", "d"], ["pipeline"]])
def test_a_signal_before_training_begins_ends_with_75(tmp_path, number, words):
    """The command is held where torch would be imported, and gets its signal there."""
    ready = tmp_path / "ready"
    script = (
        "import pathlib, sys, time\n"
        "from asl_bids_app.training import cli\n"
        "def wait(arguments):\n"
        f"    pathlib.Path({str(ready)!r}).touch()\n"
        "    time.sleep(1000)\n"
        "cli._run = wait\n"
        f"sys.exit(cli.main([*{words!r}, '--config', 'smoke', '--output-dir', 'x']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    while not ready.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == INTERRUPTED
    assert signal.Signals(number).name in told
    assert "Traceback" not in told


def test_signals_within_training_are_noted_and_those_before_end_it():
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as stop:
        with pytest.raises(Interrupted, match="SIGUSR1"):
            os.kill(os.getpid(), signal.SIGUSR1)
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGUSR1"
        with pytest.raises(Interrupted):
            stop.attend()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_temporary_names_differ_between_machines_processes_and_calls(tmp_path, monkeypatch):
    names = set()
    for host in ("node1", "node2"):
        monkeypatch.setattr(whole_files.socket, "gethostname", lambda host=host: host)
        for _ in range(2):
            with replacing_file(tmp_path / "a.json") as beside:
                beside.write_text("{}")
                names.add(beside.name)
                assert host in beside.name
                assert str(os.getpid()) in beside.name
    assert len(names) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_only_what_dead_processes_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files.socket, "gethostname", lambda: "here")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = tmp_path / f".a.npz.here.{os.getpid()}.00aa.tmp"
    theirs = tmp_path / ".a.npz.there.1.00aa.tmp"
    old = tmp_path / ".a.npz.there.2.00aa.tmp"
    left = tmp_path / f".a.npz.here.{dead.pid}.00aa.tmp"
    for path in (ours, theirs, old, left):
        path.touch()
    os.utime(old, (1, 1))
    remove_left(tmp_path / "a.npz")
    assert {path.name for path in tmp_path.iterdir()} == {ours.name, theirs.name}


@pytest.mark.parametrize("flock", [True, False])
def test_a_lock_lets_one_in_at_a_time_with_and_without_flock(tmp_path, monkeypatch, flock):
    if not flock:

        def refuse(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(whole_files.fcntl, "flock", refuse)
    inside, most, done = [], [], []

    def work():
        for _ in range(5):
            with locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert max(most) == 1
    assert not (tmp_path / "lock.held").exists()


def test_a_lock_left_by_a_killed_process_is_taken_over(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(whole_files.fcntl, "flock", refuse)
    held = tmp_path / "lock.held"
    held.touch()
    os.utime(held, (1, 1))
    with locked(tmp_path / "lock"):
        assert held.exists()
    assert not held.exists()


def test_other_faults_of_a_lock_come_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(whole_files.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "lock"):
        pass


def test_long_work_says_how_far_it_is(caplog):
    caplog.set_level("INFO")
    with ProgressLines("cells", 2, quiet=0.05) as progress:
        while "at work" not in caplog.text:
            time.sleep(0.01)
        progress.advance("first")
        progress.advance("second")
    lines = [record.message for record in caplog.records]
    assert lines[0] == "cells: 2 to do"
    assert any(line.startswith("cells: 0 of 2, at work (after ") for line in lines)
    assert any(line.startswith("cells: 1 of 2, first (after ") for line in lines)
    assert lines[-1] == "cells: 2 of 2, second"


def test_spellings_of_the_guide_are_taken(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_run", lambda arguments: seen.append(arguments) or 0)
    words = ["--config", "smoke", "--output_dir", "out", "--offline_dataset_path=data"]
    assert cli.main(["fit", *words]) == 0
    assert (seen[-1].output_dir.name, seen[-1].dataset.name) == ("out", "data")
    assert cli.main(["validate", "--run_dir", "out"]) == 0
    assert seen[-1].run_dir.name == "out"
    assert cli.main(["pipeline", "--config", "smoke"]) == 0
    assert seen[-1].output_dir.name == "production_model_v1"


def test_a_key_of_another_section_is_answered_with_its_place(capsys):
    words = ["show", "--config", "laptop", "--set", "data.normalization_mode=per_slice"]
    assert cli.main(words) == 1
    assert "did you mean signal.normalization_mode" in capsys.readouterr().err


def test_training_only_without_phantoms_fails_at_once_in_one_line(tmp_path, capsys):
    words = ["pipeline", "--config", "smoke", "--train-only", "--output-dir", str(tmp_path / "x")]
    assert cli.main(words) == 1
    told = capsys.readouterr().err.strip()
    assert "manifest" in told
    assert "\n" not in told
    assert not (tmp_path / "x").exists()
