"""Which function of `asl_bids_app.quantify` makes each step, and what its result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.quantify import (
    assemble,
    find_tissue,
    finish,
    fit,
    fit_baseline,
    move,
    prepare,
    register,
)

_PREPARES: Final = ("hmc", "m0_smooth_fwhm", "brain_mask", "found_mask", "mask_of_t1w")
_FITS: Final = (
    *("estimator", "model", "model_hash", "tta", "error_bars"),
    *("seed", "tissue_consistency", "arterial"),
)
_WRITES: Final = ("anatomy", "bids_dir", "derivatives", "output_spaces", "atlas", "pvc")

STEPS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "motion": (move, ("hmc",)),
        "prepare": (prepare, _PREPARES),
        "register": (register, ("anatomy", "bids_dir", "derivatives")),
        "mask": (prepare, _PREPARES),
        "tissue": (find_tissue, ("tissue_maps",)),
        "assemble": (assemble, ("hmc", "calibration")),
        "fit": (fit, _FITS),
        "baseline": (fit_baseline, ("seed", "arterial")),
        "write": (finish, _WRITES),
    }
)
"""Function of each step, and the settings that its result depends on."""
