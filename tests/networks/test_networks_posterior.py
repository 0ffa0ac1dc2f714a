"""PosteriorASLNet: the voxelwise posterior when untrained, and what it must never depend on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import integrated
from slices import PROTOCOLS, maps, measured
from torch.nn import functional

from asl_bids_app.networks import NETWORKS, build_network, network_class
from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.corrections import Estimate, reweighted
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.networks.inputs import pooled
from asl_bids_app.networks.posterior import PosteriorASLNet


def a_network(features=(8, 12, 16, 20), seed=0, **arguments):
    """A small network whose heads aren't zero any more."""
    torch.manual_seed(seed)
    network = PosteriorASLNet(features, **arguments)
    torch.nn.init.normal_(network.head.weight, std=0.3)
    torch.nn.init.normal_(network.head.bias, std=0.3)
    torch.nn.init.normal_(network.encoder.levels[0].first.conv.weight, std=0.1)
    return network.eval()


def same(first, second, tolerance=1e-3):
    """Whether two estimates agree; CBF to a hundredth of a unit."""
    return all(
        torch.allclose(getattr(first, f), getattr(second, f), atol=tolerance, rtol=1e-3)
        for f in ("cbf", "att", "cbf_log_sd", "att_log_sd")
    )


def inputs(shape=(2, 24, 24), protocol="joint", snr=8, seed=0):
    return measured(PROTOCOLS[protocol], *maps(shape, seed), snr, seed)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("size", [(24, 24), (17, 33), (9, 8)])
def test_untrained_is_the_voxelwise_posterior(protocol, size):
    observation = inputs((2, *size), protocol)
    estimate = PosteriorASLNet()(observation)
    posterior = voxel_posterior(observation)
    assert estimate.cbf.shape == observation.mask.shape
    assert torch.equal(estimate.cbf, posterior.cbf)
    assert torch.equal(estimate.att, posterior.att)
    inside = observation.mask
    assert torch.allclose(estimate.cbf_log_sd.exp()[inside], posterior.cbf_sd[inside])
    assert torch.allclose(estimate.att_log_sd.exp()[inside], posterior.att_sd[inside])


@torch.no_grad()
def test_order_of_measurements_does_not_matter():
    observation = inputs()
    order = np.random.default_rng(0).permutation(12).tolist()
    fields = ("delta_m", "noise_sd", "arrival", "delay", "label_duration", "efficiency", "vessels")
    other = replace(observation, **{f: getattr(observation, f)[:, order] for f in fields})
    network = a_network()
    assert same(network(observation), network(other))


@torch.no_grad()
def test_absent_measurements_do_not_matter():
    observation = inputs()

    def longer(values, filling):
        extra = torch.full_like(values[:, :3], filling)
        return torch.cat([values, extra], 1)

    other = replace(
        observation,
        delta_m=longer(observation.delta_m, 0.0),
        noise_sd=longer(observation.noise_sd, torch.inf),
        arrival=longer(observation.arrival, 1),
        delay=longer(observation.delay, 1.0),
        label_duration=longer(observation.label_duration, 0.7),
        vessels=longer(observation.vessels, 1.0),
        efficiency=longer(observation.efficiency, 0.9),
    )
    network = a_network()
    assert same(network(observation), network(other))


@torch.no_grad()
def test_air_around_the_brain_does_not_matter():
    observation = inputs((1, 24, 24))
    network = a_network()
    whole = network(observation)

    def grown(values):
        return functional.pad(values.float(), (8, 13, 16, 5)).to(values.dtype)

    other = replace(
        observation,
        delta_m=grown(observation.delta_m),
        noise_sd=grown(observation.noise_sd - 1) + 1,
        mask=grown(observation.mask),
    )
    around = network(other)
    inner = Estimate(
        **{f: v[:, 16:40, 8:32] for f, v in vars(around).items() if v is not None},
    )
    assert same(whole, inner)


@torch.no_grad()
def test_slices_of_a_batch_do_not_see_each_other():
    both = inputs((2, 24, 24))
    network = a_network()
    first = network(both[:1])
    loud = both.delta_m.clone()
    loud[1] *= 30
    together = network(replace(both, delta_m=loud))
    assert same(first, Estimate(**{f: v[:1] for f, v in vars(together).items() if v is not None}))


@torch.no_grad()
@pytest.mark.parametrize(("doubt", "of_cbf"), [(0.0, 0.08), (1.0, 0.08), (1.0, 0.03), (1.0, 0.0)])
def test_corrections_are_of_the_size_that_a_wise_neighbour_would_make(doubt, of_cbf):
    """The best linear correction by a neighbour 1 sd off has the size e²/√(e² + t²)."""
    observation = replace(inputs(), calibration_uncertainty=torch.full((2,), doubt))
    network = PosteriorASLNet((8, 8, 8, 8), cbf_uncertainty=of_cbf)
    network.head.bias[:4] = torch.tensor([1.0, -2.0, 0.5, 0.0])
    posterior, estimate = voxel_posterior(observation), network(observation)
    inside = observation.mask
    error = torch.hypot(posterior.cbf_sd, doubt * of_cbf * posterior.cbf)[inside]
    expected = error**2 / torch.hypot(error, torch.tensor(3.0))
    moved = (estimate.cbf - posterior.cbf)[inside]
    assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-3)
    error = torch.hypot(posterior.att_sd, torch.tensor(doubt * 0.05))[inside]
    expected = -2 * error**2 / torch.hypot(error, torch.tensor(0.08))
    moved = (estimate.att - posterior.att)[inside]
    assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-4)
    ratio = estimate.cbf_log_sd.exp()[inside] / posterior.cbf_sd[inside]
    assert torch.allclose(ratio, torch.tensor(0.5).exp().expand_as(ratio))


@torch.no_grad()
@pytest.mark.parametrize(("name", "times"), [("single", (10, 100)), ("joint", (1, 1.2))])
def test_doubt_about_att_gives_neighbours_no_room_to_move_cbf(name, times):
    """A single delay leaves CBF open by ATT, not by noise, which is that of a known ATT."""
    _, att, mask = maps((1, 24, 24))
    cbf = np.full_like(att, 60.0)
    observation = measured(PROTOCOLS[name], cbf, att, mask, 50)
    # Blood that arrived before the image: its signal is the same wherever it is now.
    early = observation.mask & torch.tensor(att < 1.5)
    network = PosteriorASLNet((8, 8, 8, 8), cbf_uncertainty=0.0, noise_apart=True)
    network.head.bias[:1] = 1.0
    moved = (network(observation).cbf - voxel_posterior(observation).cbf)[early].numpy()
    curves = np.array([integrated(*m, att[0]) for m in PROTOCOLS[name]])
    noise = (0.007 / 50) / np.sqrt((curves**2).sum(0))[early[0].numpy()]
    expected = noise**2 / np.hypot(noise, 3.0)
    # The posterior averages over late ATTs too, whose noise is larger.
    assert (moved > 0.9 * expected).all()
    assert np.median(moved / expected) < 2
    whole = PosteriorASLNet((8, 8, 8, 8), cbf_uncertainty=0.0)
    whole.head.bias[:1] = 1.0
    more = (whole(observation).cbf - voxel_posterior(observation).cbf)[early].numpy()
    assert times[0] < np.median(more / moved) < times[1]


@torch.no_grad()
def test_a_prior_of_the_neighbours_multiplies_the_posterior_of_att():
    """Reweighting the bins of a posterior is the posterior under the other prior (Bayes)."""
    observation = inputs()
    grid = PosteriorGrid()
    posterior = voxel_posterior(observation, grid)
    # A prior of ATT that is constant in each bin, as the bins can tell.
    edges = torch.linspace(1.0, -1.0, grid.bins)
    per_point = edges.repeat_interleave(grid.points // grid.bins)

    class Otherwise(PosteriorGrid):
        def log_prior(self, att):
            return super().log_prior(att) + (per_point if len(att) == len(per_point) else 0)

    expected = voxel_posterior(observation, Otherwise())
    log_odds = 6 * torch.atanh(edges / 6)
    shape = posterior.att_bins.shape
    moved = reweighted(posterior, log_odds[None, :, None, None].expand(shape))
    cbf, att = moved.cbf, moved.att
    # Where the grid is refined, the bins are too coarse to tell.
    wide = observation.mask & (posterior.att_sd > 0.15) & (expected.att_sd > 0.15)
    assert int(wide.sum()) > 100
    assert float(att[wide].abs().max()) > 0.1
    assert torch.allclose((posterior.att + att)[wide], expected.att[wide], atol=2e-3)
    assert torch.allclose((posterior.cbf + cbf)[wide], expected.cbf[wide], atol=0.2)
    unmoved = reweighted(posterior, torch.full(shape, 3.0))
    assert all(float(each.abs().max()) < 1e-3 for each in (unmoved.cbf, unmoved.att))


@torch.no_grad()
def test_misfit_is_the_noise_over_what_is_told_of_it():
    cbf, att, mask = maps((8, 40, 40))
    observation = measured(PROTOCOLS["joint"], cbf, att, mask, 20)
    inside = observation.mask
    assert float(voxel_posterior(observation).misfit[inside].square().mean()) == pytest.approx(
        1.0, abs=0.05
    )
    believed = replace(observation, noise_sd=observation.noise_sd / 2)
    assert float(voxel_posterior(believed).misfit[inside].square().mean()) == pytest.approx(
        4.0, abs=0.2
    )
    network = PosteriorASLNet((8, 8, 8, 8))
    seen = network.shared_misfit(network.prepare(observation)[1])[inside]
    around = voxel_posterior(pooled(observation, 3)).misfit[inside]
    assert torch.allclose(seen, around.clamp(max=4), atol=1e-5)


@pytest.mark.slow
def test_overfits_one_batch():
    cbf, att, mask = maps((2, 24, 24))
    observation = measured(PROTOCOLS["joint"], cbf, att, mask, 4)
    truth = torch.tensor(cbf, dtype=torch.float32)
    torch.manual_seed(0)
    network = PosteriorASLNet((12, 16, 24, 32))
    prepared, inside = network.prepare(observation), observation.mask
    doubt = observation.calibration_uncertainty
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    errors = []
    for _ in range(100):
        estimate = network.correct(prepared[0], network.corrections(prepared[1]), inside, doubt)
        error = (estimate.cbf - truth)[inside].abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.35 * errors[0]


@torch.no_grad()
def test_half_precision_trunk():
    """As training runs it: the trunk under autocast, everything else in single precision."""
    network, observation = a_network(), inputs()
    prepared = network.prepare(observation)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network.corrections(prepared[1])
    exact, one = network.corrections(prepared[1]), torch.ones(2)
    assert float((rough - exact).abs().mean()) < 0.03 * float(exact.abs().mean())
    assert network.correct(prepared[0], rough, observation.mask, one).cbf.dtype == torch.float32


def test_gradients_reach_every_weight():
    network = a_network()
    estimate = network(inputs())
    sum(v.sum() for v in vars(estimate).values() if v is not None).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_arguments_build_the_network_again():
    network = PosteriorASLNet((8, 8, 16), {"points": 32, "bins": 8}, 3, 0.03, noise_apart=True)
    again = build_network("PosteriorASLNet", network.arguments)
    again.load_state_dict(network.state_dict())
    assert again.grid == network.grid
    assert again.cbf_uncertainty == 0.03
    assert again.noise_apart
    # A model that was saved before an argument existed is built as it was.
    old = {k: v for k, v in network.arguments.items() if k not in ("noise_apart", "beside")}
    assert build_network("PosteriorASLNet", old).in_channels == network.in_channels - 1
    seeing = PosteriorASLNet((8, 8, 16), noise_apart=True, beside=6)
    assert build_network("PosteriorASLNet", seeing.arguments).beside == 6


def with_slices_beside(seed=0):
    return a_network(noise_apart=True, beside=6, seed=seed)


@torch.no_grad()
def test_slices_beside_are_seen_and_no_others():
    """Of five slices the third hears of the second and the fourth, and of nothing further."""
    observation, network = inputs((5, 16, 16)), with_slices_beside()
    whole = network(observation).cbf
    for changed in range(5):
        factor = torch.ones(5, 1, 1, 1)
        factor[changed] = 1.5
        other = replace(observation, delta_m=observation.delta_m * factor)
        moved = (network(other).cbf - whole).flatten(1).abs().amax(1) > 1e-3
        assert moved.tolist() == [abs(k - changed) <= 1 for k in range(5)]


@torch.no_grad()
def test_numbers_say_which_slices_are_beside_each_other():
    """Alone, or behind a slice that was left out, a slice is as one without neighbours."""
    observation, network = inputs((4, 16, 16)), with_slices_beside()
    whole = network(observation)
    alone = torch.cat([network(observation[k : k + 1]).cbf for k in range(4)])
    apart = replace(observation, slice_number=torch.tensor([0, 2, 4, 9]))
    assert torch.allclose(network(apart).cbf, alone, atol=1e-3)
    assert not torch.allclose(whole.cbf, alone, atol=0.1)
    # Two volumes in one batch: the last slice of one isn't beside the first of the other.
    twice = replace(observation, slice_number=torch.tensor([3, 4, 0, 1]))
    pairs = torch.cat([network(observation[:2]).cbf, network(observation[2:]).cbf])
    assert torch.allclose(network(twice).cbf, pairs, atol=1e-3)


@torch.no_grad()
def test_maps_of_the_slices_beside():
    """What is shown of them are their own maps; the misfit stays where it was."""
    observation = inputs((3, 12, 12))
    network = PosteriorASLNet((8, 8), noise_apart=True, beside=6)
    maps_of = network.prepare(observation)[1]
    alone = PosteriorASLNet((8, 8), noise_apart=True)
    own = alone.prepare(observation)[1]
    assert maps_of.shape[1] == network.in_channels
    assert torch.equal(maps_of[:, : own.shape[1]], own)
    below, above = maps_of[:, own.shape[1] :].chunk(2, 1)
    posterior = voxel_posterior(observation)
    inside = observation.mask
    assert torch.allclose(below[1:, 0], (posterior.cbf / 50 * inside)[:-1])
    assert torch.allclose(above[:-1, 2], ((posterior.att - 1.3) * inside)[1:])
    assert torch.equal(below[1:, 4], inside[:-1].float())
    assert not below[0].any()
    assert not above[-1].any()
    around = voxel_posterior(pooled(observation, 3))
    assert torch.allclose(above[:-1, 7], (around.cbf / 50 * inside)[1:], atol=1e-6)
    assert torch.equal(network.shared_misfit(maps_of), alone.shared_misfit(own))


def test_slices_beside_need_what_they_show():
    for arguments in ({"noise_apart": False}, {"noise_apart": True, "window": 0}):
        with pytest.raises(ValueError, match="beside"):
            PosteriorASLNet((8, 8), beside=6, **arguments)


def test_registry():
    assert all(network_class(name).__name__ == name for name in NETWORKS)
    with pytest.raises(KeyError, match="PosteriorASLNet"):
        network_class("UNet")


def test_neighbourhood_is_the_weighted_mean_within_the_mask():
    """Checked voxel by voxel; a measurement that doesn't exist stays without information."""
    observation = inputs((2, 9, 11), snr=4)
    rng = np.random.default_rng(3)
    noise = torch.tensor(rng.uniform(5e-4, 4e-3, observation.delta_m.shape)).float()
    noise[1, 5] = torch.inf
    mask = observation.mask.clone()
    mask[0, 2:4, 3] = False
    observation = replace(
        observation,
        mask=mask,
        noise_sd=noise,
        delta_m=observation.delta_m * mask[:, None],
    )
    around = pooled(observation, 5)
    for b, i, row, column in [(0, 3, 4, 5), (0, 0, 0, 0), (1, 11, 8, 10), (0, 7, 2, 4)]:
        weights, values = [], []
        for r in range(max(0, row - 2), min(9, row + 3)):
            for c in range(max(0, column - 2), min(11, column + 3)):
                if mask[b, r, c]:
                    weights.append(float(noise[b, i, r, c]) ** -2)
                    values.append(float(observation.delta_m[b, i, r, c]))
        if not mask[b, row, column]:
            continue
        expected = np.average(values, weights=weights)
        assert float(around.delta_m[b, i, row, column]) == pytest.approx(expected, rel=1e-4)
        sd = math.hypot(sum(weights) ** -0.5, 3.5e-4)
        assert float(around.noise_sd[b, i, row, column]) == pytest.approx(sd, rel=1e-4)
    assert torch.isinf(around.noise_sd[1, 5]).all()
    assert around.delta_m.isfinite().all()


@torch.no_grad()
def test_doubt_about_the_calibration_is_seen():
    observation = inputs()
    network = a_network()
    sure = replace(observation, calibration_uncertainty=torch.zeros(2))
    assert not same(network(observation), network(sure))


def test_a_doubt_is_not_negative():
    with pytest.raises(ValueError, match="cbf_uncertainty: found"):
        PosteriorASLNet(cbf_uncertainty=-0.1)


@pytest.mark.parametrize("window", [-1, 4])
def test_a_window_has_a_middle(window):
    with pytest.raises(ValueError, match="window: found"):
        PosteriorASLNet(window=window)
