"""Phantoms: ranges, anatomy, mixing of tissues, diseases and reproducibility."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from asl_bids_app.training.phantoms.conditions import draw_physiology
from asl_bids_app.training.phantoms.drawing import (
    ANATOMIES,
    CONDITIONS,
    TISSUES,
    PhantomConfig,
    draw,
)
from asl_bids_app.training.phantoms.head_anatomy import Anatomy, mni_slices, plane_places
from asl_bids_app.training.phantoms.sampling import Sampling
from asl_bids_app.training.random_draws import Stacks
from asl_bids_app.training.random_fields import correlated, mosaic_field, smooth_field

GREY, WHITE, FLUID, CORE, PENUMBRA, DELAYED = 1, 2, 3, 4, 5, 6


def only(condition, **settings):
    weights = {f"{name}_weight": float(name == condition) for name in CONDITIONS}
    return PhantomConfig(**weights, **settings)


@pytest.fixture(scope="module")
def many():
    """A few hundred phantoms of the default settings."""
    return draw(PhantomConfig(), 320, seed=5)


def test_same_seed_same_phantoms():
    first, again = (draw(PhantomConfig(size=32), 24, seed=9) for _ in range(2))
    other = draw(PhantomConfig(size=32), 24, seed=10)
    for item in fields(first):
        assert torch.equal(getattr(first, item.name), getattr(again, item.name))
    assert not torch.equal(first.cbf, other.cbf)


def test_ranges(many):
    assert many.cbf.shape == many.att.shape == many.tissue.shape == (320, 64, 64)
    assert torch.isfinite(many.cbf).all()
    assert torch.isfinite(many.att).all()
    mask = many.mask
    tumour = (many.condition == CONDITIONS.index("tumour"))[:, None, None]
    assert many.cbf.min() >= 0
    assert many.cbf[~tumour.expand_as(mask)].max() <= 150
    assert 150 < many.cbf.max() <= 200
    assert many.att[mask].min() >= 0.3
    assert many.att[mask].max() <= 3.8
    assert (many.cbf[~mask] == 0).all()
    assert (many.att[~mask] == 0).all()
    assert mask.flatten(1).sum(1).min() >= PhantomConfig().smallest_brain


def test_everything_named_occurs(many):
    assert set(many.tissue.unique().tolist()) == set(TISSUES)
    assert set(many.condition.unique().tolist()) == set(range(len(CONDITIONS)))
    assert set(many.anatomy.unique().tolist()) == set(range(len(ANATOMIES)))
    share = (many.anatomy == ANATOMIES.index("abstract")).float().mean()
    # 4 standard deviations of a binomial share around the setting.
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 320)


def test_healthy_brains_look_like_the_literature():
    """Grey matter 40 to 80 mL/100 g/min, 2 to 4 times white matter, which blood reaches later."""
    config = only("healthy", abstract_fraction=0.0, small_lesions=0.0, wide_physiology=0.0)
    phantoms = draw(config, 64, seed=1)
    grey, white = (list(phantoms.tissue == code) for code in (GREY, WHITE))
    cbf = np.array(
        [
            (float(c[g].quantile(0.75)), float(c[w].quantile(0.25)))
            for c, g, w in zip(phantoms.cbf, grey, white, strict=True)
            if g.sum() > 20 and w.sum() > 20
        ]
    )
    assert 40 < np.median(cbf[:, 0]) < 80
    assert 2 < np.median(cbf[:, 0] / cbf[:, 1]) < 5
    late = [
        float(a[w].mean() - a[g].mean())
        for a, g, w in zip(phantoms.att, grey, white, strict=True)
        if g.sum() > 20 and w.sum() > 20
    ]
    assert np.mean(late) > 0.1
    assert 0.7 < float(phantoms.att[phantoms.tissue == GREY].median()) < 1.5


def test_ageing_widens_ventricles_and_delays():
    settings = {"abstract_fraction": 0.0, "small_lesions": 0.0, "wide_physiology": 0.0}
    young, old = (draw(only(name, **settings), 64, seed=2) for name in ("healthy", "elderly"))

    def fluid(phantoms):
        return float((phantoms.tissue == FLUID).sum() / phantoms.mask.sum())

    assert fluid(old) > 1.5 * fluid(young)
    assert old.att[old.mask].mean() > young.att[young.mask].mean() + 0.15


def test_stroke_core_lacks_flow_and_penumbra_is_late():
    phantoms = draw(only("stroke", small_lesions=0.0), 96, seed=3)
    normal = (phantoms.tissue == GREY) | (phantoms.tissue == WHITE)
    core, rim = phantoms.tissue == CORE, phantoms.tissue == PENUMBRA
    assert (core.flatten(1).sum(1) > 0).float().mean() > 0.6
    # Luxury perfusion is rarer than a lack of flow.
    low = [
        c[k].mean() < 0.5 * c[m].mean()
        for c, k, m in zip(phantoms.cbf, core, normal, strict=True)
        if k.any()
    ]
    assert 0.6 < np.mean(low) < 0.98
    late = [
        a[k].mean() > a[m].mean()
        for a, k, m in zip(phantoms.att, rim, normal, strict=True)
        if k.sum() > 5
    ]
    assert np.mean(late) > 0.85


def test_stenosis_delays_one_hemisphere():
    phantoms = draw(only("stenosis", small_lesions=0.0, abstract_fraction=0.0), 64, seed=4)
    delays = [
        float(a[t == DELAYED].mean() - a[(t == GREY) | (t == WHITE)].mean())
        for a, t in zip(phantoms.att, phantoms.tissue, strict=True)
        if (t == DELAYED).sum() > 20 and ((t == GREY) | (t == WHITE)).sum() > 20
    ]
    assert len(delays) > 20
    assert np.mean(np.array(delays) > 0.2) > 0.8


def test_small_lesions_are_small_and_common(many):
    spots = (many.tissue >= 10) & (many.tissue <= 12)
    with_spots = spots.flatten(1).any(1)
    assert 0.25 < with_spots.float().mean() < 0.5
    # Single ones (three pixels across have an area of about seven) are among them.
    area = spots[with_spots].flatten(1).sum(1)
    assert ((area >= 4) & (area <= 12)).float().mean() > 0.1
    assert area.float().median() < 60


def test_sharp_and_smooth_edges(many):
    """Steps within one pixel occur, and gentle ones."""
    step = (many.cbf[:, 1:] - many.cbf[:, :-1]).abs()
    inside = many.mask[:, 1:] & many.mask[:, :-1]
    steepest = (step * inside).flatten(1).amax(1) / many.cbf.flatten(1).amax(1)
    assert (steepest > 0.6).float().mean() > 0.05
    assert (steepest < 0.35).float().mean() > 0.05


def test_tissues_mix_by_volume_and_transit_by_flow():
    """Half grey, half white: CBF is their mean, ATT their mean weighted by flow."""
    config = PhantomConfig(size=16, mosaic=0.0)
    kinds = {"grey": [1.0, 0, 0], "white": [0, 1.0, 0], "mixed": [0.5, 0.5, 0]}
    place = torch.zeros(8, 3, 16, 16)
    maps = {}
    for name, parts in kinds.items():
        fractions = torch.tensor(parts)[None, :, None, None].expand(8, 3, 16, 16)
        anatomy = Anatomy(fractions, place, torch.full((8, 2), 4.0), torch.zeros(8))
        generator = torch.Generator().manual_seed(0)
        maps[name] = draw_physiology(config, anatomy, torch.zeros(8, dtype=torch.long), generator)
    grey, white, mixed = (maps[name] for name in kinds)
    torch.testing.assert_close(mixed.cbf, (grey.cbf + white.cbf) / 2)
    expected = (grey.cbf * grey.att + white.cbf * white.att) / (grey.cbf + white.cbf)
    torch.testing.assert_close(mixed.att, expected, atol=2e-3, rtol=0)
    assert (grey.cbf > 1.2 * white.cbf).float().mean() > 0.95


def _tilt(config, seed):
    """Degrees between the planes' normals and the nearest axis of the head."""
    stacks = Stacks(torch.Generator().manual_seed(seed))
    sampling = Sampling(torch.full((64, 2), 3.0), torch.full((64,), 5.0), torch.full((64,), 5.0))
    place = plane_places(config, sampling, 8, stacks)
    # Positions of equal depth: the same sub-pixel of different pixels.
    down = place[:, :, 8, 0] - place[:, :, 0, 0]
    right = place[:, :, 0, 8] - place[:, :, 0, 0]
    normal = torch.linalg.cross(down, right)
    cosine = normal.abs().amax(1) / normal.norm(dim=1)
    return torch.rad2deg(torch.arccos(cosine.clamp(max=1)))


def test_held_out_anatomy_differs():
    config = PhantomConfig()
    trained = _tilt(config, 0)
    held_out = _tilt(replace(config, tilt=config.held_out_tilt), 0)
    # Two tilts of up to 20 degrees; at least one of 25 (heads are scaled, too).
    assert trained.max() < 32
    assert held_out.median() > trained.max()
    assert (held_out > 20).float().mean() > 0.95


def test_held_out_phantoms_use_the_held_out_settings(monkeypatch):
    used = []

    def spy(config, *arguments):
        used.append(config)
        return mni_slices(config, *arguments)

    monkeypatch.setattr("asl_bids_app.training.phantoms.drawing.mni_slices", spy)
    for held_out in (False, True):
        draw(PhantomConfig(held_out=held_out, size=32, smallest_brain=20), 8, seed=1)
    trained, kept = used[0], used[-1]
    assert trained.tilt == PhantomConfig().tilt
    assert kept.tilt == PhantomConfig().held_out_tilt
    assert kept.fold_warp[1] == pytest.approx(1.6 * trained.fold_warp[1])


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="voxel_size: found"):
        PhantomConfig(voxel_size=(2.0, 80.0))
    with pytest.raises(ValueError, match="expected a range"):
        PhantomConfig(att=(2.0, 0.5))
    with pytest.raises(ValueError, match="abstract_fraction"):
        PhantomConfig(abstract_fraction=1.5)
    with pytest.raises(ValueError, match="at least one"):
        draw(only("nothing"), 2, seed=0)
    with pytest.raises(ValueError, match="smallest_brain: 300 pixels don't fit"):
        draw(PhantomConfig(size=16, smallest_brain=300), 2, seed=0)


def test_smooth_field_statistics():
    """Unit variance everywhere; correlation exp(-d²/4σ²)."""
    generator = torch.Generator().manual_seed(0)
    sigma = 6.0
    field = smooth_field(generator, 4, 48, torch.full((500,), sigma))
    assert abs(float(field.mean())) < 0.02
    torch.testing.assert_close(field.var((0, 1)), torch.ones(48, 48), atol=0.15, rtol=0)
    for distance in (3, 6, 9):
        found = float((field[..., distance:] * field[..., :-distance]).mean())
        assert abs(found - math.exp(-(distance**2) / (4 * sigma**2))) < 0.03


@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.5])
def test_correlated_noise_statistics(sigma):
    generator = torch.Generator().manual_seed(0)
    noise = correlated(generator, 4, 24, 32, torch.full((500,), sigma))
    # Of 2000 values each; also at corners.
    torch.testing.assert_close(noise.var((0, 1)), torch.ones(24, 32), atol=0.15, rtol=0)
    assert abs(float(noise.mean())) < 0.01
    weights = np.exp(-(np.arange(-12, 13) ** 2) / (2 * max(sigma, 1e-3) ** 2))
    for distance in (1, 2, 3):
        # The autocorrelation of the sampled Gaussian, by direct summation.
        theory = (weights[distance:] * weights[:-distance]).sum() / (weights**2).sum()
        across = float(
            (noise[:, :, 8:16, 10 + distance : 22 + distance] * noise[:, :, 8:16, 10:22]).mean()
        )
        down = float(
            (noise[:, :, 8 + distance : 14 + distance, 10:22] * noise[:, :, 8:14, 10:22]).mean()
        )
        assert abs(across - theory) < 0.02
        assert abs(down - theory) < 0.02


def test_mosaic_has_edges_without_blur():
    field = mosaic_field(torch.Generator().manual_seed(0), 64, 48, 10)
    cells = [len(image.unique()) for image in field]
    # Cells at the rim are cut, so that there are some more than in a mosaic without end.
    assert 9 < np.mean(cells) < 16
    assert max(cells) < 30


def test_preview_by_the_command(tmp_path, monkeypatch):
    from matplotlib.image import imread

    from asl_bids_app.training.cli import main
    from asl_bids_app.training.phantoms.preview_sheet import preview_sheet

    # One phantom of each condition rather than four.
    monkeypatch.setattr(preview_sheet, "__defaults__", (1, *preview_sheet.__defaults__[1:]))

    path = tmp_path / "new" / "sheet.png"
    small = ["--set", "phantoms.size=32"]
    assert main(["preview", "--config", "smoke", "--output", str(path), *small]) == 0
    image = imread(path)
    assert image.shape[0] > 200
    assert image.std() > 0.1
