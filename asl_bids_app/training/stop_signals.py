"""Signals that end a training early, heard from the first moment of a command on.

SLURM sends SIGUSR1 before the time limit and SIGTERM on preemption. Before the training loop
nothing is lost by stopping at once; within it, the step that runs is finished and saved.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Final

SIGNALS: Final = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

INTERRUPTED: Final = 75
"""Exit status of a training that stopped early; the same command goes on (EX_TEMPFAIL)."""


class Interrupted(Exception):  # noqa: N818 - not an error: the state is saved
    """Training stopped before its end; the same command goes on from its last checkpoint."""


def is_helper_rank() -> bool:
    """Tell whether this process was started by another one to train with it."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


class StopSignals:
    """Listens to signals while it is entered; does nothing outside the main thread.

    Attributes
    ----------
    received : str
        Name of the first signal that came; empty if none did.
    """

    def __init__(self) -> None:
        self.received = ""
        self._deferred = is_helper_rank()  # rank 0 decides for all
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def listen(self) -> None:
        """Take the signals, also from a library that took them meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.signal(number, self._receive)
            self._previous.setdefault(number, handler)

    def attend(self) -> None:
        """End at once again when a signal comes, or now if one has come.

        Raises
        ------
        Interrupted
            If a signal came while they were only noted.
        """
        self._deferred = is_helper_rank()
        if self.received and not self._deferred:
            raise Interrupted(self.received)

    def defer(self) -> None:
        """From here on note signals only: whoever trains looks at `received` after each step."""
        self._deferred = True
        self.listen()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name
        if not self._deferred:
            raise Interrupted(self.received)


def ignore_signals() -> None:
    """Leave signals to the process that this one works for, and that ends it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent(every: float = 1.0) -> None:
    """End this process soon after the one that started it has ended, however that was.

    For ranks of a distributed training, which otherwise wait for a dead rank 0 in a collective
    operation, for half an hour and with a GPU.
    """
    parent = os.getppid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=follow, name="asl-train-parent", daemon=True).start()
