"""Arteries in the voxelwise posterior and the network, against integration by brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from slices import PROTOCOLS, maps, measured

from asl_bids_app.kinetics import arterial_response
from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.networks.posterior import PosteriorASLNet
from asl_bids_app.scheme_fields import Arrival

EARLY = [("PCASL", w, 1.4) for w in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)]


def in_artery(scheme, delay, duration, arrival, alpha):
    """Label in an artery without dispersion, per mL/mL; and whether its edges are far."""
    if scheme == "VSASL":
        return 0.0, True
    if scheme == "PASL":
        first, last, age = arrival, arrival + duration, delay
    else:
        first, last, age = arrival - duration, arrival, arrival
    inside = first < delay < last
    far = min(abs(delay - first), abs(delay - last)) > 0.5
    return 2 * alpha / 0.9 * np.exp(-age / 1.65) * inside, far


@pytest.mark.parametrize("scheme", ["PCASL", "PASL", "VSASL"])
def test_label_in_arteries_is_a_box_with_soft_edges(scheme):
    codes = {
        "PCASL": Arrival.CONTINUOUS,
        "PASL": Arrival.PULSED,
        "VSASL": Arrival.VELOCITY_SELECTIVE,
    }
    compared = 0
    for delay in np.linspace(0.1, 3.5, 35):
        for arrival in (0.3, 0.7, 1.2):
            expected, far = in_artery(scheme, delay, 1.4, arrival, 0.85)
            got = arterial_response(
                torch.tensor(int(codes[scheme])),
                torch.tensor(delay),
                torch.tensor(1.4),
                torch.tensor(0.85),
                1.65,
                0.9,
                torch.tensor(arrival, dtype=torch.float64),
            )
            if far:
                compared += 1
                assert float(got) == pytest.approx(expected, abs=2e-5)
    assert compared > 30


def test_half_of_the_label_is_there_at_an_edge():
    for delay in (0.7, 2.1):
        got = arterial_response(
            torch.tensor(int(Arrival.PULSED)),
            torch.tensor(delay),
            torch.tensor(1.4),
            torch.tensor(0.9),
            1.65,
            0.9,
            torch.tensor(0.7, dtype=torch.float64),
        )
        assert float(got) == pytest.approx(np.exp(-delay / 1.65), rel=1e-6)


@pytest.fixture(scope="module")
def scene():
    """Slices of which a fifth of the voxels hold an artery: observation, volume, CBF, ATT."""
    rng = np.random.default_rng(3)
    cbf, att, mask = maps((2, 24, 24))
    observation = measured(EARLY, cbf, att, mask, 8)
    volume = np.where(rng.random(cbf.shape) < 0.2, rng.exponential(0.012, cbf.shape), 0) * mask
    arrival = np.minimum(rng.uniform(0.3, 1.2, cbf.shape), att - 0.1)
    shown = observation.arterial_response(torch.tensor(arrival, dtype=torch.float32))
    signal = observation.delta_m + shown * torch.tensor(volume, dtype=torch.float32)[:, None]
    return replace(observation, delta_m=signal), volume, cbf, att


def by_brute_force(observation, place, prior, grid):
    """Probability of an artery, CBF, volume and ATT of a voxel on a grid over all four."""
    slice_, row, column = place
    data = observation.delta_m[slice_, :, row, column].double().numpy()
    sd = observation.noise_sd[slice_, :, row, column].double().numpy()
    one = observation[slice_ : slice_ + 1]
    tissue = one.response(grid.att[None].float())[0].double().numpy() / sd[:, None]
    vessels = one.arterial_response(torch.tensor(prior.arrivals))[0].double().numpy() / sd[:, None]
    att = grid.att.numpy()
    by_att = np.exp((grid.log_prior(grid.att) + grid.spacing(grid.att).log()).numpy())
    flow, volumes = np.linspace(-150, 350, 201), np.linspace(0, 0.1, 401)
    of_flow = np.exp(-0.5 * ((flow - grid.cbf_mean) / grid.cbf_sd) ** 2) / grid.cbf_sd
    of_flow *= (flow[1] - flow[0]) / np.sqrt(2 * np.pi)
    of_volume = np.exp(-0.5 * (volumes / prior.volume_sd) ** 2) / prior.volume_sd
    of_volume *= (volumes[1] - volumes[0]) * np.sqrt(2 / np.pi)
    of_volume[0] /= 2  # the trapezoid rule's first point
    sums = np.zeros(5)  # without an artery, with one, CBF, volume, ATT
    for g, late in enumerate(att):
        left = data[:, None] / sd[:, None] - tissue[:, g, None] * flow
        weight = (1 - prior.chance) * by_att[g] * np.exp(-0.5 * (left**2).sum(0)) * of_flow
        sums += [weight.sum(), 0, weight @ flow, 0, weight.sum() * late]
        early = [k for k, when in enumerate(prior.arrivals) if when < late]
        for k in early:
            vessel = vessels[:, k]
            square = (left**2).sum(0)[:, None] - 2 * (vessel @ left)[:, None] * volumes
            square = square + (vessel**2).sum() * volumes**2
            weight = prior.chance * by_att[g] / max(len(early), 1) * np.exp(-0.5 * square)
            weight = weight * of_flow[:, None] * of_volume
            total = weight.sum()
            sums += [0, total, weight.sum(1) @ flow, weight.sum(0) @ volumes, total * late]
    total = sums[0] + sums[1]
    return sums[1] / total, sums[2] / total, sums[3] / total, sums[4] / total


def test_posterior_is_that_of_brute_force(scene):
    observation, volume, *_ = scene
    prior, grid = ArterialPrior(arrivals=(0.3, 0.5, 0.8, 1.2)), PosteriorGrid()
    found = voxel_posterior(observation, grid, arterial=prior)
    places = np.argwhere(volume > 0)[[3, 40]].tolist()
    places += np.argwhere(observation.mask.numpy() & (volume == 0))[[10]].tolist()
    for place in places:
        here = tuple(place)
        artery, cbf, held, att = by_brute_force(observation, here, prior, grid)
        assert float(found.artery[here]) == pytest.approx(artery, abs=0.02)
        assert float(found.cbf[here]) == pytest.approx(cbf, abs=0.6)
        assert float(found.volume[here]) == pytest.approx(held, abs=2e-4)
        assert float(found.att[here]) == pytest.approx(att, abs=0.05)


def test_arteries_do_not_pass_for_early_tissue(scene):
    observation, volume, cbf, att = scene
    there = torch.tensor(volume > 0.002)
    without, within = voxel_posterior(observation), voxel_posterior(observation, arterial=PRIOR)

    def covered(found):
        """Shares of the true CBF and ATT inside two standard deviations."""
        off = [(found.cbf - torch.tensor(cbf)) / found.cbf_sd]
        off += [(found.att - torch.tensor(att)) / found.att_sd]
        return [float((z[there].abs() < 2).float().mean()) for z in off]

    def early(found):
        return float((found.att - torch.tensor(att))[there].mean())

    assert max(covered(without)) < 0.6
    assert min(covered(within)) > 0.75
    assert early(without) < -0.4
    assert abs(early(within)) < 0.4 * abs(early(without))
    alone = observation.mask & torch.tensor(volume == 0)
    assert float(within.artery[alone].mean()) < 0.15
    assert float(within.artery[there].mean()) > 0.6


PRIOR = ArterialPrior()


def test_an_artery_that_nothing_shows_leaves_everything_as_it_was():
    cbf, att, mask = maps((1, 16, 16))
    observation = measured(PROTOCOLS["joint"], cbf, att, mask, 10)
    crushed = replace(observation, vessels=torch.zeros_like(observation.vessels))
    without, within = voxel_posterior(crushed), voxel_posterior(crushed, arterial=PRIOR)
    inside = observation.mask
    assert torch.allclose(without.cbf[inside], within.cbf[inside], atol=0.5)
    late = inside & (without.att > 1.0)
    assert torch.allclose(
        within.artery[late], torch.full_like(within.artery[late], PRIOR.chance), atol=0.02
    )


def test_untrained_network_is_the_posterior_and_may_be_told_of_arteries(scene):
    observation, *_ = scene
    network = PosteriorASLNet((8, 8, 8, 8), arterial={}, anatomy=True, beside=4, noise_apart=True)
    posterior = voxel_posterior(observation, network.grid, arterial=network.arterial)
    estimate = network(observation)
    inside = observation.mask
    assert torch.allclose(estimate.volume[inside], posterior.volume[inside], atol=1e-5)
    assert torch.allclose(estimate.artery[inside], posterior.artery[inside], atol=1e-4)
    with torch.no_grad():
        network.head.bias[4 + network.grid.bins] = 6.0
    believing = network(observation)
    assert (believing.artery >= estimate.artery - 1e-5)[inside].all()
    assert (believing.artery - estimate.artery)[inside].mean().item() > 0.2
    assert (believing.volume - estimate.volume)[inside].mean().item() > 0


@pytest.mark.slow
def test_a_network_trained_without_arteries_finds_them_all_the_same():
    """Label in arteries no longer passes for early flow; elsewhere the maps stay as they are."""
    from physics import simulate

    from asl_bids_app.estimators.base import Flag
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.models.store import load_model
    from asl_bids_app.observation import observe

    rng = np.random.default_rng(5)
    shape = (3, 28, 28)
    cbf, att = np.full(shape, 55.0), np.full(shape, 1.1)
    series = simulate(EARLY, cbf, att, noise_sd=0.0009, seed=2)
    volume = np.zeros(shape)
    volume[:, 6:9, 4:24], volume[:, 18, 10:20] = 0.015, 0.008
    observation = observe(series, torch.full((3, 6, 1, 1), 0.0009))
    shown = observation.arterial_response(torch.full(shape, 0.5))
    share = torch.tensor(volume * rng.uniform(0.8, 1.2, shape), dtype=torch.float32)
    with_arteries = replace(series, delta_m=series.delta_m + shown * share[:, None])
    there, apart = torch.tensor(volume > 0), torch.ones(shape, dtype=torch.bool)
    apart[:, 4:11], apart[:, 16:21] = False, False

    def fit(data, arterial=True, crushed=False):
        if crushed:
            protocol = replace(data.protocol, vascular_crushing=(True,) * 6)
            data = replace(data, protocol=protocol)
        model = load_model(None)
        return Ensemble(model, tta=False, error_bars="noise", arterial=arterial).fit(data)

    free, without, within = fit(series), fit(with_arteries, arterial=False), fit(with_arteries)

    def off(maps, where):
        return float((maps.cbf - 55)[where].mean()), float((maps.att - 1.1)[where].mean())

    assert off(without, there)[0] > 7
    assert off(without, there)[1] < -0.3
    assert abs(off(within, there)[0]) < 0.35 * off(without, there)[0]
    assert abs(off(within, there)[1]) < 0.5 * abs(off(without, there)[1])
    assert abs(off(within, apart)[0] - off(free, apart)[0]) < 1.0
    found = (within.flags & int(Flag.ARTERY)) > 0
    assert float(found[there].float().mean()) > 0.8
    assert float(found[apart].float().mean()) < 0.05
    assert float(within.abv[there].mean()) == pytest.approx(
        100 * float(share[there].mean()), rel=0.3
    )
    assert without.abv is None
    assert fit(with_arteries, crushed=True).abv is None
    # Tissue and artery together leave the noise.
    left = (within.residual / 0.0009).square().mean().sqrt()
    assert 0.6 < float(left) < 1.2


def test_a_network_with_more_maps_begins_with_the_answers_of_one_with_fewer(scene):
    """New input maps and answers start with weights of zero."""
    from asl_bids_app.training.fit.widen import grown

    observation, *_ = scene
    settings = {"features": (8, 8, 8, 8), "beside": 4, "noise_apart": True}
    torch.manual_seed(3)
    old, new = PosteriorASLNet(**settings), PosteriorASLNet(**settings, arterial={}, anatomy=True)
    torch.nn.init.normal_(old.head.weight, std=0.1)
    shapes = {name: tuple(value.shape) for name, value in new.state_dict().items()}
    new.load_state_dict(grown(old.state_dict(), shapes, last=4))
    maps = old.prepare(observation)[1]
    own, beside = maps.tensor_split([maps.shape[1] - 2 * 12], 1)
    more = torch.randn(len(maps), new.in_channels - old.in_channels, *maps.shape[2:])
    with torch.no_grad():
        before, after = old.corrections(maps), new.corrections(torch.cat([own, more, beside], 1))
    assert float(before.abs().max()) > 0.01
    assert torch.allclose(after[:, : before.shape[1]], before, atol=1e-5)
    assert not after[:, before.shape[1] :].any()
    wider = {n: (*s[:1], *(2 * k for k in s[1:2]), *s[2:]) for n, s in shapes.items()}
    assert grown(old.state_dict(), wider, last=4) is None
