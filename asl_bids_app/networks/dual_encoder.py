"""The published network with an encoder for each labelling scheme (a Y-Net)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asl_bids_app.networks.blocks import Encoder
from asl_bids_app.networks.spatial import SpatialASLNet


class DualEncoderSpatialASLNet(SpatialASLNet):
    """Two encoders, PCASL and VSASL, fused at the bottleneck and at every skip.

    Input, output and parameters are those of `SpatialASLNet`.
    """

    def _build_encoders(self) -> None:
        self.encoders = nn.ModuleList(Encoder(self.n_plds + 1, self.features) for _ in range(2))
        self.fuse = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in self.features)

    def _encode(self, x: Tensor, strength: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
        halves = x.split(self.n_plds, 1)
        pyramids = [
            encoder(torch.cat([half, strength], 1), masks)
            for encoder, half in zip(self.encoders, halves, strict=True)
        ]
        return [
            fuse(torch.cat(pair, 1)) * mask
            for fuse, pair, mask in zip(self.fuse, zip(*pyramids, strict=True), masks, strict=True)
        ]
