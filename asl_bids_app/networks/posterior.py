"""The default network: physics supplies the likelihood, it learns the spatial prior only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asl_bids_app.networks.analytic import (
    PosteriorGrid,
    VoxelPosterior,
    precision_of,
    voxel_posterior,
)
from asl_bids_app.networks.blocks import (
    Decoder,
    Encoder,
    mask_pyramid,
    pad_to_multiple,
    zero_head,
)
from asl_bids_app.observation import Observation
from asl_bids_app.protocol import Arrival


@dataclass(frozen=True)
class Estimate:
    """What a network says of a batch of slices; zero outside the mask.

    Attributes
    ----------
    cbf, att : Tensor, shape (B, H, W)
        mL/100 g/min, and seconds.
    cbf_log_sd, att_log_sd : Tensor, shape (B, H, W)
        Natural logarithms of their standard deviations in the same units.
    """

    cbf: Tensor
    att: Tensor
    cbf_log_sd: Tensor
    att_log_sd: Tensor


_VARIED: Final = 3.5e-4
"""ΔM/M0 by which neighbours differ though nothing is noisy: a twentieth of grey matter's."""


def pooled(observation: Observation, window: int) -> Observation:
    """Average the signals over a square window within the mask, weighted by 1/variance.

    Neighbours are not alike, so the noise that is told has a floor.

    Parameters
    ----------
    observation
        Slices.
    window
        Side of the square, odd.
    """
    inside = observation.mask.unsqueeze(1).to(observation.delta_m)
    weight = precision_of(observation.noise_sd) * inside

    def total(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, window, 1, window // 2, divisor_override=1)

    variance = total(weight).reciprocal()
    signal = total(weight * observation.delta_m) * variance.clamp(max=1e12)
    return replace(
        observation,
        delta_m=signal * inside,
        noise_sd=(variance + _VARIED**2).sqrt(),
    )


_CBF_DOUBT: Final = 0.08
"""Relative sd of CBF by efficiency, M0 and T1 of blood where they are in doubt."""
_ATT_DOUBT: Final = 0.05
"""Sd of ATT by the same, s."""
_CBF_TEXTURE: Final = 3.0
"""Sd of CBF between a voxel and what its neighbours let expect, mL/100 g/min."""
_ATT_TEXTURE: Final = 0.08
"""The same of ATT, s."""


def room(sd: Tensor, doubt: Tensor | float, texture: float) -> Tensor:
    """Return by how much neighbours may move a voxel, in its own unit.

    With own standard deviation s and the doubt about the calibration, e² = s² + doubt². The
    neighbours foretell the voxel with the standard deviation `texture`, t, so the best linear
    correction is (μ - y) e²/(e² + t²), of the size e²/√(e² + t²): what is known well is left
    alone.
    """
    square = sd.square() + doubt * doubt
    return square * (square + texture**2).rsqrt()


def own_maps(posterior: VoxelPosterior, inside: Tensor, doubt: Tensor) -> list[Tensor]:
    """Turn a voxelwise posterior into input maps.

    Parameters
    ----------
    posterior
        Of every voxel for itself.
    inside : Tensor, shape (B, H, W)
        1 in the mask.
    doubt : Tensor, shape (B,)
        `Observation.calibration_doubt`.

    Returns
    -------
    list of Tensor
        Each (B, H, W, some channels). Outside the mask they hold anything.
    """
    # The sds are zero outside the mask.
    cbf_sd = posterior.cbf_sd.clamp(min=1e-3)
    att_sd = posterior.att_sd.clamp(min=1e-4)
    certainty = posterior.cbf / cbf_sd / 5
    columns = [
        posterior.cbf / 50,
        (cbf_sd / 10).log(),
        posterior.att - 1.3,
        (att_sd / 0.3).log(),
        posterior.correlation,
        inside,
        certainty * (1 + certainty.square()).rsqrt(),
        posterior.cbf_sd / 20,
        doubt.to(inside)[:, None, None].expand_as(inside),
        posterior.misfit.clamp(max=4) - 1,
    ]
    residual = posterior.residual.permute(0, 2, 3, 1).clamp(-2, 2)
    return [torch.stack(columns, 3), posterior.att_bins.permute(0, 2, 3, 1), residual]


def pooled_maps(around: VoxelPosterior, posterior: VoxelPosterior) -> Tensor:
    """Turn the posterior of the neighbourhood into input maps (B, H, W, 12).

    Its residuals tell what averaging doesn't remove: noise that neighbours share, motion,
    drift, and a calibration that is off.
    """
    columns = [
        around.cbf / 50,
        (around.cbf_sd.clamp(min=1e-3) / 10).log(),
        around.att - 1.3,
        (around.att_sd.clamp(min=1e-4) / 0.3).log(),
        around.correlation,
        ((around.cbf - posterior.cbf) / posterior.cbf_sd.clamp(min=1e-3)).clamp(-4, 4),
        ((around.att - posterior.att) / posterior.att_sd.clamp(min=1e-4)).clamp(-4, 4),
        (around.cbf / around.cbf_sd.clamp(min=1e-3) / 15).tanh(),
        around.misfit.clamp(max=4) - 1,
    ]
    residual = around.residual.permute(0, 2, 3, 1).clamp(-2, 2)
    return torch.cat([torch.stack(columns, 3), residual], 3)


_MOST: Final = 6.0
"""Natural logarithm of the most by which neighbours may change the odds of two ATTs."""


def reweighted(posterior: VoxelPosterior, log_odds: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much CBF and ATT move if neighbours know better which ATTs are likely.

    The posterior of a noisy voxel may have two peaks, an early one with little flow and a late
    one with much. Its mean lies between them, where nothing is likely; a prior from neighbours
    decides. By Bayes' rule it multiplies p(ATT), and CBF goes along.

    Parameters
    ----------
    posterior
        Of every voxel for itself.
    log_odds : Tensor, shape (B, bins, H, W)
        Logarithm of the neighbours' prior over the prior of the posterior, up to a constant.

    Returns
    -------
    cbf, att : Tensor, shape (B, H, W)
        mL/100 g/min and s; zero where `log_odds` is.
    """
    factor = (_MOST * torch.tanh(log_odds / _MOST)).exp()
    # Rounded alike with and without the factor, so that no factor moves nothing.
    before = posterior.att_bins.sum(1).clamp(min=1e-6)
    after = (posterior.att_bins * factor).sum(1).clamp(min=1e-6)

    def moved(share: Tensor) -> Tensor:
        return (share * factor).sum(1) / after - share.sum(1) / before

    return moved(posterior.bin_cbf), moved(posterior.bin_att)


class PosteriorASLNet(nn.Module):
    """Corrects the voxelwise posterior by what the neighbourhood says.

    A U-Net sees maps of the voxelwise posterior and answers with a prior of ATT by which
    p(ATT) is multiplied, and with corrections in units of the `room` that each voxel's own
    posterior leaves. Its heads start at zero: untrained it *is* the voxelwise posterior,
    whatever the protocol.

    Parameters
    ----------
    features
        Channels of each level of the U-Net, finest first.
    grid
        Arguments of `PosteriorGrid`, if not its defaults.
    window
        Side in voxels of the neighbourhood whose averaged signal gives a second posterior as
        input: pooled before the nonlinear step, noisy neighbours say more than their estimates
        do. 0: none.

    Raises
    ------
    ValueError
        If the window is neither 0 nor odd.
    """

    def __init__(
        self,
        features: Sequence[int] = (16, 32, 64, 128),
        grid: Mapping[str, Any] | None = None,
        window: int = 3,
    ) -> None:
        super().__init__()
        if window < 0 or (window and window % 2 == 0):
            raise ValueError(f"window: found {window}, expected 0 or an odd number")
        self.window = window
        self.grid = PosteriorGrid(**(grid or {}))
        self.features = tuple(features)
        self.encoder = Encoder(self.in_channels, self.features)
        self.decoder = Decoder(self.features)
        self.head = zero_head(self.features[0], 4 + self.grid.bins)

    @property
    def in_channels(self) -> int:
        """Number of the U-Net's input maps."""
        return 10 + self.grid.bins + len(Arrival) + (9 + len(Arrival) if self.window else 0)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that build this network again, ready for JSON."""
        return {
            "features": list(self.features),
            "grid": asdict(self.grid),
            "window": self.window,
        }

    def forward(self, observation: Observation) -> Estimate:
        """Estimate CBF and ATT with their uncertainty in the mask of a batch of slices."""
        posterior, maps = self.prepare(observation)
        doubt = observation.calibration_doubt
        return self.correct(posterior, self.corrections(maps), observation.mask, doubt)

    def prepare(self, observation: Observation) -> tuple[VoxelPosterior, Tensor]:
        """Return what needs no weights: the voxelwise posterior and the U-Net's input.

        The input has the shape (B, in_channels, H, W), channels last in memory, zero outside
        the mask. All scales are fixed: nothing is normalised by the data, for amplitude is CBF.
        """
        posterior = voxel_posterior(observation, self.grid)
        inside = observation.mask.to(posterior.cbf)
        parts = own_maps(posterior, inside, observation.calibration_doubt)
        if self.window:
            around = voxel_posterior(pooled(observation, self.window), self.grid)
            parts.append(pooled_maps(around, posterior))
        maps = torch.cat(parts, 3) * inside.unsqueeze(3)
        return posterior, maps.permute(0, 3, 1, 2)

    def corrections(self, maps: Tensor) -> Tensor:
        """Return the corrections (B, 4 + bins, H, W).

        Of CBF, ATT, the logarithms of their sds, and of the logarithms of p(ATT) in each bin.

        Parameters
        ----------
        maps : Tensor, shape (B, in_channels, H, W)
            Of `prepare`; the sixth channel is the mask. Any H and W.
        """
        height, width = maps.shape[-2:]
        levels = len(self.features)
        padded = pad_to_multiple(maps, 2 ** (levels - 1))
        masks = mask_pyramid(padded[:, 5:6].contiguous(), levels)
        x = self.decoder(self.encoder(padded, masks), masks)
        return self.head(x)[..., :height, :width]

    def shared_misfit(self, maps: Tensor) -> Tensor | None:
        """Return the misfit of the averaged neighbourhoods, (B, H, W), of the maps of `prepare`.

        None if the network doesn't look at them.
        """
        before = self.in_channels - 1 - len(Arrival)
        return maps[:, before] + 1 if self.window else None

    @staticmethod
    def correct(
        posterior: VoxelPosterior, corrections: Tensor, mask: Tensor, doubt: Tensor
    ) -> Estimate:
        """Apply corrections (B, 4 + bins, H, W) to the posterior.

        First p(ATT) is reweighted, then what is left is added, in units of `room` and of log
        sd. `doubt`, shape (B,), is `Observation.calibration_doubt`.
        """
        corrections = corrections.to(posterior.cbf)
        cbf, att, cbf_log_sd, att_log_sd = corrections[:, :4].unbind(1)
        cbf_moved, att_moved = reweighted(posterior, corrections[:, 4:])
        inside = mask.to(posterior.cbf)
        cbf_sd, att_sd = posterior.cbf_sd.clamp(min=1e-6), posterior.att_sd.clamp(min=1e-6)
        doubt = doubt.to(posterior.cbf)[:, None, None]
        cbf_room = room(cbf_sd, doubt * _CBF_DOUBT * posterior.cbf, _CBF_TEXTURE)
        att_room = room(att_sd, doubt * _ATT_DOUBT, _ATT_TEXTURE)
        return Estimate(
            (posterior.cbf + cbf_moved + cbf_room * cbf) * inside,
            (posterior.att + att_moved + att_room * att) * inside,
            (cbf_sd.log() + cbf_log_sd) * inside,
            (att_sd.log() + att_log_sd) * inside,
        )
