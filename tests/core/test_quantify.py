"""From Python: arrays against written-out physics, datasets against the command line."""

import doctest
import importlib
import json
import runpy
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from fake_bids import ATT, CBF, FakeDataset
from physics import integrated, simulate

import asl_bids_app
from asl_bids_app import Protocol
from asl_bids_app.bids.derivatives import write_json
from asl_bids_app.errors import InputError
from asl_bids_app.run_records import UnitRecord

DELAYS = [0.5, 1.0, 1.5, 2.0, 2.5]
PROTOCOLS = {
    "PCASL": Protocol.pcasl(DELAYS, 1.8),
    "CASL": Protocol.casl(DELAYS, 2.0),
    "PASL": Protocol.pasl(DELAYS, 0.7),
    "VSASL": Protocol.vsasl([0.6, 1.0, 1.4, 1.8, 2.2], [1.4] * 5),
}


def measured(scheme, protocol, cbf, att):
    """ΔM/M0 by quadrature, measurements last."""
    times = zip(
        protocol.post_labeling_delay.tolist(), protocol.label_duration.tolist(), strict=True
    )
    return np.stack([cbf * integrated(scheme, w, d, att) for w, d in times], axis=-1)


@pytest.mark.parametrize("scheme", PROTOCOLS)
@pytest.mark.parametrize("estimator", ["least-squares", "bayes"])
def test_arrays_without_noise_give_the_truth_of_every_scheme(scheme, estimator):
    rng = np.random.default_rng(1)
    cbf, att = rng.uniform(20, 90, (5, 6, 3)), rng.uniform(0.8, 1.3, (5, 6, 3))
    protocol = PROTOCOLS[scheme]
    m0 = rng.uniform(800, 1200, cbf.shape)
    delta_m = m0[..., None] * measured(scheme, protocol, cbf, att)
    maps = asl_bids_app.quantify(
        delta_m, m0, protocol, estimator=estimator, arterial=False, repeats=4,
        standard_error=np.full(delta_m.shape, 0.01),
    )  # fmt: skip
    assert isinstance(maps.cbf, np.ndarray)
    # Of VSASL the transit time matters only while the bolus still flows in.
    known = np.ones(att.shape, bool) if scheme != "VSASL" else att < 0
    np.testing.assert_allclose(maps.cbf, cbf, rtol=0.02)
    np.testing.assert_allclose(maps.att[known], att[known], atol=0.03)


def test_any_number_of_axes_of_space_comes_back():
    curve = measured("PCASL", PROTOCOLS["PCASL"], np.array(60.0), np.array(1.2))
    for shape in ((), (7,), (3, 4), (3, 4, 2)):
        delta_m = np.broadcast_to(curve, (*shape, 5))
        maps = asl_bids_app.quantify(delta_m, 1.0, PROTOCOLS["PCASL"], estimator="least-squares")
        assert maps.cbf.shape == shape
        assert maps.residual.shape == (*shape, 5)
        np.testing.assert_allclose(maps.cbf, 60, rtol=0.01)


def test_a_single_delay_needs_no_axis_of_its_own():
    value = float(60 * integrated("PCASL", 1.8, 1.8, np.array(1.3)))
    protocol = Protocol.pcasl(1.8, 1.8)
    m0 = np.full((4, 5, 1), 1000.0)
    for delta_m in (value * m0, value * m0[..., None]):
        maps = asl_bids_app.quantify(delta_m, m0, protocol, estimator="least-squares")
        assert maps.cbf.shape == m0.shape
        np.testing.assert_allclose(maps.cbf, 60, rtol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_times_go_along_their_axis(axis):
    shape = (3, 4, 5)
    late = 0.05 * np.arange(shape[axis])
    place = np.indices(shape)[axis]
    cbf = np.full(shape, 60.0)
    delta_m = np.zeros((*shape, 5))
    for i, delay in enumerate(DELAYS):
        for number, time in enumerate(late):
            here = place == number
            delta_m[here, i] = 60 * integrated("PCASL", delay + time, 1.8, np.array(1.0))
    maps = asl_bids_app.quantify(
        delta_m, 1.0, PROTOCOLS["PCASL"], estimator="least-squares", slice_time=late,
        slice_axis=axis,
    )  # fmt: skip
    np.testing.assert_allclose(maps.cbf, cbf, rtol=0.01)
    np.testing.assert_allclose(maps.att, 1.0, atol=0.02)


def test_constants_scale_as_the_formula_says():
    """CBF goes with the partition coefficient and against both efficiencies."""
    delta_m = measured(
        "PCASL", PROTOCOLS["PCASL"], np.full((3, 3, 1), 60.0), np.full((3, 3, 1), 1.0)
    )
    usual = {"estimator": "least-squares", "arterial": False}

    def mean(**changes):
        return asl_bids_app.quantify(
            delta_m, 1.0, PROTOCOLS["PCASL"], **usual, **changes
        ).cbf.mean()

    assert mean(labeling_efficiency=0.425) == pytest.approx(120, rel=1e-3)
    assert mean(labeling_efficiency={"PCASL": 0.68}) == pytest.approx(75, rel=1e-3)
    assert mean(suppression_efficiency=0.8) == pytest.approx(75, rel=1e-3)
    assert mean(partition_coefficient=0.81) == pytest.approx(54, rel=1e-3)
    assert mean(t1_blood=1.65, t1_tissue=1.65) == pytest.approx(mean(), rel=1e-6)
    assert mean(field_strength=1.5) > 1.1 * mean()


def test_a_mask_and_values_that_are_no_numbers():
    delta_m = np.broadcast_to(
        measured("PCASL", PROTOCOLS["PCASL"], np.array(60.0), np.array(1.0)), (4, 4, 2, 5)
    ).copy()
    delta_m[0, 0, 0, 2] = np.nan
    mask = np.ones((4, 4, 2), bool)
    given = (delta_m, 1.0, PROTOCOLS["PCASL"])
    maps = asl_bids_app.quantify(*given, estimator="least-squares")
    assert maps.cbf[0, 0, 0] == 0
    assert (maps.cbf > 50).sum() == 31
    with pytest.raises(InputError, match="1 voxels whose delta_m is no number"):
        asl_bids_app.quantify(*given, mask=mask, estimator="least-squares")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"m0": np.ones((4, 4))}, "m0"),
        ({"delta_m": np.ones((4, 4, 2, 6))}, "delta_m"),
        ({"delta_m": np.full((4, 4, 2, 5), "x")}, "delta_m"),
        ({"delta_m": np.full((4, 4, 2, 5), 8.0)}, "m0"),
        ({"mask": np.zeros((4, 4, 2))}, "mask"),
        ({"estimator": "lsq"}, "estimator"),
        ({"t1_blood": 1650}, "t1_blood"),
        ({"labeling_efficiency": 85}, "labeling_efficiency"),
        ({"labeling_efficiency": {"PASL": 0.9}}, "labeling_efficiency"),
        ({"partition_coefficient": float("nan")}, "partition_coefficient"),
        ({"field_strength": 5.0}, "field_strength"),
        ({"slice_time": [0.0, 0.1, 0.2]}, "slice_time"),
        ({"slice_axis": 3}, "slice_axis"),
        ({"repeats": [1, 2]}, "repeats"),
        ({"repeats": 0}, "repeats"),
        ({"affine": np.eye(3)}, "affine"),
        ({"tissue": {"gm": np.ones(3)}}, "tissue: gm"),
    ],
)
def test_an_argument_that_cant_be_is_named_in_one_line(changes, field):
    given = {
        "delta_m": np.full((4, 4, 2, 5), 0.006),
        "m0": 1.0,
        "protocol": PROTOCOLS["PCASL"],
        "estimator": "bayes",
    }
    with pytest.raises(ValueError, match=f"^quantify: {field}: found") as caught:
        asl_bids_app.quantify(**(given | changes))
    assert "\n" not in str(caught.value)


def test_the_ensemble_tells_that_it_needs_an_affine_for_means():
    delta_m = np.broadcast_to(
        measured("PCASL", PROTOCOLS["PCASL"], np.array(60.0), np.array(1.0)), (16, 16, 2, 5)
    )
    noise = np.random.default_rng(0).normal(0, 5e-4, delta_m.shape)
    given = (delta_m + noise, 1.0, PROTOCOLS["PCASL"])
    without = asl_bids_app.quantify(*given, tta=False)
    assert any(text.startswith("affine: ") for text in without.warnings)
    assert without.consistency is None
    tissue = {"gm": np.ones((16, 16, 2)), "wm": np.zeros((16, 16, 2))}
    maps = asl_bids_app.quantify(*given, tta=False, affine=np.eye(4) * 3, tissue=tissue)
    assert not any(text.startswith("affine: ") for text in maps.warnings)
    assert maps.consistency is not None
    assert maps.cbf.mean() == pytest.approx(60, rel=0.1)


def test_protocols_add_up_and_refuse_what_cant_be():
    both = PROTOCOLS["PCASL"] + Protocol.vsasl([1.5])
    assert both.n_measurements == 6
    assert [scheme.value for scheme in both.schemes] == ["PCASL"] * 5 + ["VSASL"]
    with pytest.raises(ValueError, match="label_duration"):
        Protocol.pcasl(DELAYS, [1.8, 1.8])
    with pytest.raises(ValueError, match="finite"):
        Protocol.pasl([-1.0], 0.7)


def test_examples_in_docstrings_hold():
    for name in ("asl_bids_app.arrays", "asl_bids_app.protocol", "asl_bids_app.batch"):
        found = doctest.testmod(importlib.import_module(name))
        assert found.attempted
        assert not found.failed


def test_the_example_is_near_its_truth(root, capsys):
    runpy.run_path(str(root / "examples" / "quantify_arrays.py"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines if "truth" in line] == [
        "least-squares",
        "ensemble",
    ]
    for line in lines[:2]:
        assert float(line.split("grey matter ")[1].split()[0]) == pytest.approx(60, abs=3)


@pytest.mark.parametrize("first", ["asl_bids_app", "asl_bids_app.quantify", "asl_bids_app.batch"])
def test_the_package_is_light_and_its_functions_are_there_in_any_order(first):
    script = (
        f"import sys, {first}, asl_bids_app;"
        "heavy = {'torch', 'nipype', 'bids', 'nibabel', 'scipy', 'SimpleITK'};"
        "print(sorted(heavy & set(sys.modules)), callable(asl_bids_app.quantify),"
        " callable(asl_bids_app.quantify_bids), callable(asl_bids_app.quantify))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] True True True"


def test_noise_is_estimated_once(monkeypatch):
    """What assembling found is what every estimator and the check of the domain use."""
    from asl_bids_app.estimators import noise
    from asl_bids_app.estimators.estimate import estimate

    protocol = [("PCASL", w, 1.8) for w in DELAYS]
    cbf = np.random.default_rng(2).uniform(20, 80, (2, 16, 16))
    series = noise.with_noise(simulate(protocol, cbf, np.ones_like(cbf), noise_sd=5e-4))
    assert noise.with_noise(series) is series

    def again(_):
        raise AssertionError("a second estimate")

    monkeypatch.setattr(noise, "estimate_noise", again)
    for name in ("least-squares", "bayes", "ensemble"):
        estimate(series, name, tta=False, consistent=False)


@pytest.mark.usefixtures("without_pictures")
def test_a_dataset_gives_what_the_command_line_gives_and_a_bad_run_stops_no_other(tmp_path):
    from asl_bids_app.cli.app import main

    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", noise=1e-4)
    dataset.add("02", noise=1e-4).edit(LabelingDuration=None)
    out = tmp_path / "out"
    result = asl_bids_app.quantify_bids(
        dataset.root, out, estimator="least-squares", hmc=False, tissue=False
    )
    (unit,) = result.units
    assert unit.entities == {"sub": "01"}
    assert unit.metrics["cbf_mean_brain"] == pytest.approx(CBF, rel=0.02)
    assert unit.metrics["att_mean_brain"] == pytest.approx(ATT, abs=0.05)
    assert {failure.unit for failure in result.failures} == {"sub-02_asl"}
    assert "LabelingDuration" in result.failures[0].message
    assert not (out / "sub-02").exists()
    other = tmp_path / "other"
    work = str(tmp_path / "work")
    options = ["--estimator", "least-squares", "--no-hmc", "--no-tissue", "--quiet", "-w", work]
    options += ["--nprocs", "1"]
    main([str(dataset.root), str(other), "participant", *options])
    images = [name for name in unit.outputs if name.endswith(".nii.gz")]
    assert len(images) > 8
    (written,) = other.glob("logs/*/sub-01.json")
    write_json(tmp_path / "unit.json", unit.to_json())
    here = json.loads((tmp_path / "unit.json").read_text())
    assert UnitRecord.from_json(here).to_json() == here
    (there,) = json.loads(written.read_text())["units"]
    of_clock = {"fit_seconds", "baseline_seconds", "timing", "processor_timing"}
    assert {k: there[k] for k in there.keys() - of_clock} == {
        k: here[k] for k in here.keys() - of_clock
    }
    for name in images:
        first, second = (nib.load(folder / name).get_fdata() for folder in (out, other))
        np.testing.assert_array_equal(first, second, err_msg=name)


def test_an_unknown_option_of_a_dataset_is_named(tmp_path):
    with pytest.raises(InputError, match="no_tissue"):
        asl_bids_app.quantify_bids(tmp_path, tmp_path / "out", no_tissue=True)
