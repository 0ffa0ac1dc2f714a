"""Which device trains: found, named in the log, and missed where a job was given one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import torch

from asl_bids_app.allocation import processors
from asl_bids_app.errors import InputError
from asl_bids_app.estimators import devices

_GIVEN: Final = (
    *("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_GPUS"),
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "PBS_GPUFILE"),
)
"""Variables by which schedulers tell a job which GPUs it has."""
_NONE: Final = frozenset({"", "-1", "none", "nodevfiles", "void", "(null)"})


def given_gpu(environment: Mapping[str, str]) -> str:
    """Return the variable that says that this job was given a GPU, with its value; else empty."""
    for name in _GIVEN:
        value = environment.get(name, "").strip()
        counted = name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS") and value == "0"
        if value.lower() not in _NONE and not counted:
            return f"{name}={value}"
    return ""


def find_device(wanted: str) -> str:
    """Return ``cpu``, ``cuda`` or ``mps`` for a choice that may be ``auto``.

    Raises
    ------
    InputError
        If the device isn't there, or by ``auto`` a job that was given a GPU would train on the
        processor, many times slower, without anybody noticing.
    """
    found = devices.find_device(wanted).type
    given = given_gpu(os.environ)
    if wanted == "auto" and found == "cpu" and given:
        raise InputError(
            "command line",
            "--device",
            f"no GPU that PyTorch {torch.__version__} can use",
            f"one, for the job was given a GPU ({given})",
            "install PyTorch for the node's CUDA driver (apptainer: --nv), or give --device cpu",
        )
    return found


def full_precision() -> None:
    """Keep every float32 product exact to float32, convolutions included.

    TF32 rounds to ten bits: in the analytic layer it moved CBF by up to 3.6 mL/100 g/min and ATT
    by 196 ms. Only the trunk takes less, by its own autocast to bfloat16.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def describe_device(device: str) -> str:
    """Return a device in words, for the log."""
    if device == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        memory = properties.total_memory / 2**30
        return (
            f"GPU {properties.name} ({memory:.0f} GiB, CUDA {torch.version.cuda}, "
            f"{torch.cuda.device_count()} visible)"
        )
    if device == "mps":
        return "GPU of Apple (MPS)"
    return f"CPU, {torch.get_num_threads()} of {processors()} threads"
