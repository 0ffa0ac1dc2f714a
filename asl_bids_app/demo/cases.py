"""The simulated cases as one table: who, with which runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

SIX_DELAYS: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
SHORT_DELAYS: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
PULSE_EFFICIENCY: Final = 0.95
"""What one background-suppression pulse leaves of the label (Garcia 2005)."""


@dataclass(frozen=True)
class Run:
    """One simulated ASL run.

    Attributes
    ----------
    scheme : str
        ``"PCASL"``, ``"PASL"`` or ``"VSASL"``: the physics.
    delays, durations : tuple of float, one for each measurement
        Seconds.
    efficiency : float
        Of the label, without background suppression.
    acq : str
        The ``acq-`` entity; empty for none.
    repeats : int
    order : str
        ``"control-label"``, ``"label-control"`` or ``"deltam"``.
    blocked : bool
        Whether all repeats of a delay come together; else the delays cycle.
    m0_included : bool
        Whether the M0 is the first volume; else it is a separate m0scan.
    pulses : int
        Background-suppression pulses; 0 for none.
    two_d : bool
        A 2D readout with slice timing.
    motion : bool
        Whether the head moves between the volumes.
    metadata : dict
        Sidecar entries beside those that every run has.
    """

    scheme: str
    delays: tuple[float, ...]
    durations: tuple[float, ...]
    efficiency: float
    acq: str = ""
    repeats: int = 4
    order: str = "control-label"
    blocked: bool = False
    m0_included: bool = False
    pulses: int = 2
    two_d: bool = False
    motion: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def effective_efficiency(self) -> float:
        """Labelling efficiency times the loss by background suppression."""
        if "LabelingEfficiency" in self.metadata:  # measured, the pulses are contained in it
            return self.efficiency
        return self.efficiency * PULSE_EFFICIENCY**self.pulses


@dataclass(frozen=True)
class Case:
    """One simulated participant.

    Attributes
    ----------
    label : str
        Participant label.
    title : str
        In words.
    runs : tuple of Run
    lesion : str
        ``""``, ``"stroke"`` or ``"tumour"``.
    bidsignore : tuple of str
        Patterns that the official validator needs for this case.
    """

    label: str
    title: str
    runs: tuple[Run, ...]
    lesion: str = ""
    bidsignore: tuple[str, ...] = ()


PCASL: Final = Run(
    "PCASL",
    SIX_DELAYS,
    (1.8,) * 6,
    0.85,
    acq="pcasl",
    metadata={"ArterialSpinLabelingType": "PCASL", "PCASLType": "balanced"},
)
VSASL: Final = Run(
    "VSASL",
    SIX_DELAYS,
    (float("inf"),) * 6,
    0.56,
    acq="vsasl",
    metadata={
        "ArterialSpinLabelingType": "PASL",
        "PASLType": "VSI",
        "BolusCutOffFlag": False,
        "LabelingEfficiency": 0.56,
        "VelocitySelectiveLabeling": True,
        "LabelingCutoffVelocity": 2.0,
    },
)
# Behind the cut-off VSASL alone can't tell CBF from ATT: it needs PCASL beside it.
VSASL_ALIAS: Final = Run(
    "VSASL",
    (1.2, 1.6, 2.0, 2.4),
    (1.2,) * 4,
    0.56,
    acq="vsasl",
    repeats=6,
    metadata={
        "ArterialSpinLabelingType": "VSASL",
        "BolusCutOffFlag": True,
        "BolusCutOffDelayTime": 1.2,
        "BolusCutOffTechnique": "VSS",
        "LabelingEfficiency": 0.56,
    },
)
PCASL_2D: Final = Run(
    "PCASL",
    SHORT_DELAYS,
    (1.4,) * 6,
    0.85,
    order="label-control",
    m0_included=True,
    two_d=True,
    motion=True,
    metadata={"ArterialSpinLabelingType": "PCASL", "PCASLType": "balanced"},
)
PASL_Q2TIPS: Final = Run(
    "PASL",
    (0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8),
    (0.7,) * 7,
    0.98,
    order="label-control",
    blocked=True,
    metadata={
        "ArterialSpinLabelingType": "PASL",
        "PASLType": "FAIR",
        "BolusCutOffFlag": True,
        "BolusCutOffDelayTime": [0.7, 1.2],
        "BolusCutOffTechnique": "Q2TIPS",
        "LabelingSlabThickness": 120,
    },
)
ENCODED_DURATIONS: Final = (1.6, 0.7, 0.5, 0.4, 0.35, 0.3, 0.25)
ENCODED: Final = Run(
    "PCASL",
    # A block is followed by all later blocks, and the readout by none: the last delay is 0.
    tuple(round(sum(ENCODED_DURATIONS[i + 1 :]), 3) for i in range(len(ENCODED_DURATIONS))),
    ENCODED_DURATIONS,
    0.85,
    repeats=3,
    order="deltam",
    m0_included=True,
    metadata={"ArterialSpinLabelingType": "PCASL", "PCASLType": "balanced"},
)
SINGLE: Final = Run(
    "PCASL",
    (1.8,),
    (1.8,),
    0.85,
    repeats=10,
    m0_included=True,
    metadata={"ArterialSpinLabelingType": "PCASL", "PCASLType": "balanced"},
)

CASES: Final[dict[str, Case]] = {
    "joint": Case("01", "PCASL and VSASL, six delays each, 3D, separate M0", (PCASL, VSASL)),
    "pcasl": Case("02", "PCASL, six delays, 2D, M0 included, some head motion", (PCASL_2D,)),
    "pasl": Case("03", "PASL, seven inversion times, Q2TIPS", (PASL_Q2TIPS,)),
    "alias": Case(
        "04",
        'PCASL and VSASL with cut-off, written as "ArterialSpinLabelingType": "VSASL"',
        (PCASL, VSASL_ALIAS),
        bidsignore=("sub-04/perf/*acq-vsasl*",),
    ),
    "stroke": Case("05", "joint acquisition, stroke with penumbra", (PCASL, VSASL), "stroke"),
    "tumour": Case("06", "joint acquisition, tumour with rim", (PCASL, VSASL), "tumour"),
    "encoded": Case("07", "time-encoded PCASL, label durations vary, deltam", (ENCODED,)),
    "single": Case("08", "PCASL of a single delay", (SINGLE,)),
}
DEFAULT_CASES: Final = ("joint", "pcasl")
