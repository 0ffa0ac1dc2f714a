"""Arteries told from tissue by the tissue around them.

Truth: sums over a fine lattice of CBF and volume for the evidence, and simulated slices whose
tissue is made by quadrature and whose arteries are written out.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import simulate
from scipy.special import logsumexp

from asl_bids_app.estimators.arterial_evidence import CBF_SD, VOLUME_SD, arterial_evidence
from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.separation import separate_arteries
from asl_bids_app.observation import observe
from asl_bids_app.series import NoiseEstimate

EARLY = [("PCASL", w, 1.4) for w in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)]
NOISE = 0.0006
VOXEL_MM = (5.0, 3.4, 3.4)
ARRIVAL = 0.57


def artery(volume, arrival=ARRIVAL):
    """ΔM/M0 of an artery of PCASL with edges of 0.08 s, (n, *shape of volume)."""
    delays, durations = (np.array(x) for x in zip(*((w, d) for _, w, d in EARLY), strict=True))
    first, last = (arrival - delays) / 0.08, (delays + durations - arrival) / 0.08
    there = 0.25 * (1 + np.tanh(first)) * (1 + np.tanh(last))
    return (2 * 0.85 / 0.9 * np.exp(-arrival / 1.65) * there).reshape(-1, 1, 1, 1) * volume


def scene(volume, att=1.0, seed=3):
    """A series of 5 slices with arteries, its observation, and the affine of its voxels."""
    shape = volume.shape
    series = simulate(EARLY, np.full(shape, 55.0), np.full(shape, 1.0) * att, NOISE, seed=seed)
    shown = torch.tensor(artery(volume)).float().transpose(0, 1)
    noise = NoiseEstimate(torch.full((shape[0], 6, *shape[1:]), NOISE), "given")
    affine = np.diag([VOXEL_MM[1], VOXEL_MM[2], VOXEL_MM[0], 1])
    series = replace(series, delta_m=series.delta_m + shown, noise=noise, affine=affine)
    return series, observe(series, noise.noise_sd, 0.0)


def test_the_evidence_is_the_integral_over_flow_and_volume():
    """The odds of an artery at an ATT, by summing over every flow, volume and arrival."""
    volume = np.zeros((1, 8, 8))
    volume[0, :, :4] = 0.01
    _, observation = scene(volume)
    found = arterial_evidence(observation, torch.full((1, 8, 8), 50.0))
    places = observation.mask[0].nonzero()
    flow = torch.linspace(-20, 120, 141).double()
    lattice = torch.linspace(0, 0.03, 601).double()
    prior = -0.5 * ((flow - 50) / CBF_SD) ** 2
    half_normal = -0.5 * (lattice / VOLUME_SD) ** 2 - np.log(VOLUME_SD * np.sqrt(np.pi / 2))
    edges = torch.full_like(lattice, 1.0)
    edges[[0, -1]] = 0.5
    from asl_bids_app.networks.arterial import ArterialPrior

    arrivals = ArterialPrior().arrivals
    for voxel in range(0, len(places), 17):
        row, column = places[voxel].tolist()
        data = observation.delta_m[0, :, row, column].double()
        for point in (10, 16):
            att = found.att[point]
            # The grid takes pairs of points together: its curve is theirs at their mean.
            curve = observation.response(att[None, None])[0, :, 0].double()
            tissue = data[:, None] - curve[:, None] * flow
            alone = float(torch.logsumexp(prior - 0.5 * (tissue / NOISE).square().sum(0), 0))
            before = [t for t in arrivals if t < float(att)]
            each = []
            for arrival in before:
                vessel = torch.tensor(artery(np.ones((1, 1, 1)), arrival)).flatten()
                left = tissue[:, :, None] - vessel[:, None, None] * lattice
                log = prior[:, None] + half_normal + edges.log()
                log = log - 0.5 * (left / NOISE).square().sum(0)
                each.append(float(torch.logsumexp(log.flatten(), 0)))
            step = float(lattice[1] - lattice[0])
            expected = logsumexp(each) + np.log(step / len(before)) - alone
            odds = float(found.within[voxel, point] - found.without[voxel, point])
            assert odds == pytest.approx(expected, abs=0.03 + 0.005 * abs(expected))


def test_a_small_artery_is_found_where_tissue_around_says_what_is_usual():
    volume = np.zeros((5, 24, 24))
    volume[:, 6:9, 4:20], volume[2, 16:18, 16:18] = 0.006, 0.02
    series, observation = scene(volume)
    first = torch.full((5, 24, 24), 1.0)
    # As a spatial estimate has it: early where arteries are, and around them.
    first[:, 5:10, 3:21] = 0.75
    evidence = arterial_evidence(observation, torch.full_like(first, 58.0))
    found = separate_arteries(evidence, first, VOXEL_MM)
    small, large = torch.tensor(volume == 0.006), torch.tensor(volume == 0.02)
    none = torch.tensor(volume == 0)
    assert float((found.artery[small] > 0.5).float().mean()) > 0.6
    assert float((found.artery[large] > 0.5).float().mean()) == 1
    assert float((found.artery[none] > 0.5).float().mean()) < 0.02
    assert float(found.volume[small].mean()) == pytest.approx(0.006, rel=0.2)
    assert float(found.volume[large].mean()) == pytest.approx(0.02, rel=0.1)
    inside = (found.volume - torch.tensor(volume)).abs() < 1.96 * found.volume_sd
    assert float(inside[small | large].float().mean()) > 0.85
    # What is left is the tissue's, with a noise that holds what isn't known of the artery.
    left, clean = found.tissue_of(series), scene(0 * volume)[0]
    off = (left.delta_m - clean.delta_m).square().mean(1).sqrt()
    before = (series.delta_m - clean.delta_m).square().mean(1).sqrt()
    assert float(off[small].mean()) < 0.4 * float(before[small].mean())
    assert bool((left.noise.noise_sd >= series.noise.noise_sd).all())
    assert (
        float(left.noise.noise_sd[small.unsqueeze(1).expand(-1, 6, -1, -1)].mean()) > 1.1 * NOISE
    )


def test_tissue_that_is_early_by_itself_is_no_artery():
    """A sharp region 0.3 s earlier than what surrounds it, as some tumours are."""
    att = np.full((5, 24, 24), 1.1)
    att[:, 8:16, 8:16] = 0.8
    _, observation = scene(np.zeros((5, 24, 24)), att)
    evidence = arterial_evidence(observation, torch.full((5, 24, 24), 55.0))
    found = separate_arteries(evidence, torch.tensor(att).float(), VOXEL_MM)
    assert float((found.artery > 0.5).float().mean()) < 0.01
    early = torch.tensor(att == 0.8)
    assert float(found.volume[early].mean()) < 0.001


def test_measurements_that_are_missing_say_nothing():
    volume = np.zeros((2, 12, 12))
    _, observation = scene(volume)
    noise = observation.noise_sd.clone()
    noise[:, :, :4] = torch.inf
    blind = replace(observation, noise_sd=noise)
    evidence = arterial_evidence(blind, torch.full((2, 12, 12), 55.0))
    found = separate_arteries(evidence, torch.full((2, 12, 12), 1.0), VOXEL_MM)
    for values in (found.artery, found.volume, found.vessels, found.vessels_sd):
        assert bool(torch.isfinite(values).all())
    assert float((found.artery[:, :4] > 0.5).float().mean()) == 0


def test_fractions_keep_one_tissue_from_speaking_for_the_other():
    """White matter later by 0.5 s in every second block: no tissue is an artery to the other."""
    late = (np.indices((3, 24, 24)).sum(0) // 4) % 2 == 1
    att = np.where(late, 1.5, 1.0)
    _, observation = scene(np.zeros((3, 24, 24)), att)
    evidence = arterial_evidence(observation, torch.full((3, 24, 24), 55.0))
    first = torch.tensor(att).float()
    fractions = torch.tensor(np.stack([~late, late])).float()
    found = separate_arteries(evidence, first, VOXEL_MM, fractions)
    assert float((found.artery > 0.5).float().mean()) < 0.005


@pytest.mark.slow
def test_the_ensemble_tells_arteries_apart_before_its_networks_look():
    """Beside arteries ATT is that of the tissue, and maps without arteries stay as they are."""
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.models.store import load_model

    volume = np.zeros((5, 24, 24))
    volume[:, 6:9, 4:20] = 0.008
    series, free = scene(volume)[0], scene(0 * volume)[0]
    one = load_model(None)
    one = replace(one, members=one.members[:1])

    def fit(data, **more):
        return Ensemble(one, tta=False, error_bars="noise", **more).fit(data)

    found, without, clean = fit(series), fit(series, arterial=False), fit(free)
    there, beside = torch.tensor(volume > 0), torch.zeros(volume.shape, dtype=torch.bool)
    beside[:, 4:11, 2:22] = True
    beside &= ~there

    def early(maps, where):
        return float((1.0 - maps.att)[where].mean())

    assert early(without, there) > 0.25
    assert early(found, there) < 0.1
    assert early(found, beside) < 0.05
    assert abs(float((found.cbf - 55)[there].mean())) < 3
    flagged = (found.flags & int(Flag.ARTERY)) > 0
    assert float(flagged[there].float().mean()) > 0.8
    assert float(found.abv[there].mean()) == pytest.approx(0.8, rel=0.15)
    assert float((clean.cbf - fit(free, arterial=False).cbf).abs().mean()) < 0.5
    # Without voxel sizes there is no window: the networks look at each voxel's own posterior.
    nowhere = fit(replace(series, affine=None))
    assert nowhere.abv is not None
