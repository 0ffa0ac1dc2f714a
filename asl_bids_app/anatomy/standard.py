"""The maps of a series in another space, in one resampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.request import UnitMaps
from asl_bids_app.anatomy.resampling import resample_maps
from asl_bids_app.anatomy.routes import Routes
from asl_bids_app.anatomy.spaces import T1W, Grid, Space, grid_of
from asl_bids_app.anatomy.tissue_flows import NEIGHBOURS, about
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.geometry import voxel_sizes


def write_space(
    folder: Path,
    unit: UnitMaps,
    space: Space,
    routes: Routes,
    head: Head | None,
    template_dir: Path | None,
    facts: dict[str, Any],
    outputs: list[Path],
) -> None:
    """Write the maps of a series on the grid of a space, in one resampling.

    Parameters
    ----------
    folder
        The `perf` folder.
    unit, space, routes
    head
        The T1w, if there is one.
    template_dir
        ``TEMPLATEFLOW_HOME``.
    facts
        What was done so far, for sidecars; the space is added to it.
    outputs
        Each file is added as soon as it is written.

    Raises
    ------
    InputError
        If the space can't be reached, or its grid and the series don't overlap.
    """
    from asl_bids_app.anatomy.transforms import field_grid, move_points
    from asl_bids_app.bids.derivatives import write_image
    from asl_bids_app.bids.outputs import OUTPUTS

    transform = routes.to_asl(space.name)
    t1w = Grid(head.t1w.shape, head.affine) if head else None
    of_field = None
    if space.name in routes.to_space and (g := field_grid(routes.to_space[space.name])):
        of_field = Grid(*g)
    grid = grid_of(space, voxel_sizes(unit.affine), t1w, template_dir, of_field)
    points = move_points(transform, grid.shape, grid.affine)
    usable = unit.mask & ~unit.failed
    # What the calibration adds is common to all voxels: it is laid like a map.
    by_calibration = unit.calibration_sd * np.abs(unit.maps["cbf"])
    sds = {
        key: _subtract_variance(sd, by_calibration) if key == "cbf_sd" else sd
        for key, sd in unit.sds.items()
    }
    laid = resample_maps(unit.maps, sds, usable, unit.affine, points, unit.common)
    if not laid.inside.any():
        raise InputError(
            space.name, "space", f"no voxel of {unit.title} inside its grid", "an overlap"
        )
    maps = dict(laid.maps)
    if "cbf_sd" in maps:
        maps["cbf_sd"] = _add_variance(maps["cbf_sd"], unit.calibration_sd * maps["cbf"])
    maps["mask"] = laid.inside
    of_flows = _resample_flows(unit, usable, points)
    sidecar = {
        **unit.sidecar,
        "SpatialReference": "T1w" if space.name == T1W else space.name,
        "Resolution": f"{' x '.join(f'{s:.4g}' for s in voxel_sizes(grid.affine))} mm",
        "Interpolation": "linear, once; standard deviations by the variance of the "
        "interpolated value",
        "Anatomy": facts,
    }
    entities = {**unit.entities, **space.entities}
    for key, image in of_flows.items():
        more = {**sidecar, **about(unit.flows)} if unit.flows else sidecar
        outputs.append(write_image(folder, entities, OUTPUTS[key], image, grid.affine, more))
    for key in [*(k for k in maps if k != "cbf"), "cbf"]:
        outputs.append(
            write_image(folder, entities, OUTPUTS[key], maps[key], grid.affine, sidecar)
        )
    facts.setdefault("spaces", []).append(
        {"space": space.name, "res": space.res, "voxels": int(laid.inside.sum())}
    )


def _resample_flows(
    unit: UnitMaps, usable: np.ndarray, points: np.ndarray
) -> dict[str, np.ndarray]:
    """Lay the flows of tissues, each from the voxels that hold enough of it."""
    found: dict[str, np.ndarray] = {}
    if unit.flows is None:
        return found
    for key, flow in unit.flows.maps.items():
        name = f"{key}_sd"
        sd = _subtract_variance(unit.flows.sds[name], unit.calibration_sd * np.abs(flow))
        within = usable & unit.flows.within[key]
        laid = resample_maps(
            {key: flow}, {name: sd}, within, unit.affine, points, {name: NEIGHBOURS}
        )
        found |= laid.maps
        found[name] = _add_variance(found[name], unit.calibration_sd * found[key])
    return found


def _add_variance(sd: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return a standard deviation with a part that is independent of the rest."""
    return np.hypot(sd, part).astype(np.float32)


def _subtract_variance(sd: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return what is left of a standard deviation without a part; at least half of it."""
    return np.sqrt(np.maximum(sd**2 - part**2, 0.25 * sd**2))
