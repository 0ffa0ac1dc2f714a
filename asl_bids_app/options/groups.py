"""Options by the groups of the help: data, estimation and anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asl_bids_app.options import defaults, readers
from asl_bids_app.options.declare import Access, option

ESTIMATORS: Final = ("ensemble", "bayes", "least-squares")
LEVELS: Final = ("participant", "group")
JOINT_MODES: Final = ("auto", "off", "both")
ERROR_BARS: Final = ("total", "noise")

PVC_METHODS: Final = ("bayesian", "linear")
"""The words of `asl_bids_app.estimators.partial_volume.METHODS`, which imports torch."""

DATA: Final = "which data"
ESTIMATION: Final = "estimation"
ANATOMY: Final = "anatomy"
RESOURCES: Final = "resources"
RUNNING: Final = "running"
GENERAL: Final = ""


@dataclass(frozen=True)
class DataOptions:
    """Which data are processed."""

    participant_label: tuple[str, ...] = option(
        (),
        DATA,
        "participants to process, with or without 'sub-'",
        reader=readers.label("sub-"),
        metavar="LABEL",
        several=True,
    )
    session_label: tuple[str, ...] = option(
        (),
        DATA,
        "sessions to process, with or without 'ses-'",
        reader=readers.label("ses-"),
        metavar="LABEL",
        several=True,
    )
    bids_filter_file: Path | None = option(
        None,
        DATA,
        "JSON with pybids filters",
        reader=readers.path,
        metavar="FILE",
        access=Access.READ_FILE,
    )
    derivatives: Mapping[str, Path] = option(
        {},
        DATA,
        "derivatives to use: a T1w with its tissue maps and transforms, and brain masks (of "
        "fMRIPrep, sMRIPrep, ASLPrep)",
        names=("-d", "--derivatives"),
        reader=readers.pair,
        metavar="NAME=PATH",
        several=True,
        access=Access.READ,
    )
    bids_database_dir: Path | None = option(
        None,
        DATA,
        "folder that keeps the index of the dataset for the next run",
        reader=readers.path,
        metavar="DIR",
        access=Access.WRITE,
    )
    skip_bids_validation: bool = option(
        False,
        DATA,
        "only warn of missing fields that BIDS requires but this program does not need",
    )
    joint: str = option(
        "auto",
        DATA,
        "fit the PCASL and VSASL runs of a session together where possible (auto), never (off), "
        "or both together and alone (both)",
        choices=JOINT_MODES,
    )


@dataclass(frozen=True)
class EstimationOptions:
    """How maps are made."""

    estimator: str | None = option(
        None,
        ESTIMATION,
        "estimator of the main maps; by default the ensemble of networks where a model is "
        "installed, else least squares",
        choices=ESTIMATORS,
    )
    model: str | None = option(
        None,
        ESTIMATION,
        "trained model of the ensemble: its name or folder",
        metavar="NAME|DIR",
        access=Access.MODEL,
    )
    baseline: bool = option(
        defaults.BASELINE,
        ESTIMATION,
        "write no least-squares maps beside those of another estimator",
    )
    tta: bool = option(
        defaults.TTA, ESTIMATION, "average the networks over flips of the slices", both_ways=True
    )
    tissue_consistency: bool = option(
        defaults.TISSUE_CONSISTENCY,
        ESTIMATION,
        "do not correct the ensemble's CBF and ATT by the mean residuals of grey and of white "
        "matter",
    )
    arterial: bool = option(
        defaults.ARTERIAL,
        ESTIMATION,
        "fit no arteries: every estimator takes the whole signal of early delays for tissue",
    )
    error_bars: str = option(
        defaults.ERROR_BARS,
        ESTIMATION,
        "what the ensemble's standard deviations contain: noise and the uncertainty of T1 of "
        "blood, T1 of tissue, efficiency, partition coefficient and M0 (total), or noise alone "
        "(noise), for comparisons within a person and scanner",
        choices=ERROR_BARS,
    )
    device: str = option(
        defaults.DEVICE,
        ESTIMATION,
        "device of the networks: auto, cpu, cuda, cuda:N or mps",
        reader=readers.device,
        metavar="DEVICE",
    )
    batch_size: int = option(
        defaults.BATCH_SIZE,
        ESTIMATION,
        "slices that the networks process at a time",
        reader=readers.count,
        metavar="N",
    )
    hmc: bool = option(defaults.HMC, ESTIMATION, "do not correct head motion")
    tissue: bool = option(
        defaults.TISSUE,
        ESTIMATION,
        "make no tissue maps: metrics by tissue are n/a, and the ensemble is corrected by the "
        "mean residual of the whole brain only",
    )
    brain_mask: Path | None = option(
        None,
        ESTIMATION,
        "brain mask; it is resampled to each run",
        reader=readers.path,
        metavar="FILE",
        access=Access.READ_FILE,
    )


@dataclass(frozen=True)
class AnatomyOptions:
    """Use of a T1w."""

    output_spaces: tuple[str, ...] = option(
        (),
        ANATOMY,
        "further spaces of the maps, beside that of the run, such as T1w or "
        "MNI152NLin2009cAsym:res-2",
        reader=readers.space,
        metavar="SPACE[:res-N]",
        several=True,
    )
    atlas: tuple[str, ...] = option(
        (),
        ANATOMY,
        "atlases whose regions get tables: folders in the layout of NiPreps, or a NIfTI with a "
        "table (index, name) beside it",
        reader=readers.atlas,
        metavar="NAME[:SPACE][=PATH]",
        several=True,
    )
    pvc: str | None = option(
        None,
        ANATOMY,
        "correct CBF for partial volume: maps of grey and of white matter's own flow, by the "
        "tissue of a registered T1w; both as smooth fields with error bars (bayesian, if no value "
        "is given), or by regression in a kernel of 5 x 5 voxels (linear)",
        choices=PVC_METHODS,
        bare=PVC_METHODS[0],
    )
    anatomy: bool = option(
        defaults.ANATOMY,
        ANATOMY,
        "do not use the T1w: no registration, no other spaces, no regions",
    )
