"""Values of options that come from Python: read and checked as those of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.options.declare import Access, option_of, options_of
from asl_bids_app.options.table import AppOptions

ELSEWHERE: Final = {
    "participant_label": "participants",
    "session_label": "sessions",
    "bids_dir": "the first argument",
    "output_dir": "the second argument",
}
"""Fields that are arguments of their own, and what those are called."""
COMMAND_LINE_ONLY: Final = frozenset(
    {
        *("level", "work_dir", "dry_run", "propose_sidecars", "reports_only", "boilerplate_only"),
        *(
            "run_report",
            "write_graph",
            "clean_workdir",
            "keep_work",
            "use_plugin",
            "stop_on_first_crash",
        ),
        *("fail_on_implausible", "debug", "verbose", "quiet", "mem_gb"),
    }
)
"""Fields that make sense for a run of the command line alone."""


def read_values(values: Mapping[str, Any], call: str) -> dict[str, Any]:
    """Read options by the table that the command line is made from.

    Parameters
    ----------
    values
        By the names of the fields of `AppOptions`.
    call
        What an error calls the function that was called.

    Returns
    -------
    dict
        Ready for `AppOptions`.

    Raises
    ------
    InputError
        If an option is unknown, has another place, or can't have its value.
    """
    table = {item.name: item for item in options_of(AppOptions)}
    read = {}
    for name, value in values.items():
        if name in ELSEWHERE:
            raise InputError(call, name, "an option", ELSEWHERE[name])
        if name in COMMAND_LINE_ONLY:
            raise InputError(call, name, "an option of the command line", "none from Python")
        if name not in table:
            raise InputError(call, name, "an unknown option", "a field of AppOptions")
        read[name] = _read_value(table[name], value, call)
    return read


def _read_value(item: Field[Any], value: Any, call: str) -> Any:
    declared = option_of(item)
    if declared.bare and isinstance(value, bool):
        # An option that needs no value may be given as a switch.
        value = declared.bare if value else item.default
    if isinstance(item.default, bool):
        if not isinstance(value, bool):
            raise InputError(call, item.name, repr(value), "True or False")
        return value
    if value is None and item.default is None:
        return None
    if not declared.several:
        return _read_single(item, value, call)
    if isinstance(value, Mapping):
        pairs = [
            _read_single(item, f"{key}={each}" if key else each, call)
            for key, each in value.items()
        ]
        return dict(pairs)
    if item.default == ():
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(call, item.name, repr(value), "a list")
        return tuple(_read_single(item, each, call) for each in value)
    # One value for every scheme.
    return dict([_read_single(item, value, call)])


def _read_single(item: Field[Any], value: Any, call: str) -> Any:
    declared = option_of(item)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Path)):
        raise InputError(call, item.name, repr(value), "one value of the command line's kind")
    try:
        read = declared.reader(str(value)) if declared.reader else str(value)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise InputError(
            call, item.name, repr(value), f"a value that the command line takes ({error})"
        ) from error
    if declared.choices and read not in declared.choices:
        raise InputError(call, item.name, repr(value), f"one of {', '.join(declared.choices)}")
    path = read[1] if isinstance(read, tuple) else read
    if isinstance(path, Path):
        wrong = {Access.READ_FILE: not path.is_file(), Access.READ: not path.exists()}
        if wrong.get(declared.access, False):
            raise InputError(call, item.name, f"nothing at {path}", "an existing file or folder")
    return read


def read_labels(labels: Any, prefix: str, name: str, call: str) -> tuple[str, ...]:
    """Read labels of participants or sessions; one by itself counts as a list of one.

    Raises
    ------
    InputError
        If they are no text: 8 may be ``8`` or ``08``.
    """
    several = (labels,) if isinstance(labels, str) else labels
    if not isinstance(several, Sequence) or not all(isinstance(one, str) for one in several):
        raise InputError(call, name, repr(labels), "labels as text, such as ['01', '02']")
    return tuple(label.removeprefix(prefix) for label in several)
