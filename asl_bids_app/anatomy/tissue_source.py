"""Where the tissue of a run comes from: its T1w, maps of derivatives, or the packaged priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from asl_bids_app.anatomy.place import Placed
    from asl_bids_app.preprocess.prepare import PreparedRun
    from asl_bids_app.preprocess.tissue_maps import TissueMaps


def choose_tissue(
    prepared: PreparedRun, given: Mapping[str, Path], placed: Placed | None
) -> TissueMaps:
    """Return how much grey and white matter each voxel holds: by the T1w, else without it.

    Parameters
    ----------
    prepared
        The run.
    given : mapping of str to Path
        Tissue maps of derivatives; may be empty.
    placed
        The run on its T1w; None without one.

    Returns
    -------
    TissueMaps
        Its facts say why the T1w was not used, where that was so.
    """
    from asl_bids_app.preprocess.tissue_maps import find_tissue, of_t1w, sharpen

    if placed is not None and placed.tissue:
        inside = {
            k: (part * prepared.mask).astype(np.float32) for k, part in placed.tissue.items()
        }
        return of_t1w(inside, placed.facts, placed.sources)
    if placed is not None and placed.found.prepared:
        # Their T1w doesn't lie where the scanner's coordinates have it, or is another head's.
        given = {}
    found = sharpen(prepared, find_tissue(prepared, given), given=bool(given))
    return found if placed is None else replace(found, facts={**found.facts, **placed.facts})
