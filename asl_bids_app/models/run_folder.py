"""A training run folder, read as a model without exporting it first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.models.spec import Channel, ModelSpec

if TYPE_CHECKING:
    from asl_bids_app.networks.network import Network

_DELAYS: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
CHANNELS: Final[Mapping[str, tuple[Channel, ...]]] = {
    "joint 6+6": (
        *(Channel("PCASL", delay, 1.8) for delay in _DELAYS),
        *(Channel("VSASL", delay, float("inf")) for delay in _DELAYS),
    ),
}
"""Input channels of the networks of a fixed protocol, by the protocol's name in configs."""


def _weight_files(folder: Path) -> list[Path]:
    files = (folder / "trained_models").glob("ensemble_model_*.pt")
    return sorted(files, key=lambda path: (len(path.name), path.name))


def run_folder_hash(folder: Path) -> str:
    """Return the SHA-256 of the files of a run folder that a result depends on."""
    whole = hashlib.sha256()
    for path in (folder / "config.yaml", folder / "norm_stats.json", *_weight_files(folder)):
        if path.is_file():
            whole.update(path.name.encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def load_run_folder(folder: Path) -> tuple[ModelSpec, tuple[Network, ...]]:
    """Read description and members of a run folder.

    Raises
    ------
    InputError
        If a file is missing or wrong, or a network of a fixed protocol was trained for one
        whose channels aren't known.
    """
    import torch

    from asl_bids_app.models.build_member import build_member

    spec = _describe(folder)
    files = _weight_files(folder)
    if not files:
        raise InputError(folder / "trained_models", "", "no weights", "ensemble_model_0.pt, …")
    members = []
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            weights = content["model_state_dict"]
        except Exception as error:  # torch.load has no error type of its own
            raise InputError(
                file, "model_state_dict", f"{type(error).__name__}", "weights written by asl-train"
            ) from error
        members.append(build_member(spec, weights, file))
    return spec, tuple(members)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise InputError(path, "", "no such file", "a run folder of asl-train")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            path, "", "not readable", "YAML or JSON as asl-train writes it"
        ) from error
    if not isinstance(content, dict):
        raise InputError(path, "", type(content).__name__, "keys and values")
    return content


def _describe(folder: Path) -> ModelSpec:
    config = _read(folder / "config.yaml")
    try:
        network = config["network"]["name"]
        arguments = dict(config["network"].get("arguments") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(folder / "config.yaml", "network", "no name", "a network") from error
    if not isinstance(network, str):
        raise InputError(folder / "config.yaml", "network: name", repr(network), "text")
    provenance = folder / "research_config.json"
    training = _read(provenance) if provenance.is_file() else {}
    channels: tuple[Channel, ...] = ()
    standardisation: dict[str, Any] = {}
    if network != "PosteriorASLNet":
        channels = _channels(folder, config, arguments)
        standardisation = _standardisation(folder, config)
    return ModelSpec(
        name=str(config.get("name") or folder.name),
        version="run folder",
        network=network,
        arguments=arguments,
        channels=channels,
        standardisation=standardisation,
        training=training,
    )


def _channels(
    folder: Path, config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[Channel, ...]:
    domain = config.get("domain")
    name = domain.get("protocol") if isinstance(domain, dict) else domain
    if not isinstance(name, str) or name not in CHANNELS:
        raise InputError(
            folder / "config.yaml", "domain.protocol", repr(name), f"one of {', '.join(CHANNELS)}"
        )
    channels = CHANNELS[name]
    count = arguments.get("n_plds", 6)
    wanted = 2 * count if isinstance(count, int) else 0
    if len(channels) != wanted:
        raise InputError(
            folder / "config.yaml",
            "network.arguments.n_plds",
            f"{wanted // 2} ({wanted} channels)",
            f"{len(channels) // 2} for {name}",
        )
    return channels


def _standardisation(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / "norm_stats.json"
    stats = _read(path)
    signal = config.get("signal")
    signal = signal if isinstance(signal, dict) else {}
    try:
        return {
            "scale": float(signal.get("global_scale_factor", 10.0)),
            "per_slice": signal.get("normalization_mode", "global_scale") == "per_slice",
            "cbf_mean": float(stats["y_mean_cbf"]),
            "cbf_sd": float(stats["y_std_cbf"]),
            # The one file that keeps milliseconds.
            "att_mean": float(stats["y_mean_att"]) / 1000,
            "att_sd": float(stats["y_std_att"]) / 1000,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            path,
            str(error),
            "missing or no number",
            "y_mean_cbf, y_std_cbf, y_mean_att, y_std_att",
        ) from error
