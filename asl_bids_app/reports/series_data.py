"""What the derivatives of a series hold, as read back from disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.constants import ConstantKey, read_constants
from asl_bids_app.reports.estimates import Estimate
from asl_bids_app.wording import title_of


@dataclass(frozen=True)
class Measurement:
    """One averaged measurement as the sidecars tell it.

    Attributes
    ----------
    scheme : str
    post_labeling_delay, label_duration : float
        Seconds; a duration of ``inf`` where nothing cuts the bolus.
    repeats : int or None
    slice_timing : tuple of float
        Seconds by slice index; empty for a 3D readout.
    """

    scheme: str
    post_labeling_delay: float
    label_duration: float
    repeats: int | None = None
    slice_timing: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """A short name for axes and tables."""
        return f"{self.scheme} {self.post_labeling_delay:g} s"


@dataclass(frozen=True, eq=False)
class SeriesData:
    """The derivatives of one series.

    Attributes
    ----------
    folder : Path
        The `perf` folder.
    entities : mapping of str to str
    images : mapping of str to array
        By key of the output table; axes run to the right, to the front and up (RAS+). What
        isn't on disk or can't be read is missing.
    affine : array, shape (4, 4)
        Of the images as they are here.
    sidecar : mapping
        Of the main CBF.
    estimates : tuple of Estimate
        Those with a map of CBF, the main one first.
    stored : array, shape (4, 4)
        From the voxels of the images as they are here to those of the files.
    measurements : tuple of Measurement
    slice_time : tuple of arrays, shape (X, Y, Z)
        One for each measurement: seconds by which a voxel is read later.
    confounds, carpet : mapping of str to array
        Columns of the tables; empty if there is none. Text stays text in the carpet.
    metrics : mapping of str to float
    problems : tuple of str
        Files that couldn't be read.
    """

    folder: Path
    entities: Mapping[str, str]
    images: Mapping[str, np.ndarray]
    affine: np.ndarray
    sidecar: Mapping[str, Any]
    estimates: tuple[Estimate, ...] = ()
    stored: np.ndarray = field(default_factory=lambda: np.eye(4))
    measurements: tuple[Measurement, ...] = ()
    slice_time: tuple[np.ndarray, ...] = ()
    confounds: Mapping[str, np.ndarray] = field(default_factory=dict)
    carpet: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The entities as in file names."""
        return title_of(self.entities)

    @property
    def baseline(self) -> bool:
        """Whether least-squares maps stand beside the main ones."""
        return "lsq_cbf" in self.images and "lsq_att" in self.images

    def constant(self, name: str, scheme: str = "", default: float = math.nan) -> float:
        """Return a constant of the calibration."""
        stored = read_constants(self.sidecar.get("Calibration")).get(ConstantKey(name, scheme))
        return default if stored is None or stored.value is None else float(stored.value)

    def efficiency(self, scheme: str) -> float:
        """Return the labelling efficiency of a scheme, background suppression included."""
        lost = self.constant("suppression", scheme, default=1.0)
        return self.constant("labeling_efficiency", scheme) * lost
