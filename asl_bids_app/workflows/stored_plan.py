"""The plan of a unit in a file, which the steps read and by which nipype resumes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app import __version__
from asl_bids_app.bids.sessions import Unit
from asl_bids_app.workflows.step_values import readable, save


def store_plan(unit: Unit, folder: Path) -> Path:
    """Write the plan of a unit, unless it is there already, and return its file."""
    path = folder / f"plan-{unit.name}-{_fingerprint(unit)}.pkl"
    # A plan that is already there keeps its time stamp, by which nipype knows it.
    return path if readable(path) else save(unit, path)


def _fingerprint(unit: Unit) -> str:
    """Digest of all that a unit was understood to be; equal input resumes, another doesn't."""

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else str(value)

    content = [
        [
            str(run.acquisition.path),
            dict(run.acquisition.metadata),
            run.acquisition.volume_types,
            run.acquisition.post_labeling_delay,
            run.acquisition.label_duration,
            run.acquisition.slice_time,
            str(run.acquisition.m0),
            run.calibration.to_json(),
            run.warnings,
        ]
        for run in unit.runs
    ]
    text = json.dumps([__version__, unit.name, content], default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
