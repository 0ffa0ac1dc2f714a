"""Head motion against known motions, and against what it must not do to ΔM."""

from dataclasses import replace

import numpy as np
import pytest
from heads import brain_only, grid, pose, run_of
from scipy.spatial.transform import Rotation

from asl_bids_app.preprocess import gauss_newton
from asl_bids_app.preprocess.aligner import FIRST, SECOND
from asl_bids_app.preprocess.continuity import remove_alternation, steady_offsets
from asl_bids_app.preprocess.gauss_newton import Views, locate
from asl_bids_app.preprocess.motion import (
    CONFOUNDS,
    Motion,
    apply_motion,
    confounds_table,
    covered,
    estimate_motion,
    framewise_displacement,
)
from asl_bids_app.preprocess.target import make_target

SHAPE, AFFINE = grid()
COARSE = grid((35, 40, 20), (6.0, 6.0, 8.0))
"""Where only large motions count: a third of the voxels."""


def protocol(repeats=3, order=("label", "control"), m0=True, blocked=False):
    pairs = [(k, d) for _ in range(repeats) for d in (0.5, 1.5) for k in order]
    if blocked:
        pairs = [(k, d) for d in (0.5, 1.5) for _ in range(repeats) for k in order]
    rows = [("m0scan", 0.0)] * m0 + pairs
    return [k for k, _ in rows], np.array([d for _, d in rows])


def times(kinds, delays):
    silent = np.array(kinds) == "m0scan"
    return np.where(silent, np.nan, delays), np.where(silent, np.nan, 1.8)


def wander(count, seed=3, size=1.0):
    """A drift and two jerks; shift in mm, turn in degrees."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(0, 0.06 * size, (count, 6)), axis=0)
    path[count // 3 :] += size * np.array([0.3, -0.4, 1.2, 1.0, -0.2, 0.3])
    path[2 * count // 3 :] += size * np.array([-0.6, 0.5, -2.0, -1.5, 0.8, 1.0])
    return [pose(p[:3], p[3:]) for p in path]


def errors(motion, poses, mask):
    """RMS distance in the brain between estimated and true motion, for each volume.

    The reference is an average position, so the common part is taken from all volumes.
    """
    points = np.argwhere(mask)[::20]
    world = AFFINE @ np.c_[points, np.ones(len(points))].T
    common = np.mean(
        [np.linalg.inv(p) @ m for p, m in zip(poses, motion.matrices, strict=True)], axis=0
    )
    return np.array(
        [
            np.sqrt((((p @ common - m) @ world)[:3] ** 2).sum(axis=0).mean())
            for p, m in zip(poses, motion.matrices, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def moved():
    kinds, delays = protocol()
    poses = wander(len(kinds))
    data = run_of(poses, delays, kinds, SHAPE, AFFINE)
    return data, kinds, delays, poses


@pytest.fixture(scope="module")
def found(moved):
    data, kinds, delays, _ = moved
    return estimate_motion(data, AFFINE, kinds, *times(kinds, delays), n_procs=2)


def test_known_motion_is_found(moved, found):
    poses = moved[3]
    wrong = errors(found, poses, brain_only(SHAPE, AFFINE))
    # Voxels are 4 x 4 x 6 mm; motions reach 2 mm and 1.5 degrees.
    assert wrong[1:].max() < 0.25, wrong.round(2)
    assert np.median(wrong[1:]) < 0.12, wrong.round(2)
    # The M0 has another contrast and only one neighbour in time.
    assert wrong[0] < 0.5, wrong.round(2)
    assert not found.warnings


@pytest.mark.slow
def test_nothing_depends_on_the_number_of_threads(moved, found):
    data, kinds, delays, _ = moved
    again = estimate_motion(data, AFFINE, kinds, *times(kinds, delays), n_procs=1)
    assert np.array_equal(again.matrices, found.matrices)


def test_applying_it_brings_volumes_together(moved, found):
    data, kinds, delays, poses = moved
    inside = brain_only(SHAPE, AFFINE)
    fixed = apply_motion(data, AFFINE, found, n_procs=2)
    known = apply_motion(data, AFFINE, replace(found, matrices=np.array(poses)), n_procs=2)
    chosen = [
        i for i, (k, d) in enumerate(zip(kinds, delays, strict=True)) if (k, d) == ("control", 0.5)
    ]
    before = data[..., chosen][inside].std(axis=1).mean()
    after = fixed[..., chosen][inside].std(axis=1).mean()
    best = known[..., chosen][inside].std(axis=1).mean()
    assert best < 0.8 * before
    assert after < 1.05 * best
    assert np.isfinite(fixed).all()


@pytest.mark.slow
def test_head_at_rest_stays_at_rest():
    kinds, delays = protocol(repeats=4)
    poses = [np.eye(4)] * len(kinds)
    data = run_of(poses, delays, kinds, SHAPE, AFFINE, sd=6.0)
    motion = estimate_motion(data, AFFINE, kinds, *times(kinds, delays), n_procs=2)
    wrong = errors(motion, poses, brain_only(SHAPE, AFFINE))
    assert wrong[1:].max() < 0.08, wrong.round(3)
    assert np.nanmedian(framewise_displacement(motion)[2:]) < 0.1


def test_a_jump_of_centimetres_is_found():
    kinds, delays = protocol(repeats=3, m0=False)
    poses = [np.eye(4)] * 6 + [pose((10, -14, 9), (12, -7, 15))] * 6
    data = run_of(poses, delays, kinds, SHAPE, AFFINE)
    motion = estimate_motion(data, AFFINE, kinds, *times(kinds, delays), n_procs=2)
    wrong = errors(motion, poses, brain_only(SHAPE, AFFINE))
    assert not motion.warnings
    assert np.median(wrong) < 0.15, wrong.round(2)
    assert wrong.max() < 0.4, wrong.round(2)


@pytest.mark.parametrize("scale", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_a_volume_may_be_brighter_than_its_target(scale):
    still, moved = np.eye(4), pose((1.5, -1.0, 2.0), (1.5, -1.0, 2.0))
    data = run_of([still, moved], [0.5, 0.5], ["control"] * 2, SHAPE, AFFINE, sd=2.0)
    mask = brain_only(SHAPE, AFFINE)
    centre = np.array([0.0, -18.0, 8.0])
    targets = [make_target(data[..., 0], AFFINE, mask, centre, one) for one in (*FIRST, *SECOND)]
    found = locate(Views(scale * data[..., 1], AFFINE), targets, (still,))
    points = AFFINE @ np.c_[np.argwhere(mask)[::20], np.ones(len(np.argwhere(mask)[::20]))].T
    apart = np.sqrt((((found.matrix - moved) @ points)[:3] ** 2).sum(axis=0).mean())
    assert found.settled
    assert apart < 0.2


@pytest.mark.slow
def test_least_squares_that_finds_nothing_hands_over(monkeypatch):
    # A Gauss-Newton that stays where it starts: mutual information must find the jump.
    kinds, delays = ["control"] * 3, np.full(3, 0.5)
    poses = [np.eye(4)] * 2 + [pose((0, 0, 5), (5, 0, 0))]
    data = run_of(poses, delays, kinds, SHAPE, AFFINE)
    monkeypatch.setattr(gauss_newton, "_step", lambda *_: None)
    motion = estimate_motion(data, AFFINE, kinds, delays, np.full(3, 1.8), n_procs=2)
    assert errors(motion, poses, brain_only(SHAPE, AFFINE)).max() < 0.5


def test_a_median_lost_in_motion_is_shrunk():
    # The head wanders by more between label and control than the median tells.
    rng = np.random.default_rng(2)
    kinds = ["label", "control"] * 4
    truth = np.cumsum(rng.normal(0, 0.2, (8, 6)) / [1, 1, 1, 50, 50, 50], axis=0)
    kept = remove_alternation(truth, kinds, [list(range(8))], fewest=4)
    pairs = truth[::2] - truth[1::2]
    whole = 0.5 * np.abs(np.median(pairs, axis=0)[:3])
    assert np.linalg.norm((kept - truth)[0, :3]) < 0.8 * np.linalg.norm(whole)


def test_pairs_with_a_jump_between_tell_nothing_of_the_label():
    kinds = ["label", "control"] * 4
    path = np.zeros((8, 6))
    path[3:7, 0] = 15.0  # between the label and the control of the second and the fourth pair
    kept = remove_alternation(path, kinds, [list(range(8))], fewest=4)
    assert np.abs(kept - path).max() < 1e-9


@pytest.mark.parametrize(
    "order",
    [("label", "control"), pytest.param(("control", "label"), marks=pytest.mark.slow)],
)
def test_label_is_not_taken_for_motion(order):
    # A label of 10 % of the suppressed signal at rest: whatever the correction does to the
    # mean difference is wrong.
    kinds, delays = protocol(repeats=4, order=order, m0=False)
    data = run_of([np.eye(4)] * len(kinds), delays, kinds, SHAPE, AFFINE, sd=2.0, label=16.0)
    motion = estimate_motion(data, AFFINE, kinds, *times(kinds, delays), n_procs=2)
    fixed = apply_motion(data, AFFINE, motion, n_procs=2)
    inside = brain_only(SHAPE, AFFINE)
    kind = np.array(kinds)
    for delay in (0.5, 1.5):
        control, label = ((kind == k) & (delays == delay) for k in ("control", "label"))
        before = (data[..., control].mean(3) - data[..., label].mean(3))[inside]
        after = (fixed[..., control].mean(3) - fixed[..., label].mean(3))[inside]
        assert after.mean() == pytest.approx(before.mean(), rel=0.02)
        assert (after - before).std() < 0.1 * before.mean()


def test_alternation_is_removed_and_motion_is_not():
    rng = np.random.default_rng(0)
    kinds = ["label", "control"] * 12
    groups = [[i for i in range(24) if (i // 2) % 2 == g] for g in (0, 1)]
    truth = np.cumsum(rng.normal(0, 0.02, (24, 6)), axis=0)
    truth[13:] += 1.5  # a jerk between the label and the control of a pair
    fake = np.array([0.1, -0.05, 0.2, 0.0, 0.01, 0.0])
    path = truth + np.where(np.array(kinds) == "label", 0.5, -0.5)[:, None] * fake
    kept = remove_alternation(path, kinds, groups, fewest=4)
    assert np.abs(kept - truth).max() < 0.05


def test_few_pairs_share_a_median_and_fewer_are_left_alone():
    kinds = ["label", "control"] * 4
    groups = [[0, 1], [2, 3], [4, 5], [6, 7]]
    path = np.zeros((8, 6))
    path[::2, 2] = 0.2
    assert np.abs(remove_alternation(path, kinds, groups, 4)[:, 2] - 0.1).max() < 1e-12
    assert np.array_equal(remove_alternation(path[:6], kinds[:6], groups[:3], 4), path[:6])


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("jerk", [0.0, 4.0])
def test_contrast_bias_is_told_from_a_jerk(blocked, jerk):
    rng = np.random.default_rng(1)
    owner = np.array([0] * 12 + [1] * 12) if blocked else np.array([0, 0, 1, 1] * 6)
    groups = [np.flatnonzero(owner == g).tolist() for g in (0, 1)]
    truth = np.cumsum(rng.normal(0, 0.03, (24, 6)) / [1, 1, 1, 50, 50, 50], axis=0)
    truth[12:, 2] += jerk
    means = np.array([truth[g].mean(axis=0) for g in groups])
    path = truth - means[owner]  # motion within each group
    real = means - means[0]
    guess = real.copy()
    guess[1, 2] += 0.5  # a registration across contrasts that is half a millimetre off
    offsets = steady_offsets(path, groups, guess, main=0)
    limit = 0.1 if jerk == 0 or not blocked else 0.55
    assert abs(offsets[1, 2] - real[1, 2]) < limit


@pytest.mark.slow
def test_volumes_that_show_no_head_are_left_and_told():
    kinds, delays = protocol(repeats=2, m0=False)
    shape, affine = COARSE
    data = run_of([np.eye(4)] * len(kinds), delays, kinds, shape, affine)
    data[..., 2] = 0
    data[..., 5] = 50 * np.random.default_rng(0).standard_normal(shape)
    motion = estimate_motion(data, affine, kinds, *times(kinds, delays), n_procs=2)
    assert len(motion.warnings) == 2
    assert "volume 2 " in motion.warnings[0]
    assert "volume 5 " in motion.warnings[1]
    assert np.isnan(motion.parameters[[2, 5]]).all()
    rest = [i for i in range(len(kinds)) if i not in {2, 5}]
    assert np.isfinite(motion.parameters[rest]).all()
    assert np.abs(motion.matrices - np.eye(4))[..., :3, 3].max() < 0.3


def test_difference_images_are_not_registered():
    data = np.random.default_rng(0).standard_normal((*SHAPE, 4)).astype(np.float32)
    motion = estimate_motion(data, AFFINE, ["deltam"] * 4, np.ones(4), np.ones(4))
    assert np.array_equal(motion.matrices, np.tile(np.eye(4), (4, 1, 1)))
    assert np.isnan(motion.parameters).all()
    assert "none" in motion.method
    assert np.array_equal(apply_motion(data, AFFINE, motion), data)


def test_one_volume_among_differences_has_nothing_to_be_registered_to():
    data = np.random.default_rng(0).normal(size=(8, 8, 4, 3))
    motion = estimate_motion(data, AFFINE, ["m0scan", "deltam", "deltam"], np.ones(3), np.ones(3))
    assert np.array_equal(motion.matrices, np.tile(np.eye(4), (3, 1, 1)))
    assert motion.method.startswith("none")


def test_a_slab_too_thin_to_register_is_told_once():
    data = np.random.default_rng(0).normal(size=(16, 16, 3, 4)) + 100
    motion = estimate_motion(data, AFFINE, ["control", "label"] * 2, np.ones(4), np.ones(4))
    assert np.array_equal(motion.matrices, np.tile(np.eye(4), (4, 1, 1)))
    assert motion.method.startswith("none")
    assert len(motion.warnings) == 1
    assert "3 voxels thin" in motion.warnings[0]


def of_parameters(parameters):
    matrices = np.tile(np.eye(4), (len(parameters), 1, 1))
    return Motion(matrices, np.array(parameters, float), np.zeros(3), "", "")


def test_framewise_displacement_is_power_s():
    motion = of_parameters(
        [[0, 0, 0, 0, 0, 0], [1, -2, 0.5, 0, 0, 0], [1, -2, 0.5, 0.01, 0, -0.02], [np.nan] * 6]
    )
    displacement = framewise_displacement(motion)
    assert np.isnan(displacement[[0, 3]]).all()
    # 1 + 2 + 0.5 mm; then 0.03 rad on a sphere of 50 mm.
    assert displacement[1:3] == pytest.approx([3.5, 1.5])
    table = confounds_table(motion)
    assert list(table) == [*CONFOUNDS, "framewise_displacement"]
    assert table["trans_y"][1] == -2
    assert table["rot_z"][2] == -0.02


def test_parameters_are_millimetres_and_radians(moved, found):
    # Rotations in radians about the axes of the world: an independent decomposition.
    first, last = found.matrices[1], found.matrices[-1]
    for index, matrix in ((1, first), (-1, last)):
        angles = Rotation.from_matrix(matrix[:3, :3]).as_euler("XYZ")
        assert found.parameters[index, 3:] == pytest.approx(angles, abs=1e-9)
        shift = matrix[:3, :3] @ found.centre + matrix[:3, 3] - found.centre
        assert found.parameters[index, :3] == pytest.approx(shift, abs=1e-9)


def test_coverage_counts_lost_slices():
    motion = of_parameters(np.zeros((4, 6)))
    motion.matrices[1:, 2, 3] = 9.0  # three of four volumes 9 mm up: one and a half slices
    inside = covered(SHAPE, AFFINE, motion)
    # Points 9 mm up from the top slice but one lie half a slice out of the field: just inside.
    assert not inside[..., -1].any()
    assert inside[..., :-2].all()


@pytest.mark.slow
@pytest.mark.real_data
def test_real_head_moves_steadily(real_data):
    import json

    import nibabel as nib

    stem = real_data / "sub-01" / "perf" / "sub-01_acq-pcasl2depi_asl"
    image = nib.load(f"{stem}.nii.gz")
    delays = np.array(json.loads(stem.with_suffix(".json").read_text())["PostLabelingDelay"])
    chosen = slice(0, 13)  # the M0 and a cycle of six delays
    data = np.asarray(image.dataobj[..., chosen], np.float32)
    kinds = ["m0scan"] + ["label", "control"] * 6
    motion = estimate_motion(data, image.affine, kinds, *times(kinds, delays[chosen]), n_procs=2)
    # Contrast changes from delay to delay and M0 is unlike them all; the head hardly moves.
    displacement = framewise_displacement(motion)
    assert np.nanmedian(displacement) < 0.25
    assert displacement[1] < 0.8
    assert np.nanmax(displacement) < 1.2
    assert not motion.warnings
