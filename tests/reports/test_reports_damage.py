"""A damaged file of one participant marks that participant's row, and no other."""

import csv
import json
import random
import re

import pytest
import reports_example as example
from group_example import add, rows_of

from asl_bids_app.bids.derivatives import write_json
from asl_bids_app.reports.cohort import read_cohort
from asl_bids_app.reports.damage import RECORD, read_metric_row, read_object
from asl_bids_app.reports.explain import explain
from asl_bids_app.reports.group import write_group

TABLE, SIDECAR, RECORDED = (
    "sub-{}/perf/*quality*.tsv",
    "sub-{}/perf/*_cbf.json",
    "logs/*/sub-{}.json",
)


def one(root, pattern, label):
    (path,) = root.glob(pattern.format(label))
    return path


def cell(path, change):
    """Change the cells of the row of a table."""
    header, row = list(csv.reader(path.read_text().splitlines(), delimiter="\t"))
    path.write_text("\n".join("\t".join(line) for line in (header, change(row))) + "\n")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "table of wrong bytes": (TABLE, lambda p: p.write_bytes(b"\xff\xfe\x00q\n1\n")),
    "table without content": (TABLE, lambda p: p.write_bytes(b"")),
    "table cut off": (TABLE, lambda p: p.write_text(p.read_text().split("\n")[0])),
    "a cell too many": (TABLE, lambda p: cell(p, lambda row: [*row, "7"])),
    "a cell too few": (TABLE, lambda p: cell(p, lambda row: row[1:])),
    "text in a cell": (TABLE, lambda p: cell(p, lambda row: ["many", *row[1:]])),
    "infinity in a cell": (TABLE, lambda p: cell(p, lambda row: ["1e999", *row[1:]])),
    "two rows": (TABLE, lambda p: p.write_text(p.read_text() + p.read_text().split("\n")[1])),
    "a folder for a table": (TABLE, lambda p: (p.unlink(), p.mkdir())),
    "sidecar [null]": (SIDECAR, lambda p: p.write_text("[null]")),
    "sidecar of wrong bytes": (SIDECAR, lambda p: p.write_bytes(b"\xff\xfe")),
    "sidecar of odd types": (SIDECAR, lambda p: edit(p, Measurements=[None, 5], Calibration=1)),
    "estimator as a list": (SIDECAR, lambda p: edit(p, EstimationMethod=["x"])),
    "noise estimate as text": (SIDECAR, lambda p: edit(p, NoiseEstimation="residuals")),
    "warnings as a number": (SIDECAR, lambda p: edit(p, Warnings=3, Sources="a", Model=[1])),
    "noise method as text": (RECORDED, lambda p: edit(p, units=[{"noise_method": "residuals"}])),
    "record [null]": (RECORDED, lambda p: p.write_text("[null]")),
    "record without content": (RECORDED, lambda p: p.write_bytes(b"")),
    "record nested deep": (RECORDED, lambda p: p.write_text("[" * 5000)),
    "units of nothing": (RECORDED, lambda p: edit(p, units=[None, 3, "x"])),
    "entities as a list": (RECORDED, lambda p: edit(p, units=[{"entities": ["sub"]}])),
    "errors of odd types": (RECORDED, lambda p: edit(p, errors=[None, {"unit": 5}], status=[1])),
    "options of odd types": (RECORDED, lambda p: edit(p, options=[1])),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_marks_its_row_and_no_other(name, tmp_path, caplog):
    pattern, spoil = DAMAGE[name]
    for label, value in (("01", 50.0), ("02", 55.5), ("03", 61.0)):
        add(tmp_path, {"sub": label}, {"cbf_mean_gm": value})
    path = one(tmp_path, pattern, "02")
    spoil(path)
    table, page = write_group(tmp_path)
    rows = rows_of(table)
    assert [row["participant_id"] for row in rows] == ["sub-01", "sub-02", "sub-03"]
    assert [row["status"] for row in rows] == ["complete", "damaged", "complete"]
    assert [float(rows[i]["cbf_mean_gm"]) for i in (0, 2)] == [50.0, 61.0]
    # Of a damaged table no number is used; of a damaged sidecar or record its own numbers stay.
    assert rows[1]["cbf_mean_gm"] == ("n/a" if pattern == TABLE else "55.5")
    assert path.relative_to(tmp_path).as_posix() in page.read_text()
    faults = read_cohort(tmp_path).damage
    assert set(faults) == {"02"}
    assert all("\n" not in text and path.name in text for text in faults["02"])


def test_sixty_rows_with_ten_damaged(tmp_path):
    for number in range(60):
        add(tmp_path, {"sub": f"{number:03}"}, {"cbf_mean_gm": 40 + number % 20})
    spoilt = random.Random(1).sample(range(60), 10)
    kinds = random.Random(2).sample(sorted(DAMAGE), 10)
    for number, kind in zip(spoilt, kinds, strict=True):
        pattern, spoil = DAMAGE[kind]
        spoil(one(tmp_path, pattern, f"{number:03}"))
    rows = rows_of(write_group(tmp_path)[0])
    assert len(rows) == 60
    marked = [row["participant_id"] for row in rows if row["status"] == "damaged"]
    assert marked == [f"sub-{number:03}" for number in sorted(spoilt)]


def test_an_old_damaged_record_counts_for_nothing_beside_a_newer_whole_one(tmp_path):
    add(tmp_path, {"sub": "01"}, {"cbf_mean_gm": 50.0})
    old = tmp_path / "logs" / "20000101-101010-abc" / "sub-01.json"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    example.write_record(tmp_path, "01", [], status="complete", run="20990101-101010-abc")
    assert not read_cohort(tmp_path).damage


@pytest.mark.parametrize("where", ["absolute", "above", "link", "device", "odd"])
def test_a_crash_file_outside_the_derivatives_is_not_read(tmp_path, where):
    root = tmp_path / "out"
    root.mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody is to read this")
    inside = root / "crash.txt"
    inside.write_text("Traceback\nValueError: it")
    (root / "link.txt").symlink_to(secret)
    named = {
        "absolute": str(secret),
        "above": "../secret.txt",
        "link": "link.txt",
        "device": "/dev/zero",
        "odd": "a\0b",
    }[where]
    assert explain({"message": "x", "crash_file": named}, root).traceback == ""
    assert "it" in explain({"message": "x", "crash_file": str(inside)}, root).traceback
    assert "it" in explain({"message": "x", "crash_file": "crash.txt"}, root).traceback


def test_reading_keeps_what_has_the_right_type(tmp_path):
    path = tmp_path / "sub-01.json"
    write_json(
        path,
        {"status": "partial", "units": [{"entities": {"sub": "01"}, "warnings": ["a", 3]}, None]},
    )
    content, faults = read_object(path, RECORD, tmp_path)
    assert content["status"] == "partial"
    assert content["units"] == [{"entities": {"sub": "01"}, "warnings": ["a"]}]
    assert len(faults) == 2
    assert read_object(tmp_path / "none.json", RECORD, tmp_path) == ({}, [])


def test_a_table_is_read_as_it_stands(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\n1.5\tn/a\n")
    metrics, fault = read_metric_row(path, tmp_path)
    assert (metrics["a"], fault) == (1.5, "")
    assert metrics["b"] != metrics["b"]
    path.write_text("a\ta\n1\t2\n")
    assert re.search(r"t\.tsv: found a column twice", read_metric_row(path, tmp_path)[1])
