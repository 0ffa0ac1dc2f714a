"""Finding runs: participants, sessions, filters, inheritance, the index."""

import json
import os
import shutil
import sqlite3

import pytest
from fake_bids import FakeDataset, write_json

from asl_bids_app.bids.files import parse_name
from asl_bids_app.bids.layout import find_runs
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.errors import InputError

SMALL = {"shape": (3, 3, 3), "repeats": 1, "delays": (1.8,)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three participants, two sessions for one of them, and folders that don't matter."""
    dataset = FakeDataset(tmp_path_factory.mktemp("study") / "ds")
    dataset.add("01", acq="pcasl", **SMALL)
    dataset.add("01", acq="vsasl", scheme="VSASL", **SMALL)
    dataset.add("010", session="a", **SMALL)
    dataset.add("010", session="b", **SMALL)
    (dataset.root / "sub-anatonly" / "anat").mkdir(parents=True)
    (dataset.root / "sub-01" / "anat").mkdir()
    (dataset.root / "sub-01" / "anat" / "sub-01_T1w.json").write_text("{broken")
    (dataset.root / "derivatives" / "other" / "sub-77" / "perf").mkdir(parents=True)
    return dataset


def names(dataset, **options):
    found = find_runs(dataset.root, **options)
    return {label: [run.path.name for run in runs] for label, runs in found.participants.items()}


def test_all_participants(study):
    assert names(study) == {
        "01": ["sub-01_acq-pcasl_asl.nii.gz", "sub-01_acq-vsasl_asl.nii.gz"],
        "010": ["sub-010_ses-a_asl.nii.gz", "sub-010_ses-b_asl.nii.gz"],
        "anatonly": [],
    }


def test_participant_without_asl_is_listed_and_warned_of(study):
    found = find_runs(study.root, ["anatonly"])
    assert found.participants == {"anatonly": ()}
    assert len(found.warnings) == 1
    assert "sub-anatonly" in found.warnings[0]


@pytest.mark.parametrize("label", ["01", "sub-01"])
def test_prefix_is_optional(study, label):
    assert list(names(study, participants=[label])) == ["01"]


@pytest.mark.parametrize(
    ("label", "hint"), [("1", "01"), ("sub-001", "01"), ("10", "010"), ("anatonyl", "anatonly")]
)
def test_unknown_participant(study, label, hint):
    with pytest.raises(InputError) as caught:
        find_runs(study.root, [label])
    error = caught.value
    assert error.file == "command line"
    assert error.field == "--participant-label"
    assert error.found == repr(label.removeprefix("sub-"))
    assert error.expected == "one of 01, 010, anatonly"
    assert error.cure == f"did you mean {hint}"


def test_sessions(study):
    assert names(study, participants=["010"], sessions=["ses-b"]) == {
        "010": ["sub-010_ses-b_asl.nii.gz"]
    }
    with pytest.raises(InputError) as caught:
        find_runs(study.root, sessions=["c"])
    assert (caught.value.field, caught.value.expected) == ("--session-label", "one of a, b")
    # One participant lacks what another has: as one task of a cohort sees it.
    alone = find_runs(study.root, participants=["01"], sessions=["a"])
    assert alone.participants == {"01": ()}
    assert any("ses-a: no ASL run was found" in text for text in alone.warnings)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"acquisition": "vsasl"}, {"01": 1, "010": 0}),
        ({"acquisition": ["vsasl", "pcasl"]}, {"01": 2, "010": 0}),
        ({"acquisition": None}, {"01": 0, "010": 2}),
        ({"acquisition": ["pcasl", None]}, {"01": 1, "010": 2}),
        ({"session": "*"}, {"01": 0, "010": 2}),
        ({"session": "b"}, {"01": 0, "010": 1}),
        ({"extension": ".nii"}, {"01": 0, "010": 0}),
    ],
)
def test_filters(study, wanted, expected):
    found = find_runs(study.root, ["01", "010"], filters={"asl": wanted})
    assert {label: len(runs) for label, runs in found.participants.items()} == expected


def test_filter_of_m0scans(study):
    found = find_runs(study.root, ["01"], filters={"m0scan": {"acquisition": "vsasl"}})
    assert [scan.path.name for scan in found.participants["01"][0].m0scans] == [
        "sub-01_acq-vsasl_m0scan.nii.gz"
    ]


def test_filters_for_other_apps_are_told(study):
    found = find_runs(study.root, ["01"], filters={"bold": {"task": "rest"}})
    assert any("bold" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"asl": {"acq": "x"}}, "acq"),
        ({"asl": "x"}, '"x"'),
        (["asl"], "list"),
    ],
)
def test_wrong_filters(study, filters, found):
    with pytest.raises(InputError) as caught:
        find_runs(study.root, filters=filters)
    assert caught.value.field == "--bids-filter-file"
    assert found in caught.value.found


def test_entities_in_the_path_of_the_dataset_are_not_the_files(tmp_path):
    root = tmp_path / "perf" / "sub-99" / "ses-7" / "acq-x" / "ds"
    FakeDataset(root).add("01", **SMALL)
    assert [len(r) for r in find_runs(root).participants.values()] == [1]
    assert len(find_runs(root, filters={"asl": {"acquisition": "x"}}).participants["01"]) == 0
    assert len(find_runs(root, filters={"asl": {"session": None}}).participants["01"]) == 1


def test_bidsignore_hides_nothing(tmp_path):
    dataset = FakeDataset(tmp_path / "ds")
    dataset.add("01", acq="vsasl", scheme="VSASL", **SMALL)
    (dataset.root / ".bidsignore").write_text("*acq-vsasl*\nsub-01/\n")
    assert len(find_runs(dataset.root).participants["01"]) == 1


def test_inheritance_nearest_wins(tmp_path):
    dataset = FakeDataset(tmp_path / "ds")
    run = dataset.add("01", session="a", acq="pcasl", **SMALL)
    run.edit(EchoTime=None, FlipAngle=None, LabelingDuration=None)
    write_json(dataset.root / "asl.json", {"EchoTime": 0.01, "FlipAngle": 80, "Note": "root"})
    write_json(dataset.root / "acq-pcasl_asl.json", {"FlipAngle": 85, "Note": "acq"})
    write_json(dataset.root / "acq-vsasl_asl.json", {"FlipAngle": 1})
    write_json(dataset.root / "sub-01" / "sub-01_asl.json", {"LabelingDuration": 1.5, "Note": "s"})
    write_json(dataset.root / "m0scan.json", {"EchoTime": 0.5})
    found = find_runs(dataset.root).participants["01"][0]
    assert [path.name for path in found.sidecars] == [
        "asl.json",
        "acq-pcasl_asl.json",
        "sub-01_asl.json",
        "sub-01_ses-a_acq-pcasl_asl.json",
    ]
    assert [found.metadata[k] for k in ("EchoTime", "FlipAngle", "LabelingDuration", "Note")] == [
        0.01,
        85,
        1.5,
        "s",
    ]
    assert found.m0scans[0].metadata["EchoTime"] == 0.012
    assert understand(found).label_duration.tolist() == [1.5, 1.5]
    write_json(dataset.root / "sub-01" / "sub-01_asl.json", {"LabelingDuration": 1500})
    with pytest.raises(InputError) as caught:
        understand(find_runs(dataset.root).participants["01"][0])
    assert caught.value.file == "sub-01/sub-01_asl.json"


def test_null_in_a_nearer_sidecar_takes_a_key_away(tmp_path):
    dataset = FakeDataset(tmp_path / "ds")
    run = dataset.add("01", **SMALL)
    write_json(dataset.root / "asl.json", {"LookLocker": True})
    content = json.loads(run.sidecar.read_text()) | {"LookLocker": None}
    write_json(run.sidecar, content)
    understand(find_runs(dataset.root).participants["01"][0])


def test_aslcontext_is_inherited(tmp_path):
    dataset = FakeDataset(tmp_path / "ds")
    run = dataset.add("01", **SMALL)
    shutil.move(run.aslcontext, dataset.root / "aslcontext.tsv")
    found = find_runs(dataset.root).participants["01"][0]
    assert found.aslcontext == dataset.root / "aslcontext.tsv"
    assert understand(found).volume_types == ("control", "label")


def test_unreadable_sidecar_fails_its_own_run_only(tmp_path):
    dataset = FakeDataset(tmp_path / "ds")
    broken = dataset.add("01", acq="a", **SMALL)
    dataset.add("01", acq="b", **SMALL)
    dataset.add("02", **SMALL)
    broken.sidecar.write_text('{"EchoTime": 0.01,\n "FlipAngle": }')
    found = find_runs(dataset.root)
    bad, good = found.participants["01"]
    with pytest.raises(InputError) as caught:
        understand(bad)
    assert caught.value.file == "sub-01/perf/sub-01_acq-a_asl.json"
    assert caught.value.field.startswith("line 2")
    assert "broken JSON" in caught.value.found
    understand(good)
    understand(found.participants["02"][0])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"  \n", "an empty file"),
        (b"[1, 2]", "a JSON list"),
        (b"null", "null"),
        (b"false", "true or false"),
        (b"1.5", "a number"),
        (b'"PCASL"', "a JSON string"),
        ('{"a": "\u00fc"}'.encode("latin-1"), "bytes that are no UTF-8 text at position 7"),
    ],
)
def test_other_unreadable_sidecars(tmp_path, content, found):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.sidecar.write_bytes(content)
    with pytest.raises(InputError) as caught:
        understand(find_runs(tmp_path).participants["01"][0])
    assert caught.value.found == found
    assert caught.value.expected == "a JSON object {...}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_forbidden_sidecar(tmp_path):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.sidecar.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        understand(find_runs(tmp_path).participants["01"][0])


def test_sidecar_that_is_a_broken_link(tmp_path):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.sidecar.unlink()
    run.sidecar.symlink_to(".git/annex/objects/x")
    with pytest.raises(InputError) as caught:
        understand(find_runs(tmp_path).participants["01"][0])
    assert caught.value.file == "sub-01/perf/sub-01_asl.json"
    assert caught.value.found == "a broken link to .git/annex/objects/x"


def test_byte_order_mark_is_harmless(tmp_path):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.sidecar.write_bytes(b"\xef\xbb\xbf" + run.sidecar.read_bytes())
    understand(find_runs(tmp_path).participants["01"][0])


def test_no_sidecar_at_all(tmp_path):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.sidecar.unlink()
    with pytest.raises(InputError) as caught:
        understand(find_runs(tmp_path).participants["01"][0])
    assert caught.value.file == "sub-01/perf/sub-01_asl.json"
    assert caught.value.found == "no sidecar at all"


def test_both_extensions_of_one_name(tmp_path):
    dataset = FakeDataset(tmp_path)
    dataset.add("01", **SMALL)
    dataset.add("01", extension=".nii", **SMALL)
    runs = find_runs(tmp_path).participants["01"]
    assert len(runs) == 2
    for run in runs:
        with pytest.raises(InputError, match=r"both \.nii and \.nii\.gz"):
            understand(run)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sub-02_asl", "sub-02"),
        ("sub-01_ses-a_asl", "ses-a"),
        ("01_asl", "01"),
        ("sub-01_desc-preproc_asl", "desc-preproc"),
    ],
)
def test_misnamed_image(tmp_path, name, found):
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.asl.rename(run.asl.with_name(f"{name}.nii.gz"))
    (bad,) = find_runs(tmp_path).participants["01"]
    with pytest.raises(InputError) as caught:
        understand(bad)
    assert caught.value.field == "file name"
    assert found in caught.value.found


def test_phase_images_are_left_out_aloud(tmp_path):
    dataset = FakeDataset(tmp_path)
    run = dataset.add("01", **SMALL)
    for part in ("mag", "phase"):
        for path in list(run.asl.parent.glob("sub-01_asl*")):
            shutil.copy(path, path.with_name(path.name.replace("_asl", f"_part-{part}_asl")))
    run.asl.unlink()
    found = find_runs(tmp_path)
    assert [r.path.name for r in found.participants["01"]] == ["sub-01_part-mag_asl.nii.gz"]
    assert any("part-phase" in warning for warning in found.warnings)
    understand(found.participants["01"][0])


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no folder sub-\*"):
        find_runs(tmp_path)
    FakeDataset(tmp_path / "inner").add("01", **SMALL)
    with pytest.raises(InputError) as caught:
        find_runs(tmp_path)
    assert caught.value.cure.endswith("/inner")


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (None, "No such file"),
        ("{", "broken JSON"),
        ('{"Name": "x", "DatasetType": "derivative"}', '"derivative"'),
    ],
)
def test_odd_description_is_a_warning(tmp_path, content, warning):
    FakeDataset(tmp_path).add("01", **SMALL)
    path = tmp_path / "dataset_description.json"
    path.unlink() if content is None else path.write_text(content)
    found = find_runs(tmp_path)
    assert any(warning in w for w in found.warnings)
    understand(found.participants["01"][0])


def test_database_serves_every_participant_and_no_other_dataset(study, tmp_path):
    where = tmp_path / "index"
    assert names(study, participants=["01"], database_dir=where) == names(
        study, participants=["01"]
    )
    assert where.exists()
    before = sorted((p.name, p.stat().st_mtime_ns) for p in where.iterdir())
    assert names(study, database_dir=where) == names(study)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in where.iterdir()) == before
    other = FakeDataset(tmp_path / "other")
    other.add("01", **SMALL)
    with pytest.raises(InputError) as caught:
        find_runs(other.root, database_dir=where)
    assert caught.value.field == "--bids-database-dir"
    assert str(study.root) in caught.value.found


def test_any_spelling_of_the_dataset(study, tmp_path, monkeypatch):
    monkeypatch.chdir(study.root / "sub-01")
    link = tmp_path / "link"
    link.symlink_to(study.root)
    for root in ("..", "../../ds/", link):
        for where in (None, tmp_path / "index"):
            runs = find_runs(root, ["01"], database_dir=where).participants["01"]
            assert understand(runs[0]).sidecar == "sub-01/perf/sub-01_acq-pcasl_asl.json"


def test_stale_database_is_refused(tmp_path):
    dataset = FakeDataset(tmp_path / "ds")
    dataset.add("01", **SMALL)
    find_runs(dataset.root, database_dir=tmp_path / "index")
    dataset.add("02", **SMALL)
    with pytest.raises(InputError) as caught:
        find_runs(dataset.root, ["02"], database_dir=tmp_path / "index")
    assert "sub-02/perf/sub-02_asl" in caught.value.found
    assert "remove the folder" in caught.value.cure


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda run: run.sidecar.unlink(), "with sub-01/perf/sub-01_asl.json, which is gone"),
        (
            lambda run: run.asl.with_name("sub-01_acq-b_m0scan.nii.gz").touch(),
            "without sub-01/perf/sub-01_acq-b_m0scan.nii.gz",
        ),
    ],
)
def test_database_older_than_a_file_is_refused(tmp_path, change, found):
    """Otherwise a sidecar that was put right would go on being ignored without a word."""
    dataset = FakeDataset(tmp_path / "ds")
    run = dataset.add("01", **SMALL)
    dataset.add("02", **SMALL)
    find_runs(dataset.root, database_dir=tmp_path / "index")
    change(run)
    with pytest.raises(InputError) as caught:
        find_runs(dataset.root, ["01"], database_dir=tmp_path / "index")
    assert caught.value.found == f"an index {found}"
    understand(
        find_runs(dataset.root, ["02"], database_dir=tmp_path / "index").participants["02"][0]
    )


def test_database_that_was_cut_off_is_never_used(tmp_path, monkeypatch):
    """A run that is killed while it makes the index leaves none, and the next one makes it."""
    import bids

    dataset = FakeDataset(tmp_path / "ds")
    dataset.add("01", **SMALL)
    where = tmp_path / "index"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bids.BIDSLayoutIndexer, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            find_runs(dataset.root, database_dir=where)
    assert list(where.iterdir()) == []
    assert find_runs(dataset.root, database_dir=where).participants["01"]


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-4096])


def sql(command):
    def run(file):
        connection = sqlite3.connect(file)
        connection.execute(command)
        connection.commit()
        connection.close()

    return run


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (cut_off, "malformed"),
        (lambda file: file.write_bytes(b""), "no such table"),
        (lambda file: file.write_text("hello"), "not a database"),
        (sql("drop table tags"), "no such table: tags"),
        (sql("delete from layout_info"), "parts of it are missing"),
        (sql("delete from entities"), "parts of it are missing"),
    ],
    ids=["cut off", "empty", "text", "a table gone", "no root", "no entities"],
)
def test_a_damaged_database_is_one_line_and_no_sql(tmp_path, index_of_one, damage, found):
    root, index = index_of_one
    where = tmp_path / "index"
    shutil.copytree(index, where)
    damage(where / "layout_index.sqlite")
    with pytest.raises(InputError) as caught:
        find_runs(root, database_dir=where)
    assert caught.value.file == str(where / "layout_index.sqlite")
    assert found in caught.value.found
    assert "SELECT" not in str(caught.value)
    assert "remove the file" in caught.value.cure
    if damage is cut_off:
        (where / "layout_index.sqlite").unlink()
        assert find_runs(root, database_dir=where).participants["01"]


@pytest.fixture(scope="module")
def index_of_one(tmp_path_factory):
    """A dataset of one participant, and its index on disk."""
    place = tmp_path_factory.mktemp("indexed")
    dataset = FakeDataset(place / "ds")
    dataset.add("01", **SMALL)
    find_runs(dataset.root, database_dir=place / "index")
    return dataset.root, place / "index"


def test_misnamed_files_are_found_through_a_database(tmp_path):
    """The folder counts: a name of another participant is a fault of this one."""
    dataset = FakeDataset(tmp_path / "sub-99" / "ds")
    run = dataset.add("01", **SMALL)
    run.asl.rename(run.asl.with_name("sub-02_asl.nii.gz"))
    dataset.add("02", **SMALL)
    [run] = find_runs(dataset.root, ["01"], database_dir=tmp_path / "index").participants["01"]
    assert any("sub-01, as its folder" in str(problem) for problem in run.problems)


def test_parse_name():
    name = parse_name("sub-01_ses-2_acq-x_run-01_asl.nii.gz")
    assert list(name.entities.items()) == [
        ("sub", "01"),
        ("ses", "2"),
        ("acq", "x"),
        ("run", "01"),
    ]
    assert (name.suffix, name.extension, name.malformed) == ("asl", ".nii.gz", ())
    assert parse_name("sub-01_acq_asl.json").malformed == ("acq",)
    # A plus sign may be part of a label, letters of other alphabets may not.
    assert parse_name("sub-01_acq-a+b_asl.json").entities["acq"] == "a+b"
    assert parse_name("sub-Jörg_asl.json").malformed == ("sub-Jörg",)
