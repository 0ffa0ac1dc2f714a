"""Command lines whose usage errors are one line that names what was likely meant."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Reports a usage error in one line, with what was likely meant."""

    elsewhere: Mapping[str, str] = MappingProxyType({})
    """Options of other programs, and what stands for them here."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read arguments; an option that doesn't exist is reported first."""
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
    the positional arguments, and reported as their fault.

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
        near = _find_near(f"--{plain}", known)
        hint = f"; did you mean {near}?" if near else "; --help lists the options"
        parser.error(f"{name}: found an unknown option{hint}")


def _find_near(name: str, known: Sequence[str]) -> str:
    spellings = {each.replace("_", "-").casefold(): each for each in reversed(known)}
    long = [each for each in spellings if each.startswith("--")]
    near = difflib.get_close_matches(name.casefold(), long, n=1, cutoff=0.6)
    # A name that lacks a part of the right one: --participants, --workdir, --threads.
    core = name[2:].casefold().replace("-", "").rstrip("s")
    part = [each for each in long if core and core in each.replace("-", "")]
    found = near or sorted(part, key=len)
    return spellings[found[0]].replace("_", "-") if found else ""


SPELLINGS: Final = re.compile(r"^(?:-\w/)?(?P<name>--[\w-]+)(?:/[\w/-]+)*:")
CHOICE: Final = re.compile(r"invalid choice: '(?P<value>[^']*)' \(choose from (?P<choices>.*)\)")


def one_line(message: str) -> str:
    """Return a message of argparse on one line, in the words of the other messages.

    Examples
    --------
    >>> one_line("argument --joint: invalid choice: 'bth' (choose from auto, off, both)")
    "--joint: found 'bth', expected one of auto, off, both; did you mean both?"
    >>> one_line("argument -w/--work-dir/--work_dir: expected one argument")
    '--work-dir: expected one argument'
    >>> one_line("the following arguments are required: output_dir, {participant,group}")
    'found nothing for output_dir, the level (participant or group)'
    """
    text = " ".join(message.split()).removeprefix("argument ")
    # One spelling of an option is enough, and braces are the usage's way to name an argument.
    text = SPELLINGS.sub(r"\g<name>:", text)
    text = re.sub(r"\{(\w+),(\w+)\}", r"the level (\1 or \2)", text)
    if found := CHOICE.search(text):
        choices = [each.strip(" '\"") for each in found["choices"].split(",")]
        near = difflib.get_close_matches(found["value"], choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        reported = f"found {found['value']!r}, expected one of {', '.join(choices)}{hint}"
        return text[: found.start()] + reported
    text = text.replace("the following arguments are required:", "found nothing for")
    text = text.replace("unrecognized arguments:", "found unexpected arguments:")
    return text.replace("expected at least one argument", "found no value, expected one or more")
