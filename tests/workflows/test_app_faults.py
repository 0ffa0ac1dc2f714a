"""Bad input through the whole app: one clear line, a non-zero exit, and the others complete.

All faulty participants are in one dataset, and a healthy one beside them, so that one run
tries them all.
"""

import contextlib
import gzip
import io
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from fake_bids import FakeDataset

from asl_bids_app.cli.app import main
from asl_bids_app.reports.cohort import read_cohort

pytestmark = pytest.mark.usefixtures("without_pictures")
QUICK = ["--nprocs", "1", "--no-hmc", "--no-tissue", "--estimator", "least-squares", "-q"]


def rewrite(run, change):
    """Change the ASL image in memory."""
    image = nib.load(run.asl)
    data = image.get_fdata(dtype=np.float32)
    run.image(change(data.copy()), image.affine)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def zero(data, index):
    data[..., index] = 0
    return data


def poison(data, index):
    data[index] = np.nan
    return data


def all_nan(data):
    return data * np.nan


def second_m0(run):
    """Another M0 scan of the session that nothing tells apart."""
    for path in (run.m0scan, run.m0_sidecar):
        name = path.name.replace("_m0scan", "_run-2_m0scan")
        shutil.copy(path, path.with_name(name))
        first = path.with_name(path.name.replace("_m0scan", "_run-1_m0scan"))
        path.rename(first)
    for path in run.asl.parent.glob("*m0scan.json"):
        content = json.loads(path.read_text())
        del content["IntendedFor"]
        path.write_text(json.dumps(content))


def plain(**changes):
    return lambda run: run.edit(**changes)


FAR_AWAY = np.array([[4.0, 0, 0, 900], [0, 4, 0, 0], [0, 0, 6, 0], [0, 0, 0, 1]])
# name -> (fault, words of the line)
FAULTS = {
    "empty image": (lambda r: r.asl.write_bytes(b""), ["_asl.nii.gz", "empty"]),
    "one byte": (lambda r: r.asl.write_bytes(b"\0"), ["_asl.nii.gz", "1 byte", "NIfTI"]),
    "truncated gzip": (lambda r: truncate(r.asl), ["_asl.nii.gz", "expected"]),
    "gzip of text": (
        lambda r: r.asl.write_bytes(gzip.compress(b"hello" * 99)),
        ["_asl.nii.gz", "expected"],
    ),
    "3D": (lambda r: rewrite(r, lambda d: d[..., 0]), ["_asl.nii.gz", "3D", "4D"]),
    "rows": (lambda r: r.context(["control", "label"] * 5), ["aslcontext", "10", "12"]),
    "volume type": (
        lambda r: r.context(["Control", "label"] * 6),
        ["aslcontext", "Control", "control"],
    ),
    "unequal pairs": (
        lambda r: r.context(["control"] * 7 + ["label"] * 5),
        ["control", "label"],
    ),
    "delay by distinct delay": (
        plain(PostLabelingDelay=[1.0, 1.5, 2.0]),
        ["PostLabelingDelay", "3", "12"],
    ),
    "delays in ms": (
        plain(PostLabelingDelay=[1000, 1000, 1500, 1500, 2000, 2000] * 2),
        ["PostLabelingDelay", "2000", "seconds"],
    ),
    "duration in ms": (plain(LabelingDuration=1800), ["LabelingDuration", "1800", "seconds"]),
    "TR in ms": (
        lambda r: r.edit_m0(RepetitionTimePreparation=10000),
        ["m0scan", "RepetitionTimePreparation", "10000"],
    ),
    "negative delay": (
        plain(PostLabelingDelay=[-1.0, -1.0, 1.5, 1.5, 2.0, 2.0] * 2),
        ["PostLabelingDelay", "-1"],
    ),
    "NaN delay": (
        plain(PostLabelingDelay=[float("nan")] * 12),
        ["PostLabelingDelay", "NaN|nan"],
    ),
    "TR of 0": (
        lambda r: r.edit_m0(RepetitionTimePreparation=0),
        ["m0scan", "RepetitionTimePreparation", "0"],
    ),
    "M0 of zeros": (lambda r: r.image_m0(np.zeros((12, 12, 6))), ["m0scan", "zeros"]),
    "M0 elsewhere": (
        lambda r: r.image_m0(np.ones((12, 12, 6)), FAR_AWAY),
        ["m0scan", "field of view"],
    ),
    "zero volume": (
        lambda r: rewrite(r, lambda d: zero(d, 3)),
        ["_asl.nii.gz", "volume 3", "zeros"],
    ),
    "all zeros": (lambda r: rewrite(r, np.zeros_like), ["_asl.nii.gz", "zeros"]),
    "NaN voxels": (
        lambda r: rewrite(r, lambda d: poison(d, (6, 6, 3, 4))),
        ["_asl.nii.gz", "voxels", "NaN", "1"],
    ),
    "all NaN": (lambda r: rewrite(r, all_nan), ["_asl.nii.gz", "NaN"]),
    "unreadable sidecar": (lambda r: r.sidecar.write_text("{,"), ["_asl.json", "JSON"]),
    "no aslcontext": (lambda r: r.aslcontext.unlink(), ["aslcontext"]),
    "M0 missing": (
        lambda r: (r.m0scan.unlink(), r.m0_sidecar.unlink()),
        ["M0|m0scan"],
    ),
    "M0 included without rows": (
        lambda r: (r.edit(M0Type="Included"), r.m0scan.unlink(), r.m0_sidecar.unlink()),
        ["M0Type|aslcontext", "m0scan"],
    ),
    "M0 absent with suppression": (
        lambda r: (
            r.edit(M0Type="Absent", BackgroundSuppression=True),
            r.m0scan.unlink(),
            r.m0_sidecar.unlink(),
        ),
        ["M0", "suppress"],
    ),
    "two candidate M0s": (second_m0, ["run-1_m0scan", "run-2_m0scan"]),
    "contradictory keys": (
        plain(VelocitySelectiveLabeling=True, PASLType="VSI"),
        ["PCASL", "VSI|VelocitySelective"],
    ),
    **{
        f"no {key}": (plain(**{key: None}), [key])
        for key in (
            "ArterialSpinLabelingType",
            "PostLabelingDelay",
            "LabelingDuration",
            "BackgroundSuppression",
            "M0Type",
            "MagneticFieldStrength",
            "MRAcquisitionType",
        )
    },
    "no TR of the M0": (
        lambda r: r.edit_m0(RepetitionTimePreparation=None),
        ["m0scan", "RepetitionTimePreparation"],
    ),
    "2D without slice times": (plain(MRAcquisitionType="2D"), ["SliceTiming"]),
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A dataset whose participants are both well, to be copied and spoilt."""
    dataset = FakeDataset(tmp_path_factory.mktemp("faults") / "bids")
    run = dataset.add("bad", noise=1e-4, seed=1)
    dataset.add("good", noise=1e-4, seed=2)
    return dataset.root, run


def go(bids, out, *arguments):
    return main([str(bids), str(out), "participant", "-w", str(out) + "-work", *QUICK, *arguments])


def label_of(name, cases):
    return f"{list(cases).index(name):02d}"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, module_without_pictures):
    """All faults in one run, each a participant of its own: its output and its error lines."""
    place = tmp_path_factory.mktemp("faulty")
    dataset = FakeDataset(place / "bids")
    for name, (fault, _) in FAULTS.items():
        fault(dataset.add(label_of(name, FAULTS), noise=1e-4, seed=1))
    dataset.add("good", noise=1e-4, seed=2)
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert go(dataset.root, place / "out") == 1
    lines = [line for line in told.getvalue().splitlines() if line.startswith("error:")]
    return place / "out", lines


def record_of(out, label):
    return json.loads(next(out.glob(f"logs/*/sub-{label}.json")).read_text())


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_clear_line(name, faulty):
    out, lines = faulty
    label = label_of(name, FAULTS)
    (line,) = [line for line in lines if f"sub-{label}" in line]
    for word in FAULTS[name][1]:
        assert re.search(word, line), (word, line)
    assert "Traceback" not in line
    assert not list(out.rglob(f"sub-{label}*_cbf.nii*"))
    record = record_of(out, label)
    assert record["status"] in {"failed", "no ASL"}
    assert record["errors"][0]["message"] in line
    assert (out / f"sub-{label}.html").exists()


def test_the_others_complete(faulty):
    out, lines = faulty
    assert len(lines) == len(FAULTS)
    assert (out / "sub-good" / "perf" / "sub-good_cbf.nii.gz").exists()
    assert (out / "sub-good" / "perf" / "sub-good_att.json").exists()
    assert not list(out.rglob(".part-*"))
    assert record_of(out, "good")["status"] == "complete"


VALID = {
    "integers": plain(LabelingDuration=2, RepetitionTimePreparation=5),
    "blank lines": lambda r: r.aslcontext.write_text(r.aslcontext.read_text() + "\n\n"),
    "list of targets": lambda r: r.edit_m0(IntendedFor=[f"perf/{r.asl.name}"]),
    "relative target": lambda r: r.edit_m0(IntendedFor=f"perf/{r.asl.name}"),
    "uri": lambda r: r.edit_m0(IntendedFor=f"bids::{r.asl.parents[1].name}/perf/{r.asl.name}"),
    "PLD 0 and varying durations": plain(
        PostLabelingDelay=0, LabelingDuration=[1.6, 1.6, 2.4, 2.4, 3.2, 3.2] * 2
    ),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory, module_without_pictures):
    """All valid oddities in one run, each a participant of its own."""
    place = tmp_path_factory.mktemp("odd")
    dataset = FakeDataset(place / "bids")
    for name, change in VALID.items():
        change(dataset.add(label_of(name, VALID), noise=1e-4, seed=1))
    with contextlib.redirect_stderr(io.StringIO()) as told:
        status = go(dataset.root, place / "out")
    return place / "out", status, told.getvalue()


@pytest.mark.parametrize("name", VALID)
def test_valid_oddities_are_accepted(name, odd):
    out, status, told = odd
    label = label_of(name, VALID)
    assert (out / f"sub-{label}" / "perf" / f"sub-{label}_cbf.nii.gz").exists(), told
    assert status == 0, told


def test_nan_voxels_outside_the_brain_cost_a_warning_only(healthy, tmp_path, capsys):
    root, run = healthy
    bids, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(root, bids)
    asl = bids / run.asl.relative_to(root)
    image = nib.load(asl)
    data = image.get_fdata(dtype=np.float32)
    data[0, 0, 0, 4] = np.nan
    nib.Nifti1Image(data, image.affine).to_filename(asl)
    assert go(bids, out, "--participant-label", "bad") == 0
    assert "NaN" in json.loads((out / "sub-bad/perf/sub-bad_cbf.json").read_text())["Warnings"][0]
    cbf = nib.load(out / "sub-bad" / "perf" / "sub-bad_cbf.nii.gz").get_fdata()
    assert np.isfinite(cbf).all()


def test_a_participant_without_asl_fails_only_if_asked_for(healthy, tmp_path, capsys):
    bids = tmp_path / "bids"
    shutil.copytree(healthy[0], bids)
    (bids / "sub-anat" / "anat").mkdir(parents=True)
    (bids / "sub-anat" / "anat" / "sub-anat_T1w.json").write_text("{}")
    assert go(bids, tmp_path / "out", "--participant-label", "anat") == 1
    assert "no ASL run" in capsys.readouterr().err
    record = json.loads(next((tmp_path / "out").glob("logs/*/sub-anat.json")).read_text())
    # docs/hpc/participant.sh looks for this, for it is no failure of a whole cohort.
    assert record["status"] == "no ASL"
    assert go(bids, tmp_path / "all") == 0
    assert "sub-anat" in capsys.readouterr().err
    # The log counts as the group page does.
    log = next((tmp_path / "all").glob("logs/*/asl-app.log")).read_text()
    assert "2 of 3 participants complete (1 no ASL)" in log
    cohort = read_cohort(tmp_path / "all")
    assert (len(cohort.participants), [(a.participant, a.status) for a in cohort.absent]) == (
        3,
        [("anat", "no ASL")],
    )
    record = json.loads(next((tmp_path / "all").glob("logs/*/sub-anat.json")).read_text())
    assert record["status"] == "no ASL"


def test_an_unknown_participant_is_told_with_the_known_ones(healthy, tmp_path, capsys):
    assert go(healthy[0], tmp_path / "out", "--participant-label", "goood") == 2
    line = capsys.readouterr().err
    assert "goood" in line
    assert "good" in line
    assert not (tmp_path / "out").exists()


def test_a_read_only_output_is_told(healthy, tmp_path, capsys):
    (tmp_path / "out").write_text("a file stands where the folder should be")
    assert go(healthy[0], tmp_path / "out") == 1
    assert "writable" in capsys.readouterr().err


def test_stop_on_first_crash(healthy, tmp_path, capsys):
    root, run = healthy
    bids = tmp_path / "bids"
    shutil.copytree(root, bids)
    (bids / run.sidecar.relative_to(root)).write_text("{")
    assert go(bids, tmp_path / "out", "--stop-on-first-crash") == 1
    assert not list((tmp_path / "out").rglob("*_cbf.nii.gz"))


def test_dry_run_tells_what_was_understood_and_writes_nothing(healthy, tmp_path, capsys):
    assert go(healthy[0], tmp_path / "out", "--dry-run", "--device", "cpu") == 0
    told = capsys.readouterr().out
    for words in ("sub-good", "PCASL", "1/1.8 s (4)", "t1_blood = 1.65 s (default", "Separate"):
        assert words in told
    # What the options of QUICK mean, and where everything goes.
    for words in (
        "estimator: least-squares (--estimator)",
        "error bars: noise only",
        "motion: none (--no-hmc)",
        "tissue: none (--no-tissue)",
        "brain mask: made from the M0",
        "device: cpu (--device cpu)",
        f"work folder: {tmp_path}",
        f"output folder: {tmp_path / 'out'}",
        "outputs of sub-good, in sub-good/perf/:\n    sub-good_cbf.nii.gz, ",
    ):
        assert words in told
    assert "consensus" not in told  # written for a single delay only
    assert "confounds" not in told
    assert "lsq" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("delays", [(1.8,), (1.0, 1.8)])
def test_dry_run_names_the_files_that_a_run_writes(delays, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", delays=delays, noise=1e-4)
    assert go(dataset.root, tmp_path / "out", "--dry-run") == 0
    line = capsys.readouterr().out.partition("outputs of")[2]
    assert go(dataset.root, tmp_path / "out") == 0
    written = {path.name for path in (tmp_path / "out/sub-01/perf").iterdir()}
    named = set(re.findall(r"sub-01_\S+?\.(?:nii\.gz|tsv)", line))
    assert named == {name for name in written if not name.endswith(".json")}
