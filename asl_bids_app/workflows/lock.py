"""One run at a time for a participant in a work folder.

A lock is a file in ``locks/`` of the work folder that is made exclusively, which every shared
file system knows, with or without ``flock``. It names machine, process and run. A lock whose
process has ended on this machine is removed; one of another machine counts as left behind once
its heartbeat (the file's time stamp) has stopped for `SILENT_S`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self

from asl_bids_app.bids.derivatives import unwritable
from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.workflows.lock_holder import (
    SILENT_S,
    Holder,
    is_left_behind,
    read_holder,
    silence_of,
    this_machine,
    this_process,
)

LOG = logging.getLogger("asl-app")

FOLDER: Final = "locks"
BEAT_S: Final = 20.0
"""Seconds between two heartbeats."""
POLL_S: Final = 0.5


class LockedError(AslAppError):
    """Another run works on the participant in the same work folder.

    Attributes
    ----------
    participant : str
    holder : Holder
    """

    def __init__(self, participant: str, holder: Holder, path: Path) -> None:
        self.participant, self.holder, self.path = participant, holder, path
        super().__init__(participant, holder, path)

    def __str__(self) -> str:
        work = self.path.parent.parent
        return (
            f"sub-{self.participant}: another run works on this participant in {work} "
            f"({self.holder}). Cure: wait for its end, or give another --work-dir; if no such "
            f"process runs, remove {self.path}."
        )


class ParticipantLock:
    """Holds a participant of a work folder for this process.

    Parameters
    ----------
    work_dir
        The work folder.
    participant
        Label without ``sub-``.
    wait_s
        How long to wait for another run to end; 0 does not wait.

    Raises
    ------
    LockedError
        On entering, if another run still holds it. Names machine, process and participant.
    InputError
        If the folder can't be written to.

    Examples
    --------
    ::

        with ParticipantLock(work_dir, "01", wait_s=60):
            ...
    """

    def __init__(self, work_dir: Path, participant: str, wait_s: float = 0.0) -> None:
        self.participant, self.wait_s = participant, wait_s
        self.path = work_dir / FOLDER / f"sub-{participant}.json"
        self._token = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.acquire()
        self._stack.enter_context(_heart([self]))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.release()

    def acquire(self) -> None:
        """Take the lock, without a heartbeat."""
        deadline = time.monotonic() + self.wait_s
        said = False
        while not self._create():
            holder = read_holder(self.path)
            if holder is None or is_left_behind(self.path, holder):
                _remove_left(self.path, holder)
                continue
            if time.monotonic() >= deadline:
                raise LockedError(self.participant, holder, self.path)
            if not said:
                LOG.info("sub-%s: waiting for another run (%s)", self.participant, holder)
                said = True
            time.sleep(min(POLL_S, max(0.01, deadline - time.monotonic())))

    def beat(self) -> None:
        """Show that this process lives."""
        with suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the lock back; one that has become another's stays."""
        holder = read_holder(self.path)
        if self._token and holder and holder.token == self._token:
            with suppress(OSError):
                self.path.unlink()
        self._token = ""

    def _create(self) -> bool:
        me = this_process()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise _no_lock(self.path, error) from error
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(asdict(me), stream)
        except OSError as error:
            with suppress(OSError):
                self.path.unlink()
            raise _no_lock(self.path, error) from error
        self._token = me.token
        return True


@contextmanager
def hold(work_dir: Path, participants: Sequence[str], wait_s: float = 0.0) -> Iterator[None]:
    """Hold several participants of a work folder, with one heartbeat for all.

    They are taken in one order, so that two runs never wait for each other.

    Raises
    ------
    LockedError
        If another run holds one of them; none is held then.
    """
    with ExitStack() as stack:
        locks = []
        for participant in sorted(set(participants)):
            lock = ParticipantLock(work_dir, participant, wait_s)
            lock.acquire()
            stack.callback(lock.release)
            locks.append(lock)
        with _heart(locks):
            yield


def live_holders(work_dir: Path) -> dict[str, Holder]:
    """Return who works in a work folder, by participant; locks left behind don't count."""
    found = {}
    for path in sorted((work_dir / FOLDER).glob("sub-*.json")):
        holder = read_holder(path)
        if holder is not None and not is_left_behind(path, holder):
            found[path.stem.removeprefix("sub-")] = holder
    return found


def check_free(work_dir: Path, participants: Sequence[str]) -> None:
    """Refuse if another process works on one of some participants.

    Raises
    ------
    LockedError
    """
    holders = live_holders(work_dir)
    for label in participants:
        holder = holders.get(label)
        if holder is not None and (holder.machine, holder.pid) != (this_machine(), os.getpid()):
            raise LockedError(label, holder, work_dir / FOLDER / f"sub-{label}.json")


@contextmanager
def _heart(locks: Sequence[ParticipantLock]) -> Iterator[None]:
    """Beat for locks in the background."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(BEAT_S):
            for lock in locks:
                lock.beat()

    thread = threading.Thread(target=run, name="asl-app-locks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=BEAT_S)


def _remove_left(path: Path, seen: Holder | None) -> None:
    """Remove a lock left behind, but never the one that somebody has just taken instead."""
    if seen is None:
        return
    guard = path.with_suffix(".removing")
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        # Another process is about it; one that was killed there must not block for ever.
        if silence_of(guard) > SILENT_S:
            with suppress(OSError):
                guard.unlink()
        time.sleep(0.05)
        return
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        if read_holder(path) == seen and is_left_behind(path, seen):
            path.unlink(missing_ok=True)
            LOG.debug("removed the lock of a run that has ended (%s): %s", seen, path)
    except OSError as error:
        raise _no_lock(path, error) from error
    finally:
        with suppress(OSError):
            guard.unlink()


def _no_lock(path: Path, error: OSError) -> InputError:
    return unwritable(path, error, "a writable folder", "--work-dir")
