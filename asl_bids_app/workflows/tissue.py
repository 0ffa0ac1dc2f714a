"""Tissue priors in the space of a run, from derivatives or from the packaged atlas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asl_bids_app.workflows.prepare import PreparedRun


def given_tissue(derivatives: Mapping[str, Path], participant: str) -> dict[str, str]:
    """Return tissue maps of derivatives in the space of the participant's own anatomy.

    Looks for ``label-{GM,WM,CSF}_probseg`` without a standard space, as fMRIPrep and sMRIPrep
    write them; the first set of derivatives that has all three is taken.
    """
    for folder in derivatives.values():
        found, home = {}, folder / f"sub-{participant}"
        for label in ("GM", "WM", "CSF"):
            paths = [
                path
                for path in sorted(home.glob(f"**/*label-{label}_probseg.nii*"))
                if "_space-" not in path.name or "_space-T1w" in path.name
            ]
            if paths:
                found[label.lower()] = str(paths[0])
        if len(found) == 3:
            return found
    return {}


def find_tissue(prepared: PreparedRun, given: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Bring tissue priors into the space of a run.

    Parameters
    ----------
    prepared
        The run.
    given
        Tissue maps of derivatives by key (gm, wm, csf) in scanner space; without them a
        packaged atlas is registered to the M0.

    Returns
    -------
    dict of str to array (X, Y, Z)
        Probabilities by key.
    """
    if given:
        from asl_bids_app.bids.images import load
        from asl_bids_app.preprocess.align import resample

        maps = {}
        for key, path in given.items():
            image = load(path, ndim=3, name=path.name)
            shape = prepared.mask.shape
            data = resample(image.data, image.affine, shape, prepared.affine, np.eye(4))
            maps[key] = np.clip(data, 0, 1).astype(np.float32) * prepared.mask
        return maps
    from asl_bids_app.preprocess.tissue import tissue_priors

    tissue = tissue_priors(prepared.m0, prepared.affine, prepared.mask)
    return {"gm": tissue.gm, "wm": tissue.wm, "csf": tissue.csf}
