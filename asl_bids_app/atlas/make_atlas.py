"""Make `mni152_2mm.nii.gz` from the MNI152 templates that nilearn ships.

Run ``python -m asl_bids_app.atlas.make_atlas``; it is needed only when the atlas changes.
The packaged copy exists because importing nilearn costs seconds and its 1 mm maps are
larger than any ASL voxel asks for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ATLAS_FILE = Path(__file__).with_name("mni152_2mm.nii.gz")
"""uint8, four volumes: grey matter, white matter, CSF probability and T1w; 255 is one."""


def _halve(volume: np.ndarray) -> np.ndarray:
    """Average blocks of 2x2x2 voxels; a mean of probabilities is a probability."""
    padded = np.pad(volume, [(0, size % 2) for size in volume.shape])
    x, y, z = (size // 2 for size in padded.shape)
    return padded.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))


def build() -> tuple[np.ndarray, np.ndarray]:
    """Compute the atlas.

    Returns
    -------
    array of uint8, shape (X, Y, Z, 4)
        Probabilities of grey matter, white matter and CSF, and the brain-extracted T1w.
    array, shape (4, 4)
        Affine, voxel to MNI152 millimetres.
    """
    from nilearn import datasets
    from scipy import ndimage

    gm_image = datasets.load_mni152_gm_template(resolution=1)
    gm = gm_image.get_fdata(dtype=np.float32)
    wm = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)
    t1w = datasets.load_mni152_template(resolution=1).get_fdata(dtype=np.float32)

    # The template is brain-extracted, with the CSF around and inside the brain kept dark but
    # not zero: what it covers and tissue doesn't is CSF.
    brain = ndimage.binary_fill_holes(t1w > 0)
    tissue = np.clip(gm + wm, 1e-6, None)
    excess = np.maximum(tissue, 1.0)
    gm, wm = gm / excess * brain, wm / excess * brain
    csf = np.where(brain, np.clip(1.0 - gm - wm, 0.0, 1.0), 0.0)

    maps = np.stack([_halve(v) for v in (gm, wm, csf, t1w / t1w.max())], axis=-1)
    affine = gm_image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.full(3, 0.5)
    affine[:3, :3] *= 2.0
    return np.rint(maps * 255).astype(np.uint8), affine


def main() -> None:
    """Write the atlas beside this module."""
    import nibabel as nib

    maps, affine = build()
    image = nib.Nifti1Image(maps, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=4)
    image.set_sform(affine, code=4)
    image.header["descrip"] = b"MNI152 2009a sym: GM, WM, CSF, T1w"
    nib.save(image, ATLAS_FILE)


if __name__ == "__main__":
    main()
