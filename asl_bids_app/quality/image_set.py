"""The images of a series on one grid: written to the derivatives, and judged by the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.quality.definitions import TISSUE_THRESHOLD
from asl_bids_app.quality.statistics import probability


@dataclass(frozen=True, eq=False)
class UnitImages:
    """The images of a series: what is written, and what the metrics are computed from.

    All are of one grid; None stands for what doesn't exist.

    Attributes
    ----------
    cbf, cbf_sd : array, shape (X, Y, Z)
        Main estimate, mL/100 g/min.
    att, att_sd : array, shape (X, Y, Z)
        Main estimate, seconds.
    flags : array of int, shape (X, Y, Z)
        Sums of `asl_bids_app.estimators.base.Flag`.
    residual, noise, delta_m : array, shape (X, Y, Z, n)
        Fractions of M0: measured minus fitted, standard deviation, measured.
    mask : array of bool, shape (X, Y, Z)
    affine : array, shape (4, 4)
        Voxel to world, mm, RAS+.
    gm, wm, csf : array, shape (X, Y, Z), or None
        Tissue probabilities.
    m0 : array, shape (X, Y, Z), or None
    abv, abv_sd : array, shape (X, Y, Z), or None
        Arterial blood volume, mL/100 mL.
    consensus_cbf, consensus_cbf_sd : array, shape (X, Y, Z), or None
        By the consensus formula, of a single delay.
    lsq_cbf, lsq_att, lsq_cbf_sd, lsq_att_sd, lsq_flags : array, shape (X, Y, Z), or None
        Least squares, where it ran beside the main estimator.
    framewise_displacement : array, shape (n_volumes,), or None
        mm; NaN where there is no volume before.
    tsnr : array, shape (X, Y, Z), or None
        Mean over standard deviation in time of the control (or ΔM) volumes.
    cbf_spread, att_spread : array, shape (X, Y, Z), or None
        Standard deviation between the members of an ensemble.
    outside_domain : float or None
        Share of the data outside the training domain.
    coherence : mapping
        How errors of the voxels of the main maps hang together, see
        `asl_bids_app.estimators.base.ParameterMaps`.
    whole_brain : array of bool, shape (X, Y, Z), or None
        The brain before voxels without data were left out of the mask.

    Raises
    ------
    ValueError
        If shapes disagree.
    """

    cbf: np.ndarray
    att: np.ndarray
    cbf_sd: np.ndarray
    att_sd: np.ndarray
    flags: np.ndarray
    residual: np.ndarray
    noise: np.ndarray
    delta_m: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    gm: np.ndarray | None = None
    wm: np.ndarray | None = None
    csf: np.ndarray | None = None
    m0: np.ndarray | None = None
    abv: np.ndarray | None = None
    abv_sd: np.ndarray | None = None
    consensus_cbf: np.ndarray | None = None
    consensus_cbf_sd: np.ndarray | None = None
    lsq_cbf: np.ndarray | None = None
    lsq_att: np.ndarray | None = None
    lsq_cbf_sd: np.ndarray | None = None
    lsq_att_sd: np.ndarray | None = None
    lsq_flags: np.ndarray | None = None
    framewise_displacement: np.ndarray | None = None
    tsnr: np.ndarray | None = None
    cbf_spread: np.ndarray | None = None
    att_spread: np.ndarray | None = None
    outside_domain: float | None = None
    coherence: Mapping[str, Any] = field(default_factory=dict)
    whole_brain: np.ndarray | None = None

    def __post_init__(self) -> None:
        other = {"affine", "framewise_displacement", "outside_domain", "coherence"}
        for name, value in vars(self).items():
            if name not in other and value is not None and value.shape[:3] != self.cbf.shape:
                raise ValueError(f"{name}: shape {value.shape}, expected {self.cbf.shape}")

    def written(self) -> dict[str, np.ndarray]:
        """Return the images that have a row in the output table, by its keys."""
        found = {key: getattr(self, key, None) for key in OUTPUTS}
        return {key: image for key, image in found.items() if image is not None}

    @property
    def brain(self) -> np.ndarray:
        """The mask as booleans."""
        return self.mask.astype(bool)

    def tissue(self, values: np.ndarray | None) -> np.ndarray:
        """Return the voxels of a tissue; none without its probability."""
        if values is None:
            return np.zeros(self.cbf.shape, dtype=bool)
        return self.brain & (probability(values) > TISSUE_THRESHOLD)
