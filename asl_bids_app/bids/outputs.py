"""The one table of everything that is written for a series.

Writer, sidecars, report, documentation and tests all read it; a new output is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asl_bids_app.bids.flags import FLAG_UNITS

UNITS_CBF: Final = "mL/100 g/min"
UNITS_ATT: Final = "s"
UNITS_ABV: Final = "mL/100 mL"


@dataclass(frozen=True)
class Output:
    """A file that is written for each series.

    Attributes
    ----------
    key : str
        Name in code.
    label : str
        Entity before the suffix, e.g. ``desc-std``; empty for the main maps.
    suffix, extension : str
    units : str
        As the sidecar gives them; empty for tables.
    description : str
        One sentence for sidecar, report and documentation.
    baseline : bool
        Written only when least squares runs beside another estimator.
    asked : bool
        Written only where an option asks for it.
    """

    key: str
    label: str
    suffix: str
    units: str
    description: str
    extension: str = ".nii.gz"
    baseline: bool = False
    asked: bool = False

    def name(self, entities: Mapping[str, str]) -> str:
        """Return the file's name for a series.

        Examples
        --------
        >>> OUTPUTS["cbf_sd"].name({"sub": "01", "acq": "pcasl"})
        'sub-01_acq-pcasl_desc-std_cbf.nii.gz'
        """
        parts = [f"{key}-{value}" for key, value in entities.items()]
        parts += [self.label] if self.label else []
        return "_".join([*parts, self.suffix]) + self.extension

    @property
    def pattern(self) -> str:
        """The name with a placeholder for the source's entities, for documentation."""
        label = f"_{self.label}" if self.label else ""
        return f"<source>{label}_{self.suffix}{self.extension}"


_ROWS: Final = (
    Output("cbf", "", "cbf", UNITS_CBF, "Cerebral blood flow, the main estimate."),
    Output("att", "", "att", UNITS_ATT, "Arterial transit time, the main estimate."),
    Output("cbf_sd", "desc-std", "cbf", UNITS_CBF, "One standard deviation of the main CBF."),
    Output("att_sd", "desc-std", "att", UNITS_ATT, "One standard deviation of the main ATT."),
    Output(
        "abv",
        "",
        "abv",
        UNITS_ABV,
        "Arterial blood volume of the main estimate, where delays are early enough to show it.",
    ),
    Output("abv_sd", "desc-std", "abv", UNITS_ABV, "One standard deviation of the volume."),
    Output(
        "flags",
        "desc-flags",
        "cbf",
        FLAG_UNITS,
        "Flags of each voxel of the main estimate.",
    ),
    Output(
        "residual",
        "desc-residual",
        "asl",
        "fraction of M0",
        "Measured minus fitted ΔM/M0 of the main estimate, one volume a measurement.",
    ),
    Output(
        "lsq_cbf",
        "desc-lsq",
        "cbf",
        UNITS_CBF,
        "Cerebral blood flow by voxelwise least squares.",
        baseline=True,
    ),
    Output(
        "lsq_att",
        "desc-lsq",
        "att",
        UNITS_ATT,
        "Arterial transit time by voxelwise least squares.",
        baseline=True,
    ),
    Output(
        "lsq_cbf_sd",
        "desc-lsqstd",
        "cbf",
        UNITS_CBF,
        "Standard error of the least-squares CBF.",
        baseline=True,
    ),
    Output(
        "lsq_att_sd",
        "desc-lsqstd",
        "att",
        UNITS_ATT,
        "Standard error of the least-squares ATT.",
        baseline=True,
    ),
    Output(
        "lsq_flags",
        "desc-lsqflags",
        "cbf",
        FLAG_UNITS,
        "Flags of each voxel of the least-squares fit.",
        baseline=True,
    ),
    Output(
        "consensus_cbf",
        "desc-consensus",
        "cbf",
        UNITS_CBF,
        "Cerebral blood flow of a single delay by the consensus formula: signed, no prior.",
    ),
    Output(
        "consensus_cbf_sd",
        "desc-consensusstd",
        "cbf",
        UNITS_CBF,
        "Standard error of the consensus CBF by noise.",
    ),
    Output(
        "gm_cbf",
        "desc-gm",
        "cbf",
        UNITS_CBF,
        "CBF of the grey matter alone, corrected for partial volume (`--pvc`); 0 where a voxel "
        "holds less than 10 % of it.",
        asked=True,
    ),
    Output(
        "gm_cbf_sd",
        "desc-gmstd",
        "cbf",
        UNITS_CBF,
        "One standard deviation of the grey matter's CBF, that by wrong fractions included.",
        asked=True,
    ),
    Output(
        "wm_cbf",
        "desc-wm",
        "cbf",
        UNITS_CBF,
        "CBF of the white matter alone, corrected for partial volume (`--pvc`); 0 where a voxel "
        "holds less than 10 % of it.",
        asked=True,
    ),
    Output(
        "wm_cbf_sd",
        "desc-wmstd",
        "cbf",
        UNITS_CBF,
        "One standard deviation of the white matter's CBF, that by wrong fractions included.",
        asked=True,
    ),
    Output(
        "delta_m",
        "desc-preproc",
        "asl",
        "fraction of M0",
        "Calibrated ΔM/M0 after motion correction and averaging, one volume a measurement.",
    ),
    Output(
        "noise",
        "desc-noise",
        "asl",
        "fraction of M0",
        "Standard deviation of the averaged ΔM/M0, one volume a measurement.",
    ),
    Output(
        "m0",
        "desc-preproc",
        "m0scan",
        "arbitrary",
        "M0 image that the signal was divided by, corrected for its repetition time.",
    ),
    Output("mask", "desc-brain", "mask", "1 inside the brain", "Brain mask."),
    Output("gm", "label-GM", "probseg", "probability", "Grey matter, by T1w, derivatives or M0."),
    Output("wm", "label-WM", "probseg", "probability", "White matter, by T1w, derivatives or M0."),
    Output("csf", "label-CSF", "probseg", "probability", "Fluid, by T1w, derivatives or M0."),
    Output(
        "confounds",
        "desc-confounds",
        "timeseries",
        "",
        "Head motion of every volume: three translations (mm), three rotations (rad) and the "
        "framewise displacement (mm).",
        extension=".tsv",
    ),
    Output(
        "carpet",
        "desc-carpet",
        "timeseries",
        "",
        "Every volume after motion correction in a few numbers: the mean of groups of brain "
        "voxels in percent of M0, its pair, and whether the pair was averaged.",
        extension=".tsv",
    ),
    Output(
        "quality",
        "desc-qualitycontrol",
        "cbf",
        "",
        "Quality metrics, one row; the JSON file beside it defines every column.",
        extension=".tsv",
    ),
)

OUTPUTS: Final[Mapping[str, Output]] = {row.key: row for row in _ROWS}
