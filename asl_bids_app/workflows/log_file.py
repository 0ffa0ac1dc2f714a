"""The log of a run, in a file beside its records."""

from __future__ import annotations

import logging
import os
from pathlib import Path

LOG = logging.getLogger("asl-app")


class _Quiet(logging.FileHandler):
    """A log file that can't be written to, for want of room most often, ends no run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out: the terminal has it."""


class LogFile:
    """Copies the log into a file for the length of a run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.handler = _Quiet(path, encoding="utf-8", errors="backslashreplace")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> None:
        LOG.addHandler(self.handler)
        LOG.debug("process %d", os.getpid())

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is not None:
            # The console shows it when the run has ended, and this file is closed then.
            line = (LOG.name, logging.ERROR, __file__, 0, "run ended: %s", (error,), None)
            self.handler.handle(LOG.makeRecord(*line))
        LOG.removeHandler(self.handler)
        self.handler.close()
