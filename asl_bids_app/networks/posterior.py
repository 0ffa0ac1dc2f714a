"""The default network: physics supplies the likelihood, it learns the spatial prior only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

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
from asl_bids_app.networks.corrections import ATT_UNCERTAINTY, Estimate, correct_posterior
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.networks.inputs import (
    ANATOMY_MAPS,
    ARTERIAL_MAPS,
    OF_NEIGHBOURS,
    POOLED_MAPS,
    SHOWN_MAPS,
    anatomy_maps,
    arterial_maps,
    neighbour_maps,
    own_maps,
    pooled,
    pooled_maps,
)
from asl_bids_app.networks.voxel import VoxelPosterior
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import Arrival


class PosteriorASLNet(nn.Module):
    """Corrects the voxelwise posterior by what the neighbourhood says.

    A U-Net sees maps of the voxelwise posterior and answers with a prior of ATT by which
    p(ATT) is multiplied, and with corrections in units of the `correction_scale` of
    each voxel. Its heads start at zero: untrained it *is* the voxelwise posterior, whatever the
    protocol.

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
    cbf_uncertainty
        Relative sd of CBF by efficiency, M0 and T1 of blood where they are uncertain, by which
        `correction_scale` grows. A small one lets a network guess less at a scanner's error.
    noise_apart
        Let the network see the noise of CBF apart from the uncertainty of ATT, and let
        `correction_scale` follow the noise only, not all uncertainty of CBF: reweighting p(ATT)
        sees to the rest. With a single delay nearly all of it may come from that of ATT.
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
        If the window is neither 0 nor odd, `cbf_uncertainty` or `beside` is negative, or a network
        looks at the slices beside without the maps that they are to show.
    """

    def __init__(
        self,
        features: Sequence[int] = (16, 32, 64, 128),
        grid: Mapping[str, Any] | None = None,
        window: int = 3,
        cbf_uncertainty: float = 0.08,
        noise_apart: bool = False,
        beside: int = 0,
        arterial: Mapping[str, Any] | None = None,
        anatomy: bool = False,
    ) -> None:
        super().__init__()
        if window < 0 or (window and window % 2 == 0):
            raise ValueError(f"window: found {window}, expected 0 or an odd number")
        if cbf_uncertainty < 0:
            raise ValueError(f"cbf_uncertainty: found {cbf_uncertainty}, expected 0 or more")
        if beside < 0:
            raise ValueError(f"beside: found {beside}, expected 0 or more")
        if beside and not (noise_apart and window):
            found = f"window {window}, noise_apart {noise_apart}"
            raise ValueError(f"beside: found {found}, expected a window and noise_apart")
        self.window = window
        self.beside = beside
        self.cbf_uncertainty = cbf_uncertainty
        self.noise_apart = noise_apart
        self.grid = PosteriorGrid(**(grid or {}))
        self.arterial = None if arterial is None else ArterialPrior(**arterial)
        self.anatomy = anatomy
        self.features = tuple(features)
        self.encoder = Encoder(self._seen + beside, self.features)
        if beside:
            self.neighbour = ConvBlock(SHOWN_MAPS, beside)
            # Untrained answers of both slices beside would drown a voxel's own maps.
            first = self.encoder.get_submodule("levels.0.first.conv")
            assert isinstance(first, nn.Conv2d)
            with torch.no_grad():
                first.weight[:, self._seen :] = 0
        self.decoder = Decoder(self.features)
        answers = 4 + self.grid.bins + (3 if self.arterial else 0)
        self.head = zero_head(self.features[0], answers)

    @property
    def in_channels(self) -> int:
        """Number of the U-Net's input maps."""
        return self._seen + (2 * SHOWN_MAPS if self.beside else 0)

    @property
    def _seen(self) -> int:
        """Number of the maps of a slice by itself."""
        return (
            self._own_features
            + (POOLED_MAPS if self.window else 0)
            + (ARTERIAL_MAPS if self.arterial else 0)
            + (ANATOMY_MAPS if self.anatomy else 0)
        )

    @property
    def _own_features(self) -> int:
        """Number of the maps of each voxel's own posterior."""
        return 10 + self.noise_apart + self.grid.bins + len(Arrival)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that build this network again, ready for JSON."""
        return {
            "features": list(self.features),
            "grid": asdict(self.grid),
            "window": self.window,
            "cbf_uncertainty": self.cbf_uncertainty,
            "noise_apart": self.noise_apart,
            "beside": self.beside,
            "arterial": None if self.arterial is None else asdict(self.arterial),
            "anatomy": self.anatomy,
        }

    def forward(self, observation: Observation) -> Estimate:
        """Estimate CBF and ATT with their uncertainty in the mask of a batch of slices."""
        posterior, maps = self.prepare(observation)
        uncertainty = observation.calibration_uncertainty
        return self.correct(posterior, self.corrections(maps), observation.mask, uncertainty)

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
        parts = own_maps(posterior, inside, observation.calibration_uncertainty, self.noise_apart)
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
            shown = maps[:, [*own, *(self._own_features + k for k in around_it)]]
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
            own, *beside = padded.tensor_split([self._seen, self._seen + SHOWN_MAPS], 1)
            # The same weights for both: nothing tells up from down. The fifth map is the mask.
            heard = [self.neighbour(x, x[:, 4:5]) for x in beside]
            padded = torch.cat([own, heard[0] + heard[1]], 1)
        x = self.decoder(self.encoder(padded, masks), masks)
        return self.head(x)[..., :height, :width]

    def shared_misfit(self, maps: Tensor) -> Tensor | None:
        """Return the misfit of the averaged neighbourhoods, (B, H, W), of the maps of `prepare`.

        None if the network doesn't look at them.
        """
        last_of_columns = self._own_features + POOLED_MAPS - 1 - len(Arrival)
        return maps[:, last_of_columns] + 1 if self.window else None

    def correct(
        self, posterior: VoxelPosterior, corrections: Tensor, mask: Tensor, uncertainty: Tensor
    ) -> Estimate:
        """Apply corrections (B, 4 + bins, H, W) to the posterior.

        `uncertainty`, shape (B,), is `Observation.calibration_uncertainty`.
        """
        return correct_posterior(
            posterior,
            corrections,
            mask,
            uncertainty.to(posterior.cbf) * self.cbf_uncertainty,
            uncertainty.to(posterior.cbf) * ATT_UNCERTAINTY,
            bins=self.grid.bins,
            arterial=self.arterial is not None,
            noise_apart=self.noise_apart,
        )
