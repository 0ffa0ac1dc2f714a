"""M0 of blood from fluid: written-out formula, and a head whose M0 of blood is known."""

from dataclasses import replace

import numpy as np
import pytest
from heads import grid, pose, scan_map

from asl_bids_app.atlas import load_atlas
from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.calibration.fluid import fluid_constants, mean_recovered
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.fluid_m0 import calibrate_by_fluid
from asl_bids_app.preprocess.prepare import PreparedRun
from asl_bids_app.preprocess.reference import choose_reference, find_reference
from asl_bids_app.preprocess.sensitivity import find_sensitivity
from asl_bids_app.preprocess.tissue_maps import TissueMaps
from asl_bids_app.preprocess.ventricles import ventricles
from asl_bids_app.workflows.checks import check_calibration

SHAPE, AFFINE = grid(shape=(52, 60, 40), voxel=(3.5, 3.5, 4.0))
MOVED = pose((4, -3, 5), (3, 2, -4))
T1_TISSUE, TR, BLOOD = 1.607, 4.0, 3000.0


@pytest.mark.parametrize(
    ("sidecar", "m0_echo", "expected"),
    [
        ({}, None, 1 / 1.15),
        ({"EchoTime": 0.012, "MRAcquisitionType": "3D"}, None,
         np.exp(0.012 / 0.75) * np.exp(-0.012 / 0.15) / 1.15),
        ({"EchoTime": 0.02, "MRAcquisitionType": "2D", "PulseSequenceType": "2D_EPI"}, None,
         np.exp(0.02 / 0.4) * np.exp(-0.02 / 0.05) / 1.15),
        ({"EchoTime": 0.02, "MRAcquisitionType": "2D", "ScanningSequence": ["EP", "SE"]}, 0.03,
         np.exp(0.03 / 0.75) * np.exp(-0.02 / 0.15) / 1.15),
    ],
    ids=["no echo time", "3D", "2D gradient echo", "2D spin echo, M0 at another time"],
)  # fmt: skip
def test_the_formula_of_the_oxford_group(sidecar, m0_echo, expected):
    """As oxasl has it: M0 / exp(-TE/T2r) / pc * exp(-TE/T2b)."""
    constants = fluid_constants(sidecar, m0_echo)
    assert constants.blood_of(1.0) == pytest.approx(expected)
    assert constants.recovered(4.3) == pytest.approx(1 - np.exp(-1))


def test_several_repetition_times_give_back_the_fluid():
    times, fluid = [2.0, 5.0, 9.0], 1700.0
    signals = fluid * (1 - np.exp(-np.array(times) / 4.3))
    corrections = 1 / (1 - np.exp(-np.array(times) / T1_TISSUE))
    short = mean_recovered(fluid_constants({}), times, corrections)
    assert np.mean(signals * corrections) / short == pytest.approx(fluid)


def coils(world):
    """A smooth sensitivity that is no polynomial."""
    x, y, z = (world[..., k] for k in range(3))
    return 1.3 - 0.25 * np.exp(-((x - 20) ** 2 + y**2 + (z - 20) ** 2) / 70**2) + 0.002 * y


@pytest.fixture(scope="module")
def head():
    """A run of a head whose M0 is that of its water: blood holds BLOOD everywhere."""
    atlas = load_atlas()
    maps = np.stack([atlas.gm, atlas.wm, atlas.csf])
    # One man's tissues are sharp; the template is what many heads average to.
    maps = ((maps == maps.max(axis=0)) & atlas.brain).astype(np.float32)
    gm, wm, csf = (scan_map(part, SHAPE, AFFINE, MOVED) for part in maps)
    mask = gm + wm + csf > 0.5
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    field = coils(index @ AFFINE[:3, :3].T + AFFINE[:3, 3])
    # Water of a gram over that of a mL of blood; each with its own recovery in 4 s.
    signal = sum(
        part * water * BLOOD * (1 - np.exp(-TR / t1))
        for part, water, t1 in ((gm, 0.98, 1.6), (wm, 0.82, 0.9), (csf, 1.15, 4.3))
    )
    rng = np.random.default_rng(0)
    signal = signal * field * (1 + 0.005 * rng.standard_normal(SHAPE))
    m0 = np.where(mask, signal / (1 - np.exp(-TR / T1_TISSUE)), 0).astype(np.float32)
    flow = 0.01 * np.where(mask, gm + 0.3 * wm, 0)
    delta = flow * field * BLOOD
    raw = (np.where(mask, delta / np.maximum(m0, 1), 0)[..., None]).astype(np.float32)
    prepared = PreparedRun(
        raw, raw / 10, np.array([1.8]), np.array([1.8]), np.array([10]), m0, mask, AFFINE, None,
        {"m0": {"volumes": 1}},
    )  # fmt: skip
    tissue = TissueMaps(
        {"gm": gm, "wm": wm, "csf": csf}, {"source": "the truth"}, matrix=np.linalg.inv(MOVED)
    )
    return prepared, tissue, field, flow


class Run:
    """The parts of a planned run that a calibration looks at."""

    def __init__(self, kind=M0Kind.SEPARATE):
        class Thing:
            pass

        self.acquisition, self.calibration = Thing(), Thing()
        self.acquisition.path, self.acquisition.m0 = Thing(), Thing()
        self.acquisition.path.name, self.acquisition.metadata = "sub-01_asl.nii.gz", {}
        self.acquisition.m0.kind, self.acquisition.m0.repetition_time = kind, (TR,)
        self.acquisition.m0.echo_time = None
        for name, value in (("t1_tissue_m0", T1_TISSUE), ("partition_coefficient", 0.9)):
            quantity = Thing()
            quantity.value = value
            setattr(self.calibration, name, quantity)


class Unit:
    def __init__(self, *runs):
        self.runs = runs


def test_the_ventricles_are_found_and_nothing_at_the_rim():
    atlas = load_atlas()
    where = ventricles(np.eye(4), atlas.gm.shape, atlas.affine)
    index = np.linalg.inv(atlas.affine)

    def holds(*point):
        return bool(where[tuple(np.rint(index @ [*point, 1])[:3].astype(int))])

    for side in (-1, 1):
        assert holds(8 * side, 5, 18)  # frontal horn and body
        assert holds(25 * side, -42, 12)  # atrium
        assert not holds(45 * side, 0, 5)  # Sylvian fissure
    assert not holds(0, -75, 40)
    assert not holds(0, 60, 0)
    assert not holds(0, -20, -40)


def test_the_m0_of_blood_is_that_of_the_head_and_follows_the_coils(head):
    prepared, tissue, field, flow = head
    reference = find_reference(prepared, tissue, "x")
    assert reference.where.sum() >= 10
    assert (tissue.maps["csf"][reference.where] >= 0.9).all()
    found = calibrate_by_fluid(Run(), prepared, reference)
    facts = found.facts["m0"]["reference"]
    expected = BLOOD * field[reference.where].mean()
    assert facts["m0_blood"] == pytest.approx(expected, rel=0.03)
    assert facts["constants"]["t1_fluid"]["Value"] == 4.3
    assert facts["constants"]["t1_fluid"]["Source"] == "default"
    inside = prepared.mask & (tissue.maps["gm"] + tissue.maps["wm"] > 0.8)
    # M0 of tissue that stands for blood: 0.9 of it, at every place of the coils.
    ratio = found.m0[inside] / (0.9 * BLOOD * field[inside])
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert np.percentile(np.abs(ratio - np.median(ratio)), 90) < 0.03
    got = found.delta_m[..., 0][inside].mean()
    assert got == pytest.approx((flow / 0.9)[inside].mean(), rel=0.03)
    np.testing.assert_allclose(
        found.standard_error[inside], 0.1 * found.delta_m[inside], rtol=1e-5
    )
    # By each voxel's own M0 white matter is taken for as much water as it holds.
    white = inside & (tissue.maps["wm"] > 0.99)
    water = 0.82 * (1 - np.exp(-TR / 0.9)) / (1 - np.exp(-TR / T1_TISSUE))
    between = prepared.delta_m[white].mean() / found.delta_m[white].mean()
    assert between == pytest.approx(0.9 / water, rel=0.01)


def test_flat_coils_are_found_flat(head):
    prepared, tissue, field, _ = head
    m0 = np.where(prepared.mask, prepared.m0 / field, 0)
    found = find_sensitivity(m0, prepared.mask, tissue.maps, AFFINE)
    inside = prepared.mask & (tissue.maps["gm"] + tissue.maps["wm"] > 0.8)
    assert np.abs(found[inside] / found[inside].mean() - 1).max() < 0.03


def test_too_little_fluid_is_one_line_and_what_becomes_of_it_is_the_users_choice(head):
    prepared, tissue, _, _ = head
    dry = TissueMaps({**tissue.maps, "csf": 0.8 * tissue.maps["csf"]}, {}, matrix=tissue.matrix)
    unit = Unit(Run())
    with pytest.raises(InputError, match=r"0 voxels of pure fluid.*10 or more") as caught:
        choose_reference(unit, "csf", prepared, dry)
    assert "\n" not in str(caught.value)
    none, (warning,) = choose_reference(unit, "csf-or-voxelwise", prepared, dry)
    assert none is None
    assert warning.endswith("calibrated by the M0 of each voxel")
    assert choose_reference(unit, "voxelwise", prepared, None) == (None, ())


@pytest.mark.parametrize(
    ("kind", "maps", "said"),
    [
        (M0Kind.ESTIMATE, True, "M0Type Estimate, a number, expected an M0 image"),
        (M0Kind.SEPARATE, False, "no tissue maps that fit"),
    ],
)
def test_what_has_no_fluid_to_measure_is_refused(head, kind, maps, said):
    prepared, tissue, _, _ = head
    tissue = tissue if maps else replace(tissue, maps={})
    with pytest.raises(InputError, match=said):
        choose_reference(Unit(Run(kind)), "csf", prepared, tissue)


def test_dark_fluid_is_told(head):
    """As of an M0 whose fluid was suppressed."""
    prepared, tissue, _, _ = head
    m0 = prepared.m0 * (1 - 0.6 * tissue.maps["csf"])
    prepared = replace(prepared, m0=m0.astype(np.float32))
    found = calibrate_by_fluid(Run(), prepared, find_reference(prepared, tissue, "x"))
    assert any("times as bright as tissue in the M0" in line for line in found.warnings)


@pytest.mark.parametrize(
    ("other", "said"),
    [((False, 0.0), "--no-tissue"), ((True, 5.0), "--m0-smooth-fwhm 5")],
)
def test_options_that_contradict_it_are_refused(other, said):
    with pytest.raises(InputError, match=said):
        check_calibration("csf", *other)
    check_calibration("voxelwise", *other)
