"""The networks of an ensemble, built for training and read from what training left."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from asl_bids_app.errors import InputError
from asl_bids_app.training.run_folder import RunFolder, load_member
from asl_bids_app.training.schema import plain

if TYPE_CHECKING:
    from asl_bids_app.training.config import RunConfig


def build_member(config: RunConfig) -> nn.Module:
    """Build the network of a run with fresh weights.

    Raises
    ------
    InputError
        If the configuration gives it an argument that it doesn't have or can't use.
    """
    from asl_bids_app.networks import network_class

    network = network_class(config.network.name)
    known = list(inspect.signature(network).parameters)
    for name in config.network.arguments:
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.5)
            raise InputError(
                "config",
                f"network.arguments.{name}",
                "an unknown argument",
                f"one of {', '.join(known)}",
                f"did you mean {close[0]}" if close else "",
            )
    try:
        return network(**plain(config.network.arguments))
    except (TypeError, ValueError) as error:
        raise InputError("config", "network.arguments", str(error), config.network.name) from error


def start_from(network: nn.Module, source: Path, member: int) -> None:
    """Give a network the weights of an earlier training.

    Parameters
    ----------
    network
        Changed in place.
    source
        A member's ``.pt`` file or a run folder, of which the same member is taken.
    member
        Number of the member.

    Raises
    ------
    InputError
        If the weights are missing or of another network.
    """
    path = RunFolder(source).model(member) if source.is_dir() else source
    state = load_member(path)["model_state_dict"]
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if own != found:
        name = next(n for n in sorted(own | found) if own.get(n) != found.get(n))
        raise InputError(
            path,
            name,
            f"shape {found.get(name)}",
            f"{own.get(name)}, as the configuration says",
            "start from weights of the same network",
        )
    network.load_state_dict(state)
