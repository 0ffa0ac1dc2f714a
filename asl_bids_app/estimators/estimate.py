"""Choosing an estimator by name, and running it on a series."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from asl_bids_app.estimators.base import Estimator, Flag, ParameterMaps
from asl_bids_app.options import defaults
from asl_bids_app.progress_callback import OnProgress, no_progress

if TYPE_CHECKING:
    from torch import Tensor

    from asl_bids_app.series import Series


def estimate(
    series: Series,
    name: str,
    *,
    model: str | None = None,
    tta: bool = defaults.TTA,
    error_bars: str = defaults.ERROR_BARS,
    device: str = defaults.DEVICE,
    batch_size: int = defaults.BATCH_SIZE,
    threads: int = defaults.THREADS,
    seed: int = defaults.SEED,
    tissue: Mapping[str, np.ndarray] | None = None,
    consistent: bool = defaults.TISSUE_CONSISTENCY,
    arterial: bool = defaults.ARTERIAL,
    tell: OnProgress = no_progress,
) -> ParameterMaps[Tensor]:
    """Run an estimator on a series.

    Parameters
    ----------
    series
        With its noise, which is estimated if it has none yet; the ensemble's correction by
        tissue needs its affine.
    name
        One of `asl_bids_app.options.groups.ESTIMATORS`.
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

    Returns
    -------
    ParameterMaps
        With time, model and warnings, on the CPU.

    Raises
    ------
    AslAppError
        If the model or the device can't be used.
    """
    from asl_bids_app.estimators.noise import with_noise

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    start = time.perf_counter()
    series = with_noise(series)
    if name != "ensemble":
        return _add_flags_and_warnings(
            series, _make_simple(name, tell, arterial).fit(series), time.perf_counter() - start
        )

    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.estimators.regional import correct_means, show_anatomy, tissue_fractions
    from asl_bids_app.models.domain import domain_warnings, share_outside
    from asl_bids_app.models.store import load_model

    loaded = load_model(model)
    ensemble = Ensemble(loaded, tta, device, batch_size, error_bars, tell, arterial)
    fractions = tissue_fractions(tissue, series.slice_axis)
    if getattr(loaded.members[0], "anatomy", False):
        series = show_anatomy(series, fractions)
    start = time.perf_counter()

    def correct(
        maps: ParameterMaps[Tensor], seen: Series, att_trust: Tensor | None
    ) -> ParameterMaps[Tensor]:
        """Bring the means of tissues back to what the data say."""
        return correct_means(maps, seen, seen.voxel_mm, fractions, att_trust)

    maps = ensemble.fit(series, correct if consistent else None, fractions)
    maps = replace(
        maps,
        model={
            **loaded.facts(),
            "Flips": tta,
            "ErrorBars": error_bars,
            "ArteriesSeparated": ensemble.separates(series),
        },
        outside_domain=share_outside(loaded.spec, series),
        coherence=loaded.spec.coherence.get(error_bars, {}),
    )
    maps = _add_flags_and_warnings(series, maps, time.perf_counter() - start)
    return replace(maps, warnings=(*maps.warnings, *domain_warnings(loaded.spec, series)))


def _add_flags_and_warnings(
    series: Series, maps: ParameterMaps[Tensor], seconds: float
) -> ParameterMaps[Tensor]:
    """Flag arteries, and add what a reader must know about the maps."""
    from asl_bids_app.estimators.arteries import find_arteries, find_early_delay
    from asl_bids_app.estimators.map_warnings import warn_of_maps
    from asl_bids_app.estimators.noise import noise_level
    from asl_bids_app.observation import observe

    maps = maps.to("cpu")
    tissue_signal = observe(series.without_arteries(maps.vessels), noise_level(series))
    if maps.vessels is None and find_early_delay(series.protocol) is not None:
        artery = find_arteries(tissue_signal)
        maps = replace(maps, flags=maps.flags | artery.to(torch.uint8) * int(Flag.ARTERY))
    return replace(maps, seconds=seconds, warnings=warn_of_maps(series, tissue_signal, maps))


def _make_simple(name: str, tell: OnProgress, arterial: bool) -> Estimator:
    """Return an estimator that needs no model."""
    if name == "least-squares":
        from asl_bids_app.estimators.least_squares import LeastSquares

        return LeastSquares(tell=tell, arterial=arterial)
    if name == "bayes":
        from asl_bids_app.estimators.bayes import Bayes

        return Bayes(tell=tell, arterial=arterial)
    raise ValueError(f"estimator: found {name!r}, expected one of the table of options")
