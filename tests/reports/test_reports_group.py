"""The group level against tables worked out by hand."""

import json
import math
import os

import numpy as np
import pytest
import reports_example as example
from group_example import add, rows_of

from asl_bids_app.bids.derivatives import write_json
from asl_bids_app.errors import InputError
from asl_bids_app.quality.definitions import columns
from asl_bids_app.reports.cohort import read_cohort
from asl_bids_app.reports.find_records import records_of
from asl_bids_app.reports.group import write_group
from asl_bids_app.reports.outliers import modified_z


def test_the_table_has_every_series_and_everyone_who_is_missing(tmp_path):
    add(tmp_path, {"sub": "01", "ses": "a"}, {"cbf_mean_gm": 51.5, "fd_mean": 0.2})
    add(tmp_path, {"sub": "02"}, {"cbf_mean_gm": 47.25}, estimator="bayes", status="partial")
    example.write_record(
        tmp_path, "03", status="failed", errors=[{"step": "input", "message": "MemoryError"}]
    )
    write_json(
        tmp_path / "logs" / "run" / "run.json",
        {"participants": [{"participant": "01"}, {"participant": "04"}]},
    )
    table, page = write_group(tmp_path)
    rows = rows_of(table)
    assert [row["participant_id"] for row in rows] == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert [row["status"] for row in rows] == ["complete", "partial", "failed", "missing"]
    assert rows[0]["session_id"] == "ses-a"
    assert rows[1]["session_id"] == "n/a"
    assert float(rows[0]["cbf_mean_gm"]) == 51.5
    assert rows[0]["schemes"] == "PCASL+VSASL"
    assert rows[1]["estimator"] == "bayes"
    assert rows[2]["cbf_mean_gm"] == "n/a"
    entries = json.loads(table.with_suffix(".json").read_text())
    assert set(entries) == set(rows[0])
    assert all(entry["Description"] for entry in entries.values())
    text = page.read_text()
    for words in ("sub-03", "sub-04", "ran out of memory", "1 of 4 participants are complete"):
        assert words in text


def test_sessions_that_were_run_apart_each_count_by_their_newest_run(tmp_path):
    def unit(session):
        entities = {"sub": "01", "ses": session}
        return {"entities": entities, "warnings": [], "plausibility": []}

    def record(time, session, *, fails=False, sessions=None):
        error = {"unit": f"sub-01_ses-{session}_asl", "step": "input", "message": "MemoryError"}
        example.write_record(
            tmp_path,
            "01",
            [] if fails else [unit(session)],
            status="failed" if fails else "complete",
            errors=[error] if fails else [],
            run=f"20260101-{time}-abc",
            sessions=[session] if sessions is None else sessions,
        )

    def state():
        (found,) = read_cohort(tmp_path).absent or [None]
        return found and (found.status, len(found.errors))

    add(tmp_path, {"sub": "01", "ses": "b"}, {"cbf_mean_gm": 51.5})
    record("101010", "b")
    record("111111", "a", fails=True)
    assert state() == ("partial", 1)
    record("121212", "b")
    assert state() == ("partial", 1)
    record("131313", "a")
    assert state() is None
    # A run of all sessions ends what was before it.
    record("141414", "a", fails=True)
    record("151515", "b", sessions=[])
    assert state() is None


def test_of_runs_of_one_second_the_later_file_is_the_newer(tmp_path):
    for index, letters in enumerate(("zzz", "aaa")):
        example.write_record(tmp_path, "01", status=letters, run=f"20260101-101010-{letters}")
        path = tmp_path / "logs" / f"20260101-101010-{letters}" / "sub-01.json"
        os.utime(path, (1e9 + index, 1e9 + index))
    assert records_of(tmp_path)["01"][0]["status"] == "aaa"


def test_outliers_are_those_of_the_textbook():
    """Modified z score of a sample whose median is 10 and median absolute deviation 1."""
    values = np.array([8.0, 9, 9, 10, 10, 11, 11, 12, 20])
    z = modified_z(values)
    assert np.median(values) == 10
    assert z[-1] == pytest.approx(10 / 1.4826, rel=1e-4)
    assert z[0] == pytest.approx(-2 / 1.4826, rel=1e-4)
    assert modified_z(np.array([0.0] * 9 + [1.0]))[-1] == pytest.approx(1 / (1.2533 * 0.1))
    assert not modified_z(np.ones(5)).any()
    assert math.isnan(modified_z(np.array([1.0, np.nan, 2.0]))[1])


def test_outliers_are_marked(tmp_path):
    for i in range(10):
        add(tmp_path, {"sub": f"{i:02d}"}, {"cbf_mean_gm": 50.0 + i % 3, "fd_mean": 0.1})
    add(tmp_path, {"sub": "99"}, {"cbf_mean_gm": 120.0, "fd_mean": 0.1})
    table, _ = write_group(tmp_path)
    assert {r["participant_id"]: r["outlier_in"] for r in rows_of(table)} == {
        **{f"sub-{i:02d}": "n/a" for i in range(10)},
        "sub-99": "cbf_mean_gm",
    }


def test_one_participant_is_enough_and_has_no_outlier(tmp_path):
    add(tmp_path, {"sub": "01"}, {"cbf_mean_gm": 500.0})
    table, page = write_group(tmp_path)
    assert len(rows_of(table)) == 1
    assert rows_of(table)[0]["implausible"] == "1"
    text = page.read_text()
    assert "All 1 known participant is complete" in text
    assert "The mean CBF of grey matter is 500 mL/100 g/min, outside 10-150." in text
    assert "sub-01.html#sub-01" in text


@pytest.mark.parametrize(("participants", "plain"), [(3, True), (4, False)])
def test_few_participants_have_a_plain_table(tmp_path, participants, plain):
    """Sessions don't count: two of one participant are no distribution either."""
    for i in range(participants):
        for ses in "ab" if i == 0 else "a":
            values = {"cbf_mean_gm": 50.0 + i, "att_mean_gm": 1.0, "fd_mean": 0.7}
            add(tmp_path, {"sub": f"{i:02d}", "ses": ses}, values)
    text = write_group(tmp_path)[1].read_text()
    assert ("plotly-packed" in text) == (not plain)
    assert ('id="charts"' in text) == (not plain)
    if plain:
        assert len(text) < 60_000
        row = text[text.index("Mean CBF of grey matter</summary>") :]
        row = row[: row.index("</tr>")]
        assert [f"{v} <" in row or f"{v} mL" in row for v in ("50.0", "51.0", "52.0")] == [
            True
        ] * 3
        assert row.count("as expected") == participants + 1
        assert "1.00 s" in text
        assert text.count("unusual") == participants + 1  # the motion
        assert "QEI" not in text  # nobody has it


def test_only_failures_still_give_a_page(tmp_path):
    example.write_record(tmp_path, "01", status="no ASL", errors=[{"message": "found no ASL run"}])
    table, page = write_group(tmp_path)
    assert rows_of(table)[0]["status"] == "no ASL"
    assert "no ASL" in page.read_text()


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no derivatives"):
        write_group(tmp_path)


def test_a_folder_without_maps_is_missing(tmp_path):
    (tmp_path / "sub-05" / "perf").mkdir(parents=True)
    cohort = read_cohort(tmp_path)
    assert [(item.participant, item.status) for item in cohort.absent] == [("05", "missing")]


def test_the_page_of_many_is_small(tmp_path):
    rng = np.random.default_rng(0)
    known = {name for name, _, _ in columns()}
    for i in range(80):
        values = dict.fromkeys(known, 0.0) | {
            name: float(rng.normal(10, 1)) for name in ("cbf_mean_gm", "att_mean_gm", "qei")
        }
        add(tmp_path, {"sub": f"{i:03d}"}, values)
    table, page = write_group(tmp_path)
    assert len(rows_of(table)) == 80
    # What one participant adds: five hundred stay under 15 MB.
    few = tmp_path / "few"
    few.mkdir()
    add(few, {"sub": "000"}, values)
    one = write_group(few)[1].stat().st_size
    assert one + 500 * (page.stat().st_size - one) / 79 < 15e6
