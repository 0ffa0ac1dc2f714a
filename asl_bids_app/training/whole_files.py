"""Files that appear whole or not at all, and numbers that stand for a random stream."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.atomic import complete_file


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it once it is complete and on disk."""
    # The name says who made it, so that `remove_left` knows what a killed process left.
    name = f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    with complete_file(path, path.with_name(name)) as beside:
        yield beside


def _host() -> str:
    """Return the name of this machine as a part of a file's name that has no dots."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()) or "host"


def remove_left(path: Path, old_s: float = 24 * 3600.0) -> None:
    """Remove what killed processes left of `replacing_file`'s files of this name.

    Those of this machine whose process is gone, and those of others that nobody has written to
    for a day: another node may be at work on the same file.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            made_by = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp").split(".")
            # Earlier versions named the process only.
            host, process = made_by[:2] if len(made_by) > 1 else (_host(), made_by[0])
            gone = host == _host() and not _alive(int(process))
            if gone or time.time() - left.stat().st_mtime > old_s:
                left.unlink(missing_ok=True)
        except (ValueError, FileNotFoundError):
            continue


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_NO_FLOCK: Final = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems answer that know no ``flock``, as Lustre mounted without it."""


@contextmanager
def locked(path: Path, stale_s: float = 30.0) -> Iterator[None]:
    """Hold a lock among all processes and machines that share a folder.

    By ``flock`` where the file system has it. Elsewhere by a file that only one can make; what
    is done under the lock takes milliseconds, so one older than `stale_s` was left by a process
    that was killed.

    Parameters
    ----------
    path
        The lock's file; it stays.
    stale_s
        Seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
        else:
            yield
            return
    held = path.with_name(f"{path.name}.held")
    while True:
        try:
            os.close(os.open(held, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - held.stat().st_mtime > stale_s:
                    held.unlink(missing_ok=True)
            time.sleep(0.02)
    try:
        yield
    finally:
        held.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; a number that JSON can't say is null."""
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def finite(content: Any) -> Any:
    """Replace numbers that JSON has no word for (nan, inf) by None, at any depth."""
    if isinstance(content, dict):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(content) if np.isfinite(content) else None
    return int(content) if isinstance(content, np.integer) else content


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Derive the seed of one use of randomness, independent of every other use.

    Parameters
    ----------
    seed
        Seed of the run.
    purpose
        What the numbers are for.
    numbers
        Member, step, rank and so on.
    """
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "little")
    state = np.random.SeedSequence([seed, word, *numbers]).generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1
