"""The configuration of a training run: one tree of sections, presets, critical settings.

Seconds here, milliseconds in the files (keys that end in ``_ms``). A file says only what
differs from its `base`, a preset of `recipes/` or another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.declaration import get_declared, section, setting, walk_settings
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.config.reading import build, file_default, plain
from asl_bids_app.training.config.recipe_files import (
    label_source,
    merge_recipes,
    parse_changes,
    presets,
    read_recipe,
)
from asl_bids_app.training.config.sections import (
    DataConfig,
    LoggingConfig,
    NetworkConfig,
    SignalConfig,
    TrainingConfig,
    ValidationConfig,
)

__all__ = ["CRITICAL", "RunConfig", "check_critical", "load", "presets"]


@section
class RunConfig:
    """Everything that determines a run."""

    name: str = setting("custom", text="of the run")
    seed: int = setting(1, "", 0, 2**31 - 1, "of everything random")
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
        values: dict[str, Any] = plain(self)
        return values

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


def _critical_settings() -> Mapping[str, Any]:
    return MappingProxyType(
        {
            key: file_default(item)
            for key, _, item in walk_settings(RunConfig)
            if get_declared(item).critical
        }
    )


CRITICAL: Final = _critical_settings()
"""Settings with one value known to work; another one needs ``--allow-noncritical``."""


def _at(values: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


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
    label = label_source(source)
    values = merge_recipes(read_recipe(source), parse_changes(changes))
    config = build(RunConfig, values, label)
    check_critical(config, label, allow_noncritical)
    if config.training.dc_weight and config.training.reuse > 1:
        raise InputError(
            label,
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
