"""Warnings, failures, constants and records: data that survive files and processes."""

import errno
import json
import pickle

import pytest

from asl_bids_app.bids.derivatives import write_json
from asl_bids_app.constants import ConstantKey, Quantity, Source, read_constants
from asl_bids_app.errors import Cause, InputError
from asl_bids_app.failures import Failure, cause_of
from asl_bids_app.notices import Notice
from asl_bids_app.options.declare import Access, option_of, options_of
from asl_bids_app.options.table import AppOptions
from asl_bids_app.reports.damage import RECORD, read_object
from asl_bids_app.reports.explain import explain
from asl_bids_app.reports.old_records import mask_kind, tissue_kind
from asl_bids_app.run_records import ParticipantRecord, UnitRecord
from asl_bids_app.schemes import SCHEMES, Scheme, find_scheme


def test_a_notice_is_its_line_and_keeps_its_fields():
    notice = Notice(["a.json", "b.json"], "M0Type", "x: y", "z", "w; v")
    assert notice == "a.json, b.json: M0Type: found x: y, expected z; w; v"
    assert notice.concerns("b.json")
    assert not notice.concerns("a")
    assert json.loads(json.dumps([notice])) == [str(notice)]
    again = pickle.loads(pickle.dumps(notice))
    assert (again, again.files, again.found) == (notice, ("a.json", "b.json"), "x: y")
    assert len({notice, again}) == 1
    with pytest.raises(AttributeError):
        notice.found = "other"


def test_a_notice_about_maps_names_no_file_until_one_is_known():
    notice = Notice((), "ATT", "ATT comes from a prior", outcome="CBF depends on it")
    assert notice == "ATT comes from a prior; CBF depends on it"
    again = pickle.loads(pickle.dumps(notice))
    assert (again, again.field, again.files) == (notice, "ATT", ())
    named = Notice((), "voxel size", "5 mm", "1 mm").about("sub-01_T1w.nii.gz")
    assert named == "sub-01_T1w.nii.gz: found 5 mm, expected 1 mm"
    assert named.about("another") == named
    assert notice.about("") is notice


def test_an_error_that_others_survive_becomes_a_notice_with_its_line():
    error = InputError("a.nii", "grid", "x", "y", "z")
    notice = pickle.loads(pickle.dumps(Notice.from_error(error, "no anatomy")))
    assert notice == f"no anatomy: {error}"
    assert (notice.files, notice.field, notice.found) == (("a.nii",), "grid", "x")
    assert (notice.expected, notice.outcome) == ("y", "z")
    assert Notice.from_error(ValueError("odd")) == "odd"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (InputError("a", "b", "out of memory CUDA", "d"), Cause.INPUT),
        (MemoryError(), Cause.MEMORY),
        (OSError(errno.ENOSPC, "x"), Cause.DISK_FULL),
        (PermissionError(errno.EACCES, "x"), Cause.NOT_WRITABLE),
        (RuntimeError("CUDA error: x"), Cause.GRAPHICS),
        (EOFError(), Cause.IMAGE),
        (ZeroDivisionError("No space left on device"), Cause.UNFORESEEN),
    ],
)
def test_the_cause_of_an_error_is_told_by_its_type(error, cause):
    assert cause_of(error) is cause
    outer = ValueError("x")
    outer.__cause__ = error
    assert cause_of(outer) is (cause if cause is not Cause.INPUT else Cause.UNFORESEEN)


def test_fields_with_every_mark_of_a_sentence_reach_the_page(tmp_path):
    error = InputError("sub-01_asl.json", "A: b", "x, expected y", "z. Cure: none.", "do: it")
    stored = json.loads(json.dumps(Failure.from_error("sub-01", "input", error).to_json()))
    told = explain(Failure.from_json(stored), tmp_path)
    assert told.meaning == (
        "sub-01_asl.json: A: b: the program found x, expected y, but needs z. Cure: none.."
    )
    assert told.cure == "Do: it."
    assert told.message == str(error)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    unit = UnitRecord(
        entities={"sub": "01"}, outputs=("a.nii.gz",), metrics={"qei": 0.5}, more={"later": 1}
    )
    failure = Failure("sub-01", "fit", "m", cause=Cause.MEMORY)
    record = ParticipantRecord("01", "partial", (failure,), units=(unit,))
    path = tmp_path / "sub-01.json"
    write_json(path, record.to_json())
    content, faults = read_object(path, RECORD, tmp_path)
    again = ParticipantRecord.from_json(content)
    assert faults == []
    assert again.errors == (failure,)
    assert again.units[0].entities == {"sub": "01"}
    assert again.units[0].more == {"later": 1}
    assert again.to_json() == record.to_json()


def test_an_old_record_loads():
    old = {"errors": [{"message": "x"}], "units": [{"runs": [{"path": "a"}], "model": None}]}
    record = ParticipantRecord.from_json(old)
    assert record.errors[0].message == "x"
    assert record.units[0].runs[0].path == "a"
    assert mask_kind({"source": "made from the M0"}) == mask_kind({"kind": "M0"}) == "M0"
    assert tissue_kind({"source": "x.nii.gz, by the scanner's coordinates"}) == "derivatives"


def test_constants_are_named_in_one_way():
    quantity = Quantity(0.85, "", Source.DEFAULT, "n")
    key = ConstantKey("labeling_efficiency", "PCASL")
    (stored,) = read_constants({str(key): quantity.to_json(), "x": 3}).values()
    assert (stored.key, stored.value, stored.source) == (key, 0.85, "default")


def test_every_path_says_what_is_done_with_it():
    for item in options_of(AppOptions):
        is_path = "Path" in str(item.type) or item.name == "model"
        assert is_path == (option_of(item).access is not Access.NONE), item.name


def test_every_scheme_has_a_row_of_its_own():
    assert set(SCHEMES) == set(Scheme)
    assert len({info.colour for info in SCHEMES.values()}) == len(SCHEMES)
    assert find_scheme("PASL").duration_word == "bolus"
    assert find_scheme("nothing") is None
    assert find_scheme(["PASL"]) is None
