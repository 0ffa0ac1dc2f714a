"""Derivatives of a T1w as fMRIPrep writes them, for tests."""

import nibabel as nib
import numpy as np

from asl_bids_app.atlas import load_atlas

KEYS = ("gm", "wm", "csf")


def save(path, data, affine=None):
    """Write an image whose place is that of a scanner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4) if affine is None else affine
    image = nib.Nifti1Image(np.asarray(data, np.float32), affine)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def derive(root, tissue, affine, stem="sub-01", folder="sub-01/anat", *, t1w=None, brain=None):
    """Write a T1w, its brain mask and its tissue, by default a T1w of that tissue; its folder."""
    anat = root / folder
    gm, wm, csf = (tissue[key] for key in KEYS)
    t1w = 600 * gm + 900 * wm + 250 * csf if t1w is None else t1w
    save(anat / f"{stem}_desc-preproc_T1w.nii.gz", t1w, affine)
    brain = gm + wm + csf > 0.5 if brain is None else brain
    save(anat / f"{stem}_desc-brain_mask.nii.gz", brain, affine)
    for key in KEYS:
        save(anat / f"{stem}_label-{key.upper()}_probseg.nii.gz", tissue[key], affine)
    return anat


def derive_template(root, affine, label="01"):
    """Write those of a head that is the template's, at another place; its folder."""
    atlas = load_atlas()
    tissue = {key: getattr(atlas, key) for key in KEYS}
    place = f"sub-{label}", f"sub-{label}/anat"
    return derive(root, tissue, affine, *place, t1w=100 * atlas.t1w, brain=atlas.brain)
