"""Options that don't exist: what was likely meant, and what stands for those of other apps."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NoReturn

NO_ANATOMY: Final = (
    "no T1-weighted image is used, so nothing is read of FreeSurfer or of its licence"
)
NO_DISTORTION: Final = "susceptibility distortion is not corrected"

ELSEWHERE: Final = MappingProxyType(
    {
        "output-spaces": "maps are written in the space of the ASL run only; resample them "
        "with the transforms of another program",
        "fs-license-file": NO_ANATOMY,
        "fs-subjects-dir": NO_ANATOMY,
        "fs-no-reconall": NO_ANATOMY,
        "no-submm-recon": NO_ANATOMY,
        "cifti-output": "there are no surfaces: maps are written as volumes",
        "project-goodvoxels": "there are no surfaces: maps are written as volumes",
        "medial-surface-nan": "there are no surfaces: maps are written as volumes",
        "anat-only": "there is no anatomical part that could run alone",
        "anat-derivatives": "give tissue maps and masks by --derivatives NAME=PATH",
        "longitudinal": "sessions are quantified one by one; --session-label chooses them",
        "subject-anatomical-reference": "no anatomical image is used",
        "skull-strip-t1w": "no T1-weighted image is used; give a mask by --brain-mask",
        "skull-strip-template": "the mask is made from the M0; give another by --brain-mask",
        "skull-strip-fixed-seed": "the mask is made without drawing numbers; --random-seed "
        "sets the seed of the rest",
        "use-syn-sdc": NO_DISTORTION,
        "force-syn": NO_DISTORTION,
        "ignore": "nothing is corrected beyond motion (--no-hmc leaves it out); slice times "
        "belong to the delays",
        "force": "each estimator is chosen by --estimator; nothing else can be forced",
        "asl2t1w-init": "runs are not aligned with a T1-weighted image",
        "asl2t1w-dof": "runs are not aligned with a T1-weighted image",
        "asl2anat-init": "runs are not aligned with a T1-weighted image",
        "asl2anat-dof": "runs are not aligned with a T1-weighted image",
        "force-bbr": "runs are not aligned with a T1-weighted image",
        "force-no-bbr": "runs are not aligned with a T1-weighted image",
        "dummy-vols": "mark volumes that are not to be used n/a in aslcontext.tsv",
        "dummy-scans": "mark volumes that are not to be used n/a in aslcontext.tsv",
        "smooth-kernel": "maps are not smoothed; --m0-smooth-fwhm smooths the M0",
        "scorescrub": "outlying pairs are left out always; SCORE and SCRUB are not offered",
        "basil": "the error bars and tissue priors of --estimator do its work",
        "m0-calib": "the M0 is the one that the sidecars name; --m0-scale multiplies it",
        "task-id": "ASL runs have no task; --bids-filter-file chooses runs by their entities",
        "echo-idx": "--bids-filter-file chooses runs by their entities, echo included",
        "bids-filter": "--bids-filter-file is its name here",
        "session-id": "--session-label is its name here",
        "subject-label": "--participant-label is its name here",
        "low-mem": "--mem bounds the memory that steps at a time may take",
        "notrack": "nothing is ever sent over the network",
        "track-carbon": "carbon is not tracked",
        "country-code": "carbon is not tracked",
        "resource-monitor": "the run report (--run-report) holds time and memory of each step",
        "md-only-boilerplate": "--boilerplate-only writes the methods text",
        "sloppy": "--no-hmc, --no-tissue and --estimator least-squares make a quick run",
        "output-layout": "there is one layout of outputs, that of BIDS derivatives",
        "aggregate-session-reports": "there is one report for each participant",
        "validate-bids": "what a run needs is checked always; the BIDS validator is a program "
        "of its own",
        "bids-validate": "what a run needs is checked always; the BIDS validator is a program "
        "of its own",
    }
)
"""Options of NiPreps and other BIDS apps that this one lacks, and what to do instead."""


class OneLineParser(argparse.ArgumentParser):
    """Tells a usage error in one line, and what was likely meant."""

    elsewhere: Mapping[str, str] = MappingProxyType({})
    """Options of other programs, and what stands for them here."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read arguments; an option that doesn't exist is told first."""
        args = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:
            check_spelling(self, args, self.elsewhere)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with one line on standard error and exit code 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def check_spelling(
    parser: argparse.ArgumentParser, argv: Sequence[str], elsewhere: Mapping[str, str]
) -> None:
    """Refuse the first option that doesn't exist, with what was likely meant.

    Before anything else is read: the value of an unknown option would be taken for one of
    the positional arguments, and told as a fault of those.

    Parameters
    ----------
    parser
        Knows the options.
    argv
        The arguments.
    elsewhere
        Options of other programs without hyphens in front, and what stands for them.

    Raises
    ------
    SystemExit
        With code 2 and one line.
    """
    known = [name for action in parser._actions for name in action.option_strings]
    for argument in argv:
        if argument == "--":
            return
        name = argument.partition("=")[0]
        if not name.startswith("--") or any(each.startswith(name) for each in known):
            continue
        plain = name[2:].replace("_", "-")
        if instead := elsewhere.get(plain) or elsewhere.get(plain.removeprefix("no-")):
            parser.error(f"{name}: this option of other BIDS apps doesn't exist here: {instead}")
        near = _near(f"--{plain}", known)
        hint = f"; did you mean {near}?" if near else "; --help lists the options"
        parser.error(f"{name}: found an unknown option{hint}")


def _near(name: str, known: Sequence[str]) -> str:
    spellings = {each.replace("_", "-").casefold(): each for each in reversed(known)}
    long = [each for each in spellings if each.startswith("--")]
    near = difflib.get_close_matches(name.casefold(), long, n=1, cutoff=0.6)
    # A name that lacks a part of the right one: --participants, --workdir, --threads.
    core = name[2:].casefold().replace("-", "").rstrip("s")
    part = [each for each in long if core and core in each.replace("-", "")]
    found = near or sorted(part, key=len)
    return spellings[found[0]].replace("_", "-") if found else ""


CHOICE: Final = re.compile(r"invalid choice: '(?P<value>[^']*)' \(choose from (?P<choices>.*)\)")


def one_line(message: str) -> str:
    """Return a message of argparse on one line, in the words of the other messages.

    Examples
    --------
    >>> one_line("argument --joint: invalid choice: 'bth' (choose from auto, off, both)")
    "--joint: found 'bth', expected one of auto, off, both; did you mean both?"
    """
    text = " ".join(message.split()).removeprefix("argument ")
    if found := CHOICE.search(text):
        choices = [each.strip(" '\"") for each in found["choices"].split(",")]
        near = difflib.get_close_matches(found["value"], choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        told = f"found {found['value']!r}, expected one of {', '.join(choices)}{hint}"
        return text[: found.start()] + told
    text = text.replace("the following arguments are required:", "found nothing for")
    text = text.replace("unrecognized arguments:", "found unexpected arguments:")
    return text.replace("expected at least one argument", "found no value, expected one or more")
