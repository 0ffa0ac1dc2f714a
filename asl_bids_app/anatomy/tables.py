"""Region tables as files: in the form of ASLPrep, and the app's own with errors by source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

FIT_ENDING: Final = "_desc-fit_cbf.tsv"
"""Of the table with a row for each region, behind ``<source>_atlas-<name>``."""
SIDES_ENDING: Final = "_desc-asymmetry_cbf.tsv"
"""Of the table with a row for each pair of regions."""

if TYPE_CHECKING:
    from asl_bids_app.anatomy.regions import Regions
    from asl_bids_app.anatomy.request import UnitMaps


def endings(*, flows: bool, sides: bool) -> list[str]:
    """Return what the names of an atlas's tables end with, behind ``<source>_atlas-<name>``.

    Parameters
    ----------
    flows
        Whether flows are corrected for partial volume.
    sides
        Whether regions of the left have fellows on the right.
    """
    found = ["_cbf.tsv", "_att.tsv", "_coverage.tsv"]
    found += ["_desc-gm_cbf.tsv", "_desc-wm_cbf.tsv"] if flows else []
    return [*found, FIT_ENDING, *([SIDES_ENDING] if sides else [])]


def write_tables(
    folder: Path,
    unit: UnitMaps,
    regions: Regions,
    source: str,
    anatomy: Mapping[str, Any],
) -> list[Path]:
    """Write the tables of one atlas for a series.

    ``_atlas-<name>_cbf.tsv``, ``_att.tsv`` and ``_coverage.tsv``, and with flows of tissues
    ``_desc-gm_cbf.tsv`` and ``_desc-wm_cbf.tsv``, have one row and a column for each region, as
    ASLPrep's have; ``_desc-fit_cbf.tsv`` has a row for each region, and
    ``_desc-asymmetry_cbf.tsv`` one for each pair.

    Parameters
    ----------
    folder
        The `perf` folder.
    unit, regions
    source
        Of the atlas, in words.
    anatomy
        What was done, for sidecars.

    Returns
    -------
    list of Path
        The tables.
    """
    from asl_bids_app.anatomy.partial_volume_regions import TISSUE_COLUMNS
    from asl_bids_app.anatomy.region_fit import CALIBRATION_SD
    from asl_bids_app.anatomy.regions import LEAST_COVERAGE, columns_of, region_table
    from asl_bids_app.anatomy.sides import ASYMMETRY, asymmetry
    from asl_bids_app.bids.derivatives import write_json, write_table

    table = region_table(
        regions,
        unit.maps["cbf"],
        unit.maps["att"],
        unit.mask,
        unit.signals,
        unit.failed,
        unit.flows,
    )
    about = {
        "Atlas": regions.name,
        "AtlasSource": source,
        "CoverageThreshold": LEAST_COVERAGE,
        "Anatomy": anatomy,
        **{k: unit.sidecar[k] for k in ("Sources", "SoftwareVersion") if k in unit.sidecar},
    }
    names = _distinct(table["name"])
    one_row = {
        "cbf": ("cbf_mean", "Mean CBF of the voxels of each region", "mL/100 g/min"),
        "att": ("att_mean", "Mean ATT of the voxels of each region", "s"),
        "coverage": ("coverage", "Part of each region inside the brain mask", "fraction"),
    }
    if unit.flows is not None:
        one_row |= {
            f"desc-{key}_cbf": (column, TISSUE_COLUMNS[column]["Description"], "mL/100 g/min")
            for key, column in (("gm", "gm_cbf_mean"), ("wm", "wm_cbf_mean"))
        }
    stem = folder / f"{unit.title}_atlas-{regions.name}"
    written = []
    for suffix, (column, description, units) in one_row.items():
        path = Path(f"{stem}_{suffix}.tsv")
        values = dict(zip(names, table[column], strict=True))
        write_json(
            path.with_suffix(".json"), {"Description": description, "Units": units, **about}
        )
        write_table(path, {name: [float(value)] for name, value in values.items()})
        written.append(path)
    fit = Path(f"{stem}{FIT_ENDING}")
    shared = unit.signals.shared if unit.signals is not None else np.nan
    facts = {"CalibrationSD": CALIBRATION_SD, "NoiseVarianceFactor": round(float(shared), 3)}
    write_json(fit.with_suffix(".json"), {**columns_of(unit.flows), **about, **facts})
    write_table(fit, table)
    written.append(fit)
    sides = asymmetry(table)
    if sides["name"]:
        path = Path(f"{stem}{SIDES_ENDING}")
        write_json(path.with_suffix(".json"), {**ASYMMETRY, **about})
        write_table(path, sides)
        written.append(path)
    return written


def _distinct(names: list[str]) -> list[str]:
    """Return names as column heads: where one comes twice it gets its number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found
