"""Stacks of neighbouring slices: geometry, what slices share, and what a network sees of them."""

import math

import numpy as np
import pytest
import torch
from noise_settings import thermal_only

from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.data.augmentation import cropped, turned
from asl_bids_app.training.data.phantom_store import PhantomStore
from asl_bids_app.training.data.shards import generate
from asl_bids_app.training.phantoms.drawing import draw
from asl_bids_app.training.phantoms.shapes import draw_blobs, random_centre
from asl_bids_app.training.random_draws import Stacks, choose, normal, pick, uniform, widest
from asl_bids_app.training.random_fields import correlated, mosaic_field, smooth_field
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.simulate.simulation import parted, simulate

DEPTH = 3


def stacks(seed=0, **rest):
    return Stacks(torch.Generator().manual_seed(seed), DEPTH, **rest)


@pytest.fixture(scope="module")
def phantoms():
    return draw(PhantomConfig(slices=DEPTH, size=32, smallest_brain=60), 24, seed=3)


def correlation(a, b):
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


def alike(values):
    """Whether the slices of a stack have the same values."""
    rows = values.reshape(-1, DEPTH, *values.shape[1:])
    return bool((rows == rows[:, :1]).all())


def test_numbers_are_drawn_once_a_stack():
    source = stacks()
    drawn = [
        uniform(source, (30,), (0.0, 1.0)),
        uniform(source, (30, 2), (0.0, 1.0)),
        normal(source, (30, 4)),
        choose(source, 30, [0.2] * 5),
        pick(source, torch.rand(30, 7)),
    ]
    for values in drawn:
        assert alike(values)
        assert len(values.unique(dim=0)) > 3
    with pytest.raises(ValueError, match="multiple of 3"):
        uniform(source, (31,), (0.0, 1.0))


def test_weights_of_all_slices_count():
    weights = torch.zeros(6, 5)
    weights[1, 4] = weights[3, 2] = 1.0  # only the second and the fourth slice have any
    assert pick(stacks(), weights).tolist() == [4, 4, 4, 2, 2, 2]
    assert widest(stacks(), torch.tensor([1, 7, 2, 5, 3, 4])).tolist() == [7, 7, 7, 5, 5, 5]


@pytest.mark.parametrize("gap", [0.5, 1.5, 4.0])
def test_fields_go_on_through_the_slices_as_within_one(gap):
    """The autocorrelation is exp(-d²/4σ²) in every direction."""
    sigma = torch.full((3 * 150,), 4.0)
    field = smooth_field(stacks(gap=gap), 1, 48, sigma, nodes=32)[:, 0]
    field = field.reshape(150, DEPTH, 48, 48)
    assert float(field.square().mean()) == pytest.approx(1.0, abs=0.1)
    for steps in (1, 2):
        expected = math.exp(-((steps * gap) ** 2) / (4 * 16))
        assert correlation(field[:, 0], field[:, steps]) == pytest.approx(expected, abs=0.05)
        assert correlation(field[..., :-2], field[..., 2:]) == pytest.approx(
            math.exp(-4 / 64), abs=0.05
        )


def test_finer_pixels_lie_nearer_to_each_other_than_the_slices():
    """`gap` is in pixels of the slice; a field of twice as many has them half as large."""
    field = smooth_field(stacks(gap=2.0, size=32), 1, 64, torch.full((600,), 6.0), nodes=32)[:, 0]
    field = field.reshape(200, DEPTH, 64, 64)
    assert correlation(field[:, 0], field[:, 1]) == pytest.approx(math.exp(-16 / 144), abs=0.05)


def test_fine_noise_is_correlated_by_what_is_told():
    sigma = torch.full((300,), 0.6)
    apart = correlated(stacks(gap=9.0), 1, 24, 24, sigma).reshape(100, DEPTH, 24, 24)
    assert abs(correlation(apart[:, 0], apart[:, 1])) < 0.02
    told = correlated(stacks(), 1, 24, 24, sigma, through=torch.full((300,), 0.8))
    told = told.reshape(100, DEPTH, 24, 24)
    expected = math.exp(-1 / (4 * 0.64))
    assert correlation(told[:, 0], told[:, 1]) == pytest.approx(expected, abs=0.03)
    assert float(told.square().mean()) == pytest.approx(1.0, abs=0.03)


def test_mosaics_change_the_more_the_further_slices_are_apart():
    def same(gap):
        field = mosaic_field(stacks(gap=gap), 60, 32, 12).reshape(20, DEPTH, 32, 32)
        return float((field[:, 0] == field[:, 1]).float().mean())

    near, far = same(0.5), same(8.0)
    assert near > 0.9
    assert far < 0.6


def test_a_lesion_is_a_ball():
    """The area of the slices of a ball is π (r² - z²)."""
    n, radius, gap = 3 * 64, 9.0, 3.0
    centre = torch.tensor([[1, 24, 24]]).expand(n, 3)
    size = torch.full((n, 2), radius)
    blob = draw_blobs(centre, size, 48, (0.1, 0.1), (0.0, 0.0), stacks(gap=gap))
    area = blob.profile().sum((1, 2)).reshape(64, DEPTH).mean(0)
    # The middle lies anywhere within its slice.
    off = np.linspace(-0.5, 0.5, 101)
    for level, found in enumerate(area):
        z = gap * (level - 1 - off)
        assert float(found) == pytest.approx(np.pi * np.mean(radius**2 - z**2), rel=0.03)


def test_a_lesion_lies_where_a_slice_of_the_stack_lets_it():
    weight = torch.zeros(6, 8, 9)
    weight[2, 5, 7] = weight[4, 1, 3] = 2.0
    assert random_centre(weight, stacks()).tolist() == [[2, 5, 7]] * 3 + [[1, 1, 3]] * 3


def test_neighbours_are_the_same_head(phantoms):
    assert phantoms.slices == DEPTH
    assert phantoms.count == 24
    assert len(phantoms) == 72
    assert phantoms.slice_number.tolist() == [0, 1, 2] * 24
    assert phantoms.inner.tolist() == [False, True, False] * 24
    assert alike(phantoms.condition)
    assert alike(phantoms.anatomy)
    assert (phantoms.mask[phantoms.inner].flatten(1).sum(1) >= 60).all()
    stacked = phantoms.mask.reshape(-1, DEPTH, 32, 32)
    beside, strange = [], []
    for quantity in (phantoms.cbf, phantoms.att):
        values = quantity.reshape(-1, DEPTH, 32, 32)
        both = stacked[:, 0] & stacked[:, 1]
        beside.append(correlation(values[:, 0][both], values[:, 1][both]))
        both = stacked[:-1, 0] & stacked[1:, 1]
        strange.append(correlation(values[:-1, 0][both], values[1:, 1][both]))
    assert min(beside) > 0.7
    assert max(strange) < 0.5


def test_pick_takes_whole_phantoms(phantoms):
    some = phantoms.pick(torch.tensor([5, 2]))
    assert torch.equal(some.cbf, torch.cat([phantoms.cbf[15:18], phantoms.cbf[6:9]]))
    assert some.slice_number.tolist() == [0, 1, 2] * 2
    assert torch.equal(phantoms.pick(slice(1, 3)).att, phantoms.att[3:9])


def test_slices_are_cut_and_turned_together(phantoms):
    """Each slice of a phantom carries its number as a map; rows and columns must agree."""
    pixels = torch.arange(32 * 32.0).reshape(1, 32, 32)
    marked = phantoms.pick(slice(0, 12))
    level = marked.slice_number.float()[:, None, None]
    marked = type(marked)(
        pixels + 10_000 * level, marked.att, marked.tissue, marked.condition, marked.anatomy,
        marked.slice_number, marked.layers,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    done = cropped(turned(marked, generator), 16, generator).cbf.reshape(12, DEPTH, 16, 16)
    place = done % 10_000
    assert (place == place[:, :1]).all()
    levels = (done // 10_000)[..., 0, 0].tolist()
    assert [0.0, 1.0, 2.0] in levels
    assert [2.0, 1.0, 0.0] in levels
    assert all(row in ([0.0, 1.0, 2.0], [2.0, 1.0, 0.0]) for row in levels)
    assert len({float(p[0, 0, 0]) for p in place}) > 6


def test_files_hold_whole_phantoms(tmp_path):
    config = PhantomConfig(slices=DEPTH, size=32, smallest_brain=60)
    manifest = generate(config, tmp_path, 12, seed=7, shard_size=5)
    assert manifest.phantoms == 12
    assert sum(manifest.counts("conditions").values()) == 12
    store = PhantomStore(tmp_path)
    assert len(store) == 12
    first = store.first(7)
    assert first.count == 7
    assert first.slice_number.tolist() == [0, 1, 2] * 7
    some = store.take(np.array([1, 0, 1]), np.array([1, 3, 0]))
    expected = first.pick(torch.tensor([6, 3, 5]))
    assert torch.equal(some.cbf, expected.cbf)


def test_slices_share_the_scanner_but_not_the_noise(phantoms):
    generator = torch.Generator().manual_seed(1)
    physics = draw_physics(DomainConfig(), phantoms.count, generator)
    batch = simulate(phantoms, physics, NoiseConfig(), generator)
    assert alike(batch.snr)
    for name in ("delay", "label_duration", "efficiency", "t1_blood", "calibration_uncertainty"):
        assert alike(getattr(batch.observation, name))
    assert alike(batch.physics.truth.t1_blood)
    assert torch.equal(batch.asked, phantoms.inner)
    assert batch.observation.slice_number.tolist() == [0, 1, 2] * 24

    physics = draw_physics(DomainConfig("pcasl 6", spread=0.0), phantoms.count, generator)
    quiet = simulate(phantoms, physics, thermal_only(1e9), generator).observation.delta_m
    noisy = simulate(phantoms, physics, thermal_only(5.0), generator).observation.delta_m
    noise = (noisy - quiet).reshape(-1, DEPTH, 6, 32, 32)
    both = phantoms.mask.reshape(-1, DEPTH, 32, 32)[:, :2].all(1)[:, None].expand(-1, 6, -1, -1)
    assert abs(correlation(noise[:, 0][both], noise[:, 1][both])) < 0.02


def test_noise_may_be_correlated_between_slices(phantoms):
    """As interpolation by a motion correction leaves it."""
    generator = torch.Generator().manual_seed(1)
    physics = draw_physics(DomainConfig("pcasl 6", spread=0.0), phantoms.count, generator)
    quiet = simulate(phantoms, physics, thermal_only(1e9), generator).observation.delta_m
    noise = NoiseConfig(
        snr=(5.0, 5.0), noise_type="gaussian", correlation=(0.7, 0.7), correlation_chance=1.0,
        g_factor=(0.0, 0.0), physiological=(0.0, 0.0), drift=(0.0, 0.0), spike_chance=0.0,
        motion=(0.0, 0.0), pair_motion=(0.0, 0.0),
    )  # fmt: skip
    noisy = simulate(phantoms, physics, noise, generator).observation.delta_m
    found = (noisy - quiet).reshape(-1, DEPTH, 6, 32, 32)
    both = phantoms.mask.reshape(-1, DEPTH, 32, 32)[:, :2].all(1)[:, None].expand(-1, 6, -1, -1)
    expected = math.exp(-1 / (4 * 0.49))
    assert correlation(found[:, 0][both], found[:, 1][both]) == pytest.approx(expected, abs=0.05)


def test_some_neighbours_are_hidden(phantoms):
    generator = torch.Generator().manual_seed(1)
    physics = draw_physics(DomainConfig("pcasl 6"), phantoms.count, generator)
    batch = simulate(phantoms, physics, thermal_only(5.0), generator)

    def beside(made):
        number = made.observation.slice_number
        return (number[1:] == number[:-1] + 1).tolist()

    whole = ([True, True, False] * 24)[:-1]
    assert beside(batch) == whole
    assert beside(parted(batch, 0.0, generator)) == whole
    assert not any(beside(parted(batch, 1.0, generator)))
    found = beside(parted(batch, 0.5, generator))
    assert 14 <= sum(found) <= 34  # 24 of 48, within three standard deviations
    assert all(w or not f for f, w in zip(found, whole, strict=True))
