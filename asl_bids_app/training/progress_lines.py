"""Lines in the log that say how far a long command is."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 3.5 h.

    Examples
    --------
    >>> duration(40), duration(720), duration(12600)
    ('40 s', '12 min', '3.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ProgressLines:
    """Tells of each part of a work when it is done, and in between that it goes on.

    Parameters
    ----------
    title
        What is done.
    total
        Its parts.
    quiet
        Seconds without a line after which one says that the work goes on.
    """

    def __init__(self, title: str, total: int, quiet: float = 60.0) -> None:
        self.title, self.total, self.quiet = title, total, quiet
        self.done = 0
        self._began = self._said = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        log.info("%s: %d to do", self.title, self.total)
        threading.Thread(target=self._reassure, name="asl-train-progress", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()

    def advance(self, text: str = "") -> None:
        """Tell that a part is done."""
        with self._lock:
            self.done += 1
            self._say(text)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._began
        words = f"{self.title}: {self.done} of {self.total}"
        if text:
            words += f", {text}"
        if 0 < self.done < self.total:
            left = elapsed / self.done * (self.total - self.done)
            words += f" (after {duration(elapsed)}, about {duration(left)} left)"
        elif not self.done:
            words += f" (after {duration(elapsed)})"
        log.info(words)

    def _reassure(self) -> None:
        while not self._ended.wait(min(1.0, self.quiet)):
            with self._lock:
                if self.done < self.total and time.monotonic() - self._said >= self.quiet:
                    self._say("at work")
