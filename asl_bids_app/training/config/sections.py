"""The sections of a training's configuration beside phantoms, domain and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from asl_bids_app.training.config.declaration import section, setting
from asl_bids_app.training.config.frozen_mapping import Frozen

NetworkName = Literal["PosteriorASLNet", "SpatialASLNet", "DualEncoderSpatialASLNet"]


@section
class DataConfig:
    """How many phantoms of each use."""

    phantoms: int = setting(20_000, "", 16, text="for training")
    phantoms_per_shard: int = setting(
        1000, "", 8, text="one shard is one file and one unit of parallel work"
    )
    validation_phantoms: int = setting(
        256, "", 8, text="for the curve that is watched during training (and early stopping)"
    )
    calibration_phantoms: int = setting(
        512, "", 8, text="for the calibration of the uncertainties"
    )
    test_phantoms: int = setting(
        200, "", 4, text="for the validation report; half of an anatomy held back from training"
    )


@section
class SignalConfig:
    """How signals enter `SpatialASLNet` and `DualEncoderSpatialASLNet`."""

    normalization_mode: Literal["global_scale", "per_slice"] = setting(
        "global_scale",
        text="ΔM/M0 in percent times one constant, or a z-score of each slice",
        critical="A z-score of each slice or voxel destroys the amplitude, and the amplitude is "
        "CBF.",
    )
    global_scale_factor: float = setting(
        10.0,
        "",
        1e-3,
        1e3,
        "the constant",
        critical="Training and use must scale alike; the app reads it from the model.",
    )


@section
class NetworkConfig:
    """Which network."""

    name: NetworkName = setting("PosteriorASLNet", text="class of the network")
    arguments: Mapping[str, Any] = field(default_factory=Frozen)


@section
class TrainingConfig:
    """Optimisation of one member.

    The optimiser is AdamW: linear warm-up, then half a cosine to zero. Losses of standard
    deviations detach the errors, so that the means stay those of `loss_type`. ``slices_count``
    ``relative`` is the mean over slices of the logarithm of each one's mean loss, weighed by their
    voxels, so that a per cent of the error counts alike in all.
    """

    members: int = setting(5, "", 1, 100, "networks in the ensemble")
    epochs: float = setting(
        50.0, "", 0.001, text="passes over the phantoms; physics and noise are never repeated"
    )
    steps: int = setting(0, "", 0, text="optimiser steps; 0: by epochs")
    batch_size: int = setting(16, "", 1, text="slices of a step, over all devices")
    reuse: int = setting(
        1, "", 1, 100, "steps that a simulated slice serves on average; 1: one step only"
    )
    reuse_batches: int = setting(
        128, "", 1, 4096, "batches in memory that slices are drawn from, if they serve again"
    )
    crop: int = setting(
        48, "pixels", 0, 1024, "side of the square cut from every phantom; 0: the whole slice"
    )
    augment: bool = setting(True, text="random flips and quarter turns of the phantoms")
    learning_rate: float = setting(2e-3, "", 1e-7, 1.0, "highest")
    weight_decay: float = setting(1e-2, "", 0.0, 1.0, "of AdamW")
    warmup_steps: int = setting(100, "", 0, text="steps of the linear rise of the learning rate")
    cycles: int = setting(
        1, "", 1, 100, "half cosines of one length, each from half the height of the one before"
    )
    gradient_clip: float = setting(1.0, "", 1e-3, text="highest norm of the gradient")
    loss_type: Literal["l1", "l2", "huber"] = setting(
        "l1",
        text="loss of the means, in units of cbf_unit and att_unit",
        critical="Squared errors let few lesions and outliers decide and blur small ones.",
    )
    slices_count: Literal["by_error", "relative", "relative_in_last_cycle"] = setting(
        "by_error", text="how slices count in the loss: by their errors, or relatively"
    )
    cbf_unit: float = setting(
        25.0, "mL/100 g/min", 1e-3, text="CBF error that weighs as much as att_unit of ATT error"
    )
    att_unit: float = setting(0.7, "s", 1e-3, text="ATT error that weighs as much as cbf_unit")
    uncertainty_weight: float = setting(
        0.05, "", 0.0, 10.0, "of the loss that trains the standard deviations"
    )
    uncertainty_loss: Literal["laplace", "quantile"] = setting(
        "laplace", text="negative log-likelihood, or loss of 68 and 95 % intervals"
    )
    lesion_weight: float = setting(
        1.0, "", 0.0, 100.0, "of a lesion's voxel, in slices with more than one measurement"
    )
    lesion_weight_in_last_cycle: float = setting(
        0.0, "", 0.0, 100.0, "the same in the last cycle; 0: as before"
    )
    means_weight: float = setting(
        0.0, "", 0.0, 100.0, "of errors averaged over squares of 3 and 7 voxels and tissues"
    )
    volume_weight: float = setting(
        0.2, "", 0.0, 100.0, "of the arterial blood volume, where the network estimates it"
    )
    dc_weight: float = setting(
        0.0,
        "",
        0.0,
        100.0,
        "of the misfit between measured signal and that of the estimate (data consistency)",
        critical="A penalty on the misfit of the signal pulls estimates toward the noise, and "
        "toward the stated calibration.",
    )
    parted: float = setting(
        0.1,
        "",
        0.0,
        1.0,
        "chance that neighbouring slices don't see each other, as at a volume's end",
    )
    averaging_decay: float = setting(
        0.999, "", 0.0, 0.99999, "of the moving average of the weights that is kept; 0: none"
    )
    early_stopping_patience: int = setting(
        0, "", 0, text="validations without improvement after which training stops; 0: never"
    )
    validate_every: int = setting(500, "", 1, text="steps between validations")
    checkpoint_every: int = setting(500, "", 1, text="steps between checkpoints")
    checkpoint_minutes: float = setting(
        10.0, "minutes", 0.0, text="a checkpoint is also written after so long; 0: never"
    )
    log_every: int = setting(20, "", 1, text="steps between the rows of the log")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", text="of the trunk; auto: bfloat16 where the device multiplies it"
    )
    compile: Literal["auto", "always", "never"] = setting(
        "auto", text="the trunk; auto: on CUDA, and on a CPU with a C++ compiler"
    )
    channels_last: bool = setting(True, text="memory format of the network")


@section
class ValidationConfig:
    """What `asl-train validate` looks at.

    Uncertainties are calibrated in scenarios with the scanner's calibration in doubt together, and
    in those with it known. Where the calibration is off, the error of a whole slice is one draw,
    so few phantoms say little of it: `scanners` measures each more than once.
    """

    scenarios: tuple[str, ...] = setting(
        ("joint", "pcasl"), text="names of asl_bids_app.training.validate.scenarios"
    )
    snr: tuple[float, ...] = setting((3.0, 5.0, 10.0, 20.0), "", 0.5, 1000.0, "levels compared")
    calibration_scenarios: tuple[str, ...] = setting(
        (
            *("random", "random_thermal_off"),
            *("joint_off", "pcasl_off", "pasl_off", "vsasl_off", "single_off"),
            *("random_known", "random_thermal", "joint", "pcasl", "pasl", "vsasl", "single"),
        ),
        text="scenarios in which the uncertainties are calibrated",
    )
    calibration_snr: tuple[float, ...] = setting(
        (3.0, 5.0, 10.0, 20.0), "", 0.5, 1000.0, "SNR levels of the calibration"
    )
    scanners: int = setting(
        1, "", 1, text="times that a phantom is measured where the calibration is off"
    )
    smoothing_fwhm: float = setting(
        2.0, "voxels", 0.1, 20.0, "of the Gaussian of the smoothed least-squares baseline"
    )
    naive_voxels: int = setting(
        2000, "voxels", 0, text="that the slow naive baseline fits, for each scenario and SNR"
    )


@section
class LoggingConfig:
    """Where the curves go besides the CSV file, which is always written."""

    tensorboard: bool = setting(True, text="write TensorBoard events")
    wandb_project: str = setting(
        "", text="Weights & Biases project; empty: none. WANDB_MODE=offline works"
    )
