"""Where M0 comes from: the four types, IntendedFor in all forms, contradictions."""

import shutil

import numpy as np
import pytest
from fake_bids import FakeDataset, edit_json, runs_of

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.errors import InputError

SMALL = {"shape": (3, 3, 3), "repeats": 1}
SIDECAR = "sub-01/perf/sub-01_asl.json"


def read(root, index=0):
    return understand(runs_of(root)[index])


def fault(root, index=0):
    with pytest.raises(InputError) as caught:
        read(root, index)
    return caught.value


@pytest.fixture
def make(tmp_path):
    def build(**options):
        return FakeDataset(tmp_path).add("01", **(SMALL | options))

    return build


def copy_m0(run, stem, **changes):
    """Put a second M0 scan beside the first."""
    image = run.m0scan.with_name(f"{stem}_m0scan.nii.gz")
    sidecar = run.m0scan.with_name(f"{stem}_m0scan.json")
    shutil.copy(run.m0scan, image)
    shutil.copy(run.m0_sidecar, sidecar)
    edit_json(sidecar, changes)
    return image


def move_m0(run, stem):
    for path in (run.m0scan, run.m0_sidecar):
        path.rename(path.with_name(path.name.replace("sub-01_m0scan", f"{stem}_m0scan")))
    return run.m0scan.with_name(f"{stem}_m0scan.nii.gz")


@pytest.mark.parametrize(
    "target",
    [
        "bids::sub-01/perf/sub-01_asl.nii.gz",
        "bids:raw:sub-01/perf/sub-01_asl.nii.gz",
        "perf/sub-01_asl.nii.gz",
        "./perf/sub-01_asl.nii.gz",
        "sub-01/perf/sub-01_asl.nii.gz",
        ["bids::sub-01/perf/sub-01_asl.nii.gz"],
        ["perf/sub-01_acq-other_asl.nii.gz", "perf/sub-01_asl.nii.gz"],
    ],
)
def test_intended_for(make, tmp_path, target):
    run = make()
    run.edit_m0(IntendedFor=target)
    path = move_m0(run, "sub-01_acq-calibration")
    # A second scan, so that only IntendedFor can tell.
    shutil.copy(path, path.with_name("sub-01_acq-x_m0scan.nii.gz"))
    got = read(tmp_path)
    assert got.m0.kind is M0Kind.SEPARATE
    assert got.m0.path == path
    assert got.m0.repetition_time == (10.0,)
    assert got.warnings == ()


def test_intended_for_with_sessions(tmp_path):
    dataset = FakeDataset(tmp_path)
    first = dataset.add("01", session="a", **SMALL)
    second = dataset.add("01", session="b", **SMALL)
    second.m0scan.unlink()
    second.m0_sidecar.unlink()
    paths = [f"ses-{s}/perf/sub-01_ses-{s}_asl.nii.gz" for s in "ab"]
    first.edit_m0(IntendedFor=paths)
    assert read(tmp_path, 0).m0.path == first.m0scan
    assert read(tmp_path, 1).m0.path == first.m0scan


def test_a_bad_intended_for_is_a_fault_of_its_own_session(tmp_path):
    dataset = FakeDataset(tmp_path)
    first = dataset.add("01", session="a", **SMALL)
    dataset.add("01", session="b", **SMALL).edit_m0(IntendedFor=5)
    assert read(tmp_path, 0).m0.path == first.m0scan
    with pytest.raises(InputError, match=r"ses-b.*IntendedFor: found 5"):
        read(tmp_path, 1)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (None, "found nothing"),
        ("bids::sub-01/perf/sub-01_run-9_asl.nii.gz", "a file that doesn't exist"),
        ("perf/sub-01_asl.nii", "a file that doesn't exist"),
        ([], "found nothing"),
    ],
)
@pytest.mark.parametrize("stem", ["sub-01", "sub-01_acq-x"])
def test_without_valid_intent_the_name_or_the_session_decides(make, tmp_path, target, found, stem):
    run = make()
    run.edit_m0(IntendedFor=target)
    path = move_m0(run, stem)
    got = read(tmp_path)
    assert got.m0.path == path
    (warning,) = got.warnings
    assert f"{stem}_m0scan.json: IntendedFor: " in warning
    assert found in warning
    rule = "by its name" if stem == "sub-01" else "as the only one of the session"
    assert rule in warning
    assert rule in got.inferred["m0"]


def test_the_same_name_is_better_than_any_other_of_the_session(make, tmp_path):
    run = make()
    run.edit_m0(IntendedFor=None)
    copy_m0(run, "sub-01_acq-x", IntendedFor=None)
    assert read(tmp_path).m0.path == run.m0scan


def test_two_candidates_of_the_session(make, tmp_path):
    run = make()
    run.edit_m0(IntendedFor=None)
    path = move_m0(run, "sub-01_run-1")
    shutil.copy(path, path.with_name("sub-01_run-2_m0scan.nii.gz"))
    error = fault(tmp_path)
    assert (error.file, error.field) == ("sub-01/perf/sub-01_asl.nii.gz", "M0 scan")
    assert error.found.startswith("2 candidates of the session: ")
    for name in ("sub-01_run-1_m0scan.nii.gz", "sub-01_run-2_m0scan.nii.gz"):
        assert name in error.found
    assert error.expected == "one"
    assert '"IntendedFor": "bids::sub-01/perf/sub-01_asl.nii.gz"' in error.cure


def test_two_candidates_intended_for_one_run(make, tmp_path):
    run = make()
    path = move_m0(run, "sub-01_run-1")
    other = path.with_name("sub-01_run-2_m0scan.nii.gz")
    shutil.copy(path, other)
    shutil.copy(
        path.with_name("sub-01_run-1_m0scan.json"), other.with_name("sub-01_run-2_m0scan.json")
    )
    assert fault(tmp_path).found.startswith("2 candidates intended for it: ")


def test_intended_twice_but_one_bears_the_name(make, tmp_path):
    run = make()
    copy_m0(run, "sub-01_acq-x")
    assert read(tmp_path).m0.path == run.m0scan


def test_intent_for_several_runs(tmp_path):
    dataset = FakeDataset(tmp_path)
    one = dataset.add("01", acq="a", **SMALL)
    two = dataset.add("01", acq="b", scheme="VSASL", **SMALL)
    two.m0scan.unlink()
    two.m0_sidecar.unlink()
    one.edit_m0(IntendedFor=[f"bids::sub-01/perf/{r.asl.name}" for r in (one, two)])
    assert read(tmp_path, 0).m0.path == read(tmp_path, 1).m0.path == one.m0scan


def test_m0_of_another_session_is_not_taken(tmp_path):
    dataset = FakeDataset(tmp_path)
    dataset.add("01", session="a", **SMALL)
    run = dataset.add("01", session="b", **SMALL)
    run.m0scan.unlink()
    error = fault(tmp_path, 1)
    assert (error.field, error.found) == ("M0Type", "Separate, but no m0scan file")


def test_field_map_is_no_m0(make, tmp_path):
    run = make()
    fmap = tmp_path / "sub-01" / "fmap"
    fmap.mkdir()
    run.m0scan.rename(fmap / "sub-01_dir-pa_m0scan.nii.gz")
    run.m0_sidecar.rename(fmap / "sub-01_dir-pa_m0scan.json")
    error = fault(tmp_path)
    assert error.found == "Separate, but no m0scan file"
    assert "sub-01/fmap/sub-01_dir-pa_m0scan.nii.gz is a field map" in error.cure


def test_intended_for_that_is_no_text(make, tmp_path):
    make().edit_m0(IntendedFor=[5])
    error = fault(tmp_path)
    assert (error.field, error.found) == ("IntendedFor", "5")


def test_broken_sidecar_of_the_m0(make, tmp_path):
    make().m0_sidecar.write_text("{")
    error = fault(tmp_path)
    assert error.file == "sub-01/perf/sub-01_m0scan.json"
    assert "broken JSON" in error.found


# The four types


@pytest.mark.parametrize("repetition", [5.0, [4.0, *[5.0] * 6]])
def test_included(make, tmp_path, repetition):
    make(m0="Included").edit(RepetitionTimePreparation=repetition)
    got = read(tmp_path)
    expected = 5.0 if repetition == 5.0 else 4.0
    assert got.m0.kind is M0Kind.INCLUDED
    assert got.m0.repetition_time == (expected,)
    assert got.m0.path is None
    assert got.warnings == ()


def test_estimate(make, tmp_path):
    make(m0="Estimate").edit(M0Estimate=1234)
    got = read(tmp_path)
    assert (got.m0.kind, got.m0.estimate) == (M0Kind.ESTIMATE, 1234.0)


@pytest.mark.parametrize("value", [0, -1, "1000", [1, 2]])
def test_impossible_estimate(make, tmp_path, value):
    make(m0="Estimate").edit(M0Estimate=value)
    assert fault(tmp_path).field == "M0Estimate"


def test_absent_without_suppression(make, tmp_path):
    make(m0="Absent").edit(RepetitionTimePreparation=4.5)
    got = read(tmp_path)
    assert got.m0.kind is M0Kind.ABSENT
    assert got.m0.repetition_time == (4.5, 4.5, 4.5)
    assert any("the mean control volume stands in" in warning for warning in got.warnings)
    assert "control" in got.inferred["m0"]


def test_absent_with_suppression(make, tmp_path):
    make(m0="Absent").edit(BackgroundSuppression=True)
    error = fault(tmp_path)
    assert (error.file, error.field) == (SIDECAR, "M0Type")
    assert error.found == "Absent with BackgroundSuppression true"
    assert "M0Estimate" in error.cure


def test_absent_without_controls(make, tmp_path):
    make(m0="Absent", order=("deltam",))
    assert fault(tmp_path).found == "Absent without control volumes"


@pytest.mark.parametrize("value", ["separate", "INCLUDED", "None"])
def test_unknown_type(make, tmp_path, value):
    make().edit(M0Type=value)
    error = fault(tmp_path)
    assert (error.field, error.found) == ("M0Type", f'"{value}"')
    assert error.expected == "one of Separate, Included, Estimate, Absent"


# Types that don't fit the files


@pytest.mark.parametrize(
    ("made", "said", "found", "cure"),
    [
        ("Absent", "Included", "Included without m0scan volumes", "mark the M0 volumes"),
        ("Separate", "Included", "Included without m0scan volumes", '"Separate"'),
        ("Absent", "Separate", "Separate, but no m0scan file", "add the M0 scan"),
        ("Included", "Separate", "Separate without an M0 file but with m0scan", '"Included"'),
        ("Separate", "Absent", "Absent with sub-01/perf/sub-01_m0scan.nii.gz", '"Separate"'),
        ("Included", "Absent", "Absent with m0scan volumes", '"Included"'),
    ],
)
def test_contradiction(make, tmp_path, made, said, found, cure):
    make(m0=made).edit(M0Type=said)
    error = fault(tmp_path)
    assert (error.file, error.field) == (SIDECAR, "M0Type")
    assert found in error.found
    assert cure in error.cure


def test_absent_with_an_m0_of_the_session_for_another_run(tmp_path):
    dataset = FakeDataset(tmp_path)
    dataset.add("01", acq="a", m0="Absent", **SMALL)
    dataset.add("01", acq="b", **SMALL)
    got = read(tmp_path)
    assert any("sub-01_acq-b_m0scan.nii.gz is not used" in warning for warning in got.warnings)


@pytest.mark.parametrize("kind", ["Included", "Estimate"])
def test_unused_m0_file_is_told(tmp_path, kind):
    dataset = FakeDataset(tmp_path)
    dataset.add("01", **SMALL)
    dataset.add("01", m0=kind, **SMALL)
    assert any("that file is not used" in warning for warning in read(tmp_path).warnings)


# The M0 itself


def test_several_volumes(make, tmp_path):
    run = make()
    run.image_m0(np.ones((3, 3, 3, 2)))
    assert read(tmp_path).m0.repetition_time == (10.0, 10.0)
    run.edit_m0(RepetitionTimePreparation=[8, 10])
    assert read(tmp_path).m0.repetition_time == (8.0, 10.0)
    run.edit_m0(RepetitionTimePreparation=[8, 10, 12])
    assert fault(tmp_path).expected == "1 or 2, one for each volume of the image"


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"EchoTime": 0.016}, "EchoTime: found 0.016 s, expected 0.012 s"),
        ({"FlipAngle": 30}, "FlipAngle: found 30 degrees, expected 90 degrees"),
        ({"BackgroundSuppression": True}, "BackgroundSuppression: found true"),
    ],
)
def test_m0_made_with_other_settings(make, tmp_path, changes, warning):
    make().edit_m0(**changes)
    (got,) = read(tmp_path).warnings
    assert f"sub-01/perf/sub-01_m0scan.json: {warning}" in got


def test_look_locker_m0(make, tmp_path):
    make().edit_m0(LookLocker=True)
    assert fault(tmp_path).file == "sub-01/perf/sub-01_m0scan.json"


def test_m0_on_another_grid(make, tmp_path):
    run = make(shape=(6, 6, 6), zooms=(4.0, 4.0, 4.0))
    fine = np.diag([2.0, 2.0, 2.0, 1.0])
    fine[:3, 3] = -11.0
    run.image_m0(np.ones((12, 12, 12)), fine)
    got = read(tmp_path)
    assert "covers 100% of the ASL image" in got.inferred["m0_grid"]
    assert got.warnings == ()
    fine[:3, 3] = [-11, -11, 1]
    run.image_m0(np.ones((12, 12, 12)), fine)
    assert any("covers 50%" in warning for warning in read(tmp_path).warnings)
    fine[:3, 3] = 500.0
    run.image_m0(np.ones((12, 12, 12)), fine)
    error = fault(tmp_path)
    assert (error.file, error.field) == ("sub-01/perf/sub-01_m0scan.nii.gz", "field of view")


def test_empty_m0_image(make, tmp_path):
    make().m0scan.write_bytes(b"")
    error = fault(tmp_path)
    assert (error.file, error.found) == ("sub-01/perf/sub-01_m0scan.nii.gz", "an empty file")
