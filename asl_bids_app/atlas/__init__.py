"""The packaged MNI152 tissue atlas: 2 mm maps of grey matter, white matter and CSF."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

ATLAS_FILE = Path(__file__).with_name("mni152_2mm.nii.gz")


@dataclass(frozen=True, eq=False)
class Atlas:
    """Tissue probabilities in MNI152 space, read-only arrays.

    Attributes
    ----------
    gm, wm, csf : array of float32, shape (X, Y, Z)
        Probabilities of grey matter, white matter and CSF in [0, 1]; inside the brain they add
        up to 1 (within rounding). CSF is what the brain holds besides tissue.
    t1w : array of float32, shape (X, Y, Z)
        T1-weighted average without the skull, 0 to 1.
    brain : array of bool, shape (X, Y, Z)
        Tissue and CSF together above one half.
    affine : array, shape (4, 4)
        Voxel to MNI152 millimetres (RAS).
    """

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    t1w: np.ndarray
    brain: np.ndarray
    affine: np.ndarray


@cache
def load_atlas() -> Atlas:
    """Load the packaged atlas (ICBM 152 nonlinear 2009a symmetric, 2 mm voxels).

    Returns
    -------
    Atlas
        The same object at each call.

    References
    ----------
    Fonov 2011, doi:10.1016/j.neuroimage.2010.07.033. The licence stands beside the data.
    """
    import nibabel as nib

    image = nib.load(ATLAS_FILE)
    maps = np.asanyarray(image.dataobj).astype(np.float32) / 255.0
    gm, wm, csf, t1w = (np.ascontiguousarray(maps[..., i]) for i in range(4))
    brain = gm + wm + csf > 0.5
    affine = np.array(image.affine)
    for array in (gm, wm, csf, t1w, brain, affine):
        array.flags.writeable = False
    return Atlas(gm, wm, csf, t1w, brain, affine)
