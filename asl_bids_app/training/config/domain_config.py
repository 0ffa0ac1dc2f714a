"""Which acquisitions and calibrations a training covers."""

from __future__ import annotations

from asl_bids_app.training.config.declaration import section, setting


@section
class DomainConfig:
    """Which acquisitions and calibrations are drawn; ranges are (low, high).

    Raises
    ------
    ValueError
        Names the setting that is out of its limits.
    """

    protocol: str = setting("random", text="random, or the name of a fixed protocol")
    # Nominal calibration
    nominal_random: bool = setting(True, "", 0, 1, "draw the nominal calibration, or use defaults")
    t1_blood: tuple[float, float] = setting((1.55, 2.15), "s", 0.5, 4, "T1 of arterial blood")
    pcasl_efficiency: tuple[float, float] = setting((0.75, 0.95), "", 0.05, 1, "PCASL")
    casl_efficiency: tuple[float, float] = setting((0.60, 0.80), "", 0.05, 1, "CASL")
    pasl_efficiency: tuple[float, float] = setting((0.90, 1.0), "", 0.05, 1, "PASL")
    vsasl_efficiency: tuple[float, float] = setting((0.40, 0.70), "", 0.05, 1, "VSASL")
    suppression: tuple[float, float] = setting(
        (0.85, 1.0), "", 0.3, 1, "label left by background suppression"
    )
    t1_tissue_low: float = setting(
        1.2, "s", 0.3, 4, "shortest T1 of tissue; the longest is blood's"
    )
    t1_tissue_as_blood: float = setting(0.5, "", 0, 1, "chance that T1 of tissue equals blood's")
    partition_coefficient: tuple[float, float] = setting((0.85, 0.95), "mL/g", 0.3, 1.5, "lambda")
    # Truth around it
    truth_from_ranges: bool = setting(
        False, "", 0, 1, "draw the truth from the ranges above, whatever the nominal"
    )
    label_duration_factor: tuple[float, float] = setting(
        (0.9, 1.1), "", 0.3, 3, "with truth_from_ranges: true over nominal label duration"
    )
    m0_factor: tuple[float, float] = setting(
        (0.9, 1.1), "", 0.3, 3, "with truth_from_ranges: scale of M0"
    )
    spread: float = setting(1.0, "", 0, 3, "times all spreads below; 0: calibration known exactly")
    exact_chance: float = setting(
        0.3, "", 0, 1, "chance that the calibration is exact, and reported as exact"
    )
    t1_blood_spread: float = setting(0.045, "", 0, 0.5, "relative standard deviation")
    t1_tissue_spread: float = setting(0.05, "", 0, 0.5, "relative standard deviation")
    pcasl_efficiency_spread: float = setting(0.06, "", 0, 0.5, "CASL too; relative sd")
    pasl_efficiency_spread: float = setting(0.03, "", 0, 0.5, "relative standard deviation")
    vsasl_efficiency_spread: float = setting(0.07, "", 0, 0.5, "relative standard deviation")
    suppression_spread: float = setting(0.02, "", 0, 0.5, "relative standard deviation")
    m0_spread: float = setting(0.05, "", 0, 0.5, "scale of M0, relative standard deviation")
    label_duration_spread: float = setting(0.01, "", 0, 0.5, "PCASL, CASL; relative sd")
    bolus_duration_spread: float = setting(0.05, "", 0, 0.5, "PASL, VSASL; relative sd")
    # Arteries and anatomy
    crushing_chance: float = setting(
        0.0, "", 0, 1, "chance that gradients take away the arteries, as the estimator knows"
    )
    arterial_edge: tuple[float, float] = setting(
        (0.05, 0.15), "s", 0.01, 1, "half width of the edges of label in arteries"
    )
    m0_shown: float = setting(0.0, "", 0, 1, "chance that the network is shown the M0")
    tissue_shown: float = setting(0.0, "", 0, 1, "chance that it is shown tissue maps")
    tissue_wrong: float = setting(
        0.08, "", 0, 1, "chance that tissue maps lie voxels away; and that they are mirrored"
    )
