"""Data consistency by tissue against a world of known flows, its limits, and a dense solution."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import integrated, simulate
from scipy import ndimage
from slices import PROTOCOLS, measured, ribbons

from asl_bids_app.estimators import consistency, tissue_scores
from asl_bids_app.estimators.consistency import be_consistent, explained
from asl_bids_app.estimators.regional import correct_means, tissue_fractions
from asl_bids_app.estimators.tissue_scores import around, window
from asl_bids_app.series import NoiseEstimate

VOXEL = (5.0, 3.5, 3.5)
GREY, WHITE, TRANSIT = 60.0, 20.0, 1.1


def blurred(image, mask, fwhm=9.0):
    """What an estimator makes of a map that leans on its neighbours."""
    sigma = [fwhm / 2.3548 / size for size in VOXEL]
    norm = ndimage.gaussian_filter(mask.astype(float), sigma)
    return ndimage.gaussian_filter(image * mask, sigma) / np.maximum(norm, 1e-3) * mask


class World:
    """A brain of two flows, measured with noise and estimated too smoothly."""

    def __init__(self, protocol="pcasl", snr=5, flows=(GREY, WHITE), lesion=None, seed=0):
        self.fractions, self.mask = ribbons((8, 36, 36))
        grey, white = self.fractions
        self.cbf = (flows[0] * grey + flows[1] * white) * self.mask
        if lesion is not None:
            self.lesion = self.mask & (self.distance((4, 12, 18)) < 14)
            self.cbf = np.where(self.lesion, lesion * (grey + white), self.cbf)
        self.att = np.full(self.mask.shape, TRANSIT)
        self.observation = measured(PROTOCOLS[protocol], self.cbf, self.att, self.mask, snr, seed)
        self.smooth = torch.tensor(blurred(self.cbf, self.mask), dtype=torch.float32)

    def distance(self, centre):
        index = np.stack(np.meshgrid(*map(np.arange, self.mask.shape), indexing="ij"), -1)
        return np.linalg.norm((index - centre) * VOXEL, axis=-1)

    def correct(self, fractions="true", att_trust=None, **changed):
        given = self.fractions if isinstance(fractions, str) else fractions
        maps = {
            "cbf": self.smooth,
            "att": torch.tensor(self.att * self.mask, dtype=torch.float32),
            "cbf_sd": 3.0 * torch.tensor(self.mask, dtype=torch.float32),
            "att_sd": 0.1 * torch.tensor(self.mask, dtype=torch.float32),
            **changed,
        }
        tensor = None if given is None else torch.tensor(given, dtype=torch.float32)
        return be_consistent(
            self.observation, **maps, voxel_mm=VOXEL, fractions=tensor, att_trust=att_trust
        )

    def bias(self, cbf, part):
        """Bias of the mean of a pure tissue, in per cent."""
        where = self.mask & (self.fractions[part] > 0.7)
        if hasattr(self, "lesion"):
            where &= self.distance((4, 12, 18)) > 20
        return 100 * (np.asarray(cbf)[where].mean() / self.cbf[where].mean() - 1)

    def error(self, cbf, where=None):
        where = self.mask if where is None else where
        return np.abs(np.asarray(cbf) - self.cbf)[where].mean()


@pytest.mark.parametrize(("protocol", "snr"), [("pcasl", 5), ("joint", 3), ("single", 5)])
def test_means_of_tissues_come_back_to_the_truth(protocol, snr):
    world = World(protocol, snr)
    found = world.correct()
    assert world.bias(world.smooth, 0) < -6
    assert world.bias(world.smooth, 1) > 6
    assert abs(world.bias(found.cbf, 0)) < 3
    assert abs(world.bias(found.cbf, 1)) < 4
    assert world.error(found.cbf) < 0.7 * world.error(world.smooth)
    assert found.facts["TissueWeight"] == 1
    assert (found.cbf[~world.observation.mask] == 0).all()
    assert (found.cbf_sd >= 3.0 * world.observation.mask).all()


def test_voxels_that_are_not_trusted_leave_the_transit_time_of_others_alone():
    world = World(snr=5)
    # What is left of arteries: blood that is there early, in a seventh of the brain.
    spots = torch.tensor(np.random.default_rng(5).random(world.mask.shape) < 0.15) & torch.tensor(
        world.mask
    )
    early = [float(integrated(*m, np.array(TRANSIT - 0.6))) for m in PROTOCOLS["pcasl"]]
    late = [float(integrated(*m, np.array(TRANSIT))) for m in PROTOCOLS["pcasl"]]
    left = 20 * torch.tensor(early).sub(torch.tensor(late)).float()[:, None, None]
    dirty = world.observation.delta_m + left * spots[:, None]
    world.observation = replace(world.observation, delta_m=dirty)
    clean = torch.tensor(world.mask) & ~spots

    def bias(found):
        return 1000 * float((found.att - TRANSIT)[clean].mean())

    all_alike = bias(world.correct())
    trusted = bias(world.correct(att_trust=(~spots).float()))
    assert all_alike < -12
    assert abs(trusted) < 4


def test_what_is_right_already_is_left_alone():
    world = World(snr=1e4)
    found = world.correct(cbf=torch.tensor(world.cbf, dtype=torch.float32))
    torch.testing.assert_close(
        found.cbf, torch.tensor(world.cbf, dtype=torch.float32), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("kind", ["mirrored", "shifted", "of another head", "without numbers"])
def test_wrong_tissue_maps_do_no_harm(kind):
    world = World(snr=5)
    other, _ = ribbons((8, 36, 36), seed=77)
    wrong = {
        "mirrored": world.fractions[..., ::-1, :].copy(),
        "shifted": np.roll(world.fractions, 3, axis=-1),
        "of another head": other,
        "without numbers": np.full_like(world.fractions, np.nan),
    }[kind]
    found = world.correct(wrong)
    assert world.error(found.cbf) <= 1.02 * world.error(world.smooth)
    for part in (0, 1):
        where = world.mask & (world.fractions[part] > 0.7)
        assert world.error(found.cbf, where) <= 1.03 * world.error(world.smooth, where)


def test_without_fractions_a_small_change_is_not_believed_and_a_loss_is_made_good():
    world = World(snr=5)
    kept = world.correct(None)
    assert world.error(kept.cbf) <= 1.02 * world.error(world.smooth)
    assert kept.facts["ExplainedVariance"] is None
    lost = world.correct(None, cbf=0.5 * world.smooth)
    where = world.mask
    assert lost.cbf.numpy()[where].mean() == pytest.approx(world.cbf[where].mean(), rel=0.05)


@pytest.mark.parametrize("tissue", ["true", None])
def test_a_phantom_without_flow_reads_zero(tissue):
    world = World(snr=5, flows=(0.0, 0.0))
    rng = np.random.default_rng(5)
    guess = torch.tensor((6 + rng.normal(0, 2, world.mask.shape)) * world.mask)
    found = world.correct(tissue, cbf=guess.float(), cbf_sd=4.0 * world.observation.mask)
    inside = world.mask
    assert abs(found.cbf.numpy()[inside].mean()) < 1
    held = np.abs(found.cbf.numpy()) <= 1.96 * found.cbf_sd.numpy()
    assert held[inside].mean() > 0.93


def test_a_lesion_stays_what_it_is_and_so_does_what_is_around():
    world = World(snr=5, lesion=9.0)
    world.smooth = torch.tensor(
        np.where(world.lesion, world.cbf, blurred(world.cbf, world.mask)), dtype=torch.float32
    )
    found = world.correct()
    deep = world.mask & (world.distance((4, 12, 18)) < 9)
    before = (world.smooth.numpy() - world.cbf)[deep].mean()
    after = (found.cbf.numpy() - world.cbf)[deep].mean()
    assert abs(after - before) < 1.5
    ring = world.mask & ~world.lesion & (world.distance((4, 12, 18)) < 26)
    assert world.error(found.cbf, ring) < world.error(world.smooth, ring)


def test_a_few_wild_voxels_change_little():
    world = World(snr=5)
    signal = world.observation.delta_m.clone()
    rng = np.random.default_rng(1)
    places = np.argwhere(world.mask)[rng.choice(int(world.mask.sum()), 40, replace=False)]
    for s, y, x in places:
        signal[s, :, y, x] += 0.2
    world.observation = replace(world.observation, delta_m=signal)
    assert abs(world.bias(world.correct().cbf, 0)) < 4


def test_late_arrival_everywhere_is_seen_where_several_delays_tell():
    world = World(snr=10)
    early = torch.tensor((world.att - 0.06) * world.mask, dtype=torch.float32)
    exact = torch.tensor(world.cbf, dtype=torch.float32)
    found = world.correct(cbf=exact, att=early)
    inside = world.mask
    before = (early.numpy() - world.att)[inside].mean()
    after = (found.att.numpy() - world.att)[inside].mean()
    assert abs(after) < 0.6 * abs(before)
    single = World("single", snr=10).correct(att=early)
    torch.testing.assert_close(single.att, early)


def test_one_window_is_the_dense_weighted_least_squares(monkeypatch):
    """One step, no robust weights: the brain's numbers first, then one voxel's, both dense."""
    monkeypatch.setattr(tissue_scores, "OUTLIER", 1e6)
    monkeypatch.setattr(tissue_scores, "UNLIKE_LEAST", 1e6)
    monkeypatch.setattr(tissue_scores, "MOST_STEPS", 1)
    monkeypatch.setattr(consistency, "PASSES", 1)
    monkeypatch.setattr(consistency, "FIT", (-2.0, -1.0))
    solve = tissue_scores.solve_windows
    monkeypatch.setattr(
        consistency, "solve_windows", lambda *a, **k: solve(*a, **{**k, "most": 1})
    )
    world = World("single", snr=5)
    found = world.correct()
    grey, white = world.fractions
    shares = np.stack([grey, white, 1 - grey - white]) * world.mask
    fine = [8.0 / 2.3548 / size for size in VOXEL]

    def near(image):
        kernels = [
            np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)) / s) ** 2)
            for n, s in zip(image.shape, fine, strict=True)
        ]
        return np.einsum("as,by,cx,syx->abc", *kernels, image, optimize=True)

    detail = [part - near(part) / near(world.mask * 1.0) for part in shares[:2]]
    basis = np.stack([*shares, *detail]) * world.mask
    curve = integrated("PCASL", 1.8, 1.8, TRANSIT)
    noise = float(world.observation.noise_sd[0, 0, 0, 0])
    residual = world.observation.delta_m[:, 0].numpy() - curve * world.smooth.numpy()
    place = (4, 18, 18)
    index = np.stack(np.meshgrid(*map(np.arange, world.mask.shape), indexing="ij"), -1)
    far = ((index - place) * VOXEL) ** 2
    kernel = np.exp(-0.5 * far.sum(-1) / (25.0 / 2.3548) ** 2) * world.mask
    tissues = (curve * shares).reshape(3, -1).T
    normal = tissues.T @ tissues / noise**2 + np.eye(3) / 50.0**2
    overall = np.linalg.solve(normal, tissues.T @ (residual * world.mask).ravel() / noise**2)
    residual = residual - np.tensordot(overall, curve * shares, 1)
    weight = (kernel / noise**2).ravel()
    design = (curve * basis).reshape(5, -1).T
    normal = (design.T * weight) @ design + np.eye(5) / 10.0**2
    delta = np.linalg.solve(normal, (design.T * weight) @ residual.ravel())
    whole = shares[(slice(None), *place)] @ overall
    expected = world.smooth.numpy()[place] + whole + basis[(slice(None), *place)] @ delta
    assert found.cbf.numpy()[place] == pytest.approx(expected, abs=2e-3)


def test_windows_sum_as_convolution_does():
    image = torch.rand(2, 5, 9, 11)
    windows = [window(n, v, 20.0, image) for n, v in zip((5, 9, 11), VOXEL, strict=True)]
    sigma = [20.0 / 2.3548 / size for size in VOXEL]
    expected = ndimage.gaussian_filter(
        image[1].double().numpy(), sigma, mode="constant", truncate=12
    )
    scale = np.prod([s * np.sqrt(2 * np.pi) for s in sigma])
    np.testing.assert_allclose(around(image, windows)[1].numpy(), expected * scale, rtol=2e-3)


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 1, 20), (2, 24, 24)])
def test_thin_and_flat_images(shape):
    fractions, _ = ribbons((4, 24, 24))
    fractions = fractions[:, : shape[0], : shape[1], : shape[2]]
    mask = np.ones(shape, bool)
    cbf = GREY * fractions[0] + WHITE * fractions[1]
    observation = measured(PROTOCOLS["pcasl"], cbf, np.full(shape, TRANSIT), mask, 10)
    low = torch.tensor(0.8 * cbf, dtype=torch.float32)
    full = torch.full(shape, TRANSIT)
    given = torch.tensor(fractions, dtype=torch.float32)
    found = be_consistent(observation, low, full, full, full, VOXEL, given)
    assert torch.isfinite(found.cbf).all()
    assert found.cbf.mean().item() == pytest.approx(cbf.mean(), rel=0.06)


def test_an_empty_mask_and_a_tissue_that_is_nowhere():
    world = World(snr=5)
    nothing = replace(world.observation, mask=torch.zeros_like(world.observation.mask))
    zero = torch.zeros(world.mask.shape)
    found = be_consistent(
        nothing, zero, zero, zero, zero, VOXEL, torch.zeros(2, *world.mask.shape)
    )
    assert (found.cbf == 0).all()
    only_grey = np.stack([world.fractions[0], np.zeros_like(world.fractions[0])])
    assert np.isfinite(world.correct(only_grey).cbf.numpy()).all()


def test_unusable_arguments_are_refused():
    world = World()
    with pytest.raises(ValueError, match="voxel_mm"):
        be_consistent(world.observation, *[world.smooth] * 4, (0.0, 3.0, 3.0))
    with pytest.raises(ValueError, match="fractions"):
        be_consistent(world.observation, *[world.smooth] * 4, VOXEL, torch.zeros(2, 3, 3, 3))


def test_explained_variance_is_that_of_linear_regression():
    rng = np.random.default_rng(0)
    x, noise = rng.random((2, 2, 30, 30)), rng.normal(0, 8, (2, 30, 30))
    y = 50 * x[0] + 10 * x[1] + noise
    design = np.c_[x.reshape(2, -1).T, np.ones(y.size)]
    left = y.ravel() - design @ np.linalg.lstsq(design, y.ravel(), rcond=None)[0]
    share = 1 - left.var() / y.var()
    mask = torch.ones(y.shape, dtype=torch.bool)
    assert explained(torch.tensor(y), torch.tensor(x), mask) == pytest.approx(share, abs=1e-6)
    assert explained(torch.ones(y.shape), torch.tensor(x), mask) == 0


def test_sizes_and_fractions_have_slices_first():
    affine = np.diag([3.0, 3.5, 6.0, 1.0])
    series = simulate(PROTOCOLS["pcasl"], np.full((1, 2, 2), 50.0), np.ones((1, 2, 2)))
    series = replace(series, affine=affine)
    assert series.voxel_mm == (6.0, 3.0, 3.5)
    assert replace(series, slice_axis=0).voxel_mm == (3.0, 3.5, 6.0)
    maps = {key: np.full((4, 5, 6), value) for key, value in (("gm", 0.3), ("wm", 0.6))}
    found = tissue_fractions(maps, 2)
    assert found.shape == (2, 6, 4, 5)
    assert found[1].mean().item() == pytest.approx(0.6)
    assert tissue_fractions({}, 2) is None
    assert tissue_fractions(None, 2) is None


def test_failed_voxels_stay_and_the_residual_is_of_the_new_maps():
    from asl_bids_app.estimators.base import Flag, ParameterMaps

    fractions, mask = ribbons((8, 36, 36))
    cbf = (GREY * fractions[0] + WHITE * fractions[1]) * mask
    series = simulate(PROTOCOLS["pcasl"], cbf, np.full(mask.shape, TRANSIT), noise_sd=0.001)
    series = replace(
        series, mask=torch.tensor(mask), delta_m=series.delta_m * torch.tensor(mask)[:, None]
    )
    flat = torch.tensor(mask, dtype=torch.float32)
    flags = torch.zeros(mask.shape, dtype=torch.uint8)
    place = (3, 18, 18)
    flags[place] = int(Flag.FAILED)
    low = torch.tensor(0.8 * cbf, dtype=torch.float32)
    low[place] = 0
    maps = ParameterMaps(
        low, TRANSIT * flat, 3 * flat, 0.1 * flat, torch.zeros_like(series.delta_m), flags, "e"
    )
    noise = torch.full_like(series.delta_m, 0.001)
    given = torch.tensor(fractions, dtype=torch.float32)
    series = replace(series, noise=NoiseEstimate(noise, {}))
    found = correct_means(maps, series, VOXEL, given)
    facts = found.consistency
    assert found.cbf[place] == 0
    assert facts["MeanChangeGM"] > 3
    other = (4, 17, 17)
    curve = [float(integrated(*m, np.array(float(found.att[other])))) for m in PROTOCOLS["pcasl"]]
    expected = series.delta_m[4, :, 17, 17].numpy() - float(found.cbf[other]) * np.array(curve)
    np.testing.assert_allclose(found.residual[4, :, 17, 17], expected, atol=2e-5)


@pytest.mark.slow
def test_a_usual_volume_takes_little_memory():
    shape = (24, 64, 64)
    rng = np.random.default_rng(0)
    fractions = rng.random((2, *shape)) / 2
    y, x = (np.linspace(-1, 1, n) for n in shape[1:])
    mask = np.broadcast_to((y[:, None] ** 2 + x[None] ** 2) < 0.5, shape).copy()
    cbf = 60 * fractions[0] + 20 * fractions[1]
    observation = measured(PROTOCOLS["pcasl"], cbf, np.full(shape, TRANSIT), mask, 5)
    flat = torch.ones(shape)
    given = torch.tensor(fractions, dtype=torch.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    be_consistent(observation, torch.tensor(cbf).float(), TRANSIT * flat, flat, flat, VOXEL, given)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


@pytest.mark.parametrize("given", [True, False], ids=["with fractions", "without"])
def test_the_fit_of_a_series_is_corrected_unless_told(given):
    from slices import series_of

    from asl_bids_app.estimators.estimate import estimate

    fractions, mask = ribbons((4, 24, 24))
    cbf = (GREY * fractions[0] + WHITE * fractions[1]) * mask
    series = series_of(PROTOCOLS["pcasl"], cbf, np.full(mask.shape, TRANSIT), mask, 4)
    series = replace(series, affine=np.diag([3.5, 3.5, 5.0, 1.0]))
    volumes = [np.moveaxis(part, 0, 2) for part in fractions]
    tissue = dict(zip(("gm", "wm"), volumes, strict=True)) if given else None
    settings = {"tta": False, "error_bars": "noise", "tissue": tissue}
    alone = estimate(series, "ensemble", consistent=False, **settings)
    found = estimate(series, "ensemble", **settings)
    assert alone.consistency is None
    grey = mask & (fractions[0] > 0.7)

    def bias(estimated):
        return abs(estimated.cbf.numpy()[grey].mean() / cbf[grey].mean() - 1)

    if given:
        assert found.consistency["TissueWeight"] > 0
        assert bias(found) < 0.6 * bias(alone)
    else:
        assert found.consistency["ExplainedVariance"] is None
        assert bias(found) <= bias(alone) + 0.02
