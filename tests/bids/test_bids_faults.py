"""Bad metadata: each gives one line with file, field, found and expected."""

import math

import pytest
from fake_bids import FakeDataset, runs_of

from asl_bids_app.bids.sidecar import InputOptions, understand
from asl_bids_app.errors import InputError

SMALL = {"shape": (3, 3, 3)}
SIDECAR = "sub-01/perf/sub-01_asl.json"
CONTEXT = "sub-01/perf/sub-01_aslcontext.tsv"
M0_SIDECAR = "sub-01/perf/sub-01_m0scan.json"


def read(root, **options):
    (run,) = runs_of(root)
    return understand(run, InputOptions(**options))


def fault(root, **options):
    with pytest.raises(InputError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def make(tmp_path):
    def build(**options):
        return FakeDataset(tmp_path).add("01", **(SMALL | options))

    return build


def check(error, file, field, found, expected, cure=""):
    assert error.file == file
    assert error.field == field
    assert found in error.found
    assert expected in error.expected
    assert cure in error.cure


# Keys that are needed


REQUIRED = {
    "PCASL": [
        "ArterialSpinLabelingType",
        "PostLabelingDelay",
        "LabelingDuration",
        "BackgroundSuppression",
        "M0Type",
        "TotalAcquiredPairs",
        "RepetitionTimePreparation",
        "MRAcquisitionType",
        "EchoTime",
    ],
    "PASL": ["BolusCutOffFlag", "BolusCutOffDelayTime", "BolusCutOffTechnique"],
    "VSASL": ["BolusCutOffFlag"],
}


@pytest.mark.parametrize(("scheme", "key"), [(s, k) for s, keys in REQUIRED.items() for k in keys])
def test_missing_key(make, tmp_path, scheme, key):
    make(scheme=scheme).edit(**{key: None})
    error = fault(tmp_path)
    assert (error.file, error.field, error.found) == (SIDECAR, key, "nothing")
    assert error.expected


@pytest.mark.parametrize("key", ["TotalAcquiredPairs", "RepetitionTimePreparation", "EchoTime"])
def test_keys_that_are_not_needed_may_be_missing_when_asked(make, tmp_path, key):
    make().edit(**{key: None})
    assert "--skip-bids-validation" in fault(tmp_path).cure
    run = read(tmp_path, lenient=True)
    assert any(key in warning and SIDECAR in warning for warning in run.warnings)


def test_volumes_of_different_echoes_are_not_averaged(make, tmp_path):
    run = make()
    run.edit(EchoTime=[0.012] * 6 + [0.06] * 6)
    error = fault(tmp_path)
    check(error, SIDECAR, "EchoTime", "0.012, 0.06 s", "one echo time", "--bids-filter-file")
    run.edit(EchoTime=[0.012] * 12, FlipAngle=[90] * 6 + [60] * 6, VascularCrushingVENC=[4] * 12)
    (told,) = [warning for warning in read(tmp_path).warnings if "averaged" in warning]
    assert "FlipAngle" in told
    assert "90, 60" in told


@pytest.mark.parametrize("m0", ["Included", "Absent"])
def test_repetition_time_is_needed_where_it_gives_the_m0(make, tmp_path, m0):
    make(m0=m0).edit(RepetitionTimePreparation=None)
    assert fault(tmp_path, lenient=True).field == "RepetitionTimePreparation"


def test_missing_slice_timing(make, tmp_path):
    make(slice_step=0.04).edit(SliceTiming=None)
    check(fault(tmp_path), SIDECAR, "SliceTiming", "nothing", "each of the 3 slices")


def test_missing_m0_keys(make, tmp_path):
    run = make()
    run.edit_m0(RepetitionTimePreparation=None)
    check(fault(tmp_path), M0_SIDECAR, "RepetitionTimePreparation", "nothing", "seconds")
    run.edit_m0(RepetitionTimePreparation=10, EchoTime=None)
    check(fault(tmp_path), M0_SIDECAR, "EchoTime", "nothing", "seconds")
    assert any("EchoTime" in w for w in read(tmp_path, lenient=True).warnings)


def test_missing_m0_estimate(make, tmp_path):
    make(m0="Estimate").edit(M0Estimate=None)
    check(fault(tmp_path), SIDECAR, "M0Estimate", "nothing", "M0 of blood")


@pytest.mark.parametrize(
    ("key", "cousin"),
    [
        ("PostLabelingDelay", "InitialPostLabelDelay"),
        ("PostLabelingDelay", "PostLabellingDelay"),
        ("LabelingDuration", "TagDuration"),
        ("RepetitionTimePreparation", "RepetitionTime"),
    ],
)
def test_key_under_another_name(make, tmp_path, key, cousin):
    make().edit(**{key: None, cousin: 1.7})
    error = fault(tmp_path)
    assert error.field == key
    assert error.cure.startswith(f"the sidecar has {cousin} = 1.7: rename it to {key}")


# Times


@pytest.mark.parametrize("key", ["PostLabelingDelay", "LabelingDuration"])
@pytest.mark.parametrize("value", [1800, 1800.0, [1800] * 12, 10.1])
def test_milliseconds(make, tmp_path, key, value):
    make(delays=(1.8,), repeats=6).edit(**{key: value})
    largest = value[0] if isinstance(value, list) else value
    check(fault(tmp_path), SIDECAR, key, f"{largest:g}", "seconds, at most 10", "milliseconds")


def test_more_milliseconds(make, tmp_path):
    run = make(scheme="PASL", slice_step=0.04)
    run.edit(RepetitionTimePreparation=4000)
    check(fault(tmp_path), SIDECAR, "RepetitionTimePreparation", "4000", "seconds, at most 100")
    run.edit(RepetitionTimePreparation=4, BolusCutOffDelayTime=700)
    check(fault(tmp_path), SIDECAR, "BolusCutOffDelayTime", "700", "seconds, at most 10")
    run.edit(BolusCutOffDelayTime=0.7, SliceTiming=[0, 40, 80])
    check(fault(tmp_path), SIDECAR, "SliceTiming", "80", "seconds, at most 10")
    run.edit(SliceTiming=[0, 0.04, 0.08], EchoTime=14)
    check(fault(tmp_path), SIDECAR, "EchoTime", "14", "seconds, at most 1")
    run.edit(EchoTime=0.014)
    run.edit_m0(RepetitionTimePreparation=10000)
    check(fault(tmp_path), M0_SIDECAR, "RepetitionTimePreparation", "10000", "seconds")


@pytest.mark.parametrize("key", ["PostLabelingDelay", "LabelingDuration"])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (-1.8, "-1.8"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        ([1.8] * 11 + [-0.5], "-0.5 at position 11"),
        ([1.8] * 11 + [math.nan], "nan at position 11"),
        ("1.8", '"1.8"'),
        (["1.8"] * 12, '"1.8" at position 0'),
        ([None] * 12, "null at position 0"),
        ([[1.8] * 12], "[1.8,"),
        (True, "true"),
        ({"value": 1.8}, '{"value": 1.8}'),
        ([], "an empty list"),
    ],
)
def test_times_that_are_none(make, tmp_path, key, value, found):
    make(delays=(1.8,), repeats=6).edit(**{key: value})
    error = fault(tmp_path)
    check(error, SIDECAR, key, found, "seconds")


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        ([1.0, 1.5, 2.0], "one for each distinct delay: repeat each"),
        ([1.0, 1.5, 2.0, 1.0, 1.5, 2.0], "to its control and to its label"),
        ([1.0] * 7, "one value for each volume"),
        ([1.0] * 13, "one value for each volume"),
    ],
)
def test_wrong_number_of_delays(make, tmp_path, value, cure):
    make().edit(PostLabelingDelay=value)
    check(
        fault(tmp_path),
        SIDECAR,
        "PostLabelingDelay",
        f"{len(value)} values",
        "1 or 12, one for each volume",
        cure,
    )


def test_delays_without_the_m0scan_rows(make, tmp_path):
    run = make(m0="Included")
    delays = [d for d in (1.0, 1.5, 2.0) for _ in range(2)] * 2
    run.edit(PostLabelingDelay=delays)
    check(fault(tmp_path), SIDECAR, "PostLabelingDelay", "12 values", "1 or 13", "m0scan")
    run.edit(PostLabelingDelay=[0, *delays])
    read(tmp_path)


@pytest.mark.parametrize("scheme", ["PASL", "VSASL"])
def test_no_delay_after_a_pulse(make, tmp_path, scheme):
    make(scheme=scheme, delays=(1.8,)).edit(PostLabelingDelay=0)
    check(fault(tmp_path), SIDECAR, "PostLabelingDelay", "0", f"more than 0 s for {scheme}")


def test_duration_of_zero(make, tmp_path):
    make(delays=(1.8,), repeats=1).edit(LabelingDuration=[0, 1.8])
    check(fault(tmp_path), SIDECAR, "LabelingDuration", "0 at a control", "more than 0 s")


@pytest.mark.parametrize("where", ["asl", "m0", "included"])
def test_repetition_time_of_zero(make, tmp_path, where):
    run = make(m0="Included" if where == "included" else "Separate")
    if where == "m0":
        run.edit_m0(RepetitionTimePreparation=0)
    elif where == "asl":
        run.edit(RepetitionTimePreparation=0)
    else:
        run.edit(RepetitionTimePreparation=[0, *[5.0] * 12])
    file = M0_SIDECAR if where == "m0" else SIDECAR
    check(fault(tmp_path), file, "RepetitionTimePreparation", "0", "more than 0 s")


@pytest.mark.parametrize(
    ("changes", "field", "found", "expected"),
    [
        ({"SliceTiming": [0, 0.04]}, "SliceTiming", "2 values", "3, the size of axis k"),
        ({"SliceEncodingDirection": "i"}, "SliceTiming", "3 values", "4, the size of axis i"),
        ({"SliceEncodingDirection": "z"}, "SliceEncodingDirection", '"z"', "i, j, k"),
        ({"SliceEncodingDirection": "-k"}, "SliceEncodingDirection", '"-k"', "i, j, k"),
        ({"SliceTiming": [0, -0.04, 0.1]}, "SliceTiming", "-0.04 at position 1", "not negative"),
        ({"MRAcquisitionType": "2d"}, "MRAcquisitionType", '"2d"', "one of 2D, 3D"),
    ],
)
def test_slices(make, tmp_path, changes, field, found, expected):
    make(slice_step=0.04, shape=(4, 3, 3)).edit(**changes)
    check(fault(tmp_path), SIDECAR, field, found, expected)


# Volumes


def test_no_aslcontext(make, tmp_path):
    make().aslcontext.unlink()
    check(fault(tmp_path), CONTEXT, "", "no such file", "each of the 12 volumes")


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_number_of_rows(make, tmp_path, change):
    make().context(["control", "label"] * 6 + ["control"] if change > 0 else ["control"] * 11)
    check(
        fault(tmp_path),
        CONTEXT,
        "volume_type",
        f"{12 + change} rows",
        "12, the number of volumes of sub-01_asl.nii.gz",
    )


@pytest.mark.parametrize(
    ("kind", "cure"),
    [
        ("Control", "write control"),
        ("LABEL", "write label"),
        ("deltaM", "write deltam"),
        ("M0Scan", "write m0scan"),
        ("norf", "write noRF"),
        ("N/A", "write n/a"),
        ("tag", "write label"),
        ("contorl", "write control"),
        ("rubbish", ""),
    ],
)
def test_unknown_volume_type(make, tmp_path, kind, cure):
    make().context(["control", kind] + ["control", "label"] * 5)
    error = fault(tmp_path)
    check(error, CONTEXT, "volume_type", f"'{kind}' in row 2", "one of control, label, deltam")
    assert error.cure == cure


def test_empty_row_inside(make, tmp_path):
    make().context(["control", "", *["control", "label"] * 5])
    check(fault(tmp_path), CONTEXT, "volume_type", "an empty row 2", "one of control")


@pytest.mark.parametrize(
    ("content", "field", "found", "cure"),
    [
        ("", "", "an empty file", ""),
        ("\n\n", "", "an empty file", ""),
        ("control\nlabel\n" * 6, "header", "'control'", "put the line volume_type first"),
        ("VolumeType\ncontrol\n", "header", "'VolumeType'", ""),
    ],
)
def test_unreadable_context(make, tmp_path, content, field, found, cure):
    make().aslcontext.write_text(content)
    check(fault(tmp_path), CONTEXT, field, found, "volume_type", cure)


def test_unequal_pairs(make, tmp_path):
    make().context(["control", "label"] * 5 + ["control", "control"])
    check(fault(tmp_path), CONTEXT, "volume_type", "7 control and 5 label", "as many of both")


def test_pairs_that_differ_in_delay(make, tmp_path):
    make(delays=(1.0, 1.5), repeats=1).edit(PostLabelingDelay=[1.0, 1.5, 1.0, 1.5])
    error = fault(tmp_path)
    check(error, SIDECAR, "PostLabelingDelay", "2 control and 0 label", "as many of both")
    assert "delay of 1 s" in error.found


def test_only_cbf(make, tmp_path):
    make().context(["cbf"] * 12)
    check(fault(tmp_path), CONTEXT, "volume_type", "only a CBF map", "volumes to quantify")


def test_nothing_to_quantify(make, tmp_path):
    make().context(["m0scan"] * 6 + ["n/a"] * 6)
    check(fault(tmp_path), CONTEXT, "volume_type", "no control, label or deltam", "to quantify")


def test_look_locker(make, tmp_path):
    make().edit(LookLocker=True)
    check(fault(tmp_path), SIDECAR, "LookLocker", "true", "not modelled")


# Labelling


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        ("pCASL", "write PCASL"),
        ("pasl", "write PASL"),
        ("vsasl", 'write "PASL" and name the pulse in PASLType'),
        ("velocity-selective", 'write "PASL" and name the pulse in PASLType'),
        ("FAIR", ""),
        (5, ""),
    ],
)
def test_unknown_labelling(make, tmp_path, value, cure):
    make().edit(ArterialSpinLabelingType=value)
    error = fault(tmp_path)
    check(error, SIDECAR, "ArterialSpinLabelingType", str(value), "one of PCASL, CASL, PASL")
    assert cure in error.cure


@pytest.mark.parametrize(
    ("scheme", "changes", "field", "found"),
    [
        ("PCASL", {"PASLType": "VSI"}, "ArterialSpinLabelingType", "PCASL with PASLType VSI"),
        ("CASL", {"PASLType": "FT-VSS"}, "ArterialSpinLabelingType", "CASL with PASLType FT-VSS"),
        (
            "PCASL",
            {"VelocitySelectiveLabeling": True},
            "ArterialSpinLabelingType",
            "PCASL with VelocitySelectiveLabeling true",
        ),
        (
            "PCASL",
            {"LabelingCutoffVelocity": 2},
            "ArterialSpinLabelingType",
            "PCASL with LabelingCutoffVelocity",
        ),
        ("PCASL", {"PCASLType": "VSI"}, "ArterialSpinLabelingType", "PCASL with PCASLType VSI"),
        (
            "PASL",
            {"VelocitySelectiveLabeling": True},
            "PASLType",
            '"FAIR" with VelocitySelectiveLabeling true',
        ),
        (
            "PASL",
            {"BolusCutOffTechnique": "VSS"},
            "PASLType",
            '"FAIR" with BolusCutOffTechnique VSS',
        ),
        (
            "PASL",
            {"PASLType": None, "BolusCutOffTechnique": "VSS"},
            "PASLType",
            "nothing with BolusCutOffTechnique VSS",
        ),
        (
            "VSASL",
            {"VelocitySelectiveLabeling": False},
            "PASLType",
            "VSI with VelocitySelectiveLabeling false",
        ),
        (
            "VSASL",
            {"ArterialSpinLabelingType": "VSASL", "PASLType": "FAIR"},
            "ArterialSpinLabelingType",
            "VSASL with PASLType FAIR",
        ),
    ],
)
def test_contradictory_velocity_selective_keys(make, tmp_path, scheme, changes, field, found):
    make(scheme=scheme).edit(**changes)
    error = fault(tmp_path)
    assert (error.file, error.field) == (SIDECAR, field)
    assert error.found == found


def test_pasl_without_cut_off_needs_a_duration(make, tmp_path):
    keys = ("BolusCutOffDelayTime", "BolusCutOffTechnique")
    make(scheme="PASL").edit(BolusCutOffFlag=False, **dict.fromkeys(keys))
    error = fault(tmp_path)
    check(error, SIDECAR, "BolusCutOffFlag", "false", "a bolus cut-off", "--bolus-duration")
    run = read(tmp_path, bolus_duration=1.1)
    assert set(run.label_duration) == {1.1}
    assert "--bolus-duration" in run.inferred["label_duration"]


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"BolusCutOffTechnique": "QUIPSS II"}, "BolusCutOffTechnique", '"QUIPSS II"'),
        (
            {"BolusCutOffTechnique": "Q2TIPS", "BolusCutOffDelayTime": [1.6, 0.7]},
            "BolusCutOffDelayTime",
            "[1.6, 0.7]",
        ),
        ({"BolusCutOffDelayTime": [0.7, 0.7, 0.7]}, "BolusCutOffDelayTime", "3 values"),
        ({"BolusCutOffDelayTime": 0}, "BolusCutOffDelayTime", "0"),
        ({"BolusCutOffFlag": "true"}, "BolusCutOffFlag", '"true"'),
        (
            {"BolusCutOffTechnique": "QUIPSS", "BolusCutOffDelayTime": 1.3},
            "BolusCutOffDelayTime",
            "1.3 s",
        ),
        (
            {
                "BolusCutOffTechnique": "QUIPSS",
                "MRAcquisitionType": "2D",
                "SliceTiming": [0, 0.1, 0.2],
            },
            "BolusCutOffTechnique",
            "QUIPSS with a 2D readout",
        ),
    ],
)
def test_bolus_of_pasl(make, tmp_path, changes, field, found):
    make(scheme="PASL").edit(**changes)
    error = fault(tmp_path)
    assert (error.file, error.field, error.found) == (SIDECAR, field, found)


def test_vsasl_cut_off_needs_its_time(make, tmp_path):
    make(scheme="VSASL").edit(BolusCutOffFlag=True, BolusCutOffTechnique="VSS")
    check(fault(tmp_path), SIDECAR, "BolusCutOffDelayTime", "nothing", "seconds")


@pytest.mark.parametrize("value", ["true", 1])
def test_background_suppression_is_true_or_false(make, tmp_path, value):
    make().edit(BackgroundSuppression=value)
    check(fault(tmp_path), SIDECAR, "BackgroundSuppression", str(value), "true or false")


def test_other_runs_are_not_touched(make, tmp_path):
    make().edit(PostLabelingDelay=1800)
    FakeDataset(tmp_path).add("02", **SMALL)
    with pytest.raises(InputError):
        understand(runs_of(tmp_path, "01")[0])
    understand(runs_of(tmp_path, "02")[0])


def test_phantom_pairs(make, tmp_path):
    make().edit(TotalAcquiredPairs=0)
    check(fault(tmp_path), SIDECAR, "TotalAcquiredPairs", "0", "number of control-label pairs")
