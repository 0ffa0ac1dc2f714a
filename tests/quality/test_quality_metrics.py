"""Quality metrics against values known by construction or computed another way."""

import dataclasses
import json
import math

import numpy as np
import pytest

from asl_bids_app.quality.definitions import METRICS, columns, dictionary, lookup
from asl_bids_app.quality.evaluation_index import combine, quality_evaluation_index
from asl_bids_app.quality.image_set import UnitImages
from asl_bids_app.quality.metric import Light
from asl_bids_app.quality.metrics import compute, plausibility
from asl_bids_app.quality.statistics import residual_to_noise, right_half

SHAPE = (40, 48, 20)
AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])
AFFINE[:3, 3] = -78, -94, -40
N = 6


def head(shape=SHAPE):
    """A ball: white matter inside, a grey shell, fluid in the middle, sharp borders."""
    grid = np.stack(np.indices(shape)) - (np.array(shape)[:, None, None, None] - 1) / 2
    radius = np.sqrt((grid**2 / (np.array(shape)[:, None, None, None] / 2.2) ** 2).sum(0))
    mask = radius < 1
    gm = (radius < 1) & (radius >= 0.7)
    wm = (radius < 0.7) & (radius >= 0.3)
    return mask, gm, wm, radius < 0.3


def example(**changes):
    rng = np.random.default_rng(3)
    mask, gm, wm, csf = head()
    cbf = 60.0 * gm + 20.0 * wm + 5.0 * csf
    att = np.where(mask, 0.9 * gm + 1.3 * wm + 1.5 * csf, 0)
    noise = np.where(mask[..., None], 4e-4, 0.0) * np.ones(N)
    base = {
        "cbf": cbf,
        "att": att,
        "cbf_sd": np.where(mask, 3.0, 0),
        "att_sd": np.where(mask, 0.1, 0),
        "flags": np.zeros(SHAPE, np.uint8),
        "residual": rng.normal(0, 4e-4, (*SHAPE, N)) * np.sqrt((N - 2) / N),
        "noise": noise,
        "delta_m": np.where(mask[..., None], 4e-3, 0) * np.linspace(0.5, 1, N),
        "mask": mask,
        "affine": AFFINE,
        "gm": gm.astype(float),
        "wm": wm.astype(float),
        "csf": csf.astype(float),
        "m0": np.where(mask, 1000.0, 0),
    }
    return UnitImages(**(base | changes))


def test_tissue_means_are_those_of_the_tissues():
    found = compute(example())
    assert found["cbf_mean_gm"] == pytest.approx(60)
    assert found["cbf_mean_wm"] == pytest.approx(20)
    assert found["cbf_ratio_gm_wm"] == pytest.approx(3)
    assert found["att_mean_gm"] == pytest.approx(0.9)
    assert found["att_mean_wm"] == pytest.approx(1.3)
    assert found["cbf_sd_gm"] == pytest.approx(3)
    assert found["cbf_scov_gm"] == pytest.approx(0, abs=1e-12)


def test_the_threshold_leaves_mixed_voxels_out():
    data = example()
    gm = data.gm.copy()
    gm[20:] *= 0.6  # no pure grey matter in this half
    cbf = data.cbf.copy()
    cbf[20:] = 500
    assert compute(example(gm=gm, cbf=cbf))["cbf_mean_gm"] == pytest.approx(60)


def test_spatial_cov_of_a_known_spread():
    rng = np.random.default_rng(0)
    data = example()
    found = compute(example(cbf=np.where(data.gm > 0, rng.normal(60, 15, SHAPE), data.cbf)))
    assert found["cbf_scov_gm"] == pytest.approx(0.25, rel=0.05)


def test_shares_are_counts():
    data = example()
    brain = np.flatnonzero(data.mask)
    cbf = data.cbf.ravel().copy()
    cbf[brain[:100]] = -3
    cbf[brain[100:150]] = 0
    cbf[brain[150:170]] = 240
    cbf[brain[170:175]] = np.nan
    flags = np.zeros(cbf.size, np.uint8)
    flags[brain[:10]] = 1
    flags[brain[10:30]] = 2 | 8
    flags[brain[30:70]] = 4
    found = compute(example(cbf=cbf.reshape(SHAPE), flags=flags.reshape(SHAPE)))
    assert found["cbf_negative_fraction"] == pytest.approx(100 / brain.size)
    assert found["cbf_zero_fraction"] == pytest.approx(50 / brain.size)
    assert found["cbf_implausible_fraction"] == pytest.approx(25 / brain.size)
    assert found["bound_fraction"] == pytest.approx(30 / brain.size)
    assert found["failed_fraction"] == pytest.approx(40 / brain.size)
    assert found["att_unidentifiable_fraction"] == pytest.approx(20 / brain.size)


@pytest.mark.parametrize("flip", [False, True])
def test_asymmetry_is_positive_where_the_patients_right_is_higher(flip):
    affine = AFFINE.copy()
    i = np.indices(SHAPE)[0]
    right = i >= SHAPE[0] // 2
    if flip:  # stored right to left: the right has the small indices
        affine[0, 0] *= -1
        right = ~right
    data = example()
    cbf = data.cbf * np.where(right, 1.1, 0.9)
    att = data.att + np.where(right, 0.2, 0.0)
    found = compute(example(cbf=cbf, att=att, affine=affine))
    assert found["cbf_asymmetry_gm"] == pytest.approx(0.2)
    assert found["att_asymmetry_gm"] == pytest.approx(0.2)
    assert right_half(data.mask, affine)[data.mask].mean() == pytest.approx(0.5)


def test_residuals_of_pure_noise_have_a_ratio_of_one():
    """Residuals of a straight line through noise: two parameters, as CBF and ATT are."""
    rng = np.random.default_rng(1)
    design = np.stack([np.ones(N), np.arange(N)], axis=1)
    project = np.eye(N) - design @ np.linalg.inv(design.T @ design) @ design.T
    residual = rng.normal(0, 2e-4, (20, 20, 20, N)) @ project
    noise = np.full((20, 20, 20, N), 2e-4)
    everywhere = np.ones((20, 20, 20), bool)
    assert residual_to_noise(residual, noise, everywhere) == pytest.approx(1, rel=0.03)
    assert residual_to_noise(residual, noise / 2, everywhere) == pytest.approx(2, rel=0.03)
    assert math.isnan(residual_to_noise(residual[..., :2], noise[..., :2], everywhere))


def test_qei_formula_by_hand():
    # (1 - exp(-3.0126 * 0.8^2.4419)) = 0.82557; exp(-0.054 * 4^0.9272) = 0.82259;
    # exp(-2.8478 * 0.01^0.5196) = 0.77090
    assert combine(0.8, 4.0, 0.01) == pytest.approx((0.82557 * 0.82259 * 0.77090) ** (1 / 3), 1e-3)


def test_qei_against_an_independent_computation():
    rng = np.random.default_rng(5)
    data = example()
    cbf = np.where(data.mask, data.cbf + rng.normal(0, 25, SHAPE), 0)
    found = quality_evaluation_index(cbf, data.mask, data.gm, data.wm, data.csf, AFFINE)

    smooth = cbf
    for axis, voxel in enumerate((4.0, 4.0, 5.0)):  # a Gaussian whose half width is 5 mm
        distance = voxel * np.arange(-6, 7)
        weights = 2.0 ** -((distance / 2.5) ** 2)
        smooth = np.apply_along_axis(np.convolve, axis, smooth, weights / weights.sum(), "same")
    tissues = [smooth[p > 0.7] for p in (data.gm, data.wm, data.csf)]
    freedom = [t.size - 1 for t in tissues]
    pooled = sum(f * np.var(t, ddof=1) for f, t in zip(freedom, tissues, strict=True))
    dispersion = pooled / sum(freedom) / tissues[0].mean()
    pseudo = (2.5 * data.gm + data.wm)[data.mask]
    similarity = np.corrcoef(pseudo, smooth[data.mask])[0, 1]
    negative = (tissues[0] < 0).mean()
    expected = np.cbrt(
        (1 - np.exp(-3.0126 * similarity**2.4419))
        * np.exp(-0.054 * dispersion**0.9272 - 2.8478 * negative**0.5196)
    )
    assert found.similarity == pytest.approx(similarity, rel=1e-3)
    assert found.dispersion == pytest.approx(dispersion, rel=1e-2)
    assert found.negative == pytest.approx(negative, abs=1e-3)
    assert found.value == pytest.approx(expected, rel=5e-3)


def test_qei_orders_maps_by_quality():
    rng = np.random.default_rng(2)
    data = example()

    def qei(cbf):
        return quality_evaluation_index(
            np.where(data.mask, cbf, 0), data.mask, data.gm, data.wm, data.csf, AFFINE
        ).value

    values = [qei(data.cbf + rng.normal(0, sd, SHAPE)) for sd in (0, 40, 120)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.6
    assert qei(100 - data.cbf) == pytest.approx(0)  # white above grey: no structure


def test_data_metrics():
    data = example()
    fd = np.array([np.nan, 0.1, 0.3, 0.6, 0.2])
    m0 = data.m0.copy()
    m0[tuple(np.argwhere(data.mask)[0])] = 0
    found = compute(example(framewise_displacement=fd, m0=m0, tsnr=np.full(SHAPE, 70.0)))
    voxels = data.mask.sum()
    assert found["fd_mean"] == pytest.approx(0.3)
    assert found["fd_max"] == pytest.approx(0.6)
    assert found["fd_above_half_mm"] == pytest.approx(0.25)
    assert found["mask_volume"] == pytest.approx(voxels * 80 / 1000)
    assert found["mask_coverage"] == pytest.approx(1 - 1 / voxels)
    assert found["m0_nonpositive_fraction"] == pytest.approx(1 / voxels)
    assert found["m0_median"] == 1000
    assert found["snr_delta_m_gm"] == pytest.approx(10)
    assert found["tsnr_brain"] == 70
    assert found["mask_tissue_agreement"] == pytest.approx(1)


def test_a_mask_wider_than_the_tissue_maps_is_seen_and_left_out_of_the_qei():
    data = example()
    wide = data.mask.copy()
    wide[:, :, :2] = True
    cbf = data.cbf.copy()
    cbf[wide & ~data.mask] = 300.0  # scalp
    found = compute(example(mask=wide, cbf=cbf))
    assert found["mask_tissue_agreement"] == pytest.approx(data.mask.sum() / wide.sum())
    assert found["qei_similarity"] > 0.6


def test_disagreement_with_least_squares():
    rng = np.random.default_rng(4)
    data = example()
    noisy = data.cbf + 4 + rng.normal(0, 10, SHAPE)
    found = compute(
        example(
            lsq_cbf=noisy,
            lsq_att=data.att - 0.1,
            lsq_cbf_sd=np.full(SHAPE, 10.0),
            lsq_att_sd=np.full(SHAPE, 0.1),
            lsq_flags=np.full(SHAPE, 2, np.uint8),
        )
    )
    assert found["difference_cbf_gm"] == pytest.approx(-4, abs=0.5)
    # Median of |N(4, 10)|, by simulation from another generator.
    assert found["disagreement_cbf_gm"] == pytest.approx(7.3, abs=0.4)
    assert found["difference_att_gm"] == pytest.approx(0.1)
    assert found["disagreement_beyond_sd"] == pytest.approx(0.06, abs=0.03)
    assert found["lsq_cbf_mean_gm"] == pytest.approx(64, abs=0.5)
    assert found["lsq_bound_fraction"] == 1
    assert found["bound_fraction"] == 0


def test_without_tissue_there_are_no_tissue_numbers_but_all_columns():
    found = compute(example(gm=None, wm=None, csf=None))
    assert set(found) == {
        column for column, metric, lsq in columns() if not lsq and not metric.anatomy
    }
    assert math.isnan(found["cbf_mean_gm"])
    assert math.isnan(found["qei"])
    assert math.isnan(found["mask_tissue_agreement"])
    assert 10 < found["cbf_mean_brain"] < 60
    assert found["residual_to_noise_gm"] == pytest.approx(1, rel=0.05)
    assert plausibility(found) == []


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="gm: shape"):
        example(gm=np.zeros((2, 2, 2)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"cbf": 0.0}, ["zero in the whole brain", "part of the bolus, had arrived"]),
        ({"cbf": 6e13}, ["outside 10-150", "above 200"]),
        ({"cbf": 3.0}, ["outside 10-150"]),
        ({"cbf": -30.0}, ["outside 10-150", "negative"]),
        ({"cbf": np.nan}, ["finite"]),
        ({"flags": 2}, ["ended at a bound"]),
        ({"flags": 4}, ["have no fit"]),
    ],
)
def test_an_implausible_result_is_loud(changes, words):
    data = example()
    full = {
        key: np.where(data.mask, value, 0).astype(float if key == "cbf" else np.uint8)
        for key, value in changes.items()
    }
    sentences = plausibility(compute(example(**full)))
    for word in words:
        assert any(word in sentence for sentence in sentences), (word, sentences)
    assert bool(sentences) == bool(words)


def test_the_dictionary_defines_every_column_and_is_json():
    entries = json.loads(json.dumps(dictionary(), allow_nan=False))
    data = example()
    lsq = {f"lsq_{key}": getattr(data, key) for key in ("cbf", "att", "cbf_sd", "att_sd")}
    # Those of the registration are known once the anatomy ran.
    later = {key for key, metric in METRICS.items() if metric.anatomy}
    assert set(compute(example(**lsq, lsq_flags=data.flags))) | later == set(entries)
    for entry in entries.values():
        assert entry["LongName"]
        assert entry["Description"].endswith(".")
        assert entry["Units"]
    assert lookup("lsq_qei") == (METRICS["qei"], True)
    assert lookup("lsq_m0_median") is None
    assert lookup("acq") is None


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_lights_are_ordered_and_have_a_basis(metric):
    if metric.good is None:
        assert metric.light(1.0) is Light.NONE
        return
    assert metric.basis
    assert metric.fair[0] <= metric.good[0] < metric.good[1] <= metric.fair[1]
    assert metric.light(metric.good[0]) is Light.GOOD
    assert metric.light(math.nan) is Light.NONE
    below = metric.fair[0] - 1
    assert metric.light(below) is Light.POOR


def test_values_are_not_changed_in_place():
    data = example()
    before = {f.name: np.copy(getattr(data, f.name)) for f in dataclasses.fields(data)}
    compute(data)
    for name, value in before.items():
        if value.dtype != object:
            np.testing.assert_array_equal(value, getattr(data, name))


def noisy(**changes):
    """Every array that metrics are made of, in single precision as maps are, with noise."""
    rng = np.random.default_rng(8)
    data = example()
    arrays = {
        "cbf": data.cbf + rng.normal(0, 6, SHAPE),
        "att": data.att + rng.normal(0, 0.1, SHAPE),
        "cbf_sd": rng.gamma(9, 0.5, SHAPE),
        "att_sd": rng.gamma(9, 0.01, SHAPE),
        "residual": data.residual,
        "noise": np.broadcast_to(rng.gamma(50, 8e-6, (*SHAPE, 1)), (*SHAPE, N)).copy(),
        "delta_m": data.delta_m + rng.normal(0, 4e-4, (*SHAPE, N)),
        "gm": data.gm,
        "wm": data.wm,
        "csf": data.csf,
        "m0": data.m0 * rng.uniform(0.8, 1.2, SHAPE),
        "tsnr": rng.gamma(50, 2, SHAPE),
        "lsq_cbf": data.cbf + rng.normal(0, 9, SHAPE),
        "lsq_att": data.att + rng.normal(0, 0.2, SHAPE),
        "lsq_cbf_sd": rng.gamma(9, 1, SHAPE),
        "lsq_att_sd": rng.gamma(9, 0.02, SHAPE),
        "cbf_spread": rng.gamma(9, 0.2, SHAPE),
        "att_spread": rng.gamma(9, 0.005, SHAPE),
    }
    single = {key: np.asarray(value, np.float32) for key, value in arrays.items()}
    return example(**(single | {"lsq_flags": data.flags} | changes))


@pytest.fixture(scope="module")
def clean():
    return noisy(), compute(noisy())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name",
    [
        *("cbf", "att", "cbf_sd", "att_sd", "lsq_cbf", "lsq_att", "lsq_cbf_sd", "lsq_att_sd"),
        *("residual", "noise", "delta_m", "m0", "tsnr", "cbf_spread", "att_spread"),
        *("gm", "wm", "csf"),
    ],
)
def test_impossible_voxels_move_no_metric(name, clean):
    data, expected = clean
    values = getattr(data, name).copy()
    grey = np.argwhere(data.gm > 0.7)
    for place, fault in zip(grey[40::60], (1e38, -1e38, 1e6, np.inf, np.nan), strict=False):
        values[tuple(place)] = fault
    values[tuple(np.argwhere(data.wm > 0.7)[40])] = 1e38
    values[tuple(np.argwhere(data.csf > 0.7)[40])] = 1e38
    found = compute(noisy(**{name: values}))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # Seven voxels of 14,500, in shares and in the smoothed map of the QEI.
        assert found[key] == pytest.approx(value, rel=0.01, abs=1e-3, nan_ok=True), key


def test_an_impossible_value_in_a_map_of_zeros_is_no_mean():
    cbf = np.zeros(SHAPE, np.float32)
    cbf[tuple(np.argwhere(example().gm > 0.7)[40])] = 1e38
    assert compute(example(cbf=cbf))["cbf_mean_gm"] == 0


def test_zeros_are_measurements_and_blanked_voxels_lower_the_coverage():
    data = example()
    delta_m = data.delta_m.copy()
    delta_m[data.mask, 0] *= np.random.default_rng(1).random(data.mask.sum()) > 0.2
    assert compute(example(delta_m=delta_m))["mask_coverage"] == 1
    smaller = data.mask.copy()
    smaller[:20] = False
    found = compute(example(mask=smaller, whole_brain=data.mask))
    assert found["mask_coverage"] == pytest.approx(smaller.sum() / data.mask.sum())


def test_what_is_not_available_says_why():
    values = compute(example(gm=None, wm=None, csf=None))
    entries = dictionary(values, "the atlas doesn't fit")
    for key, entry in entries.items():
        metric, _ = lookup(key)
        assert ("NotAvailable" in entry) == (
            metric.by_tissue and math.isnan(values.get(key, math.nan))
        )
    assert entries["cbf_mean_gm"]["NotAvailable"] == "the atlas doesn't fit"
    assert entries["lsq_qei"]["NotAvailable"] == "the atlas doesn't fit"
    assert "NotAvailable" not in entries["cbf_mean_brain"]
    assert "NotAvailable" not in dictionary(compute(example()), "no")["cbf_mean_gm"]


def test_numbers_of_grey_matter_are_not_those_of_the_brain():
    """Another value in each tissue, for each array: 1 in grey, 2 in white matter, 3 in fluid."""
    data = example()
    step = 1.0 * data.gm + 2.0 * data.wm + 3.0 * data.csf
    rng = np.random.default_rng(11)
    # Each tissue's values scatter, so that the brain's median isn't that of grey matter.
    uneven = step * (1 + 0.1 * rng.standard_normal(SHAPE))
    found = compute(
        example(
            cbf_sd=3 * uneven,
            att_sd=0.1 * uneven,
            cbf_spread=0.7 * uneven,
            att_spread=0.05 * uneven,
            residual=data.residual * step[..., None],
            lsq_cbf=data.cbf + 6 * uneven * rng.choice([-1, 1], SHAPE),
            lsq_att=data.att + 0.2 * uneven * rng.choice([-1, 1], SHAPE),
            lsq_cbf_sd=4 * uneven,
            lsq_att_sd=0.3 * uneven,
            lsq_flags=data.flags,
            outside_domain=0.125,
            m0=np.where(data.mask, 1000.0 + 500 * (np.indices(SHAPE).sum(0) % 2), 0),
        )
    )
    expected = {
        "cbf_sd_gm": 3,
        "att_sd_gm": 0.1,
        "ensemble_spread_cbf_gm": 0.7,
        "ensemble_spread_att_gm": 0.05,
        "disagreement_cbf_gm": 6,
        "disagreement_att_gm": 0.2,
        # 6 is above hypot(3, 4), and not above twice that.
        "disagreement_beyond_sd": 0,
        "lsq_cbf_sd_gm": 4,
        "lsq_att_sd_gm": 0.3,
        "outside_domain_fraction": 0.125,
        "m0_cov": 250 / 1250,
        "att_mean_brain": data.att[data.mask].mean(),
        "cbf_mean_brain": data.cbf[data.mask].mean(),
        # Of ΔM over noise 5 to 10 by measurement, the strongest.
        "snr_delta_m_gm": 10,
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=5e-3, abs=1e-9), key
    assert found["residual_to_noise_gm"] == pytest.approx(1, rel=0.05)
    assert math.isnan(compute(example())["outside_domain_fraction"])


def test_tissue_by_fluid_and_the_middle_of_the_temporal_snr():
    data = example()
    tsnr = np.where(data.gm > 0, 50.0, 400.0)  # two thirds of the ball are grey matter
    found = compute(example(tsnr=tsnr))
    assert found["tsnr_brain"] == 50
    agreement = compute(example(csf=np.zeros(SHAPE)))["mask_tissue_agreement"]
    assert agreement == pytest.approx(1 - data.csf.sum() / data.mask.sum())


def test_a_ratio_to_nothing_is_none_and_few_voxels_say_nothing():
    data = example()
    assert math.isnan(compute(example(cbf=-data.cbf))["cbf_ratio_gm_wm"])
    assert math.isnan(compute(example(cbf=-data.cbf))["cbf_scov_gm"])
    few = np.zeros(SHAPE)
    few[tuple(np.argwhere(data.gm > 0)[:19].T)] = 1
    assert math.isnan(compute(example(gm=few))["cbf_mean_gm"])
    few[tuple(np.argwhere(data.gm > 0)[19:20].T)] = 1
    assert compute(example(gm=few))["cbf_mean_gm"] == pytest.approx(60)
