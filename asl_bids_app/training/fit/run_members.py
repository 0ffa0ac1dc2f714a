"""The networks of an ensemble, built for training and read from what training left."""

from __future__ import annotations

import inspect
import logging
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Generator, Tensor, nn

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.reading import plain
from asl_bids_app.training.fit.training_run import NormStats, RunFolder, load_member
from asl_bids_app.training.fit.widen import grown, widened

if TYPE_CHECKING:
    from asl_bids_app.networks.spatial import Standardisation
    from asl_bids_app.training.config.run_config import RunConfig

log = logging.getLogger(__name__)


def standardisation(config: RunConfig, stats: NormStats) -> Standardisation:
    """Return how signals enter a network of a fixed protocol and how its answers are read."""
    from asl_bids_app.networks.spatial import Standardisation

    return Standardisation(
        scale=config.signal.global_scale_factor,
        cbf_mean=stats.y_mean_cbf,
        cbf_sd=stats.y_std_cbf,
        # The one documented file that keeps milliseconds.
        att_mean=stats.y_mean_att / 1000,
        att_sd=stats.y_std_att / 1000,
        per_slice=config.signal.normalization_mode == "per_slice",
    )


def inner_network(member: nn.Module) -> nn.Module:
    """Return the network itself, without what lets it take an `Observation`."""
    from asl_bids_app.networks.spatial import ChannelNetwork

    return member.network if isinstance(member, ChannelNetwork) else member


def build_member(config: RunConfig, stats: NormStats) -> nn.Module:
    """Build the network of a run with fresh weights; it maps an `Observation` to an `Estimate`.

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
        made = network(**plain(config.network.arguments))
    except (TypeError, ValueError) as error:
        raise InputError("config", "network.arguments", str(error), config.network.name) from error
    if config.network.name == "PosteriorASLNet":
        return made
    from asl_bids_app.networks.spatial import ChannelNetwork

    return ChannelNetwork(made, standardisation(config, stats))


def _weights(source: Path, member: int) -> tuple[Path, dict[str, Tensor]]:
    """Return where weights come from, and the weights by name."""
    exported = source / f"member-{member}.safetensors"
    if exported.is_file():
        from safetensors.torch import load_file

        return exported, load_file(exported)
    path = RunFolder(source).model(member) if source.is_dir() else source
    return path, load_member(path)["model_state_dict"]


def start_from(module: nn.Module, source: Path, member: int) -> None:
    """Give a network the weights of an earlier training.

    A network with twice the channels of the earlier one (or three times, ...), all of them, or
    with more input maps and answers, gets weights with which it answers the same, see
    `asl_bids_app.training.fit.widen`.

    Parameters
    ----------
    module
        Of `build_member`; changed in place.
    source
        A member's ``.pt`` file, or a run folder or a model folder, of which the same member is
        taken.
    member
        Number of the member.

    Raises
    ------
    InputError
        If the weights are missing or of another network.
    """
    path, state = _weights(source, member)
    network = inner_network(module)
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if own != found:
        wide = widened(state, own, Generator().manual_seed(member))
        if wide is None:
            wide = grown(state, own, last=getattr(network, "beside", 0))
        if wide is None:
            name = next(n for n in sorted(own | found) if own.get(n) != found.get(n))
            raise InputError(
                path,
                name,
                f"shape {found.get(name)}",
                f"{own.get(name)}, as the configuration says",
                "start from weights of the same network, or of one with half its features",
            )
        log.info("member %d: %s has fewer channels; the answers stay the same", member, path)
        state = wide
    network.load_state_dict(state)
