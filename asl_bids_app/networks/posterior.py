"""The default network: physics supplies the likelihood, it learns the spatial prior only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.networks.blocks import (
    ConvBlock,
    Decoder,
    Encoder,
    mask_pyramid,
    pad_to_multiple,
    zero_head,
)
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.networks.inputs import (
    OF_NEIGHBOURS,
    anatomy_maps,
    arterial_maps,
    neighbour_maps,
    own_maps,
    pooled,
    pooled_maps,
)
from asl_bids_app.networks.voxel import VoxelPosterior
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
    volume, volume_log_sd, artery : Tensor or None, shape (B, H, W)
        Arterial blood volume (mL/mL), the logarithm of its standard deviation, and the
        probability of an artery; None of a network that looks for none.
    """

    cbf: Tensor
    att: Tensor
    cbf_log_sd: Tensor
    att_log_sd: Tensor
    volume: Tensor | None = None
    volume_log_sd: Tensor | None = None
    artery: Tensor | None = None


_ATT_DOUBT: Final = 0.05
"""Sd of ATT by the same, s."""
_CBF_TEXTURE: Final = 3.0
"""Sd of CBF between a voxel and what its neighbours let expect, mL/100 g/min."""
_LEAST_VOLUME_SD: Final = 1e-5
"""mL/mL: a standard deviation of the arterial volume below it is taken as it."""
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


_POOLED: Final = 9 + len(Arrival)
"""Number of the maps of the neighbourhood's posterior."""
_SHOWN: Final = sum(map(len, OF_NEIGHBOURS))
"""Number of the maps that a slice shows to those beside it."""
_ARTERIAL: Final = 5
"""Number of the maps of arteries."""
_ANATOMY: Final = 5
"""Number of the maps of M0 and tissue."""
_MOST: Final = 6.0
"""Natural logarithm of the most by which neighbours may change the odds of two ATTs."""


@dataclass(frozen=True)
class Moved:
    """What neighbours' knowledge of the odds makes of a posterior.

    Attributes
    ----------
    cbf, att, volume : Tensor, shape (B, H, W)
        By how much they move: mL/100 g/min, s, mL/mL; zero where the log odds are.
    artery : Tensor, shape (B, H, W)
        Probability of an artery after it.
    """

    cbf: Tensor
    att: Tensor
    volume: Tensor
    artery: Tensor


def reweighted(posterior: VoxelPosterior, log_odds: Tensor) -> Moved:
    """Return by how much CBF and ATT move if neighbours know better which ATTs are likely.

    The posterior of a noisy voxel may have two peaks, an early one with little flow and a late
    one with much. Its mean lies between them, where nothing is likely; a prior from neighbours
    decides. By Bayes' rule it multiplies p(ATT), and CBF goes along.

    Parameters
    ----------
    posterior
        Of every voxel for itself.
    log_odds : Tensor, shape (B, bins, H, W)
        Logarithm of the neighbours' prior over the prior of the posterior, up to a constant, of
        all bins of the posterior: those with an artery too, if one was looked for.

    Returns
    -------
    Moved
    """
    factor = (_MOST * torch.tanh(log_odds / _MOST)).exp()
    # Rounded alike with and without the factor, so that no factor moves nothing.
    before = posterior.att_bins.sum(1).clamp(min=1e-6)
    after = (posterior.att_bins * factor).sum(1).clamp(min=1e-6)

    def moved(share: Tensor) -> Tensor:
        return (share * factor).sum(1) / after - share.sum(1) / before

    none = torch.zeros_like(posterior.volume)
    if not posterior.bin_volume.shape[1]:
        return Moved(moved(posterior.bin_cbf), moved(posterior.bin_att), none, none)
    half = posterior.att_bins.shape[1] // 2
    artery = (posterior.att_bins[:, half:] * factor[:, half:]).sum(1) / after
    return Moved(
        moved(posterior.bin_cbf), moved(posterior.bin_att), moved(posterior.bin_volume), artery
    )


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
    cbf_doubt
        Relative sd of CBF by efficiency, M0 and T1 of blood where they are in doubt, by which
        `room` grows. A small one lets a network guess less at what a scanner is off by.
    noise_apart
        Let the network see the noise of CBF apart from the doubt about ATT, and give neighbours
        `room` by the noise only, instead of by all doubt about CBF: reweighting p(ATT) sees to
        the rest. With a single delay nearly all doubt about CBF may be doubt about ATT.
    beside
        Channels of what is learnt from the posteriors of the slices below and above, where
        `Observation.slice_number` says that they are there. 0: every slice by itself.

    arterial
        Arguments of `ArterialPrior`, of a network that looks for arteries; None for none.
    anatomy
        Let the network see M0 and tissue fractions where the observation has them.

    Raises
    ------
    ValueError
        If the window is neither 0 nor odd, the doubt or `beside` is negative, or a network looks
        at the slices beside without the maps that they are to show.
    """

    def __init__(
        self,
        features: Sequence[int] = (16, 32, 64, 128),
        grid: Mapping[str, Any] | None = None,
        window: int = 3,
        cbf_doubt: float = 0.08,
        noise_apart: bool = False,
        beside: int = 0,
        arterial: Mapping[str, Any] | None = None,
        anatomy: bool = False,
    ) -> None:
        super().__init__()
        if window < 0 or (window and window % 2 == 0):
            raise ValueError(f"window: found {window}, expected 0 or an odd number")
        if cbf_doubt < 0:
            raise ValueError(f"cbf_doubt: found {cbf_doubt}, expected 0 or more")
        if beside < 0:
            raise ValueError(f"beside: found {beside}, expected 0 or more")
        if beside and not (noise_apart and window):
            found = f"window {window}, noise_apart {noise_apart}"
            raise ValueError(f"beside: found {found}, expected a window and noise_apart")
        self.window = window
        self.beside = beside
        self.cbf_doubt = cbf_doubt
        self.noise_apart = noise_apart
        self.grid = PosteriorGrid(**(grid or {}))
        self.arterial = None if arterial is None else ArterialPrior(**arterial)
        self.anatomy = anatomy
        self.features = tuple(features)
        self.encoder = Encoder(self._seen + beside, self.features)
        if beside:
            self.neighbour = ConvBlock(_SHOWN, beside)
            # Untrained answers of both slices beside would drown a voxel's own maps.
            with torch.no_grad():
                self.encoder.levels[0].first.conv.weight[:, self._seen :] = 0
        self.decoder = Decoder(self.features)
        answers = 4 + self.grid.bins + (3 if self.arterial else 0)
        self.head = zero_head(self.features[0], answers)

    @property
    def in_channels(self) -> int:
        """Number of the U-Net's input maps."""
        return self._seen + (2 * _SHOWN if self.beside else 0)

    @property
    def _seen(self) -> int:
        """Number of the maps of a slice by itself."""
        return (
            self._own
            + (_POOLED if self.window else 0)
            + (_ARTERIAL if self.arterial else 0)
            + (_ANATOMY if self.anatomy else 0)
        )

    @property
    def _own(self) -> int:
        """Number of the maps of each voxel's own posterior."""
        return 10 + self.noise_apart + self.grid.bins + len(Arrival)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that build this network again, ready for JSON."""
        return {
            "features": list(self.features),
            "grid": asdict(self.grid),
            "window": self.window,
            "cbf_doubt": self.cbf_doubt,
            "noise_apart": self.noise_apart,
            "beside": self.beside,
            "arterial": None if self.arterial is None else asdict(self.arterial),
            "anatomy": self.anatomy,
        }

    def forward(self, observation: Observation) -> Estimate:
        """Estimate CBF and ATT with their uncertainty in the mask of a batch of slices."""
        posterior, maps = self.prepare(observation)
        doubt = observation.calibration_doubt
        return self.correct(posterior, self.corrections(maps), observation.mask, doubt)

    def prepare(
        self,
        observation: Observation,
        grid: PosteriorGrid | None = None,
        arterial: ArterialPrior | None = None,
    ) -> tuple[VoxelPosterior, Tensor]:
        """Return what needs no weights: the voxelwise posterior and the U-Net's input.

        The input has the shape (B, in_channels, H, W), channels last in memory, zero outside
        the masks. All scales are fixed: nothing is normalised by the data, for amplitude is CBF.
        With a `grid` its prior of ATT takes the place of the network's own. With `arterial`
        arteries are looked for by a network that was trained without them, too.
        """
        grid, arterial = grid or self.grid, self.arterial or arterial
        posterior = voxel_posterior(observation, grid, arterial=arterial)
        inside = observation.mask.to(posterior.cbf)
        parts = own_maps(posterior, inside, observation.calibration_doubt, self.noise_apart)
        if self.window:
            averaged = pooled(observation, self.window)
            around = voxel_posterior(averaged, grid, arterial=arterial)
            parts.append(pooled_maps(around, posterior))
        if self.arterial:
            parts.append(arterial_maps(posterior))
        if self.anatomy:
            parts.append(anatomy_maps(observation))
        maps = (torch.cat(parts, 3) * inside.unsqueeze(3)).permute(0, 3, 1, 2)
        if self.beside:
            own, around_it = OF_NEIGHBOURS
            shown = maps[:, [*own, *(self._own + k for k in around_it)]]
            beside = neighbour_maps(shown, observation.follows)
            maps = torch.cat([maps, beside], 1).contiguous(memory_format=torch.channels_last)
        return posterior, maps

    def corrections(self, maps: Tensor) -> Tensor:
        """Return the corrections (B, 4 + bins, H, W), or 3 more with arteries.

        Of CBF, ATT, the logarithms of their sds, and of the logarithms of p(ATT) in each bin;
        of the log odds of an artery, its volume and the logarithm of its sd.

        Parameters
        ----------
        maps : Tensor, shape (B, in_channels, H, W)
            Of `prepare`; the sixth channel is the mask. Any H and W.
        """
        height, width = maps.shape[-2:]
        levels = len(self.features)
        padded = pad_to_multiple(maps, 2 ** (levels - 1))
        masks = mask_pyramid(padded[:, 5:6].contiguous(), levels)
        if self.beside:
            own, *beside = padded.tensor_split([self._seen, self._seen + _SHOWN], 1)
            # The same weights for both: nothing tells up from down. The fifth map is the mask.
            heard = [self.neighbour(x, x[:, 4:5]) for x in beside]
            padded = torch.cat([own, heard[0] + heard[1]], 1)
        x = self.decoder(self.encoder(padded, masks), masks)
        return self.head(x)[..., :height, :width]

    def shared_misfit(self, maps: Tensor) -> Tensor | None:
        """Return the misfit of the averaged neighbourhoods, (B, H, W), of the maps of `prepare`.

        None if the network doesn't look at them.
        """
        last_of_columns = self._own + _POOLED - 1 - len(Arrival)
        return maps[:, last_of_columns] + 1 if self.window else None

    def correct(
        self, posterior: VoxelPosterior, corrections: Tensor, mask: Tensor, doubt: Tensor
    ) -> Estimate:
        """Apply corrections (B, 4 + bins, H, W) to the posterior.

        First p(ATT) is reweighted, then what is left is added, in units of `room` and of log
        sd. `doubt`, shape (B,), is `Observation.calibration_doubt`.
        """
        corrections = corrections.to(posterior.cbf)
        cbf, att, cbf_log_sd, att_log_sd = corrections[:, :4].unbind(1)
        log_odds, arteries = corrections[:, 4:].split_with_sizes(
            [self.grid.bins, corrections.shape[1] - 4 - self.grid.bins], 1
        )
        if self.arterial:
            log_odds = torch.cat([log_odds, log_odds + arteries[:, :1]], 1)
        elif posterior.bin_volume.shape[1]:
            # Trained without arteries: the odds of ATT hold beside one as well.
            log_odds = torch.cat([log_odds, log_odds], 1)
        moved = reweighted(posterior, log_odds)
        inside = mask.to(posterior.cbf)
        cbf_sd, att_sd = posterior.cbf_sd.clamp(min=1e-6), posterior.att_sd.clamp(min=1e-6)
        doubt = doubt.to(posterior.cbf)[:, None, None]
        doubtful = posterior.cbf_noise_sd if self.noise_apart else cbf_sd
        cbf_room = room(doubtful, doubt * self.cbf_doubt * posterior.cbf, _CBF_TEXTURE)
        att_room = room(att_sd, doubt * _ATT_DOUBT, _ATT_TEXTURE)
        found = Estimate(
            (posterior.cbf + moved.cbf + cbf_room * cbf) * inside,
            (posterior.att + moved.att + att_room * att) * inside,
            (cbf_sd.log() + cbf_log_sd) * inside,
            (att_sd.log() + att_log_sd) * inside,
        )
        if not posterior.bin_volume.shape[1]:
            return found
        volume_sd = posterior.volume_sd.clamp(min=_LEAST_VOLUME_SD)
        own, width = arteries[:, 1:].unbind(1) if self.arterial else (0.0, 0.0)
        return replace(
            found,
            volume=(posterior.volume + moved.volume + volume_sd * own) * inside,
            volume_log_sd=(volume_sd.log() + width) * inside,
            artery=moved.artery * inside,
        )
