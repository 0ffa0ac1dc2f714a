"""The published example datasets by their metadata, real data, and the official validator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_bids import FakeDataset, edit_json, runs_of

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.images import load
from asl_bids_app.bids.layout import find_runs
from asl_bids_app.bids.sessions import group
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.schemes import Scheme

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def errors(root):
    """Return the error codes of the official validator, which needs no network."""
    if not VALIDATOR.exists():
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run(
        [VALIDATOR, root, "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [(i["code"], i["location"]) for i in issues if i["severity"] == "error"]


def test_fake_datasets_are_valid(tmp_path):
    dataset = FakeDataset(tmp_path)
    options = {"shape": (3, 3, 3), "repeats": 1}
    dataset.add("01", acq="pcasl", **options)
    dataset.add("01", acq="vsasl", scheme="VSASL", **options)
    dataset.add("01", acq="cut", scheme="VSASL", label_duration=1.0, **options)
    dataset.add("02", scheme="PASL", m0="Included", slice_step=0.04, blocked=True, **options)
    dataset.add("03", session="a", m0="Estimate", order=("deltam",), extension=".nii", **options)
    dataset.add("04", scheme="CASL", m0="Absent", order=("label", "control"), **options)
    assert errors(tmp_path) == []
    for runs in find_runs(tmp_path).participants.values():
        for run in runs:
            got = understand(run)
            assert load(got.path, ndim=4).data.shape[3] == len(got.volume_types)


@pytest.mark.slow
@pytest.mark.parametrize("acq", [None, "velocity"])
def test_bidsignore_line_of_the_alias_warning_works(tmp_path, acq):
    dataset = FakeDataset(tmp_path)
    dataset.add("02", shape=(3, 3, 3))
    run = dataset.add("01", acq=acq, scheme="VSASL", shape=(3, 3, 3), m0="Included")
    run.edit(ArterialSpinLabelingType="VSASL", PASLType=None)
    (found,) = find_runs(tmp_path, ["01"]).participants["01"]
    (warning,) = understand(found).warnings
    assert [code for code, _ in errors(tmp_path)] == ["JSON_SCHEMA_VALIDATION_ERROR"]
    line = warning.partition("the line ")[2].partition(" in .bidsignore")[0]
    (tmp_path / ".bidsignore").write_text(line + "\n")
    assert errors(tmp_path) == []


def example(tmp_path, kinds, shape=(4, 4, 4), **metadata):
    """Build a dataset with given volumes and metadata, and understand it."""
    run = FakeDataset(tmp_path).add("01", shape=shape, delays=(1.0,), repeats=1)
    content = json.loads(run.sidecar.read_text())
    run.sidecar.write_text("{}")
    keep = ("TotalAcquiredPairs",)
    edit_json(run.sidecar, {k: content[k] for k in keep} | metadata)
    run.image(np.ones((*shape, len(kinds))))
    run.context(kinds)
    if metadata["M0Type"] != "Separate":
        run.m0scan.unlink()
        run.m0_sidecar.unlink()
    return run, tmp_path


def read(root):
    (run,) = runs_of(root)
    return understand(run)


def test_asl001_ge_difference_with_included_m0(tmp_path):
    _, root = example(
        tmp_path,
        ["m0scan", "deltam"],
        ArterialSpinLabelingType="PCASL",
        MRAcquisitionType="3D",
        PostLabelingDelay=2.025,
        LabelingDuration=1.45,
        BackgroundSuppression=True,
        BackgroundSuppressionNumberPulses=4,
        BackgroundSuppressionPulseTime=[1.965, 2.6, 3.1, 3.38],
        M0Type="Included",
        EchoTime=0.010528,
        FlipAngle=111,
        RepetitionTimePreparation=4.886,
        TotalAcquiredPairs=3,
        MagneticFieldStrength=3,
    )
    got = read(root)
    assert got.scheme is Scheme.PCASL
    np.testing.assert_array_equal(got.post_labeling_delay, [np.nan, 2.025])
    np.testing.assert_array_equal(got.label_duration, [np.nan, 1.45])
    assert got.m0.repetition_time == (4.886,)
    assert got.warnings == ()


def test_asl002_philips_2d(tmp_path):
    step = 0.0385
    run, root = example(
        tmp_path,
        ["control", "label"] * 35,
        shape=(3, 3, 20),
        ArterialSpinLabelingType="PCASL",
        MRAcquisitionType="2D",
        SliceTiming=[round(i * step, 4) for i in range(20)],
        PostLabelingDelay=2.0,
        LabelingDuration=1.8,
        BackgroundSuppression=True,
        M0Type="Separate",
        EchoTime=0.015,
        FlipAngle=90,
        RepetitionTimePreparation=4.572,
        LookLocker=False,
        TotalAcquiredPairs=35,
        MagneticFieldStrength=3,
    )
    run.edit_m0(IntendedFor="perf/sub-01_asl.nii.gz", RepetitionTimePreparation=9, EchoTime=0.015)
    got = read(root)
    np.testing.assert_allclose(got.slice_time, step * np.arange(20), atol=1e-4)
    assert got.m0.kind is M0Kind.SEPARATE
    assert got.m0.repetition_time == (9.0,)
    assert got.warnings == ()
    # The label meets the topmost slice this late.
    assert got.post_labeling_delay[0] + got.slice_time[-1] == pytest.approx(2.7315)


def test_asl003_siemens_fair_q2tips(tmp_path):
    delays = [round(0.3 * (i // 2 + 1), 1) for i in range(20)]
    run, root = example(
        tmp_path,
        ["label", "control"] * 10,
        ArterialSpinLabelingType="PASL",
        PASLType="FAIR",
        MRAcquisitionType="3D",
        PostLabelingDelay=delays,
        BolusCutOffFlag=True,
        BolusCutOffDelayTime=[0.7, 1.6],
        BolusCutOffTechnique="Q2TIPS",
        BackgroundSuppression=True,
        BackgroundSuppressionPulseTime=[0.15, 0.2],
        LabelingSlabThickness=115.5,
        M0Type="Separate",
        EchoTime=0.01192,
        FlipAngle=180,
        RepetitionTimePreparation=3.5,
        TotalAcquiredPairs=10,
        MagneticFieldStrength=3,
    )
    run.edit_m0(
        IntendedFor="perf/sub-01_asl.nii.gz",
        RepetitionTimePreparation=6,
        EchoTime=0.01614,
        FlipAngle=180,
    )
    got = read(root)
    assert got.scheme is Scheme.PASL
    assert got.post_labeling_delay.tolist() == delays
    assert set(got.label_duration) == {0.7}
    (warning,) = got.warnings
    assert "EchoTime: found 0.01614 s, expected 0.01192 s" in warning


def test_asl004_siemens_blocks(tmp_path):
    delays = [d for d in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5) for _ in range(16)]
    run, root = example(
        tmp_path,
        ["label", "control"] * 48,
        shape=(3, 3, 24),
        ArterialSpinLabelingType="PCASL",
        PCASLType="balanced",
        MRAcquisitionType="2D",
        SliceTiming=[round(i * 0.0452, 4) for i in range(24)],
        PostLabelingDelay=delays,
        LabelingDuration=1.4,
        BackgroundSuppression=True,
        M0Type="Separate",
        EchoTime=0.014,
        FlipAngle=90,
        LabelingEfficiency=0.88,
        RepetitionTimePreparation=4.05,
        TotalAcquiredPairs=48,
        MagneticFieldStrength=3,
    )
    run.aslcontext.write_text(run.aslcontext.read_text() + "\n")
    run.edit_m0(
        IntendedFor="perf/sub-01_asl.nii.gz", RepetitionTimePreparation=4.8, EchoTime=0.014
    )
    fmap = root / "sub-01" / "fmap"
    fmap.mkdir()
    (fmap / "sub-01_dir-pa_m0scan.nii.gz").write_bytes(run.m0scan.read_bytes())
    (fmap / "sub-01_dir-pa_m0scan.json").write_text(
        json.dumps({"IntendedFor": "perf/sub-01_m0scan.nii.gz"})
    )
    got = read(root)
    assert got.post_labeling_delay.tolist() == delays
    assert got.m0.path == run.m0scan
    assert got.m0.repetition_time == (4.8,)
    assert got.warnings == ()


def test_asl005_siemens_3d(tmp_path):
    run, root = example(
        tmp_path,
        ["control", "label"] * 8,
        ArterialSpinLabelingType="PCASL",
        MRAcquisitionType="3D",
        PostLabelingDelay=2,
        LabelingDuration=1.8,
        BackgroundSuppression=True,
        BackgroundSuppressionPulseTime=[2.29, 2.925, 3.425, 3.705],
        M0Type="Separate",
        EchoTime=0.01328,
        FlipAngle=130,
        RepetitionTimePreparation=4.95,
        TotalAcquiredPairs=8,
        MagneticFieldStrength=3,
    )
    run.edit_m0(
        IntendedFor="perf/sub-01_asl.nii.gz",
        RepetitionTimePreparation=4.95,
        EchoTime=0.01328,
        FlipAngle=130,
    )
    got = read(root)
    assert set(got.post_labeling_delay) == {2.0}
    assert got.m0.repetition_time == (4.95,)
    assert got.warnings == ()


@pytest.mark.real_data
def test_oxford_pcasl():
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("ASL_APP_TEST_DATA", beside)) / "oxford_pcasl"
    if not root.exists():
        pytest.skip(f"real data not found at {root}")
    dataset = find_runs(root)
    (run,) = dataset.participants["01"]
    got = understand(run)
    # From the protocol print-out that comes with the data.
    expected = [np.nan, *np.repeat(np.tile([0.25, 0.5, 0.75, 1.0, 1.25, 1.5], 8), 2)]
    np.testing.assert_array_equal(got.post_labeling_delay, expected)
    assert set(got.label_duration[1:]) == {1.4}
    assert got.volume_types == ("m0scan", *["label", "control"] * 48)
    assert got.slice_time.shape == (24,)
    assert got.slice_time[-1] == 1.07
    assert (got.m0.kind, got.m0.repetition_time) == (M0Kind.INCLUDED, (4.1,))
    assert got.warnings == dataset.warnings == ()
    image = load(got.path, ndim=4)
    assert image.data.shape == (64, 64, 24, 97)
    assert image.finite.all()
    assert [unit.name for unit in group([got])] == ["sub-01_acq-pcasl2depi"]
