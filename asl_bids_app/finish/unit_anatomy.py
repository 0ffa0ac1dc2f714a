"""The anatomy of a series, as the app calls it: the one seam between the two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_bids_app.anatomy.atlases import read_spec
from asl_bids_app.anatomy.find import find_anatomy
from asl_bids_app.anatomy.request import LAID, Outcome, Request, UnitMaps
from asl_bids_app.anatomy.run import run
from asl_bids_app.anatomy.spaces import read_space
from asl_bids_app.bids.uris import RAW, TEMPLATEFLOW

if TYPE_CHECKING:
    from torch import Tensor

    from asl_bids_app.anatomy.place import Placed
    from asl_bids_app.anatomy.tissue_flows import Data
    from asl_bids_app.bids.sessions import Unit
    from asl_bids_app.estimators.base import ParameterMaps
    from asl_bids_app.options.table import AppOptions
    from asl_bids_app.preprocess.prepare import PreparedRun
    from asl_bids_app.series import Series
    from asl_bids_app.settings import Settings


def make_request(settings: Settings, output_dir: Path) -> Request | None:
    """Return what a run asks of the anatomy; None with ``--no-anatomy``."""
    if not settings.anatomy or not settings.bids_dir:
        return None
    return Request(
        Path(settings.bids_dir),
        output_dir,
        {name: Path(path) for name, path in settings.derivatives.items()},
        tuple(read_space(text) for text in settings.output_spaces),
        tuple(read_spec(text) for text in settings.atlas),
        template_folder(),
        settings.threads,
        settings.pvc,
    )


def template_folder() -> Path | None:
    """Return the folder of TemplateFlow, where ``TEMPLATEFLOW_HOME`` names one that is there."""
    home = os.environ.get("TEMPLATEFLOW_HOME")
    folder = Path(home).expanduser() if home else None
    return folder if folder and folder.is_dir() else None


def other_datasets(asked: AppOptions | Settings) -> dict[str, Path]:
    """Return the datasets beside the raw one that files of a run come from, by name."""
    found = {name: Path(path) for name, path in asked.derivatives.items() if name != RAW}
    home = template_folder() if asked.output_spaces or asked.atlas else None
    return found if home is None else {**found, TEMPLATEFLOW: home}


def find_sources(request: Request | None, unit: Unit) -> list[str]:
    """Return the files that the registration of a series to its T1w depends on; none without."""
    if request is None:
        return []
    found = find_anatomy(request.bids_dir, request.derivatives, unit.entities)
    return [] if found.t1w is None else [str(path) for path in found.files]


def memory_gb(request: Request | None, unit: Unit) -> float:
    """Return the memory that the anatomy of a series takes at most, GB."""
    if request is None:
        return 0.0
    asked = bool(request.spaces or request.atlases)
    found = find_anatomy(request.bids_dir, request.derivatives, unit.entities)
    return 2.0 if asked or found.t1w is not None else 0.0


def place_run(request: Request, unit: Unit, prepared: PreparedRun) -> Placed | None:
    """Lay a prepared run on the T1w of its participant, before the fit; None without a T1w."""
    import torch

    from asl_bids_app.anatomy.place import place

    torch.set_num_threads(request.threads)
    images = {
        "M0": prepared.m0 if prepared.head is None else prepared.head,
        "ΔM": prepared.delta_m.mean(axis=-1),
    }
    # A mask of derivatives may lie where the head was at another time: the image's own counts.
    return place(request, unit.entities, images, prepared.shown_brain, prepared.affine)


def _common(coherence: Mapping[str, Any], total: bool) -> dict[str, float]:
    """Return what neighbours of each standard deviation have in common, by the model's table.

    The calibration, which bars in total hold, is taken off CBF before it is resampled.
    """
    from asl_bids_app.estimators.coherence import common_of_corners, read_coherence

    found = {}
    for key in ("cbf", "att"):
        if (entry := read_coherence(coherence, key)) is not None:
            entry = replace(entry, shared=0.0) if total and key == "cbf" else entry
            found[f"{key}_sd"] = common_of_corners(entry)
    # Of arteries nothing was measured: they are found beside CBF.
    return found | ({"abv_sd": found["cbf_sd"]} if "cbf_sd" in found else {})


def run_anatomy(
    request: Request,
    unit: Unit,
    series: Series,
    maps: ParameterMaps[Tensor],
    baseline: ParameterMaps[Tensor] | None,
    sidecar: Mapping[str, Any],
    placed: Placed | None = None,
) -> Outcome:
    """Run the anatomy of a series whose maps are written.

    Parameters
    ----------
    request
    unit, series, maps, baseline
        What was quantified.
    sidecar
        What all its sidecars say.
    placed
        The series on its T1w as the fit had it.

    Raises
    ------
    ValueError
        Without an affine.
    """
    import torch

    from asl_bids_app.anatomy.region_fit import CALIBRATION_SD
    from asl_bids_app.anatomy.signals import signals_of
    from asl_bids_app.estimators.base import Flag
    from asl_bids_app.estimators.noise import noise_level
    from asl_bids_app.observation import observe

    if series.affine is None:
        raise ValueError("affine: None, expected the voxel-to-world matrix (4, 4)")
    volume = series.volume
    prior = maps.att_prior
    signals = None
    if prior is not None:
        # Least squares leans on no neighbours: its residuals and transit times show the noise.
        voxelwise = baseline or maps
        white = voxelwise.estimator == "least-squares"
        signals = signals_of(
            observe(series, noise_level(series)),
            series.slice_axis,
            prior,
            volume(voxelwise.residual),
            None if maps.vessels is None else volume(maps.vessels),
            volume(voxelwise.att) if white else None,
            volume(voxelwise.att_sd) if white else None,
        )
    keys = [key for key in LAID if getattr(maps, key) is not None]
    total = maps.model is not None and maps.model.get("ErrorBars") == "total"
    given = UnitMaps(
        unit.entities,
        {
            **({"M0": series.volumes["m0"]} if "m0" in series.volumes else {}),
            "ΔM": volume(series.delta_m).mean(axis=-1),
            "CBF": volume(maps.cbf),
        },
        volume(series.mask),
        (volume(maps.flags) & int(Flag.FAILED)) > 0,
        series.affine,
        {key: volume(getattr(maps, key)) for key in keys},
        {
            f"{key}_sd": volume(getattr(maps, f"{key}_sd"))
            for key in keys
            if getattr(maps, f"{key}_sd") is not None
        },
        signals,
        maps.estimator,
        CALIBRATION_SD if total else 0.0,
        _common(maps.coherence, total),
        sidecar,
        _for_partial_volume(series, maps) if request.pvc else None,
    )
    torch.set_num_threads(request.threads)
    return run(request, given, placed=placed)


def _for_partial_volume(series: Series, maps: ParameterMaps[Tensor]) -> Data | None:
    """Return what flows of tissues are estimated from: the signal of tissue, without arteries."""
    from dataclasses import replace

    from asl_bids_app.anatomy.tissue_flows import Data
    from asl_bids_app.estimators.base import Flag
    from asl_bids_app.estimators.noise import noise_level
    from asl_bids_app.observation import observe

    if maps.att_prior is None:
        return None
    observation = observe(series.without_arteries(maps.vessels), noise_level(series))
    # Arteries that were found but not fitted hide the tissue.
    blind = int(Flag.FAILED) | (int(Flag.ARTERY) if maps.vessels is None else 0)
    hidden = ((maps.flags.int() & blind) > 0).unsqueeze(1)
    noise = observation.noise_sd.expand_as(observation.delta_m).nan_to_num(float("inf"))
    observation = replace(observation, noise_sd=noise.masked_fill(hidden, float("inf")))
    return Data(observation, series.slice_axis, series.voxel_mm, maps.att_prior)
