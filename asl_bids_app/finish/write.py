"""Writing the images and tables of a series, the main maps last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.bids.derivatives import (
    perf_folder,
    sidecar_path,
    write_image,
    write_json,
    write_table,
)
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.bids.sessions import Unit
from asl_bids_app.preprocess.carpet_table import describe_carpet
from asl_bids_app.quality.image_set import UnitImages

MAIN: Final = ("att", "cbf")
"""Written last, and taken away first: where they stand, everything stands."""


def write_unit(
    output_dir: Path,
    unit: Unit,
    images: UnitImages,
    shared: Mapping[str, Any],
    differences: Mapping[str, Mapping[str, Any]],
    *,
    confounds: Mapping[str, np.ndarray] | None,
    carpet: Mapping[str, np.ndarray] | None,
    quality: tuple[Mapping[str, float], Mapping[str, Any]] | None,
) -> dict[str, Path]:
    """Write all derivatives of a unit.

    Parameters
    ----------
    output_dir
        Folder of the derivatives.
    unit
        Whose entities name the files.
    images
        What is written.
    shared, differences
        Of `asl_bids_app.finish.sidecars`.
    confounds, carpet
        Columns of the tables.
    quality
        Metrics, and their dictionary.

    Returns
    -------
    dict of str to Path
        The files written, by their keys in the table of outputs; sidecars left out.
    """
    folder = perf_folder(output_dir, unit.entities)
    known = images.written()
    tables = {"confounds": confounds, "carpet": carpet, "quality": quality}
    kept = {*known, *(key for key, table in tables.items() if table is not None)}
    for key, output in OUTPUTS.items():
        if key not in kept or key in MAIN:
            # Of an earlier run, perhaps with other options: the report would compare it with
            # this one, or the main maps would stand beside those of a run that broke off.
            stale = folder / output.name(unit.entities)
            stale.unlink(missing_ok=True)
            sidecar_path(stale).unlink(missing_ok=True)
    written = {}
    for key in [*(key for key in known if key not in MAIN), *MAIN]:
        group = f"{key.partition('_')[0]}_"
        extra = differences.get(key) or differences.get(group) or {}
        row, image = OUTPUTS[key], known[key]
        sidecar = {**shared, **extra}
        written[key] = write_image(folder, unit.entities, row, image, images.affine, sidecar)
    written |= write_tables(output_dir, unit, tables)
    return dict(reversed(written.items()))


def write_tables(output_dir: Path, unit: Unit, tables: Mapping[str, Any]) -> dict[str, Path]:
    """Write tables of a unit by their keys in the table of outputs; None stands for no table."""
    folder = perf_folder(output_dir, unit.entities)
    return {
        key: _write_table(folder / OUTPUTS[key].name(unit.entities), key, table)
        for key, table in tables.items()
        if table is not None
    }


def _write_table(path: Path, key: str, table: Any) -> Path:
    """Write a table with the JSON file that says what its columns mean."""
    if key == "quality":
        values, dictionary = table
        write_json(path.with_suffix(".json"), dictionary)
        write_table(path, {name: [value] for name, value in values.items()})
        return path
    columns = CONFOUNDS | describe_carpet()
    write_json(path.with_suffix(".json"), {name: columns[name] for name in table})
    write_table(path, table)
    return path


CONFOUNDS = {
    **{
        f"trans_{axis}": {"Description": f"Translation along {axis}", "Units": "mm"}
        for axis in "xyz"
    },
    **{f"rot_{axis}": {"Description": f"Rotation about {axis}", "Units": "rad"} for axis in "xyz"},
    "framewise_displacement": {
        "Description": "Sum of the absolute changes of the six parameters from the volume before, "
        "rotations as arcs of 50 mm (Power 2012, doi:10.1016/j.neuroimage.2011.10.018)",
        "Units": "mm",
    },
    "run": {
        "Description": "Run of a joint series that the volume is of, counted from 1 as they "
        "stand in Sources; each is placed by its own reference"
    },
}
