"""Reading the derivatives of a series back from disk, by the table of outputs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.bids.derivatives import sidecar_path
from asl_bids_app.bids.estimate_keys import estimates
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.reports.damage import SIDECAR, read_object
from asl_bids_app.reports.estimates import find_estimates
from asl_bids_app.reports.series_data import Measurement, SeriesData


def preprocessing_of(data: SeriesData, step: str) -> Mapping[str, Any]:
    """Return what the main map's sidecar says of a step; empty if it says nothing usable."""
    steps = data.sidecar.get("Preprocessing")
    found = steps.get(step) if isinstance(steps, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def find_series(output_dir: Path, participant: str) -> list[tuple[Path, dict[str, str]]]:
    """Return folder and entities of each series of a participant that has a main CBF map."""
    suffix = f"_{OUTPUTS['cbf'].suffix}{OUTPUTS['cbf'].extension}"
    found = []
    for path in sorted((output_dir / f"sub-{participant}").rglob(f"perf/sub-*{suffix}")):
        entities = parse_entities(path.name.removesuffix(suffix))
        # Maps in other spaces are of a series that has its native ones.
        if entities and not {"desc", "space"} & entities.keys():
            found.append((path.parent, entities))
    return found


def parse_entities(stem: str) -> dict[str, str]:
    """Split a name into entities; empty if it isn't made of them.

    Examples
    --------
    >>> parse_entities("sub-01_acq-pcasl")
    {'sub': '01', 'acq': 'pcasl'}
    """
    pairs = [part.partition("-") for part in stem.split("_")]
    if not all(key and dash and value for key, dash, value in pairs):
        return {}
    return {key: value for key, _, value in pairs}


def load_series(folder: Path, entities: Mapping[str, str]) -> SeriesData:
    """Read the derivatives of a series.

    Parameters
    ----------
    folder
        The `perf` folder.
    entities
        Of the series.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    images: dict[str, np.ndarray] = {}
    problems = []
    affine, stored, to_canonical, shape = np.eye(4), np.eye(4), None, ()
    for key, output in OUTPUTS.items():
        path = folder / output.name(entities)
        if output.extension != ".nii.gz" or not path.exists():
            continue
        try:
            image = nib.load(path)
            data = np.asanyarray(image.dataobj)
        except (OSError, EOFError, ValueError, ImageFileError) as error:
            problems.append(f"{path.name}: can't be read ({error})")
            continue
        if to_canonical is None:
            shape = data.shape[:3]
            to_canonical = nib.io_orientation(image.affine)
            stored = nib.orientations.inv_ornt_aff(to_canonical, shape)
            affine = image.affine @ stored
        if data.shape[:3] != shape:
            problems.append(f"{path.name}: shape {data.shape}, expected {shape}")
            continue
        images[key] = nib.apply_orientation(data, to_canonical)
    sidecars = {}
    for keys in estimates().values():
        if "cbf" in keys:
            path = sidecar_path(folder / OUTPUTS[keys["cbf"]].name(entities))
            sidecars[keys["cbf"]], faults = read_object(path, SIDECAR, folder)
            problems += faults
    sidecar = sidecars["cbf"]
    measurements = _measurements(sidecar, folder, entities)
    times = []
    for item in measurements:
        time = _slice_time(item.slice_timing, shape, sidecar.get("SliceAxis"))
        times.append(nib.apply_orientation(time, to_canonical) if time.ndim == 3 else time)
    return SeriesData(
        folder,
        dict(entities),
        images,
        affine,
        sidecar,
        find_estimates(images, sidecars),
        stored,
        measurements,
        tuple(times),
        _read_columns(folder / OUTPUTS["confounds"].name(entities)),
        _read_columns(folder / OUTPUTS["carpet"].name(entities), ("volume_type",)),
        read_metrics(folder / OUTPUTS["quality"].name(entities)),
        tuple(problems),
    )


def _measurements(
    sidecar: Mapping[str, Any], folder: Path, entities: Mapping[str, str]
) -> tuple[Measurement, ...]:
    rows = sidecar.get("Measurements")
    if not rows:
        path = sidecar_path(folder / OUTPUTS["delta_m"].name(entities))
        rows = read_object(path, SIDECAR, folder)[0].get("Measurements")
    found = []
    for row in rows or []:
        duration = row.get("LabelingDuration")
        repeats = row.get("Repeats")
        found.append(
            Measurement(
                str(row.get("Scheme", "")),
                float(row.get("PostLabelingDelay") or 0.0),
                math.inf if duration is None else float(duration),
                None if repeats is None else int(repeats),
                tuple(float(t) for t in row.get("SliceTiming") or ()),
            )
        )
    return tuple(found)


def _slice_time(timing: tuple[float, ...], shape: tuple[int, ...], axis: Any) -> np.ndarray:
    """Spread slice times over the image as it is stored."""
    if not shape:
        return np.zeros(())
    if not timing:
        return np.zeros(shape, dtype=np.float32)
    if axis not in {0, 1, 2}:
        axis = next((a for a in (2, 1, 0) if shape[a] == len(timing)), None)
    if axis is None or shape[axis] != len(timing):
        return np.zeros(shape, dtype=np.float32)
    row = [1, 1, 1]
    row[axis] = len(timing)
    times = np.asarray(timing, dtype=np.float32).reshape(row)
    return np.ascontiguousarray(np.broadcast_to(times, shape))


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a BIDS table as rows; empty if there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", restkey="", restval=""))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [{key: cell for key, cell in row.items() if key} for row in rows]


def number(text: str | None) -> float:
    """Return a cell as a number; NaN for ``n/a`` and for text."""
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan


def read_metrics(path: Path) -> dict[str, float]:
    """Read the one row of a table of metrics; empty if there is none."""
    rows = read_table(path)
    return {key: number(value) for key, value in rows[0].items()} if rows else {}


def _read_columns(path: Path, texts: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    rows = read_table(path)
    names = rows[0].keys() if rows else ()
    return {
        name: np.array([row[name] if name in texts else number(row[name]) for row in rows])
        for name in names
    }
