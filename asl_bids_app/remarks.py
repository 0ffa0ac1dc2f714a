"""What libraries say on their own (logging, `warnings`): collected, so that no bare line is shown.

A line such as ``pixdim[1,2,3] should be positive`` names no file. Whoever knows which file is
at work collects it; the rest goes to the debug log.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from asl_bids_app.errors import one_line

LIBRARIES: Final = ("nibabel.global", "py.warnings")
"""Loggers that libraries print by."""
LOG = logging.getLogger("asl-app")


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what libraries say inside, each sentence once.

    Yields
    ------
    list of str
        Filled when the block ends.
    """
    reported: list[str] = []
    taken: list[str] = []

    def keep_message(record: logging.LogRecord) -> bool:
        taken.append(record.getMessage())
        return False

    logger = logging.getLogger(LIBRARIES[0])
    # A filter of the logger sees a record before any handler, and so also before one that the
    # library adds when it is imported inside.
    logger.filters.insert(0, keep_message)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield reported
            finally:
                taken += [f"{each.category.__name__}: {each.message}" for each in caught]
    finally:
        logger.filters.remove(keep_message)
        reported += dict.fromkeys(one_line(text) for text in taken)


def select_numeric(texts: list[str]) -> list[str]:
    """Return those of some collected sentences that tell of numbers gone wrong."""
    names = ("RuntimeWarning: ",)
    return [text.removeprefix(names[0]) for text in texts if text.startswith(names)]


def _to_debug(record: logging.LogRecord) -> bool:
    LOG.debug("%s: %s", record.name, one_line(record.getMessage()))
    return False


def redirect() -> None:
    """Send the messages of libraries to the debug log, in this process for good.

    Workers call it: they have nobody who listens.
    """
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        if _to_debug not in logger.filters:
            logger.addFilter(_to_debug)


@contextmanager
def quiet() -> Iterator[None]:
    """Send what libraries say inside, and nobody collects, to the debug log."""
    redirect()
    # Not `logging.captureWarnings` alone: `catch_warnings` of others must go on to work.
    before = warnings.showwarning
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = before


_TRACKER: Final = "ignore:resource_tracker:UserWarning"


def silence_tracker() -> None:
    """Let Python's tracker of semaphores clean up without a word after a run that was killed.

    It is a process of its own that gets the warning options of this one when it starts.
    """
    if _TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_TRACKER)
