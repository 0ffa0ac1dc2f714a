"""Who holds a lock, and whether that process still runs."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SILENT_S: Final = 300.0
"""Seconds without a heartbeat after which a lock of another machine counts as left behind."""


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


def is_left_behind(path: Path, holder: Holder) -> bool:
    """Say whether the process that holds a lock has ended."""
    if holder.machine and holder.machine == this_machine():
        return not _runs(holder)
    return silence_of(path) > SILENT_S


def silence_of(path: Path) -> float:
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


def this_process() -> Holder:
    """Return this process as the holder of a lock."""
    return Holder(
        socket.gethostname(),
        os.getpid(),
        this_machine(),
        _began(os.getpid()),
        time.strftime("%Y-%m-%d %H:%M:%S"),
        uuid.uuid4().hex,
    )


def this_machine() -> str:
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
