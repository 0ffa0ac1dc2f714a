"""The command `asl-app`: errors become one line and an exit code here, nowhere else."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from collections.abc import Sequence

from asl_bids_app.cli.parser import parse
from asl_bids_app.errors import AslAppError, code_of, disk_full, one_line
from asl_bids_app.options.table import AppOptions
from asl_bids_app.processes import STOPPED, end_now, exit_code, stoppable
from asl_bids_app.remarks import quiet, silence_tracker

LOG = logging.getLogger("asl-app")


class _Line(logging.Formatter):
    """Warnings and errors say that they are; the rest speaks for itself."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno <= logging.INFO or record.exc_info:
            return text
        return f"{record.levelname.lower()}: {one_line(text)}"


def _start_log(options: AppOptions) -> logging.Handler:
    level = logging.INFO
    if options.quiet:
        level = logging.WARNING
    if options.verbose or options.debug:
        level = logging.DEBUG
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    handler.setLevel(level)
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False
    LOG.addHandler(handler)
    return handler


def _run(options: AppOptions, command: list[str]) -> int:
    if options.level == "group":
        from asl_bids_app.workflows.group_level import run_group

        return run_group(options)
    if options.reports_only or options.boilerplate_only:
        from asl_bids_app.workflows import reporting

        redo = reporting.rebuild_reports if options.reports_only else reporting.write_boilerplate
        return redo(options)
    from asl_bids_app.workflows.participant_level import run_participants

    return run_participants(options, command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `asl-app`.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 if everything succeeded, 1 if something failed, 2 if the command was wrong (raised
        as SystemExit by the parser), a label, model or device that isn't there included, 130 if
        it was interrupted (Ctrl-C), 143 if it was asked to end (SIGTERM, as schedulers send it),
        129 if its terminal was closed.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what the terminal can't show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parse(argv)
    handler = _start_log(options)
    arguments = list(argv) if argv is not None else sys.argv[1:]
    try:
        with stoppable(), quiet():
            return _run(options, ["asl-app", *arguments])
    except AslAppError as error:
        LOG.error("%s", options.locate(error))
        LOG.debug("%s", shlex.join(arguments), exc_info=True)
        return code_of(error)
    except OSError as error:
        if not disk_full(error):
            raise
        LOG.error("the disk is full (%s). Cure: make room, and run it again.", disk_full(error))
        LOG.debug("%s", shlex.join(arguments), exc_info=True)
        return 1
    except KeyboardInterrupt as stop:
        LOG.error("%s", stop)
        return exit_code(stop)
    finally:
        LOG.removeHandler(handler)


def command() -> None:
    """Run `asl-app` as a process of its own, and end it."""
    silence_tracker()
    code = main()
    if code > STOPPED:
        end_now(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
