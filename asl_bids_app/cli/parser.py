"""The command line of `asl-app`, made from the table of options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field
from typing import Any

from asl_bids_app import __version__
from asl_bids_app.cli.command_checks import check_places, read_config
from asl_bids_app.cli.elsewhere import ELSEWHERE
from asl_bids_app.constants import Origin, Source
from asl_bids_app.options.declare import Option, has_default, option_of, options_of
from asl_bids_app.options.groups import GENERAL, RUNNING
from asl_bids_app.options.table import CONFIG_FILE, GROUPS, AppOptions
from asl_bids_app.usage import OneLineParser

EPILOG = """\
Every constant can be given here, or comes from the sidecars, or is a stated default; the
log, the sidecars and the report say which. --dry-run shows what would be done.
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, but not of switches: that of ``--no-hmc`` would read as its opposite."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"{action.help} (default: {'yes' if default else 'no'})"
        if action.nargs == 0 or default in (None, []):
            return action.help
        return super()._get_help_string(action)


class _Parser(OneLineParser):
    """Accepts underscores for hyphens in option names, as BIDS apps do."""

    elsewhere = ELSEWHERE


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `asl-app`."""
    parser = _Parser(
        prog="asl-app",
        description="CBF and ATT maps with error bars from multi-delay ASL in BIDS "
        "(PCASL, CASL, PASL, velocity-selective ASL, alone or jointly).",
        epilog=EPILOG,
        formatter_class=_Help,
    )
    groups: dict[str, argparse._ActionsContainer] = {GENERAL: parser}
    groups |= {title: parser.add_argument_group(title) for title in GROUPS}
    table = options_of(AppOptions)
    for item in table:
        declared = option_of(item)
        if item.name == "level":
            metavar = "{" + ",".join(declared.choices) + "}"
            parser.add_argument(
                "level", choices=declared.choices, metavar=metavar, help=declared.help
            )
        elif declared.group == GENERAL and not has_default(item):
            reader = declared.reader or str
            parser.add_argument(item.name, type=reader, help=declared.help)
    parser.add_argument("--version", action="version", version=f"asl-app {__version__}")
    _add(groups[RUNNING], "config_file", CONFIG_FILE, None)
    for item in table:
        declared = option_of(item)
        if item.name == "level" or (declared.group == GENERAL and not has_default(item)):
            continue
        group = groups[declared.group]
        _add(group, item.name, declared, _default(item, declared))
        if declared.second:
            _add(group, item.name, declared.second, None)
    return parser


def bare_parser() -> argparse.ArgumentParser:
    """Return the parser without defaults: it keeps only what the command line gives."""
    parser = build_parser()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return parser


def _default(item: Field[Any], declared: Option) -> Any:
    if declared.machine_default:
        return declared.machine_default()
    return [] if declared.several else item.default


def _add(group: argparse._ActionsContainer, name: str, declared: Option, default: Any) -> None:
    """Add an option under its spellings with hyphens and with underscores."""
    off = default is True and not declared.both_ways
    plain = f"--{'no-' if off else ''}{name.replace('_', '-')}"
    names = declared.names or (plain,)
    spellings = [*names, *(_underscored(each) for each in names if "-" in each[2:])]
    settings: dict[str, Any] = {"dest": name, "help": declared.help, "default": default}
    if declared.counted:
        settings["action"] = "count"
    elif declared.both_ways:
        settings["action"] = argparse.BooleanOptionalAction
    elif isinstance(default, bool):
        settings["action"] = "store_false" if default else "store_true"
    else:
        settings |= {"type": declared.reader, "metavar": declared.metavar}
        settings |= {"choices": declared.choices} if declared.choices else {}
        settings |= {"nargs": "+"} if declared.several else {}
        settings |= {"nargs": "?", "const": declared.bare} if declared.bare else {}
    group.add_argument(*spellings, **settings)


def _underscored(name: str) -> str:
    return f"--{name[2:].replace('-', '_')}"


def parse(argv: Sequence[str] | None = None) -> AppOptions:
    """Read the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    AppOptions

    Raises
    ------
    SystemExit
        With code 2 and one line on standard error if an argument is wrong.
    """
    parser = build_parser()
    file = parser.parse_args(argv).config_file
    defaults: dict[str, Any] = {}
    if file:
        given = vars(bare_parser().parse_args(argv))
        read = read_config(parser, file)
        defaults = {name: value for name, value in read.items() if name not in given}
        parser.set_defaults(**defaults)
    values = vars(parser.parse_args(argv))
    values.pop("config_file")
    check_places(parser, values)
    for item in options_of(AppOptions):
        if option_of(item).several:
            # Of pairs with a name a mapping, of others a tuple, as the table has them.
            values[item.name] = (tuple if item.default == () else dict)(values[item.name])
    origins = dict.fromkeys(defaults, Origin(Source.CONFIG_FILE, file.name if file else ""))
    return AppOptions(**values, origins=origins)
