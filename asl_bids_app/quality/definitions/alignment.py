"""Metrics of the registration to the T1w and to the template; only where the anatomy ran."""

from __future__ import annotations

from typing import Final

from asl_bids_app.anatomy.register import DOUBTFUL_SCORE, LEAST_DICE, LEAST_SCORE, MOST_ERROR_MM
from asl_bids_app.preprocess.tissue import LEAST_LIKENESS
from asl_bids_app.quality.definitions.shared_words import INF, OURS, REGISTRATION
from asl_bids_app.quality.metric import Metric

_REFUSED: Final = "below the fair range the run is not registered"
_MEASURED: Final = f"{OURS}; on a simulated head"

ROWS: Final = (
    Metric(
        "registration_dice",
        REGISTRATION,
        "Overlap of the brains, ASL and T1w",
        "Dice coefficient of the run's brain mask and the T1w's, laid on it, inside the field of "
        "view of the run.",
        "ratio",
        good=(0.9, 1.0),
        fair=(LEAST_DICE, 1.0),
        basis=f"{OURS}; {_REFUSED}",
        anatomy=True,
    ),
    Metric(
        "registration_score",
        REGISTRATION,
        "Contrast explained by the T1w",
        "Share of the local contrast of the image that was registered that the T1w's tissues "
        "explain, less the share that they explain a centimetre off.",
        "ratio",
        good=(DOUBTFUL_SCORE, 1.0),
        fair=(LEAST_SCORE, 1.0),
        basis=f"{OURS}; another person's T1w reaches 0.21; {_REFUSED}",
        anatomy=True,
    ),
    Metric(
        "registration_boundary_contrast",
        REGISTRATION,
        "Boundary contrast of CBF",
        "Mean CBF 2 mm outside the T1w's boundary of white matter minus that 2 mm inside, over "
        "the mean of both.",
        "ratio",
        "Points as Greve 2009, doi:10.1016/j.neuroimage.2009.06.060",
        good=(0.08, INF),
        fair=(0.03, INF),
        basis=f"{_MEASURED} 0.13 in place, 0.07 at 3 mm off, 0.01 at 8 mm off",
        anatomy=True,
    ),
    Metric(
        "registration_nmi",
        REGISTRATION,
        "Normalised mutual information, M0 and T1w",
        "(H(A) + H(B)) / H(A, B) of M0 and T1w over the voxels of either brain, 32 bins each; of "
        "mean ΔM where there is no M0 image. 1: the images say nothing of each other.",
        "ratio",
        "Studholme 1999, doi:10.1016/S0031-3203(98)00091-0",
        good=(1.06, 2.0),
        fair=(1.035, 2.0),
        basis=f"{_MEASURED} 1.11 in place, 1.06 at 3 mm off, 1.03 at 8 mm off",
        anatomy=True,
    ),
    Metric(
        "registration_error",
        REGISTRATION,
        "Uncertainty of the pose",
        "Expected error by noise of a point at the brain's surface.",
        "mm",
        good=(0.0, 0.5),
        fair=(0.0, MOST_ERROR_MM),
        basis=f"{OURS}; above the fair range the run is not registered",
        anatomy=True,
    ),
    Metric(
        "registration_moved",
        REGISTRATION,
        "Distance from the header",
        "How far the registration moved the brain from where the headers of ASL and T1w have it.",
        "mm",
        anatomy=True,
    ),
    Metric(
        "template_dice",
        REGISTRATION,
        "Overlap of tissue, T1w and template",
        "Dice coefficient of grey or of white matter, whichever is less, of the T1w in MNI152 and "
        "of the packaged template.",
        "ratio",
        good=(0.7, 1.0),
        fair=(0.55, 1.0),
        basis=f"{OURS}; an affine alone reaches 0.6 to 0.66, another head 0.3",
        anatomy=True,
    ),
    Metric(
        "template_likeness",
        REGISTRATION,
        "Likeness of M0 and template",
        "Without a T1w: correlation of the M0 with the template laid on it, both normalised "
        "locally.",
        "ratio",
        good=(0.5, 1.0),
        fair=(LEAST_LIKENESS, 1.0),
        basis=f"{OURS}; {_REFUSED}",
        anatomy=True,
    ),
)
