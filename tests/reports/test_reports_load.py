"""Derivatives read back from disk are what was written, whatever the orientation."""

import math

import numpy as np
import pytest
import reports_example as example

from asl_bids_app.reports.find_records import asked_participants, records_of, unit_of
from asl_bids_app.reports.load import find_series, load_series, parse_entities, read_metrics


@pytest.fixture(scope="module")
def brain():
    return example.Brain(step=4, lesion=True)


@pytest.mark.parametrize("flip", [False, True])
def test_images_come_back_in_ras_with_their_slice_times(tmp_path, brain, flip):
    entities = {"sub": "01", "ses": "a", "acq": "x"}
    example.write_series(
        tmp_path, entities, ("PCASL", "VSASL"), brain=brain, two_d=True, flip=flip
    )
    [(folder, found)] = find_series(tmp_path, "01")
    assert found == entities
    data = load_series(folder, found)
    assert data.problems == ()
    np.testing.assert_array_equal(data.images["mask"] > 0, brain.mask)
    np.testing.assert_allclose(data.images["gm"], brain.gm, atol=1e-6)
    np.testing.assert_allclose(data.affine, brain.affine, atol=1e-4)
    # The lesion was put on the patient's right, where the first axis ends.
    late = np.argwhere((data.images["att"] > 2.1) & brain.mask)
    assert late[:, 0].mean() > brain.mask.shape[0] / 2
    for time in data.slice_time:
        np.testing.assert_allclose(
            time[3, 4], example.SLICE_STEP * np.arange(brain.mask.shape[2]), atol=1e-6
        )
    assert data.measurements[0].label_duration == 1.8
    assert math.isinf(data.measurements[-1].label_duration)
    assert data.efficiency("PCASL") == pytest.approx(0.85)
    assert data.baseline
    assert data.metrics["fd_mean"] == pytest.approx(
        np.nanmean(data.confounds["framewise_displacement"]), rel=1e-4
    )


def test_slice_times_follow_the_axis_that_slices_run_along(tmp_path, brain):
    """Sagittal slices: the axis is known by its length, or by the sidecar."""
    import json

    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    folder = tmp_path / "sub-01" / "perf"
    n = brain.mask.shape[0]
    sidecar = folder / "sub-01_cbf.json"
    content = json.loads(sidecar.read_text())
    for row in content["Measurements"]:
        row["SliceTiming"] = list(np.arange(n) / 100)
    sidecar.write_text(json.dumps(content))
    time = load_series(folder, {"sub": "01"}).slice_time[0]
    np.testing.assert_allclose(time[:, 2, 3], np.arange(n) / 100, atol=1e-6)


def test_a_damaged_image_is_a_problem_not_a_crash(tmp_path, brain):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    folder = tmp_path / "sub-01" / "perf"
    (folder / "sub-01_att.nii.gz").write_bytes(b"not an image")
    (folder / "sub-01_desc-std_att.nii.gz").unlink()
    data = load_series(folder, {"sub": "01"})
    assert "att" not in data.images
    assert "att_sd" not in data.images
    assert "cbf" in data.images
    assert len(data.problems) == 1
    assert "sub-01_att.nii.gz" in data.problems[0]


def test_names_that_are_no_entities():
    assert parse_entities("sub-01_acq-a") == {"sub": "01", "acq": "a"}
    assert parse_entities("sub-01_cbf") == {}
    assert parse_entities("") == {}


def test_least_squares_and_maps_in_other_spaces_are_no_series_of_their_own(tmp_path, brain):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    example.write_series(tmp_path, {"sub": "010"}, brain=brain)
    example.write_series(tmp_path, {"sub": "01", "space": "T1w"}, brain=brain)
    assert [e for _, e in find_series(tmp_path, "01")] == [{"sub": "01"}]


def test_missing_numbers_are_nan(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("a\tb\n1.5\tn/a\n")
    found = read_metrics(path)
    assert found["a"] == 1.5
    assert math.isnan(found["b"])
    assert read_metrics(tmp_path / "none.tsv") == {}


def test_records_newest_first_and_older_ones_still_known(tmp_path):
    old = {"entities": {"sub": "01", "ses": "a"}, "warnings": [], "plausibility": [], "mark": 1}
    new = {"entities": {"sub": "01", "ses": "b"}, "warnings": [], "plausibility": [], "mark": 2}
    example.write_record(tmp_path, "01", [old], run="20250101-000000-aaa")
    example.write_record(tmp_path, "01", [new], run="20260101-000000-aaa", status="partial")
    (tmp_path / "logs" / "20270101-000000-aaa").mkdir()
    (tmp_path / "logs" / "20270101-000000-aaa" / "sub-01.json").write_text("{broken")
    records = records_of(tmp_path, "01")["01"]
    assert [r["status"] for r in records] == ["partial", "complete"]
    assert unit_of(records, {"sub": "01", "ses": "a"})["mark"] == 1
    assert unit_of(records, {"sub": "01", "ses": "c"}) == {}
    assert asked_participants(tmp_path) == set()
