"""Intermediate results between the steps of a workflow, in the work folder only."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from asl_bids_app.bids.derivatives import write_whole


def save(value: Any, path: Path) -> Path:
    """Write a value of this package; the file appears whole or not at all."""
    with write_whole(path) as beside, beside.open("wb") as stream:
        pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    return path


def readable(path: Path) -> bool:
    """Tell whether a file holds a whole value; what a full disk or a killed run left does not."""
    try:
        load(path)
    except Exception:  # unpickling of damaged bytes raises whatever it meets
        return False
    return True


def load(path: Path | str) -> Any:
    """Read what `save` wrote. Only ever files of the run's own work folder."""
    with Path(path).open("rb") as stream:
        return pickle.load(stream)
