"""Locks of participants in a work folder: exclusive, told, and never left for ever."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from asl_bids_app.workflows import lock, lock_holder
from asl_bids_app.workflows.lock import LockedError, ParticipantLock, hold, live_holders

HOLD = """
import sys, time
from pathlib import Path
from asl_bids_app.workflows.lock import ParticipantLock
with ParticipantLock(Path(sys.argv[1]), "01"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds sub-01 until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_with_machine_process_and_participant(tmp_path, other):
    with pytest.raises(LockedError) as told, ParticipantLock(tmp_path, "01"):
        pass
    for word in ("sub-01", f"process {other.pid}", os.uname().nodename, str(tmp_path)):
        assert word in str(told.value)
    assert set(live_holders(tmp_path)) == {"01"}
    with ParticipantLock(tmp_path, "02"):
        assert set(live_holders(tmp_path)) == {"01", "02"}


def test_a_second_run_waits_for_the_first(tmp_path, other):
    threading.Timer(0.3, other.stdin.close).start()
    with ParticipantLock(tmp_path, "01", wait_s=1000):
        assert live_holders(tmp_path)["01"].pid == os.getpid()
    assert not live_holders(tmp_path)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, other):
    other.kill()
    other.wait()
    assert not live_holders(tmp_path)
    with ParticipantLock(tmp_path, "01") as mine:
        assert json.loads(mine.path.read_text())["pid"] == os.getpid()


def test_a_process_number_that_came_again_is_not_the_holder(tmp_path):
    path = tmp_path / "locks" / "sub-01.json"
    path.parent.mkdir()
    me = asdict(lock_holder.this_process())
    path.write_text(json.dumps({**me, "began": "1"}))
    with ParticipantLock(tmp_path, "01"):
        pass
    path.write_text(json.dumps(me))
    with pytest.raises(LockedError), ParticipantLock(tmp_path, "01"):
        pass


@pytest.mark.parametrize(
    "content", ["elsewhere", "", "[null]", "\x00{", '{"host": 1, "pid": "1"}']
)
def test_a_lock_of_another_machine_or_of_no_sense_counts_until_its_heart_stops(tmp_path, content):
    path = tmp_path / "locks" / "sub-01.json"
    path.parent.mkdir()
    if content == "elsewhere":
        content = json.dumps({"host": "node7", "pid": 1, "machine": "x"})
    path.write_text(content)
    with pytest.raises(LockedError), ParticipantLock(tmp_path, "01"):
        pass
    old = time.time() - lock_holder.SILENT_S - 60
    os.utime(path, (old, old))
    with ParticipantLock(tmp_path, "01"):
        pass
    assert not path.exists()


def test_a_heartbeat_moves_the_time_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    with ParticipantLock(tmp_path, "01") as mine:
        os.utime(mine.path, (1, 1))
        while mine.path.stat().st_mtime <= 1:
            time.sleep(0.02)


def test_many_threads_never_hold_one_participant_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL_S", 0.02)
    path = tmp_path / "locks" / "sub-01.json"
    path.parent.mkdir()
    # Left by a process that has ended: all of them find it at the same time.
    path.write_text(json.dumps({**asdict(lock_holder.this_process()), "began": "1"}))
    inside, most, done = [], [], []

    def work():
        with ParticipantLock(tmp_path, "01", wait_s=1000):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 6
    assert max(most) == 1


def test_several_are_held_together_or_not_at_all(tmp_path, other):
    with pytest.raises(LockedError, match="sub-01"), hold(tmp_path, ["02", "01", "00"]):
        pass
    assert set(live_holders(tmp_path)) == {"01"}
    with hold(tmp_path, ["03", "02"]):
        assert set(live_holders(tmp_path)) == {"01", "02", "03"}
    assert set(live_holders(tmp_path)) == {"01"}


def test_a_lock_that_became_anothers_stays(tmp_path):
    with ParticipantLock(tmp_path, "01") as mine:
        mine.path.write_text(json.dumps({"host": "node7", "pid": 1, "machine": "x"}))
    assert live_holders(tmp_path)["01"].host == "node7"
