"""What can be checked of a command line before any data is read, and option files."""

from __future__ import annotations

import argparse
import difflib
import os
from datetime import date
from pathlib import Path
from typing import Any

from asl_bids_app.options.declare import Access, option_of, options_of
from asl_bids_app.options.places import advised_output, in_raw_data
from asl_bids_app.options.table import AppOptions


def read_config(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """Read the options of a configuration file, by their names in the table."""
    import yaml

    try:
        # Of a file with a byte-order mark, the text without it.
        text = path.read_text(encoding="utf-8-sig")
        content = yaml.load(text, Loader=_unique_keys(yaml.SafeLoader))
    except OSError as error:
        parser.error(f"{path}: found no readable file ({error.strerror}), expected YAML")
    except UnicodeDecodeError:
        parser.error(f"{path}: found no UTF-8 text, expected YAML; save it as UTF-8")
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reported = " ".join(str(error).split())
        parser.error(f"{path}: found no YAML ({reported[:120]}), expected options")
    if content is None:
        parser.error(f"{path}: found nothing, expected options with values")
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
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            parser.error(f"{path}: {key}: found an unknown option{hint}")
        action = known[name]
        if action.dest in values:
            parser.error(f"{path}: {key}: found twice, in two spellings, expected once")
        values[action.dest] = _read_value(parser, path, name, action, value)
    return values


def _unique_keys(loader: Any) -> Any:
    """Return a YAML loader that refuses a key given twice, of which one would be lost."""
    import yaml

    class Unique(loader):  # type: ignore[misc]
        pass

    def read(self: Any, node: Any) -> dict[Any, Any]:
        names = [getattr(key, "value", None) for key, _ in node.value]
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str) and names.count(name) > 1:
                raise yaml.constructor.ConstructorError(problem=f"{name} is given twice")
        content: dict[Any, Any] = loader.construct_mapping(self, node, deep=True)
        return content

    Unique.add_constructor("tag:yaml.org,2002:map", read)
    return Unique


def _read_value(
    parser: argparse.ArgumentParser, path: Path, name: str, action: argparse.Action, value: Any
) -> Any:
    if isinstance(action, argparse._CountAction):
        if not isinstance(value, int) or value < 0:
            expected = "true, false, or how often it is given, such as 2"
            parser.error(f"{path}: {name}: found {_shown(value)}, expected {expected}")
        return int(value)
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            parser.error(f"{path}: {name}: found {_shown(value)}, expected true or false")
        # A switch such as no-hmc, or no-tta of --tta, stores false when it is true.
        both = isinstance(action, argparse.BooleanOptionalAction)
        negative = both and name.replace("_", "-").startswith("no-")
        return value != (negative or isinstance(action, argparse._StoreFalseAction))
    if action.nargs == "?" and isinstance(value, bool):
        return action.const if value else action.default
    many = action.nargs == "+"
    if isinstance(value, dict) and many:
        items = [f"{key}={item}" for key, item in value.items()]
    else:
        items = value if isinstance(value, list) and many else [value]
    if action.dest.endswith("_label") and any(isinstance(i, int | float | date) for i in items):
        # YAML reads 010 as 8 and 01 as 1: another participant.
        parser.error(f"{path}: {name}: found {_shown(value)}, expected labels in quotes ('01')")
    plain = (str, int, float, date)
    odd = next((i for i in items if isinstance(i, bool) or not isinstance(i, plain)), None)
    if odd is not None or not items or None in items:
        found = "nothing" if value in (None, [], {}) else _shown(value)
        expected = "one or more values" if many else "one value"
        parser.error(f"{path}: {name}: found {found}, expected {expected}")
    try:
        reader = action.type if callable(action.type) else str
        read = [reader(str(item)) for item in items]
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(f"{path}: {name}: {error}")
    choices = ", ".join(map(str, action.choices or ()))
    for item in read:
        if action.choices and item not in action.choices:
            parser.error(f"{path}: {name}: found {item!r}, expected one of {choices}")
    return read if action.nargs == "+" else read[0]


def _shown(value: Any) -> str:
    """Return a value as YAML writes it, short enough for a message."""
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
            unused = option == "--work-dir" and values["dry_run"]
            if in_raw_data(source, place) and not unused:
                parser.error(
                    f"{option}: found {place} inside the raw data, expected a folder outside "
                    f"(or {advised_output(source)})"
                )
    _check_inputs(parser, values)


def _check_inputs(parser: argparse.ArgumentParser, values: dict[str, Any]) -> None:
    """Refuse files and folders to read that aren't there."""
    for item in options_of(AppOptions):
        path = values[item.name]
        if path and option_of(item).access is Access.READ_FILE and not path.is_file():
            option = item.name.replace("_", "-")
            parser.error(f"--{option}: found no file {path}, expected one")
    for name, path in dict(values["derivatives"]).items():
        if not path.is_dir():
            parser.error(f"--derivatives {name}: found no folder {path}, expected derivatives")
    if values["atlas"]:
        from asl_bids_app.anatomy.atlases import read_spec
        from asl_bids_app.anatomy.regions import TISSUE_ATLAS

        specs = [read_spec(text) for text in values["atlas"]]
        names = [TISSUE_ATLAS, *(spec.name for spec in specs)]
        for spec in specs:
            if names.count(spec.name) > 1:
                whose = (
                    "that of the app's own regions" if spec.name == TISSUE_ATLAS else "given twice"
                )
                parser.error(
                    f"--atlas {spec.name}: found a name {whose}, expected one for each atlas: "
                    "tables are named by it"
                )
            if spec.path is not None and not spec.path.exists():
                parser.error(
                    f"--atlas {spec.name}: found no file or folder {spec.path}, expected the atlas"
                )
