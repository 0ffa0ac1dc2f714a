"""From volumes to ΔM/M0: M0 of each kind, the mask, zeros, and temporal signal-to-noise."""

import nibabel as nib
import numpy as np
import pytest
from runs import ball, grid, moved, planned, prepared, world

from asl_bids_app.bids.acquisition import M0Input, M0Kind
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess import tissue
from asl_bids_app.preprocess.find_m0 import brain_covered, displacement, find_m0
from asl_bids_app.preprocess.find_mask import OfferedMask
from asl_bids_app.preprocess.moved import correct_motion
from asl_bids_app.preprocess.prepare import prepare_run
from asl_bids_app.preprocess.signal import has_signal
from asl_bids_app.preprocess.tissue import Tissue
from asl_bids_app.preprocess.tissue_maps import find_tissue

SHAPE, ZOOMS = (22, 24, 14), (7.0, 7.0, 9.0)
AFFINE = grid(SHAPE, ZOOMS)
BRAIN = ball(SHAPE, AFFINE)
T1_TISSUE_M0 = 1.607  # s at 3 T, Wright 2008


def lumps(shape, affine):
    """A texture of space: something to register by."""
    x, y, z = np.moveaxis(world(shape, affine), -1, 0)
    return 1 + 0.25 * np.sin(x / 11) * np.cos(y / 13 + 1) * np.sin(z / 12 + 0.5)


def write(path, data, affine=AFFINE, forms=1):
    image = nib.Nifti1Image(np.asarray(data, np.float32), affine)
    image.set_sform(affine, forms)
    image.set_qform(affine, forms)
    nib.save(image, path)
    return path


def separate(tmp_path, m0, affine=AFFINE, asl_affine=AFFINE, forms=(1, 1), seed=0, pairs=2):
    """A run on disk with an M0 scan of its own, of 2 s; its controls are the textured ball."""
    rng = np.random.default_rng(seed)
    kinds = ["control", "label"] * pairs
    static = 900.0 * BRAIN * lumps(SHAPE, AFFINE)
    data = np.stack([static + rng.normal(0, 1, SHAPE) for _ in kinds], axis=-1)
    asl = write(tmp_path / "sub-01_asl.nii.gz", data, asl_affine, forms[0])
    path = write(tmp_path / "sub-01_m0scan.nii.gz", m0, affine, forms[1])
    run = planned(kinds, m0=M0Input(M0Kind.SEPARATE, path, (2.0,)), path=str(asl))
    return run, correct_motion(run.acquisition, hmc=False, threads=1), static


# The four kinds of M0


def test_a_separate_m0_is_corrected_for_its_repetition_time(tmp_path):
    run, volumes, static = separate(tmp_path, 1000.0 * BRAIN * lumps(SHAPE, AFFINE))
    found, facts, warnings = find_m0(run, volumes, static, align=False)
    factor = 1 / (1 - np.exp(-2.0 / T1_TISSUE_M0))
    np.testing.assert_allclose(found, factor * 1000 * BRAIN * lumps(SHAPE, AFFINE), rtol=1e-5)
    assert facts["repetition_time_correction"] == pytest.approx(factor, abs=1e-4)
    assert (facts["volumes"], facts["alignment"]) == (1, "as scanned")
    assert warnings == []


@pytest.mark.parametrize(("kind", "wanted"), [("INCLUDED", "m0scan"), ("ABSENT", "control")])
def test_an_m0_among_the_volumes(kind, wanted):
    kinds = ["m0scan", "control", "label", "m0scan", "control", "label"]
    data = np.stack([np.full(SHAPE, 100.0 * (i + 10)) for i in range(6)], axis=-1)
    run = planned(kinds, m0=M0Input(M0Kind[kind], None, (4.0,)))
    found, facts, _ = find_m0(run, moved(data, AFFINE), data[..., 1], align=True)
    mean = np.mean([100.0 * (i + 10) for i, each in enumerate(kinds) if each == wanted])
    np.testing.assert_allclose(found, mean / (1 - np.exp(-4.0 / T1_TISSUE_M0)), rtol=1e-5)
    assert facts["volumes"] == 2


def test_an_m0_of_blood_is_turned_into_that_of_tissue():
    run = planned(m0=M0Input(M0Kind.ESTIMATE, None, (), 1500.0))
    found, facts, _ = find_m0(run, moved(np.ones((*SHAPE, 2)), AFFINE), np.ones(SHAPE), align=True)
    assert found.shape == SHAPE
    assert set(found.ravel()) == {1500.0 * 0.9}
    assert facts == {"value": 1500.0 * 0.9}


# Where a separate M0 lies


def test_an_m0_that_moved_is_laid_on_the_run(tmp_path):
    """The head lay 6 mm higher in the M0 scan."""
    up = np.array([0.0, 0.0, 6.0])
    m0 = 1000.0 * ball(SHAPE, AFFINE, centre=up) * lumps(SHAPE, np.diag([1.0] * 4) @ AFFINE)
    places = AFFINE.copy()
    places[:3, 3] -= up
    m0 = 1000.0 * ball(SHAPE, places) * lumps(SHAPE, places)
    run, volumes, static = separate(tmp_path, m0)
    found, facts, warnings = find_m0(run, volumes, static, align=True)
    words = facts["alignment"].split()
    assert words[:5] == ["moved", "rigidly", "by", "up", "to"]
    assert float(words[5]) == pytest.approx(6, abs=1.5)
    assert warnings == []
    inside = ball(SHAPE, AFFINE, 45)
    truth = 1000 * lumps(SHAPE, AFFINE) / (1 - np.exp(-2.0 / T1_TISSUE_M0))
    unmoved = find_m0(run, volumes, static, align=False)[0]
    error, before = (np.abs(each - truth)[inside].mean() for each in (found, unmoved))
    assert error < 0.4 * before


def test_an_m0_that_cannot_be_aligned_is_told(tmp_path):
    """Without any contrast there is nothing to align by."""
    run, volumes, static = separate(tmp_path, np.full(SHAPE, 1000.0))
    found, facts, warnings = find_m0(run, volumes, static, align=True)
    assert facts["alignment"].startswith("as scanned: ")
    (warning,) = warnings
    assert warning.startswith("sub-01_m0scan.nii.gz: M0 not aligned with the run but taken as ")
    assert warning.endswith(facts["alignment"])
    np.testing.assert_allclose(found, found.flat[0])
    # Who asked for no alignment isn't warned.
    assert find_m0(run, volumes, static, align=False)[2] == []


@pytest.mark.parametrize("lost", ["asl", "m0"])
def test_an_m0_of_equal_matrix_without_orientation_on_one_side(tmp_path, lost):
    m0 = 1000.0 * BRAIN * lumps(SHAPE, AFFINE)
    far = AFFINE.copy()
    far[:3, 3] += (0, 30, 60)
    forms = (0, 1) if lost == "asl" else (1, 0)
    where = {"affine": far} if lost == "asl" else {"asl_affine": far}
    run, volumes, static = separate(tmp_path, m0, forms=forms, **where)
    found, _, warnings = find_m0(run, volumes, static, align=False)
    np.testing.assert_allclose(found * (1 - np.exp(-2.0 / T1_TISSUE_M0)), m0, rtol=1e-5)
    assert any("M0 taken voxel by voxel" in text for text in warnings)


@pytest.mark.parametrize(("from_mm", "refused"), [(-6, False), (6, True)])
def test_an_m0_with_less_than_half_of_the_brain_is_refused(tmp_path, from_mm, refused):
    """Its field of view holds all of the run's, its head lies elsewhere."""
    shape = (24, 26, 18)
    affine = grid(shape, ZOOMS)
    head = 1000.0 * ball(shape, affine, 80) * (world(shape, affine)[..., 2] > from_mm)
    run, volumes, static = separate(tmp_path, head, affine)
    if not refused:
        assert find_m0(run, volumes, static, align=False)[0].max() > 1000
        return
    with pytest.raises(InputError, match="of the brain of sub-01_asl") as caught:
        find_m0(run, volumes, static, align=False)
    assert caught.value.file == "sub-01_m0scan.nii.gz"
    assert caught.value.field == "field of view"


def test_how_much_of_a_brain_an_m0_shows():
    half = BRAIN & (world(SHAPE, AFFINE)[..., 2] > 0)
    static = 900.0 * BRAIN
    assert brain_covered(1000.0 * BRAIN, static, AFFINE) == pytest.approx(1, abs=0.06)
    assert brain_covered(1000.0 * half, static, AFFINE) == pytest.approx(0.5, abs=0.04)
    assert brain_covered(0.0 * half, static, AFFINE) == 0
    assert brain_covered(1000.0 * half, np.ones(SHAPE), AFFINE) is None
    # Dark tissue far from the coils is signal, a background of 2 % is none.
    shaded = np.where(BRAIN, 100.0, 20.0)
    shaded[7:15, 8:16, 4:10] = 1000
    assert brain_covered(shaded, static, AFFINE) == pytest.approx(1, abs=0.06)
    empty_half = np.where(half, 1000.0, 20.0)
    assert brain_covered(empty_half, static, AFFINE) == pytest.approx(0.5, abs=0.04)


def test_displacement_of_a_head_of_50_mm():
    assert displacement(np.eye(4)) == 0
    moved_by = np.eye(4)
    moved_by[:3, 3] = 3, 4, 0
    assert displacement(moved_by) == pytest.approx(5)
    c, s = np.cos(0.02), np.sin(0.02)
    moved_by[:2, :2] = [[c, -s], [s, c]]
    assert displacement(moved_by) == pytest.approx(5 + 100 * np.sin(0.01))


# Which voxels have data


def test_blanked_magnitudes_are_no_measurements():
    kinds = ["m0scan", "control", "label", "control", "label"]
    data = np.full((12, 12, 8, 5), 50.0)
    data[3, 3, 3, 1:] = 0  # one voxel, in every control and label; its M0 isn't blanked
    data[8:, :, :, 1:] = 0  # padded
    data[5, 5, 5, 1] = 0  # in one volume alone: a value
    expected = np.ones((12, 12, 8), bool)
    expected[3, 3, 3] = expected[8:] = False
    np.testing.assert_array_equal(has_signal(data, kinds), expected)


def test_differences_of_zero_are_measurements_and_a_blank_background_is_none():
    """Integers of a weak signal: a sixth of the brain is exactly 0."""
    rng = np.random.default_rng(4)
    shape = (40, 44, 16)
    affine = grid(shape, (4.0, 4.0, 7.0))
    brain = ball(shape, affine, 52)
    data = np.round(rng.normal(2, 2, (*shape, 1))) * brain[..., None]
    zeros = brain & (data[..., 0] == 0)
    assert 0.1 < zeros.sum() / brain.sum() < 0.2
    found = has_signal(data, ["deltam"])
    inside = ball(shape, affine, 38)
    # Deep inside each zero is a measurement; nothing outside is but a little of the rim.
    assert found[inside].all()
    assert found[brain].mean() > 0.95
    assert found[~brain].mean() < 0.02
    hole = data.copy()
    hole[18:23, 20:25, 6:10] = 0
    assert not has_signal(hole, ["deltam"])[19:22, 21:24, 7:9].any()


def test_one_slice_of_differences():
    data = np.ones((20, 20, 1, 1))
    data[:5] = 0
    data[10, 10] = 0
    found = has_signal(data, ["deltam"])[..., 0]
    assert not found[:4].any()
    assert found[10, 10]


def run_of(volumes, kinds, tmp_path, m0=1000.0, delay=1.8):
    path = write(tmp_path / "sub-01_asl.nii.gz", volumes)
    m0_path = write(tmp_path / "sub-01_m0scan.nii.gz", m0 * BRAIN)
    m0_input = M0Input(M0Kind.SEPARATE, m0_path, (1000.0,))
    run = planned(kinds, delay, m0=m0_input, path=str(path))
    return run, correct_motion(run.acquisition, hmc=False, threads=1)


def pairs_of(difference, n=4):
    """Controls of 900 and labels below them."""
    control = 900.0 * BRAIN
    volumes = np.stack([control, control - difference * BRAIN] * n, axis=-1)
    return volumes, ["control", "label"] * n


def test_a_difference_of_zero_stays_in_the_mask(tmp_path):
    difference = np.full(SHAPE, 5.0)
    difference[10:13, 10:13, 6:8] = 0
    run, volumes = run_of(*pairs_of(difference), tmp_path)
    got = prepare_run(run, volumes, align_m0=False)
    assert got.mask[10:13, 10:13, 6:8].all()
    np.testing.assert_allclose(
        got.delta_m[got.mask & BRAIN, 0], difference[got.mask & BRAIN] / 1e3
    )
    assert got.warnings == ()


def test_blanked_voxels_leave_the_mask_and_are_told(tmp_path):
    volumes, kinds = pairs_of(np.full(SHAPE, 5.0))
    volumes[:11] = 0
    run, volumes = run_of(volumes, kinds, tmp_path)
    got = prepare_run(run, volumes, align_m0=False)
    assert not got.mask[:11].any()
    assert got.mask[11:][BRAIN[11:]].mean() > 0.95
    blank = int((got.brain & ~got.mask).sum())
    assert blank > 1000
    assert any(f"{blank} of the brain's {int(got.brain.sum())}" in text for text in got.warnings)


def test_nothing_but_blanked_voxels_is_refused(tmp_path):
    volumes, kinds = pairs_of(np.full(SHAPE, 5.0))
    volumes[BRAIN] = 0
    volumes[0, 0, 0] = 1
    run, volumes = run_of(volumes, kinds, tmp_path)
    with pytest.raises(InputError, match="no voxel of the brain with data"):
        prepare_run(run, volumes, align_m0=False)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("hmc", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_voxel_of_1e38_leaves_the_mask_and_nothing_else_changes(tmp_path, hmc):
    rng = np.random.default_rng(2)
    volumes, kinds = pairs_of(np.full(SHAPE, 5.0), 3)
    volumes = (volumes * lumps(SHAPE, AFFINE)[..., None] + rng.normal(0, 1, volumes.shape)).astype(
        np.float32
    )
    results = []
    for fault in (None, 1e38):
        spoilt = volumes.copy()
        if fault:
            spoilt[11, 12, 7, 3] = fault
        run, _ = run_of(spoilt, kinds, tmp_path)
        at_rest = correct_motion(run.acquisition, hmc=hmc, threads=1)
        results.append(prepare_run(run, at_rest, align_m0=False))
    clean, found = results
    assert clean.mask[11, 12, 7]
    assert not found.mask[11, 12, 7]
    assert found.mask.sum() == clean.mask.sum() - 1
    far = found.mask.copy()
    far[8:15, 9:16, 4:11] = False  # what the voxel's own stand-in is interpolated into
    # Motion may be found a little otherwise: less than half of the noise of an average, 0.001.
    apart = np.abs(found.delta_m[far] - clean.delta_m[far])
    assert np.median(apart) < (5e-4 if hmc else 1e-7)
    np.testing.assert_allclose(found.m0[far], clean.m0[far], rtol=1e-4)
    assert np.abs(found.delta_m).max() < 0.05
    assert any("which no scanner measures" in text for text in found.warnings)
    assert np.isfinite(found.tsnr).all()
    assert np.median(found.tsnr[far]) == pytest.approx(np.median(clean.tsnr[far]), rel=0.02)


def test_an_m0_voxel_of_1e38_takes_that_of_its_neighbours(tmp_path):
    m0 = 1000.0 * BRAIN
    m0[11, 12, 7] = 1e38
    run, volumes, static = separate(tmp_path, m0)
    found, _, warnings = find_m0(run, volumes, static, align=False)
    assert found[11, 12, 7] == pytest.approx(found[10, 12, 7])
    assert any("no scanner measures" in text for text in warnings)


# Temporal signal-to-noise ratio


def test_temporal_snr_is_mean_over_spread_of_the_controls(tmp_path):
    """Two delays whose controls differ in the mean: pooled, their spread is 9 and no more."""
    rng = np.random.default_rng(0)
    n = 20
    kinds = [k for _ in range(n) for k in ("control", "label", "control", "label")]
    delay = [d for _ in range(n) for d in (1.0, 1.0, 2.0, 2.0)]
    level = {1.0: 800.0, 2.0: 1000.0}
    volumes = np.stack(
        [
            (level[d] - 5 * (k == "label") + rng.normal(0, 9 if k == "control" else 40, SHAPE))
            * BRAIN
            for k, d in zip(kinds, delay, strict=True)
        ],
        axis=-1,
    )
    run, volumes = run_of(volumes, kinds, tmp_path, delay=delay)
    got = prepare_run(run, volumes, align_m0=False)
    inside = got.mask & BRAIN
    # The median of 1/s with 38 degrees of freedom is 0.9 % above 1/sigma.
    assert np.median(got.tsnr[inside]) == pytest.approx(1.009 * 900 / 9, rel=0.01)
    assert not got.tsnr[~got.mask].any()


def test_temporal_snr_of_differences_and_of_too_few_volumes(tmp_path):
    rng = np.random.default_rng(1)
    volumes = np.stack([rng.normal(20, 4, SHAPE) * BRAIN for _ in range(30)], axis=-1)
    got = prepare_run(*run_of(volumes, ["deltam"] * 30, tmp_path), align_m0=False)
    assert np.median(got.tsnr[got.mask & BRAIN]) == pytest.approx(1.012 * 20 / 4, rel=0.015)
    few = prepare_run(*run_of(volumes[..., :2], ["deltam"] * 2, tmp_path), align_m0=False)
    assert few.tsnr is None
    enough = prepare_run(*run_of(volumes[..., :3], ["deltam"] * 3, tmp_path), align_m0=False)
    assert enough.tsnr is not None


# Masks and tissue maps that are given


def given(tmp_path, data, affine=AFFINE, forms=1):
    run, volumes = run_of(*pairs_of(np.full(SHAPE, 5.0)), tmp_path)
    path = write(tmp_path / "sub-01_desc-brain_mask.nii.gz", data, affine, forms)
    return prepare_run(run, volumes, align_m0=False, brain_mask=path)


def test_a_given_mask(tmp_path):
    small = ball(SHAPE, AFFINE, 40)
    got = given(tmp_path, small)
    np.testing.assert_array_equal(got.mask, small)
    assert got.facts["mask"] == {"kind": "given", "source": "sub-01_desc-brain_mask.nii.gz"}
    assert got.warnings == ()


@pytest.mark.parametrize("shift", [0.0, 60.0, 90.0])
def test_a_mask_of_derivatives_is_taken_only_where_it_fits(tmp_path, shift):
    run, volumes = run_of(*pairs_of(np.full(SHAPE, 5.0)), tmp_path)
    far = AFFINE.copy()
    far[0, 3] += shift
    path = write(tmp_path / "sub-01_desc-brain_mask.nii.gz", BRAIN, far)
    got = prepare_run(run, volumes, align_m0=False, offered=OfferedMask(path))
    np.testing.assert_array_equal(got.mask, BRAIN)
    assert got.facts["mask"]["kind"] == ("M0" if shift else "given")
    said = [text for text in got.warnings if "sub-01_desc-brain_mask.nii.gz" in text]
    assert len(said) == bool(shift)
    assert all(text.endswith("a mask made from the image is used") for text in said)


def test_the_brain_of_a_t1w_waits_for_the_registration_and_is_laid_by_it(tmp_path):
    """The T1w lies 60 mm beside the run by the scanner's coordinates."""
    run, volumes = run_of(*pairs_of(np.full(SHAPE, 5.0)), tmp_path)
    far, small = AFFINE.copy(), ball(SHAPE, AFFINE, 57)
    far[0, 3] += 60
    path = write(tmp_path / "sub-01_desc-brain_mask.nii.gz", small, far)
    got = prepare_run(run, volumes, align_m0=False, offered=OfferedMask(path, of_t1w=True))
    np.testing.assert_array_equal(got.mask, BRAIN)
    assert got.warnings == ()
    to_t1w = np.eye(4)
    to_t1w[0, 3] = 60
    offered = OfferedMask(path, of_t1w=True, pose=to_t1w)
    got = prepare_run(run, volumes, align_m0=False, offered=offered)
    np.testing.assert_array_equal(got.mask, small)
    np.testing.assert_array_equal(got.own_mask, BRAIN)
    assert got.facts["mask"]["kind"] == "T1w"
    assert got.sources == (path,)
    assert got.warnings == ()


def test_a_given_mask_without_orientation_goes_voxel_by_voxel(tmp_path):
    small = ball(SHAPE, AFFINE, 40, (15, 0, 9))
    got = given(tmp_path, small, forms=0)
    np.testing.assert_array_equal(got.mask, small)
    assert any("taken voxel by voxel" in text for text in got.warnings)


def test_a_given_mask_of_another_place_is_refused(tmp_path):
    far = AFFINE.copy()
    far[:3, 3] += (90, 0, 0)
    with pytest.raises(InputError, match="signal of the head in") as caught:
        given(tmp_path, BRAIN, far)
    assert caught.value.file.endswith("sub-01_desc-brain_mask.nii.gz")


def tissue_files(tmp_path, affine=AFFINE, forms=1):
    parts = {"gm": BRAIN & ~ball(SHAPE, AFFINE, 45), "wm": ball(SHAPE, AFFINE, 45)}
    parts["csf"] = np.zeros(SHAPE)
    return {
        key: write(
            tmp_path / f"sub-01_label-{key.upper()}_probseg.nii.gz", data + 1e-6, affine, forms
        )
        for key, data in parts.items()
    }


def test_given_tissue_maps_are_taken_where_they_fit(tmp_path):
    run = prepared(BRAIN, AFFINE)
    got = find_tissue(run, tissue_files(tmp_path))
    assert got.warnings == ()
    np.testing.assert_allclose(got.maps["wm"], ball(SHAPE, AFFINE, 45), atol=0.51)
    # Without orientation voxel by voxel, though their centre lies elsewhere.
    far = AFFINE.copy()
    far[:3, 3] += (0, 50, 50)
    got = find_tissue(prepared(BRAIN, far), tissue_files(tmp_path, forms=0))
    assert set(got.maps) == {"gm", "wm", "csf"}
    assert sum("taken voxel by voxel" in text for text in got.warnings) == 3


@pytest.mark.parametrize("shift", [25, 75])
def test_given_tissue_maps_of_another_place_are_not_available(tmp_path, shift):
    far = AFFINE.copy()
    far[:3, 3] += (0, shift, 0)
    got = find_tissue(prepared(BRAIN, AFFINE), tissue_files(tmp_path, far))
    assert got.maps == {}
    assert "of the brain mask" in got.facts["reason"]
    assert got.warnings[-1].startswith("no tissue maps, and n/a in the metrics by tissue: ")


@pytest.mark.parametrize(("likeness", "fits"), [(0.39, False), (0.41, True)])
def test_tissue_is_not_available_where_the_atlas_does_not_fit(monkeypatch, likeness, fits):
    part = np.where(BRAIN, 0.3, 0).astype(np.float32)
    laid = Tissue(part, part, part, np.eye(4), likeness)
    monkeypatch.setattr(tissue, "tissue_priors", lambda *_: laid)
    got = find_tissue(prepared(BRAIN, AFFINE), {})
    assert set(got.maps) == ({"gm", "wm", "csf"} if fits else set())
    assert ("reason" in got.facts) != fits
    assert got.facts["likeness"] == likeness
    if not fits:
        assert got.facts["source"] == "none"
        assert "doesn't fit: correlation 0.39, expected 0.4 or more" in got.warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize("slices", [3, 5, 9])
def test_a_slab_of_a_ball_is_no_head(slices):
    shape = (30, 32, slices)
    affine = grid(shape, (6.0, 6.0, 7.0))
    m0 = np.where(ball(shape, affine, 45), 700.0, 850.0)
    assert find_tissue(prepared(ball(shape, affine, 70), affine, m0=m0), {}).maps == {}
