"""Which voxels a run measured: a value of 0 is one, a voxel that the scanner blanked is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCK = 3
"""Voxels along each axis of the least region of zeros that counts as blanked."""


def has_signal(data: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Find the voxels that a run measured.

    Controls and labels are magnitudes: tissue is never 0 in all of them, so a voxel that is was
    blanked by the scanner, or padded. Differences may be 0 as they may be anything else, in
    integers of a weak signal often; of them only regions of zeros count as blanked, the
    background of a masked image and blocks inside it, and not single voxels.

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
        Volumes as they were read, before any interpolation.
    kinds
        Their N volume types.

    Returns
    -------
    array of bool, shape (X, Y, Z)
    """
    from scipy import ndimage

    types = np.asarray(kinds)
    magnitudes = np.isin(types, ("control", "label"))
    chosen = magnitudes if magnitudes.any() else types == "deltam"
    empty = ~np.any(data[..., chosen] != 0, axis=3)
    if magnitudes.any() or not empty.any():
        return ~empty
    # Thin images have no room for a whole block, and at the border a part of one will do.
    block = np.ones([min(_BLOCK, n) for n in empty.shape])
    region = ndimage.binary_dilation(ndimage.binary_erosion(empty, block, border_value=1), block)
    # And the corners of a region, which no block reaches into.
    return ~(region | ndimage.binary_dilation(region, mask=empty))
