"""What estimators ask of a network."""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch
from torch import Tensor

from asl_bids_app.networks.corrections import Estimate
from asl_bids_app.observation import Observation


class Network(Protocol):
    """A network whose preparation needs no weights and whose answer can be averaged over flips.

    `PosteriorASLNet` and `ChannelNetwork` are such `nn.Module`s.
    """

    def prepare(self, observation: Observation, /, **other: Any) -> tuple[Any, Tensor]:
        """Return a context for `correct`, and the maps that the weights see, (B, n, H, W)."""

    def corrections(self, maps: Tensor, /) -> Tensor:
        """Return what the weights say, (B, m, H, W)."""

    def correct(
        self, context: Any, corrections: Tensor, mask: Tensor, uncertainty: Tensor, /
    ) -> Estimate:
        """Return the estimate that corrections make of the context."""

    def shared_misfit(self, maps: Tensor, /) -> Tensor | None:
        """Return the misfit of averaged neighbourhoods, (B, H, W), where the maps hold it."""

    def to(self, device: torch.device, /) -> Self:
        """Move the weights to a device."""
