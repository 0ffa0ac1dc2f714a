"""A network with its weights, as a member of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_bids_app.errors import InputError
from asl_bids_app.models.spec import ModelSpec

if TYPE_CHECKING:
    from asl_bids_app.networks.network import Network


def build_member(spec: ModelSpec, weights: Mapping[str, Any], file: Path) -> Network:
    """Build a member that takes an `Observation` and give it weights.

    Raises
    ------
    InputError
        If network, arguments and weights don't fit each other.
    """
    from asl_bids_app.networks import NETWORKS, build_network
    from asl_bids_app.networks.spatial import ChannelNetwork, Standardisation

    if spec.network not in NETWORKS:
        raise InputError(file, "network", spec.network, f"one of {', '.join(NETWORKS)}")
    try:
        network = build_network(spec.network, dict(spec.arguments))
        network.load_state_dict({key: value.float() for key, value in weights.items()})
        if spec.channels:
            network = ChannelNetwork(network, Standardisation(**spec.standardisation))
    except Exception as error:  # of arguments of wrong types the network raises whatever it meets
        first = str(error).strip().splitlines()
        detail = " ".join(line.strip() for line in first[:2]) or type(error).__name__
        raise InputError(file, "", detail, f"weights of {spec.network}") from error
    import torch

    network = network.to(memory_format=torch.channels_last)  # a tenth faster on a CPU
    return network.eval().requires_grad_(False)
