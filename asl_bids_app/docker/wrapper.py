"""The command line of `asl-docker`."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence

from asl_bids_app import __version__
from asl_bids_app.docker.arguments import AppCommand, links_outside, make_folders, read_command
from asl_bids_app.docker.container import ContainerRun, run
from asl_bids_app.errors import AslAppError

IMAGE = f"asl-app:{__version__}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the wrapper's own options."""
    parser = argparse.ArgumentParser(
        prog="asl-docker",
        usage="asl-docker [--image NAME] [--gpus GPUS] [--user UID:GID] [--print-command] "
        "bids_dir output_dir {participant,group} [options of asl-app]",
        description="Run asl-app in its Docker image. Every path in the command is given to the "
        "container under its own name; it gets no network, and writes as you.",
        epilog="All other options are those of asl-app: see asl-app --help.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--image",
        type=_image,
        default=os.environ.get("ASL_APP_IMAGE", IMAGE),
        help="image to run (default: %(default)s; ASL_APP_IMAGE sets another)",
    )
    parser.add_argument(
        "--gpus",
        type=_gpus,
        help="'all', a number, or device=ID,ID; all by default if --device names cuda, else none",
    )
    parser.add_argument(
        "--user",
        type=_user,
        default=_current_user(),
        metavar="UID:GID",
        help="who the files will belong to (default: you; 0:0 for rootless Podman)",
    )
    parser.add_argument(
        "--print-command", action="store_true", help="print the docker run command, and end"
    )
    parser.add_argument("--version", action="version", version=f"asl-docker {__version__}")
    return parser


def _image(text: str) -> str:
    """Read the name of an image; anything else would be an option of `docker run`."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/@-]{0,511}", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected the name of an image, such as {IMAGE}"
        )
    return text


def _gpus(text: str) -> str:
    if not re.fullmatch(r"all|[1-9][0-9]*|device=[\w-]+(,[\w-]+)*", text):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected all, a number, or device=ID,ID"
        )
    return text


def _user(text: str) -> str:
    if not re.fullmatch(r"[0-9]+:[0-9]+", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected numbers UID:GID")
    return text


def _current_user() -> str:
    return f"{os.getuid()}:{os.getgid()}" if hasattr(os, "getuid") else ""


def plan(own: argparse.Namespace, command: AppCommand) -> ContainerRun:
    """Return the container run of a command."""
    gpus = own.gpus
    if gpus is None:
        gpus = "all" if command.options.device.startswith("cuda") else ""
    return ContainerRun(own.image, command.arguments, command.mounts, own.user, gpus)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `asl-docker`.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code of `asl-app` in the container; 1 if it could not be run, 2 (as
        SystemExit) if the command was wrong, 130 if it was interrupted.
    """
    own, rest = build_parser().parse_known_args(argv)
    try:
        if os.name != "posix":
            raise AslAppError("asl-docker needs Linux, macOS, or the Windows Subsystem for Linux.")
        command = read_command(rest)
        planned = plan(own, command)
        if own.print_command:
            sys.stdout.write(shlex.join(planned.command()) + "\n")
            return 0
        make_folders(command)
        for link in links_outside(command)[:1]:
            sys.stderr.write(
                f"warning: {link}: found a link out of the dataset (and perhaps more), expected "
                "files that the container can see. Cure: copy them into the dataset, or mount "
                "their folder too (--print-command prints what to add to).\n"
            )
        return run(planned)
    except AslAppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
