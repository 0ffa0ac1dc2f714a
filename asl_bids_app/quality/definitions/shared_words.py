"""Words that rows of the table of metrics share."""

from __future__ import annotations

import math
from typing import Final

INF: Final = math.inf
OURS: Final = "choice of this program"
DOLUI: Final = "Dolui 2017 (ISMRM) and 2024, doi:10.1002/jmri.29308"
FLOW: Final = "Cerebral blood flow"
TIME: Final = "Arterial transit time"
FIT: Final = "Fit and uncertainty"
DATA: Final = "Data"
REGISTRATION: Final = "Registration"
INDEX: Final = "Quality evaluation index"
GROUPS: Final = (INDEX, FLOW, TIME, FIT, DATA, REGISTRATION)

PLAUSIBLE_GM_CBF: Final = (10.0, 150.0)
"""mL/100 g/min; a mean grey-matter CBF outside is reported as implausible."""

TISSUE_THRESHOLD: Final = 0.7
"""Probability above which a voxel counts as of a tissue (as ASLPrep does)."""
