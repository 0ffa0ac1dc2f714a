"""The networks of a fixed protocol: their contract, and the amplitude that CBF follows."""

import math
from dataclasses import replace

import pytest
import torch
from slices import PROTOCOLS, maps, measured

from asl_bids_app.networks import build_network
from asl_bids_app.networks.spatial import NO_SIGNAL, ChannelNetwork, Standardisation

SCALE = Standardisation(10.0, 45.0, 25.0, 1.3, 0.5)
NAMES = ["SpatialASLNet", "DualEncoderSpatialASLNet"]


def small(name, seed=0, heads=0.1):
    torch.manual_seed(seed)
    network = build_network(name, {"n_plds": 6, "features": [12, 16, 16, 16]})
    torch.nn.init.normal_(network.head.weight, std=heads)
    return network


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (41, 50), (8, 9)])
@torch.no_grad()
def test_contract(name, size):
    network = build_network(name, {"n_plds": 6})
    assert network.features == (32, 64, 128, 256)
    maps_out = network(torch.randn(2, 12, *size))
    assert [tuple(each.shape) for each in maps_out] == [(2, 1, *size)] * 4
    assert all(bool(torch.isfinite(each).all()) for each in maps_out)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_no_leak_between_slices_and_none_from_air(name):
    network = small(name).eval()
    x = torch.randn(2, 12, 24, 24)
    x[:, :, :4] = 0
    alone = network(x[:1])
    other = torch.cat([x[:1], 50 * x[1:]])
    padded = torch.nn.functional.pad(x[:1], (8, 8, 0, 16))
    inside = x[:1].abs().amax(1, keepdim=True) > 0
    for a, b, c in zip(alone, network(other), network(padded), strict=True):
        assert torch.allclose(a, b[:1], atol=1e-4)
        assert torch.allclose(a[inside], c[..., :24, 8:32][inside], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_signal_reaches_cbf_in_proportion_past_the_trunk(name):
    """With a trunk that answers the same for any input, CBF is linear in the signal."""
    network = build_network(name, {"n_plds": 6, "features": [8, 8, 8, 8]})
    network.head.bias[4:] = 0.1
    # Loud enough that the floor under the strength of silence doesn't count.
    x = 5 + torch.randn(1, 12, 16, 16)
    once, twice = (network(factor * x)[0] - NO_SIGNAL for factor in (1, 2))
    assert torch.allclose(twice, 2 * once, rtol=1e-3)
    assert torch.allclose(once, 0.1 * x.sum(1, keepdim=True), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[:2])
def test_briefly_trained_cbf_follows_the_amplitude(name):
    torch.manual_seed(0)
    network = ChannelNetwork(small(name, heads=0.01), SCALE)
    optimiser = torch.optim.AdamW(network.parameters(), 4e-3)
    batches = []
    for seed in range(6):
        cbf, att, mask = maps((3, 16, 16), seed)
        observed = measured(PROTOCOLS["joint"], cbf, att, mask, 15, seed)
        batches.append((observed, torch.tensor(cbf).float(), torch.tensor(att).float()))
    for step in range(60):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * 0.5 * (1 + math.cos(math.pi * step / 60))
        observed, cbf, att = batches[step % 5]
        estimate = network(observed)
        off = [(estimate.cbf - cbf) / 25, (estimate.att - att) / 0.5]
        loss = sum(each[observed.mask].abs().mean() for each in off)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    observed, cbf, _ = batches[5]
    inside = observed.mask
    network.eval()
    with torch.no_grad():
        once = network(observed).cbf[inside]
        twice = network(replace(observed, delta_m=2 * observed.delta_m)).cbf[inside]
    assert float((once - cbf[inside]).abs().mean()) < 12
    slope = float((once * twice).sum() / once.square().sum())
    assert slope == pytest.approx(2, abs=0.25)


@torch.no_grad()
def test_adapter_speaks_units():
    cbf, att, mask = maps((2, 16, 16))
    observed = measured(PROTOCOLS["joint"], cbf, att, mask, 10)

    class Echo(torch.nn.Module):
        def forward(self, x):
            one = torch.ones_like(x[:, :1])
            return x[:, :1], 2 * one, 0 * one, math.log(4) * one

    estimate = ChannelNetwork(Echo(), SCALE)(observed)
    inside = observed.mask
    percent = 100 * observed.delta_m[:, 0]
    assert torch.allclose(estimate.cbf[inside], 45 + 25 * 10 * percent[inside])
    assert torch.allclose(estimate.att[inside], torch.tensor(1.3 + 2 * 0.5))
    assert torch.allclose(estimate.cbf_log_sd.exp()[inside], torch.tensor(25.0))
    assert torch.allclose(estimate.att_log_sd.exp()[inside], torch.tensor(2 * 0.5))
    assert not bool(estimate.cbf[~inside].any())


@torch.no_grad()
def test_per_slice_scaling_loses_the_amplitude():
    """What the guarded setting is guarded against."""
    cbf, att, mask = maps((1, 16, 16))
    observed = measured(PROTOCOLS["joint"], cbf, att, mask, 10)
    twice = replace(observed, delta_m=2 * observed.delta_m)
    bad = ChannelNetwork(small(NAMES[0]), replace(SCALE, per_slice=True))
    good = ChannelNetwork(small(NAMES[0]), SCALE)
    assert torch.allclose(bad.prepare(observed)[1], bad.prepare(twice)[1], atol=1e-4)
    assert torch.allclose(2 * good.prepare(observed)[1], good.prepare(twice)[1])
