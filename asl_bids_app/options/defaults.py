"""Defaults that the table of options shares with functions called from Python: each stands here.

A default of the command line alone stands in the table.
"""

from __future__ import annotations

from typing import Final

ESTIMATOR: Final = "ensemble"
"""Where a model is installed; the command line falls back on least squares."""
ERROR_BARS: Final = "total"
TTA: Final = True
"""Average the networks over flips of the slices."""
TISSUE_CONSISTENCY: Final = True
ARTERIAL: Final = True
BASELINE: Final = True
HMC: Final = True
"""Correct head motion."""
TISSUE: Final = True
ANATOMY: Final = True
M0_SMOOTH_FWHM: Final = 0.0
"""mm."""
CALIBRATION: Final = "voxelwise"
SEED: Final = 0
DEVICE: Final = "auto"
BATCH_SIZE: Final = 8
"""Slices that the networks process at a time."""
THREADS: Final = 1
