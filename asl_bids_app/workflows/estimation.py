"""Choosing an estimator by name, and running it on an assembled series."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from asl_bids_app.estimators.base import Estimator, Flag, ParameterMaps
from asl_bids_app.tell import Tell, nobody

if TYPE_CHECKING:
    import numpy as np

    from asl_bids_app.workflows.unit import Assembled


@dataclass(frozen=True, eq=False)
class Estimated:
    """Maps of a series and what is to be known of their making.

    Attributes
    ----------
    maps : ParameterMaps
    seconds : float
        From ΔM in memory to maps.
    model : mapping or None
        Name, version and hash of the model, for sidecars.
    warnings : tuple of str
        Such as data outside the training domain.
    outside_domain : float or None
        Share of the voxels outside it.
    consistency : mapping or None
        What was corrected by tissue, see `asl_bids_app.estimators.consistency.Consistent`.
    """

    maps: ParameterMaps
    seconds: float
    model: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    outside_domain: float | None = None
    consistency: Mapping[str, Any] | None = None


def estimate(
    assembled: Assembled,
    name: str,
    *,
    model: str | None = None,
    tta: bool = True,
    error_bars: str = "total",
    device: str = "auto",
    batch_size: int = 8,
    threads: int = 1,
    seed: int = 0,
    tissue: Mapping[str, np.ndarray] | None = None,
    consistent: bool = True,
    arterial: bool = True,
    tell: Tell = nobody,
) -> Estimated:
    """Run an estimator on an assembled series.

    Parameters
    ----------
    assembled
        The series.
    name
        One of `asl_bids_app.workflows.options.ESTIMATORS`.
    model
        Name or folder of the ensemble's model; the bundled one by default.
    tta, error_bars, device, batch_size
        Of the ensemble.
    threads
        Of the processor.
    seed
        Of whatever an estimator draws.
    tissue
        Fractions of ``gm`` and ``wm`` in each voxel, (X, Y, Z), if there are any.
    consistent
        Bring the ensemble's means of tissues back to what the data say.
    arterial
        Look for arteries.
    tell
        Takes how far the estimator has come.

    Raises
    ------
    AslAppError
        If the model or the device can't be used.
    """
    from asl_bids_app.estimators.arteries import early, find_arteries
    from asl_bids_app.estimators.remarks import remarks
    from asl_bids_app.observation import observe

    series = assembled.series
    observation = observe(series, assembled.noise.noise_sd)

    def judged(maps: ParameterMaps) -> tuple[ParameterMaps, tuple[str, ...]]:
        """Flag arteries, and say what is to be known of the maps."""
        maps = maps.to("cpu")
        if maps.vessels is not None:
            left = replace(observation, delta_m=observation.delta_m - maps.vessels)
            return maps, remarks(series, left, maps)
        if early(series.protocol) is not None:
            artery = find_arteries(observation)
            maps = replace(maps, flags=maps.flags | artery.to(torch.uint8) * int(Flag.ARTERY))
        return maps, remarks(series, observation, maps)

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    start = time.perf_counter()
    if name != "ensemble":
        maps = _simple(name, tell, arterial).fit(series)
        seconds = time.perf_counter() - start
        maps, told = judged(maps)
        return Estimated(maps, seconds, warnings=told)

    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.models.domain import domain_warnings, share_outside
    from asl_bids_app.models.store import load_model

    loaded = load_model(model)
    ensemble = Ensemble(loaded, tta, device, batch_size, error_bars, tell, arterial)
    start = time.perf_counter()
    corrected: dict[str, Any] = {}

    def correct(maps: ParameterMaps) -> ParameterMaps:
        """Bring the means of tissues back to what the data say, and keep what was done."""
        changed, facts = _correct(maps, assembled, tissue)
        corrected.update(facts)
        return changed

    maps = ensemble.fit(series, correct if consistent else None)
    seconds = time.perf_counter() - start
    maps, told = judged(maps)
    return Estimated(
        maps,
        seconds,
        {**loaded.facts(), "Flips": tta, "ErrorBars": error_bars},
        (*told, *domain_warnings(loaded.spec, series)),
        share_outside(loaded.spec, series),
        corrected or None,
    )


def _correct(
    maps: ParameterMaps, assembled: Assembled, tissue: Mapping[str, np.ndarray] | None
) -> tuple[ParameterMaps, Mapping[str, Any]]:
    from asl_bids_app.estimators.regional import correct_means, fractions_of, slice_sizes

    axis, series = assembled.slice_axis, assembled.series
    if maps.vessels is not None:
        series = replace(series, delta_m=series.delta_m - maps.vessels.to(series.delta_m))
    return correct_means(
        maps,
        series,
        assembled.noise.noise_sd,
        slice_sizes(assembled.affine, axis),
        fractions_of(tissue, axis),
    )


def _simple(name: str, tell: Tell, arterial: bool) -> Estimator:
    """Return an estimator that needs no model."""
    if name == "least-squares":
        from asl_bids_app.estimators.least_squares import LeastSquares

        return LeastSquares(tell=tell, arterial=arterial)
    from asl_bids_app.estimators.bayes import Bayes

    return Bayes(tell=tell, arterial=arterial)
