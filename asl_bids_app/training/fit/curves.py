"""Curves of a training: one CSV file that stays one curve over resumed trainings."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from asl_bids_app.training.whole_files import replacing_file


class CurveLogger(Logger):
    """One CSV file of metrics that stays one curve over resumed trainings.

    Rows of the steps from which a training resumes on belong to a time that was lost; they
    are dropped, and written again.

    Parameters
    ----------
    path
        The file; columns: step, metric, value.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "curves"

    @property
    def version(self) -> str:
        """There is one version."""
        return ""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows of a (zero-based) step and all after it."""
        rows = [row for row in read_curves(self.path) if row[0] < step]
        with replacing_file(self.path) as beside, beside.open("w", newline="") as target:
            writer = csv.writer(target)
            writer.writerow(("step", "metric", "value"))
            writer.writerows(rows)

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters stand in ``config.yaml``."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append metrics."""
        with self.path.open("a", newline="") as target:
            writer = csv.writer(target)
            for name, value in metrics.items():
                if name != "epoch":
                    writer.writerow((step, name, repr(float(value))))


def read_curves(path: Path) -> list[tuple[int, str, str]]:
    """Read a file of `CurveLogger` as (step, metric, value); a torn last row is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as source:
        rows = list(csv.reader(source))[1:]
    return [(int(r[0]), r[1], r[2]) for r in rows if len(r) == 3 and r[0].isdigit() and r[2]]
