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
from asl_bids_app.training.domain import DomainConfig
from asl_bids_app.training.noise import NoiseConfig
from asl_bids_app.training.phantoms import PhantomConfig
from asl_bids_app.training.schema import Frozen, build, merge, plain, setting

NETWORKS: Final = ("PosteriorASLNet", "SpatialASLNet", "DualEncoderSpatialASLNet")

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
class DataConfig:
    """How many phantoms of each use.

    Attributes
    ----------
    phantoms : int
        For training.
    phantoms_per_shard : int
        One shard is one file and one unit of parallel work.
    validation_phantoms : int
        For the curve that is watched during training (and early stopping).
    calibration_phantoms : int
        For the calibration of the uncertainties.
    test_phantoms : int
        For the validation report; half of them of a kind of anatomy held back from training.
    """

    phantoms: int = setting(20_000, low=16)
    phantoms_per_shard: int = setting(1000, low=8)
    validation_phantoms: int = setting(256, low=8)
    calibration_phantoms: int = setting(512, low=8)
    test_phantoms: int = setting(200, low=4)


@dataclass(frozen=True)
class SignalConfig:
    """How signals enter `SpatialASLNet` and `DualEncoderSpatialASLNet`.

    Attributes
    ----------
    normalization_mode : str
        ``global_scale``: ΔM/M0 in percent times one constant. ``per_slice``: z-score of each
        slice, which destroys the amplitude that CBF is proportional to.
    global_scale_factor : float
    """

    normalization_mode: str = setting("global_scale", choices=("global_scale", "per_slice"))
    global_scale_factor: float = setting(10.0, low=1e-3, high=1e3)


@dataclass(frozen=True)
class NetworkConfig:
    """Which network.

    Attributes
    ----------
    name : str
    arguments : mapping
        Handed to its constructor.
    """

    name: str = setting("PosteriorASLNet", choices=NETWORKS)
    arguments: Mapping[str, Any] = field(default_factory=Frozen)


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation of one member.

    Attributes
    ----------
    members : int
        Networks in the ensemble.
    epochs : float
        Passes over the training phantoms; physics and noise are never repeated.
    steps : int
        Optimiser steps; 0: by `epochs`.
    batch_size : int
        Slices a step, over all devices.
    crop : int
        Side of the square that is cut from every phantom; 0: the whole slice.
    augment : bool
        Random flips and quarter turns of the phantoms.
    learning_rate, weight_decay, warmup_steps, gradient_clip
        AdamW; linear warm-up, then half a cosine to zero; norm of the gradient.
    loss_type : str
        Of the means: ``l1``, ``l2`` or ``huber``, each in units of `cbf_unit`, `att_unit`.
    cbf_unit : float
        mL/100 g/min of CBF error that weigh as much as `att_unit` of ATT error.
    att_unit : float
        Seconds.
    uncertainty_weight : float
        Of the Laplace negative log-likelihood that trains the standard deviations; the errors
        in it are detached, so that the means stay those of `loss_type`.
    lesion_weight : float
        Weight of a voxel of a lesion relative to other voxels.
    dc_weight : float
        Of the misfit between measured signal and the signal of the estimate, in units of the
        noise (data consistency).
    averaging_decay : float
        Exponential moving average of the weights, which is what is validated and kept;
        0: none.
    early_stopping_patience : int
        Validations without improvement after which training stops; 0: never.
    validate_every, checkpoint_every : int
        Steps.
    checkpoint_minutes : float
        A checkpoint is also written after so many minutes.
    log_every : int
        Steps between the rows of the log.
    precision : str
        Of the trunk; ``auto``: bfloat16 where the device multiplies it.
    compile : str
        Of the trunk; ``auto``: on CUDA, and on a CPU with a C++ compiler.
    channels_last : bool
        Memory format of the network.
    """

    members: int = setting(5, low=1, high=100)
    epochs: float = setting(50.0, low=0.001)
    steps: int = setting(0, low=0)
    batch_size: int = setting(16, low=1)
    crop: int = setting(48, low=0, high=1024)
    augment: bool = setting(True)
    learning_rate: float = setting(2e-3, low=1e-7, high=1.0)
    weight_decay: float = setting(1e-2, low=0.0, high=1.0)
    warmup_steps: int = setting(100, low=0)
    gradient_clip: float = setting(1.0, low=1e-3)
    loss_type: str = setting("l1", choices=("l1", "l2", "huber"))
    cbf_unit: float = setting(25.0, low=1e-3)
    att_unit: float = setting(0.7, low=1e-3, unit="s")
    uncertainty_weight: float = setting(0.05, low=0.0, high=10.0)
    lesion_weight: float = setting(1.0, low=0.0, high=100.0)
    dc_weight: float = setting(0.0, low=0.0, high=100.0)
    averaging_decay: float = setting(0.999, low=0.0, high=0.99999)
    early_stopping_patience: int = setting(0, low=0)
    validate_every: int = setting(500, low=1)
    checkpoint_every: int = setting(500, low=1)
    checkpoint_minutes: float = setting(10.0, low=0.0)
    log_every: int = setting(20, low=1)
    precision: str = setting("auto", choices=("auto", "float32", "bfloat16"))
    compile: str = setting("auto", choices=("auto", "always", "never"))
    channels_last: bool = setting(True)


@dataclass(frozen=True)
class ValidationConfig:
    """What `asl-train validate` looks at.

    Attributes
    ----------
    scenarios : tuple of str
        Names of `asl_bids_app.training.scenarios`.
    snr : tuple of float
    calibration_scenarios : tuple of str
        Scenarios in which the uncertainties are calibrated, with the scanner's calibration in
        doubt and with it known.
    calibration_snr : tuple of float
        SNR levels at which they are.
    smoothing_fwhm : float
        Of the Gaussian of the smoothed least-squares baseline, in voxels.
    naive_voxels : int
        Brain voxels per scenario and SNR that the (slow) naive baseline fits.
    """

    scenarios: tuple[str, ...] = ("joint", "pcasl")
    snr: tuple[float, ...] = setting((3.0, 5.0, 10.0, 20.0), low=0.5, high=1000.0)
    calibration_scenarios: tuple[str, ...] = ("random", "random_known")
    calibration_snr: tuple[float, ...] = setting((3.0, 5.0, 10.0, 20.0), low=0.5, high=1000.0)
    smoothing_fwhm: float = setting(2.0, low=0.1, high=20.0)
    naive_voxels: int = setting(2000, low=0)


@dataclass(frozen=True)
class LoggingConfig:
    """Where the curves go besides the CSV file, which is always written.

    Attributes
    ----------
    tensorboard : bool
    wandb_project : str
        Weights & Biases project; empty: not used. ``WANDB_MODE=offline`` works.
    """

    tensorboard: bool = True
    wandb_project: str = ""


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
    values = merge(values, _parse_changes(changes))
    config = build(RunConfig, values, _label(source))
    check_critical(config, _label(source), allow_noncritical)
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
            "put it back, or give --allow-noncritical; the model card will tell it",
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
    return merge(_read(base, (*seen, name)), values)


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
