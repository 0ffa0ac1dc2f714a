"""No tensor is made on another device than that of the data."""

import pytest
import torch

from asl_bids_app.estimators.arterial_evidence import arterial_evidence
from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.separation import separate_arteries
from asl_bids_app.models.store import load_model
from asl_bids_app.networks import analytic
from asl_bids_app.networks import grid as grids
from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.simulate.simulation import simulate
from asl_bids_app.training.validate.scenarios import SCENARIOS

NOWHERE = torch.device("meta")
"""Where tensors go that are made without a device: they hold no numbers, so using one fails."""


@pytest.fixture(scope="module")
def scan():
    config = PhantomConfig(size=32, voxel_size=(5, 8), smallest_brain=60)
    phantoms = draw(config, 2, seed=11)
    generator = torch.Generator().manual_seed(3)
    situation = SCENARIOS["pcasl_off"]
    physics = situation.draw(load("laptop").domain, phantoms.count, generator)
    return phantoms, physics, situation.noise(NoiseConfig(), 8.0), generator


def seen(scan):
    phantoms, physics, noise, generator = scan
    return simulate(phantoms, physics, noise, generator.manual_seed(3)).observation


def test_tensors_without_a_device_are_found():
    with NOWHERE, pytest.raises(NotImplementedError):
        torch.eye(2).to("cpu")


def test_the_simulator_makes_tensors_where_the_data_are(scan):
    expected = seen(scan).delta_m
    with NOWHERE:
        assert torch.equal(seen(scan).delta_m, expected)


@pytest.mark.parametrize("prior", [None, ArterialPrior()])
def test_the_ensemble_makes_tensors_where_the_data_are(scan, prior):
    observation, ensemble = seen(scan), Ensemble(load_model("any-protocol"), device="cpu")
    expected = ensemble.estimate(observation, arterial=prior)
    with NOWHERE:
        assert torch.equal(ensemble.estimate(observation, arterial=prior), expected)


def test_arteries_are_separated_where_the_data_are(scan):
    observation = seen(scan)
    cbf, att = (torch.full(observation.mask.shape, value) for value in (50.0, 1.2))
    with NOWHERE:
        found = separate_arteries(arterial_evidence(observation, cbf), att, (4.0, 4.0, 4.0))
    assert torch.isfinite(found.volume).all()


def test_the_way_of_a_gpu_gives_the_numbers_of_the_processor(scan, monkeypatch):
    # All slices in one piece, and the refinement of the grid in one large one.
    observation = seen(scan)
    one = analytic.voxel_posterior(observation)
    monkeypatch.setattr(analytic, "_slice_by_slice", lambda _device: False)
    monkeypatch.setattr(grids, "_zoom_chunk", lambda _device: 16384)
    other = analytic.voxel_posterior(observation)
    mask = observation.mask
    torch.testing.assert_close(other.cbf[mask], one.cbf[mask], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(other.att[mask], one.att[mask], rtol=1e-4, atol=1e-4)
