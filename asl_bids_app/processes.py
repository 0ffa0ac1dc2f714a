"""How a program ends from outside: signals, its worker processes, and its parent's end.

Only the standard library is imported here.
"""

from __future__ import annotations

import atexit
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

LOG = logging.getLogger("asl-app")

GRACE_S: Final = 3.0
"""Seconds that a stopped program has to end by itself; then it is ended."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESUME: Final = "the same command with the same work folder resumes"


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)

    def __str__(self) -> str:
        return stop_message(self.number)


STOPPED: Final = 128
"""Exit codes above this one are those of signals, as in shells."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a stopped program."""
    return STOPPED + getattr(stop, "number", signal.SIGINT)


def stop_message(number: int) -> str:
    """Say in a sentence what ended the program."""
    if number == signal.SIGINT:
        return f"interrupted; {RESUME}"
    return f"stopped from outside ({signal.Signals(number).name}); {RESUME}"


@contextmanager
def stoppable(grace_s: float = GRACE_S) -> Iterator[None]:
    """Raise `Stopped` at SIGINT, SIGTERM and SIGHUP, and make sure that the program then ends.

    A handler in Python has to wait for the library that is at work, and libraries may take its
    exception for a fault of their own. So a thread hears of the signal too: if the program
    still runs after `grace_s`, the thread says the sentence and ends it with its workers.

    Outside the main thread, where there are no handlers, this does nothing. SIGHUP stays ignored
    where it is (``nohup``); SIGINT doesn't, for shells ignore it for whatever runs behind them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    met: list[int] = []
    ended = threading.Event()

    def meet(number: int, _: Any) -> None:
        # `timeout` and some schedulers send a signal twice: the first one counts.
        if not met:
            met.append(number)
            raise Stopped(number)

    def watch() -> None:
        while True:
            reported = os.read(source, 1)
            if reported in {b"", b"\0"}:
                return
            if reported[0] in used:
                break
        if not ended.wait(grace_s):
            # The sentence may not come out if what hangs is the log.
            LOG.error("%s", stop_message(reported[0]))
            end_children()
            os._exit(STOPPED + reported[0])

    used = [
        number
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    source, target = os.pipe()
    os.set_blocking(target, False)
    before = {number: signal.signal(number, meet) for number in used}
    wakeup = signal.set_wakeup_fd(target, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="asl-app-signals", daemon=True)
    watcher.start()
    try:
        try:
            yield
        except KeyboardInterrupt:
            # Whatever was at work may have raised another one in its place ...
            if not met:
                raise
        if met:  # ... or none.
            raise Stopped(met[0])
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(target, b"\0")
        watcher.join()
        os.close(source)
        os.close(target)


@contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Remember a signal whose exception a library takes for the failure of its own step.

    Yields a function that raises the signal's exception again, if there was one.
    """
    met: list[KeyboardInterrupt] = []

    def again() -> None:
        if met:
            raise met[0]

    if threading.current_thread() is not threading.main_thread():
        yield again
        return
    before = {
        number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))
    }

    def meet(number: int, frame: Any) -> None:
        try:
            before[signal.Signals(number)](number, frame)
        except KeyboardInterrupt as stop:
            met.append(stop)
            raise

    for number in before:
        signal.signal(number, meet)
    try:
        yield again
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children(spared: frozenset[int] = frozenset(), wait_s: float = 1.0) -> None:
    """Kill the worker processes that this process has started, and wait for their end.

    Parameters
    ----------
    spared
        Process numbers to leave alone.
    wait_s
        How long to wait for all of them together.
    """
    children = [c for c in multiprocessing.active_children() if c.pid not in spared]
    for child in children:
        with suppress(OSError, ValueError):
            child.kill()
    deadline = time.monotonic() + wait_s
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))


def end_now(code: int) -> NoReturn:
    """End the process without the seconds that Python takes to take its modules apart.

    What was registered for the end is done, so that no temporary file or semaphore is left.
    Workers end first: Python would wait for those of a pool that nobody has closed.
    """
    end_children()
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def release_memory() -> None:
    """Give freed memory back to the system, which the C library of Linux keeps otherwise."""
    import ctypes

    gc.collect()
    with suppress(OSError, AttributeError):  # another system's library has no such function
        ctypes.CDLL(None).malloc_trim(0)


def begin_worker() -> None:
    """Prepare a worker process: it ends with its parent, and leaves signals to the parent.

    Ctrl-C in a terminal reaches every process of the program at once. The parent alone decides
    what becomes of it, and ends its workers.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # A forked worker has the handlers of its parent.
        signal.signal(number, signal.SIG_DFL)
    follow_parent()


def follow_parent() -> None:
    """End this process as soon as the one that started it has ended, however that was.

    A killed parent can't tell its workers, which would wait for work for ever. The end of a
    pipe tells them; each forked worker holds the pipes of the earlier ones, so the number
    of the parent process is looked at too.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        while _alive(parent.pid):
            parent.join(1.0)
            if not parent.is_alive():
                break
        os._exit(1)

    threading.Thread(target=follow, name="asl-app-parent", daemon=True).start()


def _alive(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
