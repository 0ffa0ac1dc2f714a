"""The parts of a training's configuration; `run_config` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from asl_bids_app.training.config.reading import Frozen, setting

NETWORKS: Final = ("PosteriorASLNet", "SpatialASLNet", "DualEncoderSpatialASLNet")


@dataclass(frozen=True)
class DataConfig:
    """How many phantoms of each use.

    Attributes
    ----------
    phantoms : int
        For training.
    phantoms_per_shard : int
        One shard is one file and one unit of parallel work.
    validation_phantoms : int
        For the curve that is watched during training (and early stopping).
    calibration_phantoms : int
        For the calibration of the uncertainties.
    test_phantoms : int
        For the validation report; half of them of a kind of anatomy held back from training.
    """

    phantoms: int = setting(20_000, low=16)
    phantoms_per_shard: int = setting(1000, low=8)
    validation_phantoms: int = setting(256, low=8)
    calibration_phantoms: int = setting(512, low=8)
    test_phantoms: int = setting(200, low=4)


@dataclass(frozen=True)
class SignalConfig:
    """How signals enter `SpatialASLNet` and `DualEncoderSpatialASLNet`.

    Attributes
    ----------
    normalization_mode : str
        ``global_scale``: ΔM/M0 in percent times one constant. ``per_slice``: z-score of each
        slice, which destroys the amplitude that CBF is proportional to.
    global_scale_factor : float
    """

    normalization_mode: str = setting("global_scale", choices=("global_scale", "per_slice"))
    global_scale_factor: float = setting(10.0, low=1e-3, high=1e3)


@dataclass(frozen=True)
class NetworkConfig:
    """Which network.

    Attributes
    ----------
    name : str
    arguments : mapping
        Handed to its constructor.
    """

    name: str = setting("PosteriorASLNet", choices=NETWORKS)
    arguments: Mapping[str, Any] = field(default_factory=Frozen)


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation of one member.

    Attributes
    ----------
    members : int
        Networks in the ensemble.
    epochs : float
        Passes over the training phantoms; physics and noise are never repeated.
    steps : int
        Optimiser steps; 0: by `epochs`.
    batch_size : int
        Slices a step, over all devices.
    reuse : int
        Steps that a simulated slice serves on average; 1: every step simulates its own.
    reuse_batches : int
        Batches in memory from which a step's slices are drawn, if they serve more than one.
    crop : int
        Side of the square that is cut from every phantom; 0: the whole slice.
    augment : bool
        Random flips and quarter turns of the phantoms.
    learning_rate, weight_decay, warmup_steps, gradient_clip
        AdamW; linear warm-up, then half a cosine to zero; norm of the gradient.
    cycles : int
        Such half cosines, of the same length, each from half the height of the one before.
    loss_type : str
        Of the means: ``l1``, ``l2`` or ``huber``, each in units of `cbf_unit`, `att_unit`.
    slices_count : str
        ``by_error``: the loss is the mean over all voxels; ``relative``: the mean over the slices
        of the logarithm of each one's mean, so that a per cent of the error counts alike in all
        (weighed by their voxels);
        ``relative_in_last_cycle``: first the one, in the last of `cycles` (and in the loss of
        the validation phantoms that is watched) the other.
    cbf_unit : float
        mL/100 g/min of CBF error that weigh as much as `att_unit` of ATT error.
    att_unit : float
        Seconds.
    uncertainty_weight : float
        Of the loss that trains the standard deviations; the errors in it are detached, so that
        the means stay those of `loss_type`.
    uncertainty_loss : str
        ``laplace``: negative log-likelihood; ``quantile``: of 68 and 95 % intervals.
    lesion_weight : float
        Weight of a voxel of a lesion relative to other voxels, in slices with more than one
        measurement: with one, nothing tells a late voxel from a dark one.
    lesion_weight_in_last_cycle : float
        The same in the last of `cycles`; 0: as before.
    means_weight : float
        Of errors averaged over squares of 3 and 7 voxels and over each tissue of a slice.
    volume_weight : float
        Of the arterial blood volume, where the network looks for it.
    dc_weight : float
        Of the misfit between measured signal and the signal of the estimate, in units of the
        noise (data consistency).
    parted : float
        Chance that neighbouring slices of a phantom don't see each other, as at a volume's end.
    averaging_decay : float
        Exponential moving average of the weights, which is what is validated and kept;
        0: none.
    early_stopping_patience : int
        Validations without improvement after which training stops; 0: never.
    validate_every, checkpoint_every : int
        Steps.
    checkpoint_minutes : float
        A checkpoint is also written after so many minutes.
    log_every : int
        Steps between the rows of the log.
    precision : str
        Of the trunk; ``auto``: bfloat16 where the device multiplies it.
    compile : str
        Of the trunk; ``auto``: on CUDA, and on a CPU with a C++ compiler.
    channels_last : bool
        Memory format of the network.
    """

    members: int = setting(5, low=1, high=100)
    epochs: float = setting(50.0, low=0.001)
    steps: int = setting(0, low=0)
    batch_size: int = setting(16, low=1)
    reuse: int = setting(1, low=1, high=100)
    reuse_batches: int = setting(128, low=1, high=4096)
    crop: int = setting(48, low=0, high=1024)
    augment: bool = setting(True)
    learning_rate: float = setting(2e-3, low=1e-7, high=1.0)
    weight_decay: float = setting(1e-2, low=0.0, high=1.0)
    warmup_steps: int = setting(100, low=0)
    cycles: int = setting(1, low=1, high=100)
    gradient_clip: float = setting(1.0, low=1e-3)
    loss_type: str = setting("l1", choices=("l1", "l2", "huber"))
    slices_count: str = setting(
        "by_error", choices=("by_error", "relative", "relative_in_last_cycle")
    )
    cbf_unit: float = setting(25.0, low=1e-3)
    att_unit: float = setting(0.7, low=1e-3, unit="s")
    uncertainty_weight: float = setting(0.05, low=0.0, high=10.0)
    uncertainty_loss: str = setting("laplace", choices=("laplace", "quantile"))
    lesion_weight: float = setting(1.0, low=0.0, high=100.0)
    lesion_weight_in_last_cycle: float = setting(0.0, low=0.0, high=100.0)
    means_weight: float = setting(0.0, low=0.0, high=100.0)
    volume_weight: float = setting(0.2, low=0.0, high=100.0)
    dc_weight: float = setting(0.0, low=0.0, high=100.0)
    parted: float = setting(0.1, low=0.0, high=1.0)
    averaging_decay: float = setting(0.999, low=0.0, high=0.99999)
    early_stopping_patience: int = setting(0, low=0)
    validate_every: int = setting(500, low=1)
    checkpoint_every: int = setting(500, low=1)
    checkpoint_minutes: float = setting(10.0, low=0.0)
    log_every: int = setting(20, low=1)
    precision: str = setting("auto", choices=("auto", "float32", "bfloat16"))
    compile: str = setting("auto", choices=("auto", "always", "never"))
    channels_last: bool = setting(True)


@dataclass(frozen=True)
class ValidationConfig:
    """What `asl-train validate` looks at.

    Attributes
    ----------
    scenarios : tuple of str
        Names of `asl_bids_app.training.validate.scenarios`.
    snr : tuple of float
    calibration_scenarios : tuple of str
        Scenarios in which the uncertainties are calibrated: those with the scanner's
        calibration in doubt together, and those with it known.
    calibration_snr : tuple of float
        SNR levels at which they are.
    scanners : int
        Times that each phantom is measured where the calibration is off, by another scanner
        each time: the error of a whole slice is one draw, so few phantoms say little of it.
    smoothing_fwhm : float
        Of the Gaussian of the smoothed least-squares baseline, in voxels.
    naive_voxels : int
        Brain voxels per scenario and SNR that the (slow) naive baseline fits.
    """

    scenarios: tuple[str, ...] = ("joint", "pcasl")
    snr: tuple[float, ...] = setting((3.0, 5.0, 10.0, 20.0), low=0.5, high=1000.0)
    calibration_scenarios: tuple[str, ...] = (
        *("random", "random_thermal_off"),
        *("joint_off", "pcasl_off", "pasl_off", "vsasl_off", "single_off"),
        *("random_known", "random_thermal", "joint", "pcasl", "pasl", "vsasl", "single"),
    )
    calibration_snr: tuple[float, ...] = setting((3.0, 5.0, 10.0, 20.0), low=0.5, high=1000.0)
    scanners: int = setting(1, low=1)
    smoothing_fwhm: float = setting(2.0, low=0.1, high=20.0)
    naive_voxels: int = setting(2000, low=0)


@dataclass(frozen=True)
class LoggingConfig:
    """Where the curves go besides the CSV file, which is always written.

    Attributes
    ----------
    tensorboard : bool
    wandb_project : str
        Weights & Biases project; empty: not used. ``WANDB_MODE=offline`` works.
    """

    tensorboard: bool = True
    wandb_project: str = ""
