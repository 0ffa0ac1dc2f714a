"""Tissue fractions of a run: those of the atlas, sharpened by the run's own M0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asl_bids_app.preprocess.prepare import PreparedRun
from asl_bids_app.preprocess.tissue_maps import TissueMaps


def sharpen(prepared: PreparedRun, tissue: TissueMaps, *, given: bool) -> TissueMaps:
    """Let the M0 say how much of each tissue a voxel holds, where the atlas says what is likely.

    Parameters
    ----------
    prepared
        The run.
    tissue
        Its tissue maps.
    given
        They are of derivatives: made from a T1w image they are better than the M0, and stay.

    Returns
    -------
    TissueMaps
        With ``fractions`` (derivatives, M0 or atlas) among its facts.
    """
    if not tissue.maps:
        return tissue
    if given:
        return replace(tissue, facts={**tissue.facts, "fractions": "derivatives"})
    from asl_bids_app.preprocess.fractions import tissue_fractions
    from asl_bids_app.preprocess.geometry import voxel_sizes

    found = tissue_fractions(
        prepared.m0, prepared.mask, tissue.maps, np.asarray(voxel_sizes(prepared.affine))
    )
    facts = {
        **tissue.facts,
        "fractions": "M0" if found.from_m0 else "atlas",
        "contrast": found.contrast,
        "fractions_likeness": found.likeness,
    }
    return replace(tissue, maps={"gm": found.gm, "wm": found.wm, "csf": found.csf}, facts=facts)
