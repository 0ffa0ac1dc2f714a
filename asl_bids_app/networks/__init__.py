"""The neural networks, from plain tensors to plain tensors."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

NETWORKS: Final = MappingProxyType(
    {
        "PosteriorASLNet": "asl_bids_app.networks.posterior",
        "SpatialASLNet": "asl_bids_app.networks.spatial",
        "DualEncoderSpatialASLNet": "asl_bids_app.networks.dual_encoder",
    }
)
"""Module of each network, by the name that configs and model folders use."""

OLD_ARGUMENTS: Final = MappingProxyType({"cbf_doubt": "cbf_uncertainty"})
"""Arguments in configs and model folders of 0.1.0, and what they are called since."""


def network_class(name: str) -> type:
    """Return a network's class by its name, importing it now.

    Raises
    ------
    KeyError
        If there is no such network.
    """
    if name not in NETWORKS:
        raise KeyError(f"no network {name!r}; there are {', '.join(NETWORKS)}")
    return getattr(import_module(NETWORKS[name]), name)


def build_network(name: str, arguments: dict[str, Any] | None = None) -> Any:
    """Build a network, an `nn.Module`, from its name and keyword arguments."""
    named = {OLD_ARGUMENTS.get(key, key): value for key, value in (arguments or {}).items()}
    return network_class(name)(**named)
