"""Sidecars as converters leave them: all faults in one round, and one proposal mends them.

Signals are those of `fake_bids`, whose equations are its own; the reviewer below does what a
person does: fills in what is null from the protocol, takes the marks off, copies the files.
"""

import json

import nibabel as nib
import numpy as np
import pytest
from fake_bids import CBF, FakeDataset, runs_of

from asl_bids_app.bids.evidence import Evidence
from asl_bids_app.bids.guessers import GUESSERS
from asl_bids_app.bids.marks import COLUMN, HOW, KEY
from asl_bids_app.bids.proposal import complete
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.bids.spans import COUSINS
from asl_bids_app.bids.volume_guess import UNKNOWN, guess_kinds
from asl_bids_app.bids.words import NAMED_IN, guess_scheme
from asl_bids_app.cli.app import main
from asl_bids_app.errors import InputError, SeveralInputsError
from asl_bids_app.options.table import AppOptions
from asl_bids_app.workflows.plan import faults_of_run
from asl_bids_app.workflows.run_reading import choose_reading

SMALL = {"shape": (6, 6, 3), "zooms": (24.0, 24.0, 36.0)}
ASL_KEYS = (
    "ArterialSpinLabelingType",
    "PCASLType",
    "PASLType",
    "PostLabelingDelay",
    "LabelingDuration",
    "BolusCutOffFlag",
    "BolusCutOffTechnique",
    "BolusCutOffDelayTime",
    "BackgroundSuppression",
    "M0Type",
    "TotalAcquiredPairs",
    "RepetitionTimePreparation",
    "LookLocker",
)


def as_converted(run, **left):
    """Leave what a converter leaves: no key of ASL, no table, but keys of its own."""
    run.edit(**(dict.fromkeys(ASL_KEYS) | left))
    run.aslcontext.unlink()
    return run


def dry_run(root, *more):
    places = [str(root), str(root.parent / "out"), "participant"]
    return main([*places, "--dry-run", "-w", str(root.parent / "work"), *more])


def propose(root, *more):
    folder = root.parent / "proposals"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert dry_run(root, "--propose-sidecars", str(folder), *more) == 1
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return folder


def review(folder, root, **values):
    """Fill in what is null, take the marks off, and copy the files into the dataset."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        del content[KEY]
        for key, value in values.items():
            if key in content and content[key] is None:
                content[key] = value
        assert None not in content.values()
        (root / path.relative_to(folder)).write_text(json.dumps(content))
    for path in folder.rglob("*.tsv"):
        rows = [line.split("\t")[0] for line in path.read_text().splitlines()]
        (root / path.relative_to(folder)).write_text("\n".join(rows) + "\n")


def proposal(folder, name="sub-01_asl.json"):
    content = json.loads((folder / "sub-01" / "perf" / name).read_text())
    return content, content[KEY]


def kinds(folder):
    text = (folder / "sub-01" / "perf" / "sub-01_aslcontext.tsv").read_text()
    header, *rows = [line.split("\t") for line in text.splitlines()]
    assert header == ["volume_type", COLUMN]
    assert all(why for _, why in rows)
    return [kind for kind, _ in rows]


# All faults in one round


def test_all_faults_of_a_run_are_told_at_once(tmp_path):
    run = FakeDataset(tmp_path).add("01", slice_step=0.04, **SMALL)
    run.edit(
        ArterialSpinLabelingType=None,
        PulseSequenceName="ep2d_pcasl",
        PostLabelingDelay=1800,
        LabelingDuration="1.8",
        SliceTiming=[0, 0.04],
        M0Type="separate",
        EchoTime=None,
    )
    run.edit_m0(RepetitionTimePreparation=None, EchoTime=14)
    run.context(["control", "Tag"] * 6)
    with pytest.raises(SeveralInputsError) as caught:
        understand(runs_of(tmp_path)[0])
    folder = "sub-01/perf/sub-01_"
    assert {(fault.file.removeprefix(folder), fault.field) for fault in caught.value.faults} == {
        ("aslcontext.tsv", "volume_type"),
        ("asl.json", "ArterialSpinLabelingType"),
        ("asl.json", "PostLabelingDelay"),
        ("asl.json", "LabelingDuration"),
        ("asl.json", "SliceTiming"),
        ("asl.json", "M0Type"),
        ("asl.json", "EchoTime"),
        ("m0scan.json", "RepetitionTimePreparation"),
        ("m0scan.json", "EchoTime"),
    }
    assert all("\n" not in str(fault) and fault.expected for fault in caught.value.faults)


def test_one_mistake_is_one_fault(tmp_path):
    run = FakeDataset(tmp_path).add("01", scheme="PASL", m0="Included", **SMALL)
    run.aslcontext.unlink()
    with pytest.raises(InputError) as caught:
        understand(runs_of(tmp_path)[0])
    assert not isinstance(caught.value, SeveralInputsError)


def test_constants_and_the_missing_scheme_belong_to_the_same_round(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", **SMALL).edit(
        ArterialSpinLabelingType=None, LabelingDuration=None, MagneticFieldStrength=None
    )
    dataset.add("02", **SMALL).edit(
        MagneticFieldStrength="3", LabelingEfficiency="0.8", EchoTime=None
    )
    dataset.add("03", **SMALL)
    assert dry_run(dataset.root) == 1
    lines = capsys.readouterr().out.splitlines()
    errors = [line for line in lines if line.startswith("  error:")]
    told = {
        label: sorted(line.split(": ")[2] for line in errors if f"sub-{label}/" in line)
        for label in ("01", "02", "03")
    }
    # Of a run whose labelling nobody knows, the field strength is told with it as well.
    assert told["01"] == ["ArterialSpinLabelingType", "LabelingDuration", "MagneticFieldStrength"]
    assert told["02"] == ["EchoTime", "LabelingEfficiency", "MagneticFieldStrength"]
    assert not told["03"]


# Proposals


@pytest.mark.usefixtures("without_pictures")
def test_a_converters_sidecar_is_quantified_after_one_proposal(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = as_converted(
        dataset.add("01", m0="Absent", delays=(1.8,), repeats=4),
        RepetitionTime=4.5,
        PostLabelDelay=1.8,
        PulseSequenceName="tgse_pcasl",
    )
    folder = propose(dataset.root)
    errors = [s for s in capsys.readouterr().out.splitlines() if s.startswith("  error:")]
    assert len(errors) == 8
    content, notes = proposal(folder)
    assert kinds(folder) == ["control", "label"] * 4
    guessed = {
        "ArterialSpinLabelingType": "PCASL",
        "PostLabelingDelay": 1.8,
        "RepetitionTimePreparation": 4.5,
        "TotalAcquiredPairs": 4,
        "M0Type": "Absent",
    }
    assert {key: content[key] for key in guessed} == guessed
    # Nothing tells them: nobody may take them for known.
    assert content["LabelingDuration"] is content["BackgroundSuppression"] is None
    assert notes.keys() == {HOW, "LabelingDuration", "BackgroundSuppression", *guessed}
    assert "issue 748" in notes["PostLabelingDelay"]

    # Copied without a look, no run uses it.
    for path in folder.rglob("*.*"):
        (dataset.root / path.relative_to(folder)).write_bytes(path.read_bytes())
    assert dry_run(dataset.root) == 1
    told = capsys.readouterr().out
    assert f"{KEY}: found a proposal that nobody has reviewed" in told
    assert f"{COLUMN}: found a proposal that nobody has reviewed" in told

    review(folder, dataset.root, LabelingDuration=1.8, BackgroundSuppression=False)
    out = tmp_path / "out"
    quick = ["--nprocs", "1", "--no-hmc", "--no-tissue", "--estimator", "least-squares", "-q"]
    work = ["-w", str(tmp_path / "work")]
    assert main([str(dataset.root), str(out), "participant", *quick, *work]) == 0
    cbf = nib.load(out / "sub-01" / "perf" / "sub-01_cbf.nii.gz").get_fdata()
    # The M0 stands in by its control, measured with the repetition time of the sidecar.
    assert np.median(cbf[run.mask & (cbf != 0)]) == pytest.approx(CBF, rel=0.05)


def test_gold_of_ge_one_difference_and_its_m0(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(
        "01", m0="Included", order=("deltam",), delays=(2.025,), label_duration=1.45, repeats=1,
        **SMALL,
    )  # fmt: skip
    image = nib.load(run.asl)
    # GE stores the difference first, then the M0.
    run.image(image.get_fdata()[..., ::-1])
    as_converted(
        run,
        Manufacturer="GE",
        PostLabelingDelay=2.025,
        LabelingDuration=1.45,
        ASLContrastTechnique="PSEUDOCONTINUOUS",
        ASLLabelingTechnique="3D pulsed continuous ASL technique",
        RepetitionTime=4.886,
        NumberOfExcitations=3,
    )
    folder = propose(dataset.root)
    content, _ = proposal(folder)
    assert kinds(folder) == ["deltam", "m0scan"]
    assert content["M0Type"] == "Included"
    assert content["TotalAcquiredPairs"] == 3
    assert content["BackgroundSuppression"] is True
    review(folder, dataset.root)
    assert dry_run(dataset.root) == 0
    got = understand(runs_of(dataset.root)[0])
    assert (got.scheme, got.m0.kind) == ("PCASL", "Included")
    assert got.post_labeling_delay[0] == 2.025


def test_siemens_product_pasl(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", scheme="PASL", delays=(1.8,), repeats=3, **SMALL)
    as_converted(
        run,
        RepetitionTime=2.5,
        InversionTime=1.8,
        BolusDuration=0.7,
        SaturationStopTime=1.6,
        PulseSequenceDetails="%SiemensSeq%\\ep2d_pasl",
    )
    run.edit_m0(RepetitionTimePreparation=None, RepetitionTime=10, IntendedFor=None)
    folder = propose(dataset.root)
    content, notes = proposal(folder)
    assert content["ArterialSpinLabelingType"] == "PASL"
    assert content["PostLabelingDelay"] == 1.8
    assert content["BolusCutOffFlag"] is True
    assert content["BolusCutOffDelayTime"] == [0.7, 1.6]
    assert content["BolusCutOffTechnique"] == "Q2TIPS"
    assert content["M0Type"] == "Separate"
    # Its controls have the signal of the M0 at 4.5 s of 10: told, with what it rests on.
    assert content["BackgroundSuppression"] is False
    assert "M0's signal" in notes["BackgroundSuppression"]
    m0, _ = proposal(folder, "sub-01_m0scan.json")
    assert m0["RepetitionTimePreparation"] == 10
    assert m0["IntendedFor"] == "bids::sub-01/perf/sub-01_asl.nii.gz"
    review(folder, dataset.root)
    got = understand(runs_of(dataset.root)[0])
    assert got.scheme == "PASL"
    assert set(got.label_duration) == {0.7}


def test_philips_in_halves_with_nothing_but_a_name(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", m0="Absent", delays=(1.8,), repeats=4, slice_step=0.04, **SMALL)
    image = nib.load(run.asl).get_fdata()
    run.image(image[..., [1, 3, 5, 7, 0, 2, 4, 6]])
    as_converted(run, ProtocolName="SOURCE - pCASL", RepetitionTime=4.5)
    run.edit(SliceTiming=None)
    folder = propose(dataset.root)
    content, notes = proposal(folder)
    assert kinds(folder) == ["label"] * 4 + ["control"] * 4
    for key in ("PostLabelingDelay", "LabelingDuration", "SliceTiming", "BackgroundSuppression"):
        assert content[key] is None
        assert notes[key].startswith("not known")
    review(
        folder, dataset.root, PostLabelingDelay=1.8, LabelingDuration=1.8,
        SliceTiming=[0, 0.04, 0.08], BackgroundSuppression=False,
    )  # fmt: skip
    assert understand(runs_of(dataset.root)[0]).slice_time.tolist() == [0, 0.04, 0.08]


def test_a_delay_for_each_pair_in_milliseconds(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", m0="Included", repeats=1, **SMALL)
    run.edit(
        PostLabelingDelay=[1000, 1500, 2000], MagneticFieldStrength=None, ImagingFrequency=123.2
    )
    folder = propose(dataset.root)
    content, notes = proposal(folder)
    assert content["PostLabelingDelay"] == [0, 1, 1, 1.5, 1.5, 2, 2]
    assert "divided by 1000" in notes["PostLabelingDelay"]
    assert content["MagneticFieldStrength"] == 3
    # What was right is as it was, and unmarked; there was no fault in the table.
    assert content["LabelingDuration"] == json.loads(run.sidecar.read_text())["LabelingDuration"]
    assert "LabelingDuration" not in notes
    assert not list(folder.rglob("*.tsv"))


def test_only_runs_with_faults_and_no_file_twice(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", acq="good", **SMALL)
    dataset.add("01", acq="bad", **SMALL).edit(LabelingDuration=None, TagDuration=1.8)
    dataset.add("02", **SMALL).context(["Control", "Tag"] * 6)
    folder = propose(dataset.root)
    names = sorted(path.name for path in folder.rglob("*.*"))
    assert names == ["sub-01_acq-bad_asl.json", "sub-02_aslcontext.tsv"]
    content, _ = proposal(folder, "sub-01_acq-bad_asl.json")
    assert content["LabelingDuration"] == 1.8
    edited = folder / "sub-02" / "perf" / "sub-02_aslcontext.tsv"
    edited.write_text("mine")
    capsys.readouterr()
    propose(dataset.root)
    assert edited.read_text() == "mine"
    assert "is there already and is left as it is" in capsys.readouterr().err


def test_an_m0_that_serves_two_runs_is_proposed_once(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", run="1", **SMALL)
    dataset.add("01", run="2", m0="Absent", **SMALL).edit(M0Type="Separate", EchoTime=None)
    for path in (run.m0scan, run.m0_sidecar):
        path.rename(path.with_name(path.name.replace("_run-1", "")))
    m0 = run.m0_sidecar.with_name("sub-01_m0scan.json")
    content = json.loads(m0.read_text())
    content["RepetitionTime"] = content.pop("RepetitionTimePreparation")
    del content["IntendedFor"]
    m0.write_text(json.dumps(content))
    folder = propose(dataset.root)
    content, notes = proposal(folder, "sub-01_m0scan.json")
    assert content["RepetitionTimePreparation"] == 10
    assert "IntendedFor" not in notes
    assert sorted(path.name for path in folder.rglob("*.*")) == [
        "sub-01_m0scan.json",
        "sub-01_run-2_asl.json",
    ]
    assert "is there already" not in capsys.readouterr().err


def cut(run):
    content = run.asl.read_bytes()
    run.asl.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: run.sidecar.write_text("{broken"),
        cut,
        lambda run: run.edit(LookLocker=True),
    ],
    ids=["broken sidecar", "cut image", "Look-Locker"],
)
def test_what_is_no_matter_of_a_sidecar_gets_no_proposal(spoil, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", **SMALL)
    spoil(run)
    assert dry_run(dataset.root) == 1
    assert "--propose-sidecars" not in capsys.readouterr().err
    folder = propose(dataset.root)
    assert not list(folder.rglob("*.*"))
    assert "nothing to propose for sub-01/perf/sub-01_asl.nii.gz" in capsys.readouterr().err


def test_proposals_do_not_go_into_the_raw_data(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    with pytest.raises(SystemExit):
        dry_run(dataset.root, "--propose-sidecars", str(dataset.root))
    assert "--propose-sidecars" in capsys.readouterr().err


# What volumes are, by their brightness


def volumes(kinds, *, delays=None, noise=1.0, drift=0.0, control=600.0, seed=0):
    """A head of 1000 voxels in air: its M0 is 1000, labelled blood takes 1 % of it."""
    rng = np.random.default_rng(seed)
    delays = delays or [1.0] * len(kinds)
    signals = {"m0scan": 1000.0, "control": control, "label": control - 10, "deltam": 10.0}
    data = np.zeros((16, 16, 16, len(kinds)))
    inside = np.zeros((16, 16, 16), bool)
    inside[3:13, 3:13, 3:13] = True
    for i, (kind, delay) in enumerate(zip(kinds, delays, strict=True)):
        level = signals[kind] * delay + drift * i
        level += rng.normal(0, noise)
        data[..., i] = inside * (level + rng.normal(0, 20, inside.shape))
    return data if "deltam" in kinds else np.abs(data)


@pytest.mark.parametrize(
    "truth",
    [
        ["control", "label"] * 5,
        ["label", "control"] * 5,
        ["m0scan"] + ["label", "control"] * 5,
        ["control", "label"] * 5 + ["m0scan", "m0scan"],
        ["control"] * 6 + ["label"] * 6,
        ["m0scan", "deltam"],
        ["deltam", "deltam", "deltam", "m0scan"],
        ["deltam"] * 6,
    ],
)
def test_volumes_are_told_by_their_brightness(truth):
    got = [guess.value for guess in guess_kinds(volumes(truth), {})]
    assert got == truth


def test_delays_that_differ_in_brightness_hold_no_m0():
    # Suppressed background recovers: early delays are nearly twice as bright as late ones.
    truth = ["label", "control"] * 6
    levels = [level for level in (1.0, 0.8, 0.55) for _ in range(2)] * 2
    assert [g.value for g in guess_kinds(volumes(truth, delays=levels), {})] == truth


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_guessed_where_nothing_tells(seed):
    # Volumes that differ by chance alone, and volumes that drift.
    rng = np.random.default_rng(seed)
    alike = ["control"] * 12
    for options in ({"noise": 5.0}, {"noise": 0.2, "drift": 4.0 * rng.choice([-1, 1])}):
        got = {g.value for g in guess_kinds(volumes(alike, seed=seed, **options), {})}
        assert got == {UNKNOWN}


# Whatever a converter writes


WRONG = [True, "x", [], -1, 0, [0, 1], {"a": 1}, 1e9, "3", 2.5]


@pytest.mark.parametrize("m0", ["Separate", "Included", "Absent", "Estimate"])
@pytest.mark.parametrize("scheme", ["PCASL", "CASL", "PASL", "VSASL"])
def test_several_faults_are_told_and_nothing_else_is_raised(tmp_path, scheme, m0):
    run = FakeDataset(tmp_path).add("01", scheme=scheme, m0=m0, slice_step=0.04, **SMALL)
    good = json.loads(run.sidecar.read_text())
    rng = np.random.default_rng([len(scheme), len(m0)])
    reading = choose_reading(AppOptions(tmp_path, tmp_path / "out", tmp_path / "work"))
    for _ in range(12):
        content = dict(good)
        for key in rng.choice(list(good), 4, replace=False):
            content.pop(key)
            if rng.random() < 0.5:
                content[key] = WRONG[rng.integers(len(WRONG))]
        run.sidecar.write_text(json.dumps(content))
        (files,) = runs_of(tmp_path)
        faults = faults_of_run(files, reading)
        assert all(isinstance(fault, InputError) for fault in faults)
        # Keys that every run needs are told in the first round, whatever else is wrong.
        needed = {"PostLabelingDelay", "BackgroundSuppression", "MRAcquisitionType", "M0Type"}
        absent = (needed | {"MagneticFieldStrength", "ArterialSpinLabelingType"}) - content.keys()
        assert absent <= {fault.field for fault in faults}


ODD = [None, True, "", "abc", "NaN", -1, 0, 1e300, 10**400, float("nan"), [], [[1]], ["1.8", None]]
ODD += [{"a": 1}, [1e9], "1800"]


@pytest.mark.parametrize("value", ODD, ids=str)
def test_odd_values_are_never_an_accident(value):
    keys = set(GUESSERS) | {key for others in COUSINS.values() for key in others} | set(NAMED_IN)
    keys |= {"NumRFBlocks", "SaturationStopTime", "NumberOfExcitations", "ImagingFrequency"}
    keys |= {"Manufacturer", "TagDuration", "BackgroundSuppressionNumberPulses"}
    metadata = dict.fromkeys(keys, value)
    faults = [InputError("a.json", key, "x", "y") for key in GUESSERS]
    for types in ((), ("control", "label"), ("m0scan", "deltam")):
        guess = guess_scheme(metadata)
        evidence = Evidence(metadata, guess and guess.value, types, "m0", 0.3)
        notes = complete(evidence, faults)[1]
        assert notes.keys() == set(GUESSERS)
        for key, note in notes.items():
            assert note.why
            # What is guessed is a value that a run would take.
            if note.value is not None and isinstance(note.value, float):
                assert 0 <= note.value <= 100, key
