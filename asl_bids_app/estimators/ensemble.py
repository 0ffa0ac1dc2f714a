"""The default estimator: the mean of several networks, with a calibrated error bar."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from asl_bids_app.errors import InputError
from asl_bids_app.estimators.answers import Look, read_answers
from asl_bids_app.estimators.arterial_evidence import arterial_evidence
from asl_bids_app.estimators.assumed import with_assumed_constants
from asl_bids_app.estimators.bars import with_late_arrival, with_offset, without_nonsense
from asl_bids_app.estimators.base import Correction, ParameterMaps
from asl_bids_app.estimators.bayes import observe_usable
from asl_bids_app.estimators.boxes import brain_box, crop, select
from asl_bids_app.estimators.devices import find_device, full_precision, side_by_side
from asl_bids_app.estimators.members import ANSWERS, arteries_for, estimate_slices, grid_for
from asl_bids_app.estimators.memory_batches import run_in_batches
from asl_bids_app.estimators.noise import with_noise
from asl_bids_app.estimators.separation import Separated, separate_arteries
from asl_bids_app.models.uncertainty import ERROR_BARS
from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.observation import Observation
from asl_bids_app.options import defaults
from asl_bids_app.progress_callback import OnProgress, no_progress
from asl_bids_app.series import Series

if TYPE_CHECKING:
    from asl_bids_app.models.store import Model
    from asl_bids_app.networks.network import Network

_FEWEST: Final = 4
"""Slices that a thread takes at least: each looks at its slices' neighbours too."""


class Ensemble:
    """The mean of the members of a model.

    Total variance is that within members plus that between them, calibrated by the model's table.

    Parameters
    ----------
    model
        Of `asl_bids_app.models.store.load_model`.
    tta
        Let the members see each slice in several `orientations`, and take the mean.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    batch_size
        Slices at a time. Memory that runs out halves it; on a GPU, if one slice is too much,
        the CPU takes over.
    error_bars
        A word of `asl_bids_app.models.uncertainty.ERROR_BARS`.
    tell
        Takes how many slices are done.
    arterial
        Look for arteries beside the tissue, where a delay is early enough to show them.

    Raises
    ------
    InputError
        If this machine doesn't have the device.
    """

    name = "ensemble"

    def __init__(
        self,
        model: Model,
        tta: bool = defaults.TTA,
        device: str = defaults.DEVICE,
        batch_size: int = defaults.BATCH_SIZE,
        error_bars: str = defaults.ERROR_BARS,
        tell: OnProgress = no_progress,
        arterial: bool = defaults.ARTERIAL,
    ) -> None:
        if batch_size < 1:
            raise InputError("command line", "--batch-size", str(batch_size), "1 or more")
        self.model = model
        self.tta = tta
        self.device = find_device(device)
        self.batch_size = batch_size
        self.error_bars = error_bars
        self.tell = tell
        self.arterial = arterial
        self.grid: PosteriorGrid = getattr(model.members[0], "grid", PosteriorGrid())

    @torch.no_grad()
    def fit(
        self,
        series: Series,
        correct: Correction | None = None,
        fractions: Tensor | None = None,
    ) -> ParameterMaps:
        """Estimate CBF and ATT inside the mask of a series.

        Arteries are separated from tissue first, by a quick look of one network at the tissue
        around (`asl_bids_app.estimators.separation`), unless the networks were trained to see to
        them. That needs the series' affine.

        Parameters
        ----------
        series
            Calibrated series.
        correct
            Changes maps before their error bars are judged, by the series they were made from and
            by how far each voxel tells of the tissue's ATT (None: all alike); None for nothing.
        fractions : Tensor, shape (2, n_slices, H, W), optional
            Of grey and white matter, by which arteries are separated from tissue.

        Raises
        ------
        InputError
            If the model is of a fixed protocol and the series of another.
        """
        series = with_noise(series)
        separated = None
        if self.separates(series):
            separated = self._separate(series, fractions)
            series = separated.tissue_of(series)
        shown = self.arterial and separated is None
        look = self._look(series, arteries_for(self.model.members[0], series) if shown else None)
        answer = look.maps
        if correct is not None:
            answer = correct(answer, series, None if separated is None else separated.att_trust)
        if separated is not None:
            answer = separated.added_to(answer)
        if self.error_bars == "total":
            answer = with_assumed_constants(look.observation, answer, series.calibration)
        answer = with_late_arrival(look.observation, answer, look.posterior_cbf_sd)
        answer = with_offset(look.observation, answer)
        return without_nonsense(answer, look.observation.mask)

    def separates(self, series: Series) -> bool:
        """Tell whether arteries are separated from tissue before the networks look."""
        member = self.model.members[0]
        own = self.arterial and arteries_for(member, series) is not None
        untrained = getattr(member, "arterial", None) is None
        return own and untrained and series.affine is not None

    def _separate(self, series: Series, fractions: Tensor | None) -> Separated:
        """Separate arteries from tissue, after a quick look with the first network."""
        quick = copy.copy(self)
        quick.model, quick.tta = replace(self.model, members=self.model.members[:1]), False
        quick.tell = no_progress
        maps = quick._look(series, None).maps
        observation, _ = observe_usable(series, 0.0)
        evidence = arterial_evidence(observation, maps.cbf)
        return separate_arteries(evidence, maps.att, series.voxel_mm, fractions)

    def _look(self, series: Series, arterial: ArterialPrior | None) -> Look:
        """Let the networks look at a series."""
        from asl_bids_app.models.domain import channel_order

        order = channel_order(self.model.spec, series) if self.model.spec.channels else None
        observation, failed = observe_usable(series, ERROR_BARS[self.error_bars])
        grid = grid_for(self.model.members[0], self.grid, series)
        size = len(ANSWERS) + (series.protocol.n_measurements if arterial else 0)
        maps = torch.zeros(size, *observation.mask.shape).to(observation.delta_m)
        filled = observation.mask.flatten(1).any(1).nonzero().flatten()
        if len(filled):
            rows, columns = brain_box(observation.mask)
            inner = crop(observation[filled], rows, columns)
            inner = inner if order is None else select(inner, order)
            found = self.estimate(inner, grid=grid, arterial=arterial)
            maps[:, filled, rows, columns] = found.to(maps)
        return read_answers(
            maps,
            series,
            observation,
            failed,
            estimator=self.name,
            bounds=(self.grid.att_min, self.grid.att_max),
            att_prior=grid.prior(series.protocol.schemes),
            table=self.model.spec.calibration.get(self.error_bars),
        )

    @torch.no_grad()
    def estimate(
        self,
        observation: Observation,
        asked: Tensor | None = None,
        grid: PosteriorGrid | None = None,
        arterial: ArterialPrior | None = None,
    ) -> Tensor:
        """Estimate in batches, smaller ones and at last on the CPU where memory runs out.

        Parameters
        ----------
        observation
            Any number of slices, measurements in the order of the model's channels if it has
            any.
        asked : Tensor of bool, shape (B,), optional
            Slices to estimate; the others are only looked at as their neighbours.
        grid
            With another prior of ATT than the model's.
        arterial
            What is believed of arteries; None to look for none.

        Returns
        -------
        Tensor, shape (answers, slices asked for, H, W)
            In the order of `ANSWERS`, and behind them the arteries' part of each measurement, if
            they were looked for: CBF, ATT, their standard deviations before calibration,
            the other `FEATURES`, and 1 where the data leave ATT open. Zero outside the mask, on
            the device of the observation.
        """
        every = torch.arange(len(observation), device=observation.mask.device)
        places = every if asked is None else every[asked]
        other: dict[str, Any] = {} if grid in (None, self.grid) else {"grid": grid}
        if arterial is not None:
            other["arterial"] = arterial

        def run(chosen: Tensor, members: Sequence[Network], device: torch.device) -> Tensor:
            with full_precision():
                part = self._estimate(observation, chosen, members, device, other)
            return part.to(observation.delta_m)

        parts = run_in_batches(places, self.batch_size, self.device, self._members, run, self.tell)
        return torch.cat(parts, 1)

    def _members(self, device: torch.device) -> list[Network]:
        # The store keeps the members for the whole process: theirs stay where they are.
        members, stay = self.model.members, device.type == "cpu"
        return [member if stay else copy.deepcopy(member).to(device) for member in members]

    def _estimate(
        self,
        observation: Observation,
        chosen: Tensor,
        members: Sequence[Network],
        device: torch.device,
        other: Mapping[str, Any],
    ) -> Tensor:
        """Return what `estimate` does of slices by their places, (answers, slices, H, W)."""

        def one(some: Tensor) -> Tensor:
            return estimate_slices(
                observation, some, members, device, other, grid=self.grid, tta=self.tta
            )

        most = torch.get_num_threads() if device.type == "cpu" else 1
        parts = chosen.chunk(max(1, min(most, len(chosen) // _FEWEST)))
        return torch.cat(side_by_side(one, parts), 1)
