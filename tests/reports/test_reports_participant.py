"""Participant reports: complete in themselves, and written whatever happened."""

import html
import json
import re

import nibabel as nib
import numpy as np
import pytest
import reports_example as example

from asl_bids_app.errors import InputError
from asl_bids_app.reports.cohort import read_cohort
from asl_bids_app.reports.participant import write_participant_report

LIMIT_MB = 15


@pytest.fixture(scope="module")
def brain():
    return example.Brain(step=4, lesion=True)


@pytest.fixture(scope="module")
def joint(tmp_path_factory, brain):
    """Report of a participant with a joint series."""
    folder = tmp_path_factory.mktemp("joint")
    unit = example.write_participant(folder, "01", brain=brain)
    page = write_participant_report(folder, "sub-01")
    assert page == folder / "sub-01.html"
    return page.read_text(), unit


def words(page):
    """The page's text without its scripts, styles and pictures."""
    page = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    page = re.sub(r"<[^>]+>", " ", page)
    return re.sub(r"\s+", " ", html.unescape(page))


def test_the_page_is_complete_in_itself(joint):
    page, _ = joint
    assert "<!DOCTYPE html>" in page
    assert not re.search(r"<(script|link|iframe|object)[^>]*(src|href)\s*=\s*[\"'](?!data:)", page)
    for source in re.findall(r"<img[^>]*src=\"([^\"]{0,40})", page):
        assert source.startswith("data:image/")
    assert not re.search(r"url\((?!data:)", re.search(r"<style>.*?</style>", page, re.S)[0])
    assert "default-src 'none'" in page
    assert len(page) / 1e6 < LIMIT_MB


def test_every_picture_has_a_text(joint):
    page, _ = joint
    pictures = re.findall(r"<img[^>]*>", page)
    assert len(pictures) >= 14
    for picture in pictures:
        assert len(re.search(r'alt="([^"]*)"', picture)[1]) > 15


def test_what_was_understood_comes_first_and_is_all_there(joint):
    page, unit = joint
    text = words(page)
    order = [
        "At a glance",
        "What was understood from your data",
        "Constants of the quantification",
        "Motion and time course Shift",
        "M0 and measurements",
        "Maps From the left: ensemble, least squares",
        "Distributions in tissue",
        "Voxel viewer Click",
        "Quality The lights",
        "Methods text",
        "Provenance Program",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    for row in ("T1 of arterial blood 1.65 s default Alsop 2015", "command line --m0-scale"):
        assert row in text
    assert "Labelling efficiency, VSASL 0.56 fraction sidecar LabelingEfficiency" in text
    assert "velocity-selective (VSASL)" in text
    assert "0.5, 1, 1.5, 2, 2.5, 3 s" in text
    assert "voxels of the mask filled from their neighbours: 12" in text
    assert f"{unit['metrics']['cbf_mean_gm']:.1f} mL/100 g/min" in text
    assert f"{unit['metrics']['lsq_att_mean_gm']:.2f} s" in text
    assert "Alsop DC" in text


def test_texts_of_the_data_are_escaped(joint):
    page, _ = joint
    assert "<default>" not in page
    assert "&lt;default&gt; assumed" in page


@pytest.mark.usefixtures("without_charts")
def test_pairs_share_their_colour_scale(brain, tmp_path):
    """Least squares ten times the main estimate doesn't get a scale of its own."""
    from asl_bids_app.reports.load import load_series
    from asl_bids_app.reports.section import section

    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    data = load_series(tmp_path / "sub-01" / "perf", {"sub": "01"})
    content = section(data, {}, 10**7)
    scales = content["viewer"]["scales"]
    assert scales["cbf"]["unit"] == "mL/100 g/min"
    assert scales["att"]["unit"] == "s"
    assert scales["cbf"]["low"] == 0
    assert 60 <= scales["cbf"]["high"] <= 200
    assert scales["cbf_difference"]["low"] == -scales["cbf_difference"]["high"]
    assert [len(row) for row in content["maps"]] == [2, 2, 2, 2, 2]


@pytest.mark.usefixtures("without_charts")
@pytest.mark.usefixtures("without_pictures")
def test_an_implausible_result_is_loud(brain, tmp_path):
    unit = example.write_series(tmp_path, {"sub": "01"}, brain=brain, scale=60)
    example.write_record(tmp_path, "01", [unit])
    text = words(write_participant_report(tmp_path, "01").read_text())
    assert "Don't believe these maps without checking" in text
    assert "outside 10-150" in text


def test_a_failed_run_has_a_report_that_says_why(tmp_path):
    error = InputError("sub-01_asl.json", "PostLabelingDelay", "1800", "seconds", "divide by 1000")
    failure = {"unit": "sub-01_asl", "step": "input", "message": str(error), "crash_file": ""}
    example.write_record(tmp_path, "01", status="failed", errors=[failure])
    page = write_participant_report(tmp_path, "01").read_text()
    text = words(page)
    assert "Nothing could be processed" in text
    assert "the program found 1800, but needs seconds" in text
    assert "What to do: Divide by 1000." in text
    assert len(page) < 100_000  # nothing to chart, so no library


@pytest.mark.usefixtures("without_charts")
@pytest.mark.usefixtures("without_pictures")
def test_maps_of_an_earlier_run_are_told(brain, tmp_path):
    unit = example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    example.write_record(tmp_path, "01", [unit], run="20260101-101010-abc")
    told = "These maps are of an earlier run (20260101-101010-abc"
    assert told not in words(write_participant_report(tmp_path, "01").read_text())
    assert not read_cohort(tmp_path).rows[0].plausibility
    # A run of another session says nothing of these.
    example.write_record(
        tmp_path, "01", status="failed", run="20260201-101010-abc", sessions=["b"]
    )
    assert told not in words(write_participant_report(tmp_path, "01").read_text())
    failure = {"unit": "sub-01_asl", "step": "input", "message": "MemoryError"}
    example.write_record(
        tmp_path, "01", status="failed", errors=[failure], run="20260301-101010-abc"
    )
    assert told in words(write_participant_report(tmp_path, "01").read_text())
    assert told in read_cohort(tmp_path).rows[0].plausibility[0]


@pytest.mark.usefixtures("without_charts")
def test_a_partial_run_shows_both_maps_and_errors(brain, tmp_path):
    unit = example.write_series(tmp_path, {"sub": "01", "ses": "a"}, brain=brain)
    lost = {**unit, "entities": {"sub": "01", "ses": "b"}}
    failure = {"unit": "sub-01_ses-c_asl", "step": "fit", "message": "MemoryError"}
    example.write_record(tmp_path, "01", [unit, lost], status="partial", errors=[failure])
    text = words(write_participant_report(tmp_path, "01").read_text())
    assert "sub-01_ses-c_asl, estimation: The computer ran out of memory" in text
    assert "without maps on disk: sub-01_ses-b" in text
    assert "CBF – ensemble" in text


@pytest.mark.usefixtures("without_charts")
def test_reports_are_made_from_maps_alone(brain, tmp_path):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    text = words(write_participant_report(tmp_path, "01").read_text())
    assert "No record of a run was found" in text
    assert "T1 of arterial blood 1.65 s" in text
    assert "CBF – least squares" in text


def test_damaged_and_missing_files_leave_gaps_that_are_told(brain, tmp_path):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    folder = tmp_path / "sub-01" / "perf"
    (folder / "sub-01_desc-preproc_asl.nii.gz").write_bytes(b"x")
    (folder / "sub-01_desc-std_att.nii.gz").unlink()
    (folder / "sub-01_desc-qualitycontrol_cbf.tsv").unlink()
    text = words(write_participant_report(tmp_path, "01").read_text())
    assert "Missing from this section" in text
    assert "sub-01_desc-preproc_asl.nii.gz: can't be read" in text
    assert "No table of quality metrics was found" in text
    assert "ATT – ensemble" in text


@pytest.mark.slow
def test_maps_without_a_finite_number_don_t_stop_the_report(brain, tmp_path):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    path = tmp_path / "sub-01" / "perf" / "sub-01_cbf.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), path)
    text = words(write_participant_report(tmp_path, "01").read_text())
    assert "CBF – ensemble" in text


def test_an_empty_mask_doesn_t_stop_the_report(brain, tmp_path):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    path = tmp_path / "sub-01" / "perf" / "sub-01_desc-brain_mask.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    assert "Constants" in words(write_participant_report(tmp_path, "01").read_text())


@pytest.mark.usefixtures("without_charts")
@pytest.mark.usefixtures("without_pictures")
def test_sessions_of_older_runs_keep_their_record(brain, tmp_path):
    first = example.write_series(tmp_path, {"sub": "01", "ses": "a"}, ("PASL",), brain=brain)
    second = example.write_series(tmp_path, {"sub": "01", "ses": "b"}, brain=brain)
    example.write_record(tmp_path, "01", [first], run="20250101-000000-a")
    example.write_record(tmp_path, "01", [second], run="20260101-000000-a")
    text = words(write_participant_report(tmp_path, "01").read_text())
    assert "Inferred: LabelingDuration from BolusCutOffDelayTime" in text
    assert "pulsed ASL run" in text
    assert "pseudo-continuous ASL run" in text


def test_a_participant_nobody_knows_is_an_error(tmp_path):
    with pytest.raises(InputError, match="sub-09"):
        write_participant_report(tmp_path, "09")


def test_a_record_with_unexpected_content_is_survived(tmp_path):
    path = tmp_path / "logs" / "x" / "sub-01.json"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps({"errors": [{}], "units": [{"runs": [{"m0": None}]}], "options": 3})
    )
    assert "failed" in words(write_participant_report(tmp_path, "01").read_text())


@pytest.mark.slow
def test_the_page_of_a_usual_run_is_small(tmp_path):
    brain = example.Brain(step=2)
    example.write_participant(tmp_path, "01", brain=brain)
    page = write_participant_report(tmp_path, "01")
    assert page.stat().st_size < LIMIT_MB * 1e6
