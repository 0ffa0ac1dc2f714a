"""Several commands at a time, with signals handed on to them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from asl_bids_app.allocation import processors
from asl_bids_app.training.stop_signals import INTERRUPTED, SIGNALS

log = logging.getLogger(__name__)


def run_together(
    commands: Mapping[str, Sequence[str]], jobs: int, logs: Path, poll: float = 0.2
) -> dict[str, int]:
    """Run commands, at most `jobs` of them at a time.

    Parameters
    ----------
    commands
        Arguments of ``asl-train`` by a name for the log.
    jobs
        Processes at a time.
    logs
        Folder for what each of them prints (``NAME.log``).
    poll
        Seconds between looks at the processes.

    Returns
    -------
    dict
        Exit status by name; commands that a signal kept from starting have `INTERRUPTED`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = dict(commands)
    running: dict[str, subprocess.Popen[bytes]] = {}
    status: dict[str, int] = {}
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for process in running.values():
            process.send_signal(number)

    threads = str(max(1, processors() // max(1, min(jobs, len(commands)))))
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ}
    previous = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        while waiting or running:
            while waiting and len(running) < jobs and not received:
                name = next(iter(waiting))
                words = [sys.executable, "-m", "asl_bids_app.training.cli", *waiting.pop(name)]
                with (logs / f"{name}.log").open("ab") as target:
                    running[name] = subprocess.Popen(
                        words,
                        stdout=target,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        # Ctrl-C reaches the whole group; the signal is handed on once instead.
                        start_new_session=True,
                    )
                log.info("%s started", name)
            for name, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[name]
                    status[name] = code
                    log.info("%s ended with status %d", name, code)
            if received and waiting:
                status.update(dict.fromkeys(waiting, INTERRUPTED))
                waiting = {}
            time.sleep(poll)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for process in running.values():
            process.terminate()
    return status
