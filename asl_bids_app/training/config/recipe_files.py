"""Recipes: YAML files that say what differs from their base, and ``--set`` texts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from asl_bids_app.errors import InputError
from asl_bids_app.networks import OLD_ARGUMENTS
from asl_bids_app.training.config.reading import merge
from asl_bids_app.training.config.sections import NetworkConfig

OLD_KEYS: Final = MappingProxyType(
    {
        "noise.told_error": "reported_error",
        "noise.told_flat": "reported_flat",
        **{f"network.arguments.{old}": new for old, new in OLD_ARGUMENTS.items()},
    }
)
"""Paths of keys in files of 0.1.0, and what the keys are called since."""


def rename_old_keys(source: str, values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the values of one source with the keys of today.

    Raises
    ------
    InputError
        If a setting stands there by its old and by its present key.
    """
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{path}{key}"
        new = OLD_KEYS.get(place, key)
        if new != key and new in values:
            raise InputError(
                source, place, f"{path}{new} beside it", "one of them", f"leave out {place}"
            )
        inner = isinstance(value, Mapping)
        renamed[new] = rename_old_keys(source, value, f"{place}.") if inner else value
    return renamed


def presets() -> list[str]:
    """Return the names of the bundled configurations."""
    folder = resources.files("asl_bids_app.training") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def label_source(source: str | Path) -> str:
    """Return what messages call a source: its path, or the preset's name."""
    return str(source) if _is_file(source) else f"config {source}"


def _is_file(source: str | Path) -> bool:
    text = str(source)
    return os.sep in text or text.endswith((".yaml", ".yml")) or Path(text).is_file()


def read_recipe(source: str | Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a preset or a file, and its base under it.

    Parameters
    ----------
    source
        Name of a preset, or a YAML file.
    seen
        Sources that led here, in which a circle would show.
    """
    name = str(source)
    if name in seen:
        raise InputError(seen[0], "base", " -> ".join((*seen, name)), "bases without a circle")
    if _is_file(source):
        path = Path(name)
        if not path.is_file():
            raise InputError(name, "", "no such file", "a YAML file or a preset's name")
        text = path.read_text(encoding="utf-8")
    else:
        text = _preset_text(name)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "text that is not YAML"
        raise InputError(label_source(source), line, problem, "YAML") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(label_source(source), "", "no mapping", "keys and values")
    values = rename_old_keys(label_source(source), values)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(label_source(source), "base", repr(base), "a preset's name or a file")
    if _is_file(base) and _is_file(source) and not Path(base).is_absolute():
        base = str(Path(name).parent / base)
    return merge_recipes(read_recipe(base, (*seen, name)), values)


def merge_recipes(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merge; arguments of one network are not handed on to another."""
    before, after = (values.get("network") for values in (base, change))
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        name = before.get("name", NetworkConfig().name)
        if after.get("name", name) != name:
            base = {**base, "network": {k: v for k, v in before.items() if k != "arguments"}}
    return merge(base, change)


def _preset_text(name: str) -> str:
    known = presets()
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.4)
        raise InputError(
            "--config",
            name,
            "no preset and no file of this name",
            f"one of {', '.join(known)} or a YAML file",
            f"did you mean {close[0]}" if close else "",
        )
    recipe = resources.files("asl_bids_app.training") / "recipes" / f"{name}.yaml"
    return recipe.read_text(encoding="utf-8")


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Turn ``a.b=1`` texts into a nested mapping."""
    nested: dict[str, Any] = {}
    for change in changes:
        path, sign, text = change.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            raise InputError("--set", "", repr(change), "key.path=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError("--set", path, repr(text), "a YAML value") from error
        for key in reversed(keys):
            value = {key: value}
        nested = merge(nested, value)
    return rename_old_keys("--set", nested)
