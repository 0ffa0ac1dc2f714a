"""What a run tells of itself while it works.

In a terminal that is one line, which is written over: the steps at work in words, how far each
has come, and the time since the beginning. Elsewhere it is a line in the log for each finished
step. Neither tells when the run will end: steps differ too much for a guess to hold.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TextIO

from asl_bids_app.progress_callback import read
from asl_bids_app.reports.explain import step_words

LOG = logging.getLogger("asl-app")

PAINT_S: Final = 0.25
"""Seconds between two looks at the steps."""
_CLEAR: Final = "\r\x1b[K"


def progress_path(record: str | Path) -> Path:
    """Return where the step with this record tells how far it has come."""
    return Path(record).with_suffix(".progress")


def wanted(quiet: bool, stream: TextIO | None = None) -> bool:
    """Say whether there is a terminal that shows progress."""
    stream = stream or sys.stderr
    return not quiet and stream.isatty() and os.environ.get("TERM") != "dumb"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Step:
    """A step of the workflow, as its record names it; nipype's own gatherers have none."""

    def __init__(self, record: str, runs: int = 1) -> None:
        self.record = Path(record)
        title, step, _ = self.record.name.rsplit(".", 2)
        index = step[len(step.rstrip("0123456789")) :]
        which = f" (run {int(index) + 1} of {runs})" if index and runs > 1 else ""
        self.words = f"{title}: {step_words(step)}{which}"
        self.before = self._stamp()

    def _stamp(self) -> int:
        try:
            return self.record.stat().st_mtime_ns
        except OSError:
            return 0

    def is_new(self) -> bool:
        """Say whether the step has run since, rather than been taken from an earlier run."""
        return self._stamp() != self.before

    def now(self) -> str:
        """Tell the step and how far it has come."""
        part = read(progress_path(self.record))
        return f"{self.words}, {part}" if part else self.words


def _all_runs(record: str) -> str:
    """Return what the records of one step have in common for all runs of a series."""
    return str(Path(record).with_suffix("")).rstrip("0123456789")


def _record_of(node: Any) -> str:
    return getattr(getattr(node, "inputs", None), "record", None) or ""


class Progress:
    """Shows the progress of a run while it is entered.

    Parameters
    ----------
    quiet
        Show nothing, and tell of finished steps in the log file only.
    stream
        Where to show it; standard error by default. Without a terminal there is no line.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.shown = wanted(quiet, self.stream)
        self._began = time.monotonic()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._stage = ""
        self._steps: dict[str, _Step] = {}
        self._at_work: dict[str, tuple[_Step, float]] = {}
        self._done = 0
        self._hold = 0.0
        self._painted = False
        self._painter: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.shown:
            LOG.addFilter(self._make_room)
            self._painter = threading.Thread(target=self._paint, name="asl-app-progress")
            self._painter.daemon = True
            self._painter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._painter is not None:
            self._painter.join()
            LOG.removeFilter(self._make_room)
            self._clear()

    @contextmanager
    def stage(self, words: str) -> Iterator[None]:
        """Show what is at work apart from the workflow's steps."""
        self._stage = words
        try:
            yield
        finally:
            self._stage = ""
            with self._lock:
                self._clear()

    def expect(self, nodes: Iterable[Any]) -> None:
        """Take the nodes of the workflow that is about to run."""
        records = [record for node in nodes if (record := _record_of(node))]
        runs = Counter(map(_all_runs, records))
        self._steps = {record: _Step(record, runs[_all_runs(record)]) for record in records}
        self._done = 0

    def note(self, node: Any, status: str) -> None:
        """Take nipype's word of a node: ``start``, ``end`` or ``exception``."""
        # Nipype runs copies of the nodes, under longer names: the record is what they share.
        name = _record_of(node)
        step = self._steps.get(name)
        if step is None:
            return
        with self._lock:
            if status == "start":
                self._at_work[name] = (step, time.monotonic())
                LOG.debug("%s: begins", step.words)
                return
            _, began = self._at_work.pop(name, (step, time.monotonic()))
            self._done += 1
        if status != "end":
            how = "failed"
        elif step.is_new():
            how = f"done ({time.monotonic() - began:.1f} s)"
        else:
            how = "taken from an earlier run"
        LOG.log(
            logging.DEBUG if self.shown else logging.INFO,
            "%s: %s (%d of %d)",
            step.words,
            how,
            self._done,
            len(self._steps),
        )

    def line(self) -> str:
        """Return what is shown now; empty if nothing is at work."""
        passed = _clock(time.monotonic() - self._began)
        with self._lock:
            steps = [step.now() for step, _ in self._at_work.values()]
            count = f"{self._done} of {len(self._steps)} steps done, " if self._at_work else ""
        work = "; ".join(steps) or self._stage
        return f"[{count}{passed}] {work}" if work else ""

    def _paint(self) -> None:
        while not self._ended.wait(PAINT_S):
            with self._lock:
                text = self.line()
                if text and time.monotonic() >= self._hold:
                    width = shutil.get_terminal_size().columns - 1
                    text = text if len(text) <= width else text[: width - 1] + "…"
                    self._write(_CLEAR + text)
                    self._painted = True

    def _make_room(self, _: logging.LogRecord) -> bool:
        """Take the line away before a line of the log comes; it comes again after that."""
        with self._lock:
            self._hold = time.monotonic() + PAINT_S
            self._clear()
        return True

    def _clear(self) -> None:
        """Take the line away; whatever else stands there stays."""
        if self._painted:
            self._write(_CLEAR)
            self._painted = False

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            # A terminal that has been closed ends the display, not the run.
            self._ended.set()
