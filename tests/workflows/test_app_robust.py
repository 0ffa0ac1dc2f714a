"""Odd files and places through the whole app: one line for whom it concerns, no more."""

import contextlib
import csv
import errno
import io
import json
import os
import struct
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_bids import FakeDataset

from asl_bids_app.bids import derivatives
from asl_bids_app.cli.app import main
from asl_bids_app.errors import InputError, disk_full, one_line
from asl_bids_app.workflows import lock_holder, plan
from asl_bids_app.workflows.full import why_silent

pytestmark = pytest.mark.usefixtures("without_pictures")
QUICK = ["--nprocs", "1", "--no-hmc", "--no-tissue", "--estimator", "least-squares", "-q"]


def go(bids, out, *arguments):
    return main([str(bids), str(out), "participant", "-w", str(out) + "-work", *QUICK, *arguments])


def errors(capsys):
    return errors_in(capsys.readouterr().err)


def errors_in(text):
    assert "Traceback" not in text
    # Nothing but the app's own lines is on the terminal.
    lines = text.splitlines()
    assert all(line.startswith(("error: ", "warning: ")) for line in lines), lines
    return [line for line in lines if line.startswith("error: ")]


def status(out, label):
    return json.loads(next(out.glob(f"logs/*/sub-{label}.json")).read_text())["status"]


def deep(run):
    text = run.sidecar.read_text().rstrip().rstrip("}")
    run.sidecar.write_text(text + ', "Deep": ' + "[" * 1200 + "]" * 1200 + "}")


def huge(run):
    run.sidecar.write_text(run.sidecar.read_text().replace("0.012", "9" * 400))


def broken(run):
    raw = bytearray(nib.load(run.asl).to_bytes())
    struct.pack_into("<h", raw, 70, 2049)
    run.asl.with_suffix("").write_bytes(raw)
    run.asl.unlink()


def no_text(run):
    for path in (run.asl, run.sidecar, run.aslcontext, run.m0scan, run.m0_sidecar):
        subject, _, rest = os.fsencode(path.name).partition(b"_")
        name = subject + b"_acq-\xff_" + rest
        path.rename(path.with_name(os.fsdecode(name)))


ODD = {
    "deep nesting": (deep, "nested"),
    "an integer of 400 digits": (huge, "EchoTime"),
    "an unknown data type": (broken, "no readable header"),
    "a file name that is no text": (no_text, r"acq-\udcff"),
    "bytes for a sidecar": (lambda r: r.sidecar.write_bytes(b"\xff\xfe{"), "UTF-8"),
    "a delay of 1e-308 s": (lambda r: r.edit(PostLabelingDelay=1e-308), "PostLabelingDelay"),
    "a line end in a word": (lambda r: r.edit(ArterialSpinLabelingType="PC\nASL"), "PC"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory, module_without_pictures):
    """One run of a healthy participant and one for each odd file: output and error lines."""
    place = tmp_path_factory.mktemp("odd")
    dataset = FakeDataset(place / "bids")
    dataset.add("good", noise=1e-4)
    for number, (spoil, _) in enumerate(ODD.values()):
        spoil(dataset.add(f"odd{number}", noise=1e-4))
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert go(dataset.root, place / "out") == 1
    return place / "out", errors_in(told.getvalue())


@pytest.mark.parametrize("name", ODD)
def test_one_odd_file_costs_one_line_and_no_other_participant(name, odd):
    out, lines = odd
    label = f"odd{list(ODD).index(name)}"
    assert len(lines) == len(ODD)
    (line,) = [line for line in lines if f"sub-{label}" in line]
    assert ODD[name][1] in line
    assert (status(out, "good"), status(out, label)) == ("complete", "failed")
    assert (out / "sub-good" / "perf" / "sub-good_cbf.nii.gz").exists()
    assert (out / f"sub-{label}.html").exists()


@pytest.mark.parametrize("where", ["understand", "group", "participant_workflow"])
def test_an_unforeseen_fault_is_one_participants_with_a_crash_file(
    where, tmp_path, capsys, monkeypatch
):
    from asl_bids_app.workflows import graph

    dataset = FakeDataset(tmp_path / "bids")
    for label in ("01", "02"):
        dataset.add(label, noise=1e-4)
    module = graph if where == "participant_workflow" else plan
    whole = getattr(module, where)

    def spoilt(subject, *arguments, **settings):
        text = repr(
            [vars(item) for item in subject] if isinstance(subject, list) else vars(subject)
        )
        if "sub-02" in text or "'02'" in text:
            raise KeyError("what nobody thought of")
        return whole(subject, *arguments, **settings)

    monkeypatch.setattr(module, where, spoilt)
    out = tmp_path / "out"
    assert go(dataset.root, out) == 1
    (line,) = errors(capsys)
    assert "sub-02" in line
    assert "what nobody thought of" in line
    assert (status(out, "01"), status(out, "02")) == ("complete", "failed")
    record = json.loads(next(out.glob("logs/*/sub-02.json")).read_text())
    assert "Traceback" in Path(record["errors"][0]["crash_file"]).read_text()


@pytest.mark.parametrize(
    "content",
    [
        {
            "DatasetType": ["raw"],
            "Name": {"a": 1},
            "Authors": "me",
            "License": [None],
            "DatasetDOI": 5,
        },
        {"Authors": [1, None]},
    ],
)
def test_an_odd_description_costs_a_warning(content, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids", **content)
    dataset.add("01", noise=1e-4)
    assert go(dataset.root, tmp_path / "out") == 0
    warned = capsys.readouterr().err
    assert all(f"dataset_description.json: {key}: found" in warned for key in content)
    made = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert isinstance(made["Name"], str)
    assert all(isinstance(name, str) for name in made.get("Authors", []))


def test_a_key_given_twice_is_told_with_the_value_that_counts(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", noise=1e-4)
    run.sidecar.write_text(
        run.sidecar.read_text().rstrip().rstrip("}") + ', "LabelingDuration": 1.5}'
    )
    assert go(dataset.root, tmp_path / "out") == 0
    sidecar = json.loads((tmp_path / "out/sub-01/perf/sub-01_cbf.json").read_text())
    assert sidecar["Measurements"][0]["LabelingDuration"] == 1.5
    told = "sub-01_asl.json: LabelingDuration: found 2 values (1.8, 1.5)"
    assert any(told in text for text in sidecar["Warnings"])


@pytest.mark.parametrize(
    "content",
    [
        {"asl": {"acquisition": {"a": 1}}},
        {"asl": {"acquisition": [{"a": 1}]}},
        {"asl": [1]},
        [None],
        {"asl": {"nonsense": 1}},
        {"asl": {"return_type": "id"}},
    ],
)
def test_an_odd_filter_is_a_wrong_command(content, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01")
    (tmp_path / "filter.json").write_text(json.dumps(content))
    assert (
        go(dataset.root, tmp_path / "out", "--bids-filter-file", str(tmp_path / "filter.json"))
        == 2
    )
    (line,) = errors(capsys)
    assert "--bids-filter-file" in line


def test_values_that_overflow_are_told_by_the_name_of_their_file(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", noise=1e-4)
    image = nib.load(run.asl)
    # All of it, so that no voxel stands out: sums of squares are more than a float holds.
    run.image(image.get_fdata() * 1e28, image.affine)
    run.image_m0(nib.load(run.m0scan).get_fdata() * 1e28)
    go(dataset.root, tmp_path / "out")
    errors(capsys)


def test_remarks_of_the_image_library_name_the_file(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", noise=1e-4)
    raw = bytearray(nib.load(run.asl).to_bytes())
    struct.pack_into("<f", raw, 80, -12.0)
    run.asl.with_suffix("").write_bytes(raw)
    run.asl.unlink()
    run.edit_m0(IntendedFor="bids::sub-01/perf/sub-01_asl.nii")
    assert go(dataset.root, tmp_path / "out") == 0
    text = capsys.readouterr().err
    told = [line for line in text.splitlines() if "pixdim" in line]
    assert told
    assert all(line.startswith("warning: ") and "sub-01_asl.nii" in line for line in told)


@pytest.fixture
def worked(tmp_path):
    """A run of two participants with its work folder."""
    dataset = FakeDataset(tmp_path / "bids")
    for label in ("01", "02"):
        dataset.add(label, noise=1e-4)
    assert go(dataset.root, tmp_path / "out") == 0
    return dataset.root, tmp_path / "out", tmp_path / "out-work"


def cbf(out, label):
    return nib.load(out / f"sub-{label}/perf/sub-{label}_cbf.nii.gz").get_fdata()


def test_empty_or_damaged_files_of_the_work_folder_count_as_absent(worked, capsys):
    bids, out, work = worked
    before = cbf(out, "01")
    empty, cut = (lambda path: b""), (lambda path: path.read_bytes()[:100])
    spoilt = [
        {"records/sub-01/*.json": empty, "records/sub-02/*.pkl": empty},
        {"records/sub-01/*.pkl": cut, "asl_app/sub_02/*/*": empty},
    ]
    for kinds in spoilt:
        for pattern, content in kinds.items():
            files = [path for path in work.glob(pattern) if path.is_file()]
            assert files
            for path in files:
                path.write_bytes(content(path))
        capsys.readouterr()
        assert go(bids, out) == 0, capsys.readouterr().err
        assert not errors(capsys)
        np.testing.assert_array_equal(cbf(out, "01"), before)


def test_cleaning_takes_what_is_this_runs_and_nothing_else(worked):
    bids, out, work = worked
    (work / "notes.txt").write_text("mine")
    kept = {p: p.stat().st_mtime_ns for p in (work / "records/sub-02").iterdir()}
    (work / "asl_app/sub_01/mark").mkdir()
    (work / "asl_app/sub_02/mark").mkdir()
    assert go(bids, out, "--clean-workdir", "--participant-label", "01") == 0
    assert not (work / "asl_app/sub_01/mark").exists()
    assert (work / "asl_app/sub_02/mark").exists()
    assert {p: p.stat().st_mtime_ns for p in (work / "records/sub-02").iterdir()} == kept
    assert (work / "notes.txt").exists()


def test_cleaning_is_refused_while_another_run_works_there(worked, capsys):
    bids, out, work = worked
    me, began = asdict(lock_holder.this_process()), lock_holder._began(os.getppid())
    path = work / "locks" / "sub-02.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**me, "pid": os.getppid(), "began": began}))
    capsys.readouterr()
    assert go(bids, out, "--clean-workdir") == 1
    (line,) = errors(capsys)
    assert f"process {os.getppid()}" in line
    assert "sub-02" in line
    assert list((work / "records/sub-02").iterdir())


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("result of a step", errno.ENOSPC),
        ("derivatives", errno.ENOSPC),
        pytest.param("derivatives", errno.EDQUOT, marks=pytest.mark.slow),
        ("nipype", errno.EDQUOT),
    ],
)
def test_a_full_disk_is_called_one(where, number, tmp_path, capsys, monkeypatch):
    from nipype.pipeline.engine import nodes

    from asl_bids_app.workflows import step

    dataset = FakeDataset(tmp_path / "bids")
    for label in ("01", "02"):
        dataset.add(label, noise=1e-4)

    def full(*names):
        if any("sub-02" in str(name) or "sub_02" in str(name) for name in names):
            raise OSError(number, os.strerror(number))

    module, name = {
        "result of a step": (step, "save"),
        "derivatives": (nib, "save"),
        "nipype": (nodes, "_save_resultfile"),
    }[where]
    whole = getattr(module, name)

    def write(*arguments, **settings):
        full(*arguments)
        return whole(*arguments, **settings)

    monkeypatch.setattr(module, name, write)
    out = tmp_path / "out"
    assert go(dataset.root, out) == 1
    (line,) = errors(capsys)
    assert "disk is full" in line or "full disk" in line
    assert os.strerror(number) in line
    assert "sub-02" in line
    assert (status(out, "01"), status(out, "02")) == ("complete", "failed")


def test_a_crash_file_that_tells_of_a_full_disk_is_understood(tmp_path):
    crash = tmp_path / "crash.txt"
    crash.write_text("Traceback ...\nOSError: [Errno 122] Disk quota exceeded\n")
    assert "the disk is full (Disk quota exceeded)" in why_silent(str(crash), tmp_path)
    crash.write_text("KeyError: 5")
    assert "full" not in why_silent(str(crash), tmp_path)
    assert disk_full(RuntimeError("x")) == ""


def test_a_text_of_any_name_is_written(tmp_path):
    path = tmp_path / "a.json"
    derivatives.write_json(path, {"name": "sub-\udcff"})
    assert json.loads(path.read_text())["name"] == "sub-\udcff"


def test_messages_are_one_line_whatever_they_cite():
    assert one_line("a\nb\tc\x1b[31m\udcff") == "a b c\\x1b[31m\\udcff"
    assert "\n" not in str(InputError("a\nb", "c\rd", "e\u2028f", "g"))


def test_the_group_table_holds_who_failed(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", noise=1e-4)
    no_text(dataset.add("02"))
    out = tmp_path / "out"
    assert go(dataset.root, out) == 1
    assert main([str(dataset.root), str(out), "group", "-q"]) == 0
    with (out / "group_cbf.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["status"] for row in rows] == ["complete", "failed"]
