"""What can be checked of a command line before any data is read, and option files."""

from __future__ import annotations

import argparse
import difflib
import os
from pathlib import Path
from typing import Any


def apply_config(parser: argparse.ArgumentParser, path: Path) -> None:
    """Make the options of a configuration file the parser's defaults."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"{path}: found no readable file ({error.strerror}), expected YAML")
    except yaml.YAMLError as error:
        parser.error(f"{path}: found no YAML ({str(error).splitlines()[0]}), expected options")
    if not isinstance(content, dict):
        parser.error(f"{path}: found {type(content).__name__}, expected options with values")
    known = {
        spelling.lstrip("-").replace("_", "-"): action
        for action in parser._actions
        for spelling in action.option_strings
        if spelling.startswith("--")
    }
    for key in ("help", "version", "config-file"):
        known.pop(key, None)
    defaults = {}
    for key, value in content.items():
        name = str(key).replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            parser.error(f"{path}: {key}: found an unknown option{hint}")
        action = known[name]
        defaults[action.dest] = _read_value(parser, path, name, action, value)
    parser.set_defaults(**defaults)


def _read_value(
    parser: argparse.ArgumentParser, path: Path, name: str, action: argparse.Action, value: Any
) -> Any:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            parser.error(f"{path}: {name}: found {value!r}, expected true or false")
        # A switch such as no-hmc stores false when it is true.
        return value != (isinstance(action, argparse._StoreFalseAction))
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        items = [f"{key}={item}" for key, item in value.items()]
    try:
        read = [action.type(str(item)) if action.type else str(item) for item in items]
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(f"{path}: {name}: {error}")
    for item in read:
        if action.choices and item not in action.choices:
            parser.error(f"{path}: {name}: found {item!r}, expected one of {list(action.choices)}")
    return read if action.nargs == "+" else read[0]


def check_places(parser: argparse.ArgumentParser, values: dict[str, Any]) -> None:
    """Refuse folders and files that can't be, and output inside the raw data."""
    source, output, work = (
        Path(os.path.realpath(values[key])) for key in ("bids_dir", "output_dir", "work_dir")
    )
    if not source.is_dir():
        parser.error(f"{values['bids_dir']}: found no folder, expected a BIDS dataset")
    report = values.get("run_report")
    if report and report.is_dir():
        parser.error(f"--run-report: found the folder {report}, expected the name of a file")
    if values["level"] == "participant":
        places = [(output, "output_dir"), (work, "--work-dir")]
        if proposals := values.get("propose_sidecars"):
            places.append((Path(os.path.realpath(proposals)), "--propose-sidecars"))
            if proposals.exists() and not proposals.is_dir():
                parser.error(f"--propose-sidecars: found the file {proposals}, expected a folder")
        for place, option in places:
            inside = place == source or (
                source in place.parents and place.relative_to(source).parts[0] != "derivatives"
            )
            if inside and not (option == "--work-dir" and values["dry_run"]):
                advice = source / "derivatives" / "asl-bids-app"
                parser.error(
                    f"{option}: found {place} inside the raw data, expected a folder outside "
                    f"(or {advice})"
                )
    for key in ("brain_mask", "bids_filter_file", "use_plugin"):
        path = values[key]
        if path and not path.is_file():
            parser.error(f"--{key.replace('_', '-')}: found no file {path}, expected one")
    for name, path in dict(values["derivatives"]).items():
        if not path.is_dir():
            parser.error(f"--derivatives {name}: found no folder {path}, expected derivatives")
