"""The command ``asl-train``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

from asl_bids_app.errors import AslAppError
from asl_bids_app.training.stop_signals import INTERRUPTED, Interrupted, StopSignals
from asl_bids_app.training.train_parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        0: done; 1: an error, in one line; 75: training stopped early with a checkpoint
        to go on from.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args([_as_spelled(word) for word in words])
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        if arguments.command not in _GO_ON:
            return _run(arguments)
        # Before torch is imported, which takes seconds in which a job may have to end.
        with StopSignals() as arguments.stop:
            return _run(arguments)
    except Interrupted as stop:
        logging.getLogger(__name__).info("stopped (%s); the same command goes on from here", stop)
        return INTERRUPTED
    except (AslAppError, ValueError, OSError) as error:
        # Anything else is a bug and deserves its traceback.
        if arguments.verbose or not isinstance(error, AslAppError | OSError):
            raise
        print(f"asl-train {arguments.command}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


_OTHER_NAMES: Final = MappingProxyType({"--offline-dataset-path": "--dataset"})
"""Names that guides to this training give to options."""


def _as_spelled(word: str) -> str:
    """Return a word of the command line with an option's name as it is spelled here.

    Examples
    --------
    >>> [_as_spelled(word) for word in ("--output_dir=my_run", "--offline_dataset_path", "a_b")]
    ['--output-dir=my_run', '--dataset', 'a_b']
    """
    if not word.startswith("--"):
        return word
    name, sign, value = word.partition("=")
    name = name.replace("_", "-")
    return _OTHER_NAMES.get(name, name) + sign + value


_GO_ON = ("fit", "pipeline")
"""Commands that the same words continue after a signal."""


def _run(arguments: argparse.Namespace) -> int:
    from asl_bids_app.training import commands

    run: Callable[[argparse.Namespace], int] = getattr(
        commands, arguments.command.replace("-", "_")
    )
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
