"""Training: the same curve whatever interrupts it, losses, order of the data."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from asl_bids_app.errors import InputError
from asl_bids_app.networks.posterior import Estimate
from asl_bids_app.observation import Observation
from asl_bids_app.training.callbacks import read_curves
from asl_bids_app.training.config import load
from asl_bids_app.training.dataset import Batches, PhantomStore, cropped, turned
from asl_bids_app.training.fit import FitOptions, fit_member
from asl_bids_app.training.lightning_module import MemberModule, losses, rate
from asl_bids_app.training.parts import PARTS, generate_part
from asl_bids_app.training.phantoms import Phantoms
from asl_bids_app.training.run_folder import RunFolder, load_member
from asl_bids_app.training.simulate import Batch

TINY = (
    "phantoms.size=32",
    "phantoms.voxel_size=[5, 8]",
    "phantoms.smallest_brain=60",
    "data.phantoms=40",
    "data.phantoms_per_shard=16",
    "data.validation_phantoms=8",
    "network.arguments.features=[4, 8]",
    "training.steps=12",
    "training.batch_size=4",
    "training.crop=16",
    "training.validate_every=4",
    "training.checkpoint_every=3",
    "training.log_every=1",
    "logging.tensorboard=false",
)


@pytest.fixture(scope="module")
def config():
    return load("smoke", TINY)


@pytest.fixture(scope="module")
def dataset(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    for part in PARTS[:2]:
        generate_part(config, folder, part)
    return folder


@pytest.fixture(scope="module")
def unbroken(config, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    result = fit_member(config, dataset, folder, 0)
    assert result.finished
    assert result.step == 12
    return folder


def curve(folder, member=0):
    return read_curves(RunFolder(folder).logs(member) / "metrics.csv")


def weights(folder, member=0):
    return load_member(RunFolder(folder).model(member))["model_state_dict"]


def interrupt_at(monkeypatch, step, number=signal.SIGUSR1):
    """Let the process get a signal in the middle of a step."""
    original = MemberModule.training_step

    def training_step(self, batch, batch_idx):
        if batch.step == step:
            os.kill(os.getpid(), number)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(MemberModule, "training_step", training_step)


# Before, at and after a checkpoint; at a validation, where state changes most.
@pytest.mark.parametrize("step", [0, 2, 3, 7, 10])
def test_resumed_training_gives_the_curve_of_an_unbroken_one(
    config, dataset, unbroken, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        stopped = fit_member(config, dataset, tmp_path, 0)
    assert not stopped.finished
    assert stopped.reason == "SIGUSR1"
    assert stopped.step == step + 1
    assert not RunFolder(tmp_path).model(0).is_file() or not load_member(
        RunFolder(tmp_path).model(0)
    )["complete"]

    resumed = fit_member(config, dataset, tmp_path, 0)
    assert resumed.finished
    assert curve(tmp_path) == curve(unbroken)
    expected = weights(unbroken)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_curve_has_every_step_and_every_validation(unbroken):
    rows = curve(unbroken)
    assert [step for step, name, _ in rows if name == "train/loss"] == list(range(12))
    assert [step for step, name, _ in rows if name == "val/loss"] == [3, 7, 11]
    assert all(math.isfinite(float(value)) for _, _, value in rows)
