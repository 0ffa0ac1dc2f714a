"""The configuration of a training run: frozen dataclasses, strict YAML, presets, guards.

Seconds here, milliseconds in the files (keys that end in ``_ms``). A file says only what
differs from its `base`, a preset of `recipes/` or another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.reading import build, merge, plain, setting
from asl_bids_app.training.config.sections import (
    DataConfig,
    LoggingConfig,
    NetworkConfig,
    SignalConfig,
    TrainingConfig,
    ValidationConfig,
)
from asl_bids_app.training.phantoms.drawing import PhantomConfig
from asl_bids_app.training.simulate.disturbances import NoiseConfig
from asl_bids_app.training.simulate.physics import DomainConfig

CRITICAL: Final = MappingProxyType(
    {
        "signal.normalization_mode": "global_scale",
        "signal.global_scale_factor": 10.0,
        "noise.noise_type": "rician",
        "training.dc_weight": 0.0,
        "training.loss_type": "l1",
    }
)
"""Settings with one value known to work; another one needs ``--allow-noncritical``."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run."""

    name: str = "custom"
    seed: int = setting(1, low=0, high=2**31 - 1)
    data: DataConfig = field(default_factory=DataConfig)
    phantoms: PhantomConfig = field(default_factory=PhantomConfig)
    domain: DomainConfig = field(default_factory=DomainConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    signal: SignalConfig = field(default_factory=SignalConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    @property
    def steps(self) -> int:
        """Optimiser steps of a member."""
        training = self.training
        by_epochs = round(training.epochs * self.data.phantoms / training.batch_size)
        return training.steps or max(1, by_epochs)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as it stands in a file."""
        return plain(self)

    def to_yaml(self) -> str:
        """Return the text of ``config.yaml``."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """Return the sha256 of the configuration, independent of the order of keys."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def noncritical(self) -> dict[str, Any]:
        """Return the critical settings that differ from the value known to work."""
        values = self.to_dict()
        found = {}
        for path, expected in CRITICAL.items():
            value = _at(values, path)
            if value != expected:
                found[path] = value
        return found


def _at(values: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


def presets() -> list[str]:
    """Return the names of the bundled configurations."""
    folder = resources.files("asl_bids_app.training") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(
    source: str | Path,
    changes: Sequence[str] = (),
    allow_noncritical: bool = False,
) -> RunConfig:
    """Read a configuration.

    Parameters
    ----------
    source
        Name of a preset, or a YAML file.
    changes
        ``key.path=value`` texts that are laid over it; the value is YAML.
    allow_noncritical
        Accept critical settings other than those known to work.

    Raises
    ------
    InputError
        For anything that is wrong in it, with the path of the key.
    """
    values = _read(source, ())
    values = _laid_over(values, _parse_changes(changes))
    config = build(RunConfig, values, _label(source))
    check_critical(config, _label(source), allow_noncritical)
    if config.training.dc_weight and config.training.reuse > 1:
        raise InputError(
            _label(source),
            "training.reuse",
            str(config.training.reuse),
            "1 where training.dc_weight isn't 0",
            "slices that serve again come without their signals",
        )
    return config


def check_critical(config: RunConfig, file: str, allow_noncritical: bool) -> None:
    """Refuse critical settings that are not known to work, unless they are allowed."""
    wrong = config.noncritical()
    if wrong and not allow_noncritical:
        path, value = next(iter(wrong.items()))
        raise InputError(
            file,
            path,
            repr(value),
            f"{CRITICAL[path]!r}, the value known to work",
            "put it back, or give --allow-noncritical; the model card will say so",
        )


def _label(source: str | Path) -> str:
    return str(source) if _is_file(source) else f"config {source}"


def _is_file(source: str | Path) -> bool:
    text = str(source)
    return os.sep in text or text.endswith((".yaml", ".yml")) or Path(text).is_file()


def _read(source: str | Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """Read a preset or a file, and under it its base."""
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
        raise InputError(_label(source), line, problem, "YAML") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(_label(source), "", "no mapping", "keys and values")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(_label(source), "base", repr(base), "a preset's name or a file")
    if _is_file(base) and _is_file(source) and not Path(base).is_absolute():
        base = str(Path(name).parent / base)
    return _laid_over(_read(base, (*seen, name)), values)


def _laid_over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
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


def _parse_changes(changes: Sequence[str]) -> dict[str, Any]:
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
    return nested
