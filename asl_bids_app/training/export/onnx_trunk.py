"""The learned part of a member as a module of its own, for export."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Trunk(nn.Module):
    """One tensor in, one out.

    Parameters
    ----------
    member
        Of `asl_bids_app.models.store.load_model`.
    """

    def __init__(self, member: nn.Module) -> None:
        super().__init__()
        self.member: Any = member

    def forward(self, maps: Tensor) -> Tensor:
        """Return the corrections (B, answers, H, W) of maps (B, C, H, W)."""
        corrections: Tensor = self.member.corrections(maps)
        return corrections
