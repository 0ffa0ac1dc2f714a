"""Choosing an estimator by name, and running it on an assembled series."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from asl_bids_app.estimators.base import Estimator, ParameterMaps

if TYPE_CHECKING:
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
    """

    maps: ParameterMaps
    seconds: float
    model: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = field(default=())


def estimate(
    assembled: Assembled,
    name: str,
    *,
    model: str | None = None,
    tta: bool = True,
    device: str = "auto",
    batch_size: int = 16,
    threads: int = 1,
    seed: int = 0,
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
    tta, device, batch_size
        Of the ensemble.
    threads
        Of the processor.
    seed
        Of whatever an estimator draws.

    Raises
    ------
    AslAppError
        If the model or the device can't be used.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    estimator, facts, warnings = _make(name, model, tta, device, batch_size, assembled)
    start = time.perf_counter()
    maps = estimator.fit(assembled.series)
    return Estimated(maps.to("cpu"), time.perf_counter() - start, facts, warnings)


def _make(
    name: str, model: str | None, tta: bool, device: str, batch_size: int, assembled: Assembled
) -> tuple[Estimator, Mapping[str, Any] | None, tuple[str, ...]]:
    if name == "least-squares":
        from asl_bids_app.estimators.least_squares import LeastSquares

        return LeastSquares(), None, ()
    if name == "bayes":
        from asl_bids_app.estimators.bayes import Bayes

        return Bayes(), None, ()
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.models.store import domain_warnings, load_model

    loaded = load_model(model)
    ensemble = Ensemble(loaded, tta=tta, device=device, batch_size=batch_size)
    return ensemble, loaded.facts(), domain_warnings(loaded.spec, assembled.series)
