"""The strong least-squares estimator, with an artery beside the tissue where it pays."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from asl_bids_app.estimators.arteries import CRITERION, ArterialFit, fit_arteries, shows_arteries
from asl_bids_app.estimators.bars import without_nonsense
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.grid_search import LeastSquaresOptions
from asl_bids_app.estimators.noise import noise_level
from asl_bids_app.estimators.voxel_fit import least_squares, residual
from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation, observe
from asl_bids_app.options import defaults
from asl_bids_app.progress_callback import OnProgress, no_progress
from asl_bids_app.scheme_fields import TransitPrior
from asl_bids_app.schemes import transit_prior
from asl_bids_app.series import Series

__all__ = ["LeastSquares", "LeastSquaresOptions", "least_squares", "residual"]


class LeastSquares:
    """The strong least-squares estimator.

    Parameters
    ----------
    options
        Range and resolution of the fit.
    tell
        Takes how many voxels are done.
    arterial
        Fit an artery beside the tissue where it pays, if a delay is early enough to show one.
    """

    name = "least-squares"

    def __init__(
        self,
        options: LeastSquaresOptions | None = None,
        tell: OnProgress = no_progress,
        arterial: bool = defaults.ARTERIAL,
    ) -> None:
        self.options = options or LeastSquaresOptions()
        self.tell = tell
        self.arterial = arterial

    @torch.no_grad()
    def fit(self, series: Series) -> ParameterMaps:
        """Estimate CBF and ATT inside the mask of a series."""
        observation = observe(series, noise_level(series))
        fitted: tuple[Tensor, ...] = least_squares(observation, self.options, self.tell)
        arteries = None
        if self.arterial and shows_arteries(series.protocol):
            arteries, fitted = self._with_arteries(observation, fitted)
            # What is left is tissue's, and noise.
            left = series.without_arteries(arteries.vessels)
            observation = replace(observation, delta_m=left.delta_m)
        cbf, att, cbf_sd, att_sd, flags = fitted
        left_over = residual(observation, cbf, att)
        given, usual = self.options, transit_prior(series.protocol.schemes)
        prior = usual
        if given.att_prior is not None or given.att_prior_sd is not None:
            prior = TransitPrior(
                usual.mean if given.att_prior is None else given.att_prior,
                usual.sd if given.att_prior_sd is None else given.att_prior_sd,
                "as given",
            )
        maps = ParameterMaps(
            cbf,
            att,
            cbf_sd,
            att_sd,
            left_over,
            flags,
            self.name,
            att_prior=prior,
            abv=None if arteries is None else 100 * arteries.volume,
            abv_sd=None if arteries is None else 100 * arteries.volume_sd,
            vessels=None if arteries is None else arteries.vessels,
        )
        return without_nonsense(maps, series.mask)

    def _with_arteries(
        self, observation: Observation, alone: tuple[Tensor, ...]
    ) -> tuple[ArterialFit, tuple[Tensor, ...]]:
        """Return the arteries that pay, and the fit of tissue beside them.

        Both fits are refined before they are compared: on a grid an artery may make up for the
        points of ATT that are not there.
        """
        arteries = fit_arteries(observation)
        beside = replace(
            observation, delta_m=observation.delta_m - arteries.vessels, mask=arteries.found
        )
        fit = least_squares(beside, self.options)
        gain = _chi_square(observation, *alone[:2]) - _chi_square(beside, *fit[:2])
        arteries = arteries.restrict_to(gain > CRITERION)
        kept = arteries.found
        cbf, att, cbf_sd, att_sd, flags = (
            torch.where(kept, new, old) for new, old in zip(fit, alone, strict=True)
        )
        # Their own error: what the data leave open between tissue and artery.
        cbf_sd = torch.hypot(cbf_sd, arteries.cbf_sd)
        att_sd = torch.hypot(att_sd, arteries.att_sd)
        return arteries, (cbf, att, cbf_sd, att_sd, flags | kept.to(flags) * int(Flag.ARTERY))


def _chi_square(observation: Observation, cbf: Tensor, att: Tensor) -> Tensor:
    left = residual(observation, cbf, att)
    return (left.square() * precision_of(observation.noise_sd)).sum(1)
