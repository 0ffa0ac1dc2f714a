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
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from asl_bids_app.bids.derivatives import unwritable
from asl_bids_app.errors import AslAppError, InputError

LOG = logging.getLogger("asl-app")

FOLDER: Final = "locks"
BEAT_S: Final = 20.0
"""Seconds between two heartbeats."""
SILENT_S: Final = 300.0
"""Seconds without a heartbeat after which a lock of another machine counts as left behind."""
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
        return (
            f"sub-{self.participant}: another run works on this participant in {_work(self.path)} "
            f"({self.holder}). Cure: wait for its end, or give another --work-dir; if no such "
            f"process runs, remove {self.path}."
        )


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes
    ----------
    host : str
    pid : int
        0 if the file does not say.
    machine : str
        Identifies the boot of the machine and the process namespace; empty if unknown.
    began : str
        When the process began, by the kernel's clock; empty if unknown.
    since : str
        When the lock was taken, local time.
    token : str
        Of this one lock.
    """

    host: str
    pid: int
    machine: str = ""
    began: str = ""
    since: str = ""
    token: str = ""

    def __str__(self) -> str:
        pid = f"process {self.pid}" if self.pid else "an unknown process"
        since = f" since {self.since}" if self.since else ""
        return f"{pid} on {self.host or 'an unknown machine'}{since}"


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
        while not self._take():
            holder = read_holder(self.path)
            if holder is None or _left_behind(self.path, holder):
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

    def _take(self) -> bool:
        me = _me()
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
        if holder is not None and not _left_behind(path, holder):
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
        if holder is not None and (holder.machine, holder.pid) != (_machine(), os.getpid()):
            raise LockedError(label, holder, work_dir / FOLDER / f"sub-{label}.json")


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lock; None if there is no such file."""
    try:
        holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
        if type(holder.pid) is int and isinstance(holder.host, str):
            return holder
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        pass
    # Just being written, or damaged: somebody's, until its heartbeat has stopped.
    return Holder("", 0)


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


def _left_behind(path: Path, holder: Holder) -> bool:
    if holder.machine and holder.machine == _machine():
        return not _runs(holder)
    return _silence(path) > SILENT_S


def _silence(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system."""
    probe = path.with_name(f".now-{uuid.uuid4().hex}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        with suppress(OSError):
            probe.unlink()
    try:
        return now - path.stat().st_mtime
    except OSError:
        return 0.0


def _runs(holder: Holder) -> bool:
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    began = _began(holder.pid)
    return not (began and holder.began and began != holder.began)


def _remove_left(path: Path, seen: Holder | None) -> None:
    """Remove a lock left behind, but never the one that somebody has just taken instead."""
    if seen is None:
        return
    guard = path.with_suffix(".removing")
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        # Another process is about it; one that was killed there must not block for ever.
        if _silence(guard) > SILENT_S:
            with suppress(OSError):
                guard.unlink()
        time.sleep(0.05)
        return
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        if read_holder(path) == seen and _left_behind(path, seen):
            path.unlink(missing_ok=True)
            LOG.debug("removed the lock of a run that has ended (%s): %s", seen, path)
    except OSError as error:
        raise _no_lock(path, error) from error
    finally:
        with suppress(OSError):
            guard.unlink()


def _me() -> Holder:
    return Holder(
        socket.gethostname(),
        os.getpid(),
        _machine(),
        _began(os.getpid()),
        time.strftime("%Y-%m-%d %H:%M:%S"),
        uuid.uuid4().hex,
    )


def _machine() -> str:
    """Identify machine, boot and process namespace: where a process number means the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path to follow
    except OSError:
        return socket.gethostname()


def _began(pid: int) -> str:
    """Return when a process began, in ticks since the boot; numbers of processes come again."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name in brackets may hold blanks; the start time is the 20th field after it.
    fields = text.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _work(path: Path) -> Path:
    return path.parent.parent


def _no_lock(path: Path, error: OSError) -> InputError:
    return unwritable(path, error, "a writable folder", "--work-dir")
