"""The published network: a U-Net on the signals of a fixed protocol, and its adapter.

The published form lost the amplitude of the signal in its norms, and CBF *is* amplitude. Here
the trunk sees the signal relative to its local strength, and CBF is that strength times the
trunk's answer plus a linear read-out of the signal itself, weighted pixel by pixel: scaled
signals give scaled CBF by construction. ATT, which doesn't depend on the amplitude, is the
trunk's alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asl_bids_app.networks.blocks import (
    Decoder,
    Encoder,
    mask_pyramid,
    pad_to_multiple,
    zero_head,
)
from asl_bids_app.networks.corrections import Estimate
from asl_bids_app.observation import Observation

NO_SIGNAL: Final = -1.5
"""Standardised CBF that the untrained networks give for no signal: about 0 mL/100 g/min."""
_WINDOW = 9
_FLOOR = 0.1


def local_strength(x: Tensor) -> Tensor:
    """Return the root mean square of all channels in a window around each pixel, (B, 1, H, W).

    Parameters
    ----------
    x : Tensor, shape (B, C, H, W)
        Signals; the zeros around the brain don't count.
    """
    inside = (x.abs().amax(1, keepdim=True) > 0).to(x.dtype)
    power = x.square().mean(1, keepdim=True)
    power, share = (
        functional.avg_pool2d(values, _WINDOW, 1, _WINDOW // 2) for values in (power, inside)
    )
    return (power / share.clamp(min=1e-3) + _FLOOR**2).sqrt()


class SpatialASLNet(nn.Module):
    """U-Net from the signals of n delays of PCASL and n of VSASL to CBF and ATT.

    Parameters
    ----------
    n_plds
        Delays of each of the two labelling schemes.
    features
        Channels of each level, finest first.
    """

    def __init__(self, n_plds: int = 6, features: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.n_plds = n_plds
        self.features = tuple(features)
        self._build_encoders()
        self.decoder = Decoder(self.features)
        self.head = zero_head(self.features[0], 4 + 2 * n_plds)
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.bias[2] = -4.0  # CBF's sd a seventh of the signal's strength, to begin with
        self.no_signal = nn.Parameter(torch.tensor(NO_SIGNAL))

    def _build_encoders(self) -> None:
        self.encoder = Encoder(2 * self.n_plds + 1, self.features)

    def _encode(self, x: Tensor, strength: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
        return self.encoder(torch.cat([x, strength], 1), masks)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that build this network again, ready for JSON."""
        return {"n_plds": self.n_plds, "features": list(self.features)}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Estimate CBF and ATT.

        Parameters
        ----------
        x : Tensor, shape (B, 2 * n_plds, H, W)
            ΔM/M0 in percent times the scale of training, PCASL delays before VSASL delays,
            each in ascending order; zero outside the brain. Any H and W.

        Returns
        -------
        cbf_norm, att_norm, cbf_logvar, att_logvar : Tensor, shape (B, 1, H, W)
            Standardised by ``norm_stats.json``; logarithms of the variances of the same.
        """
        height, width = x.shape[-2:]
        levels = len(self.features)
        x = pad_to_multiple(x, 2 ** (levels - 1))
        masks = mask_pyramid((x.abs().amax(1, keepdim=True) > 0).to(x.dtype), levels)
        strength = local_strength(x)
        relative = x / strength
        trunk = self.decoder(self._encode(relative, strength.log() * masks[0], masks), masks)
        answer, weights = self.head(trunk).split([4, x.shape[1]], 1)
        cbf, att, cbf_logvar, att_logvar = answer.split(1, 1)
        read_out = (weights * relative).sum(1, keepdim=True)
        cbf = strength * (cbf + read_out) + self.no_signal
        cbf_logvar = cbf_logvar + 2 * strength.log()
        maps = (cbf, att, cbf_logvar, att_logvar)
        return tuple(each[..., :height, :width] for each in maps)


@dataclass(frozen=True)
class Standardisation:
    """How signals enter a network of a fixed protocol and how its answers are read.

    Attributes
    ----------
    scale : float
        Factor of ΔM/M0 in percent.
    per_slice : bool
        Divide each slice by its own standard deviation instead (only to show what it does).
    cbf_mean, cbf_sd : float
        mL/100 g/min.
    att_mean, att_sd : float
        Seconds.
    """

    scale: float
    cbf_mean: float
    cbf_sd: float
    att_mean: float
    att_sd: float
    per_slice: bool = False


class ChannelNetwork(nn.Module):
    """Lets a network of a fixed protocol take an `Observation`, as `PosteriorASLNet` does.

    The caller sees to it that the measurements are those of the channels, in their order.

    Parameters
    ----------
    network
        `SpatialASLNet` or `DualEncoderSpatialASLNet`.
    standardisation
        Of its inputs and outputs.
    """

    def __init__(self, network: nn.Module, standardisation: Standardisation) -> None:
        super().__init__()
        self.network = network
        self.standardisation = standardisation

    def forward(self, observation: Observation) -> Estimate:
        """Estimate CBF and ATT in the mask of a batch of slices."""
        _, maps = self.prepare(observation)
        uncertainty = observation.calibration_uncertainty
        return self.correct(None, self.corrections(maps), observation.mask, uncertainty)

    def prepare(self, observation: Observation) -> tuple[None, Tensor]:
        """Return nothing, and the network's input (B, n, H, W): scaled ΔM/M0."""
        mask = observation.mask.unsqueeze(1)
        percent = 100 * observation.delta_m * mask
        if not self.standardisation.per_slice:
            return None, self.standardisation.scale * percent
        axes = (1, 2, 3)
        count = (mask.sum(axes, keepdim=True) * percent.shape[1]).clamp(min=2)
        off = (percent - percent.sum(axes, keepdim=True) / count) * mask
        sd = (off.square().sum(axes, keepdim=True) / count).sqrt()
        return None, off / sd.clamp(min=1e-6)

    @staticmethod
    def shared_misfit(_maps: Tensor) -> None:
        """Return nothing: its input holds no misfit."""

    def corrections(self, maps: Tensor) -> Tensor:
        """Return the network's standardised answers as one tensor (B, 4, H, W)."""
        return torch.cat(self.network(maps), 1)

    def correct(
        self, _context: None, corrections: Tensor, mask: Tensor, _uncertainty: Tensor
    ) -> Estimate:
        """Turn standardised answers (B, 4, H, W) into units, zero outside the mask."""
        scale = self.standardisation
        cbf, att, cbf_logvar, att_logvar = corrections.unbind(1)
        inside = mask.to(corrections)
        return Estimate(
            (scale.cbf_mean + scale.cbf_sd * cbf) * inside,
            (scale.att_mean + scale.att_sd * att) * inside,
            (0.5 * cbf_logvar + math.log(scale.cbf_sd)) * inside,
            (0.5 * att_logvar + math.log(scale.att_sd)) * inside,
        )
