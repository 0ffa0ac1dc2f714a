"""Valid data, odd ones among them: what is understood of it."""

import json
import pickle

import numpy as np
import pytest
from fake_bids import FakeDataset, runs_of

from asl_bids_app.bids.acquisition import M0Kind
from asl_bids_app.bids.labelling import is_velocity_selective
from asl_bids_app.bids.sidecar import InputOptions, understand
from asl_bids_app.schemes import Scheme

SMALL = {"shape": (3, 3, 3)}
NAN = np.nan


def read(root, **options):
    (run,) = runs_of(root)
    return understand(run, InputOptions(**options))


@pytest.fixture
def make(tmp_path):
    def build(**options):
        return FakeDataset(tmp_path).add("01", **(SMALL | options))

    return build


@pytest.mark.parametrize(
    ("order", "blocked", "kinds", "delays"),
    [
        (("control", "label"), False, "clclclcl", [1, 1, 2, 2, 1, 1, 2, 2]),
        (("label", "control"), False, "lclclclc", [1, 1, 2, 2, 1, 1, 2, 2]),
        (("control", "label"), True, "clclclcl", [1, 1, 1, 1, 2, 2, 2, 2]),
        (("label", "control"), True, "lclclclc", [1, 1, 1, 1, 2, 2, 2, 2]),
        (("deltam",), False, "dddd", [1, 2, 1, 2]),
    ],
)
def test_orders(make, tmp_path, order, blocked, kinds, delays):
    make(order=order, blocked=blocked, delays=(1.0, 2.0))
    run = read(tmp_path)
    assert "".join(kind[0] for kind in run.volume_types) == kinds
    assert run.post_labeling_delay.tolist() == delays
    assert run.label_duration.tolist() == [1.8] * len(delays)
    assert run.warnings == ()
    assert run.participant == "01"


def test_all_volume_types(make, tmp_path):
    run = make(delays=(1.8,), repeats=4)
    run.context(["m0scan", "noRF", "n/a", "control", "label", "label", "control", "m0scan"])
    run.edit(M0Type="Included", TotalAcquiredPairs=2, PostLabelingDelay=1.8)
    got = read(tmp_path)
    np.testing.assert_array_equal(
        got.post_labeling_delay, [NAN, NAN, NAN, 1.8, 1.8, 1.8, 1.8, NAN]
    )
    np.testing.assert_array_equal(got.label_duration, [NAN, NAN, NAN, 1.8, 1.8, 1.8, 1.8, NAN])
    assert got.volume_types[1:3] == ("noRF", "n/a")
    assert got.m0.kind is M0Kind.INCLUDED
    assert got.m0.repetition_time == (5.0, 5.0)


@pytest.mark.parametrize(
    ("kinds", "expected", "left_out"),
    [
        (["control", "label", "deltam", "cbf"], ["control", "label", "n/a", "n/a"], 2),
        (["deltam", "deltam", "deltam", "cbf"], ["deltam", "deltam", "deltam", "n/a"], 1),
    ],
)
def test_the_same_thing_twice_counts_once(make, tmp_path, kinds, expected, left_out):
    make(delays=(1.8,)).context(kinds)
    got = read(tmp_path)
    assert list(got.volume_types) == expected
    assert sum("left out" in warning for warning in got.warnings) == left_out
    assert np.isnan(got.post_labeling_delay[3])
    assert any("cbf volumes (and have no Units)" in warning for warning in got.warnings)


@pytest.mark.parametrize("ending", ["\n\n", "\n\n\t\n", "", "\r\n"])
def test_trailing_blank_lines(make, tmp_path, ending):
    run = make(repeats=1)
    run.aslcontext.write_text("volume_type\n" + "control\nlabel\n" * 2 + "control\nlabel" + ending)
    assert len(read(tmp_path).volume_types) == 6


def test_windows_line_ends_and_a_byte_order_mark(make, tmp_path):
    run = make(repeats=1)
    text = "\r\n".join(["volume_type", *["control", "label"] * 3]) + "\r\n"
    run.aslcontext.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(read(tmp_path).volume_types) == 6


def test_integer_times(make, tmp_path):
    make(delays=(2.0,)).edit(PostLabelingDelay=2, LabelingDuration=2, EchoTime=0)
    got = read(tmp_path)
    assert got.post_labeling_delay.tolist() == [2.0] * 4
    assert got.label_duration.tolist() == [2.0] * 4
    assert got.post_labeling_delay.dtype == got.label_duration.dtype == float


def test_delay_zero_with_varying_durations(make, tmp_path):
    make(m0="Included", repeats=1).edit(
        PostLabelingDelay=0, LabelingDuration=[0, 0.5, 0.5, 1, 1, 2, 2]
    )
    got = read(tmp_path)
    np.testing.assert_array_equal(got.post_labeling_delay, [NAN, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(got.label_duration, [NAN, 0.5, 0.5, 1, 1, 2, 2])
    assert got.warnings == ()


def test_delay_zero_everywhere_with_one_duration_is_suspicious(make, tmp_path):
    make(delays=(1.0,)).edit(PostLabelingDelay=0)
    (warning,) = read(tmp_path).warnings
    assert "PostLabelingDelay: found 0 everywhere" in warning


def test_list_of_one(make, tmp_path):
    make(delays=(1.8,)).edit(LabelingDuration=[1.8])
    got = read(tmp_path)
    assert got.label_duration.tolist() == [1.8] * 4
    assert "a list of one" in got.warnings[0]


def test_delay_counted_from_the_start_of_the_label_is_noticed(make, tmp_path):
    make(delays=(3.6,)).edit(RepetitionTimePreparation=5.0)
    (warning,) = read(tmp_path).warnings
    assert "5.4 s in a repetition time of 5 s" in warning


def test_more_pairs_than_acquired(make, tmp_path):
    make().edit(TotalAcquiredPairs=2)
    (warning,) = read(tmp_path).warnings
    assert "TotalAcquiredPairs: found 2, expected at least the 6 pairs" in warning


def test_unusual_entities_are_told(make, tmp_path):
    run = make(m0="Included")
    for path in run.asl.parent.iterdir():
        path.rename(path.with_name(path.name.replace("sub-01_", "sub-01_task-rest_")))
    got = read(tmp_path)
    assert got.entities == {"sub": "01", "task": "rest"}
    assert "task-rest" in got.warnings[0]


def test_acquisition_travels_between_processes(make, tmp_path):
    make()
    got = pickle.loads(pickle.dumps(read(tmp_path)))
    assert got.scheme is Scheme.PCASL


def test_single_difference_in_a_3d_file(make, tmp_path):
    run = make(delays=(1.8,), repeats=1, order=("deltam",))
    run.image(np.ones((3, 3, 3)))
    got = read(tmp_path)
    assert got.volume_types == ("deltam",)
    assert "found 3D" in got.warnings[0]


# Slices


@pytest.mark.parametrize(
    ("direction", "expected", "axis"),
    [
        (None, [0, 0.1, 0.2, 0.3], 2),
        ("k", [0, 0.1, 0.2, 0.3], 2),
        ("k-", [0.3, 0.2, 0.1, 0], 2),
        ("i", [0, 0.1, 0.2, 0.3], 0),
        ("i-", [0.3, 0.2, 0.1, 0], 0),
        ("j", [0, 0.1, 0.2, 0.3], 1),
        ("j-", [0.3, 0.2, 0.1, 0], 1),
    ],
)
def test_slice_encoding_direction(make, tmp_path, direction, expected, axis):
    shape = [3, 3, 3]
    shape[axis] = 4
    make(shape=tuple(shape)).edit(
        MRAcquisitionType="2D", SliceTiming=[0, 0.1, 0.2, 0.3], SliceEncodingDirection=direction
    )
    got = read(tmp_path)
    assert got.slice_axis == axis
    assert got.slice_time.tolist() == expected


def test_interleaved_slices_that_start_late(make, tmp_path):
    make(slice_step=0.1).edit(SliceTiming=[0.5, 0.7, 0.6])
    got = read(tmp_path)
    np.testing.assert_allclose(got.slice_time, [0, 0.2, 0.1])
    assert "0.5 s taken off" in got.inferred["slice_time"]


def test_slice_timing_of_3d_is_not_used(make, tmp_path):
    make().edit(SliceTiming=[0, 0.1, 0.2])
    got = read(tmp_path)
    assert got.slice_time.tolist() == [0, 0, 0]
    assert "SliceTiming with MRAcquisitionType 3D" in got.warnings[0]


def test_one_time_for_all_slices_is_told(make, tmp_path):
    make(slice_step=0.1).edit(SliceTiming=[0, 0, 0])
    assert "one time for all slices" in read(tmp_path).warnings[0]


# Pulsed labelling


@pytest.mark.parametrize(
    ("technique", "time", "expected"),
    [
        ("QUIPSSII", 0.7, [0.7] * 6),
        ("QUIPSSII", [0.7], [0.7] * 6),
        ("QUIPSSII", [0.7, 0.7, 0.6, 0.6, 0.8, 0.8], [0.7, 0.7, 0.6, 0.6, 0.8, 0.8]),
        ("QUIPSSII", [0.7, 0.9, 1.1], [0.7] * 6),
        ("Q2TIPS", [0.7, 1.6], [0.7] * 6),
        ("Q2TIPS", 0.7, [0.7] * 6),
        # Wong 1998: QUIPSS sees what arrived between its pulse and the readout.
        ("QUIPSS", 0.7, [0.5, 0.5, 1.0, 1.0, 1.5, 1.5]),
    ],
)
def test_bolus_of_pasl(make, tmp_path, technique, time, expected):
    make(scheme="PASL", repeats=1).edit(BolusCutOffTechnique=technique, BolusCutOffDelayTime=time)
    got = read(tmp_path)
    assert got.scheme is Scheme.PASL
    np.testing.assert_allclose(got.label_duration, expected, atol=1e-12)


def test_bolus_from_the_command_line_outranks_the_sidecar(make, tmp_path):
    make(scheme="PASL")
    got = read(tmp_path, bolus_duration=1.0)
    assert set(got.label_duration) == {1.0}
    assert "found 0.7" in got.warnings[0]


def test_bolus_from_the_command_line_is_for_pasl_alone(make, tmp_path):
    make(scheme="PCASL")
    assert set(read(tmp_path, bolus_duration=1.0).label_duration) == {1.8}


@pytest.mark.parametrize("kind", ["FAIR", "PICORE", "EPISTAR", "FAIR QUIPSSII", None])
def test_slab_labelling_stays_pasl(make, tmp_path, kind):
    make(scheme="PASL").edit(PASLType=kind)
    got = read(tmp_path)
    assert got.scheme is Scheme.PASL
    assert got.warnings == ()


def test_unknown_slab_labelling_is_told(make, tmp_path):
    make(scheme="PASL").edit(PASLType="AccASL")
    got = read(tmp_path)
    assert got.scheme is Scheme.PASL
    assert 'PASLType: found "AccASL"' in got.warnings[0]


def test_label_duration_of_pasl_is_not_used(make, tmp_path):
    make(scheme="PASL").edit(LabelingDuration=1.8)
    got = read(tmp_path)
    assert set(got.label_duration) == {0.7}
    assert "LabelingDuration" in got.warnings[0]


# Velocity-selective labelling


@pytest.mark.parametrize(
    "kind", ["VSI", "VSS", "VSASL", "vsi", "FT-VSI", "BIR8-VSS", "DRHS", "velocity-selective"]
)
def test_velocity_selective_by_pasl_type(make, tmp_path, kind):
    make(scheme="VSASL").edit(PASLType=kind)
    got = read(tmp_path)
    assert got.scheme is Scheme.VSASL
    assert set(got.label_duration) == {np.inf}
    assert kind in got.inferred["scheme"]
    assert got.warnings == ()


@pytest.mark.parametrize("kind", ["FAIR", "PICORE", "PULSAR", "AVSomething", None, 3])
def test_other_names_are_not(kind):
    assert not is_velocity_selective(kind)


def test_names_of_files_decide_nothing(make, tmp_path):
    make(acq="vsasl", scheme="PASL")
    assert read(tmp_path).scheme is Scheme.PASL


def test_second_module_cuts_the_bolus(make, tmp_path):
    make(scheme="VSASL", label_duration=1.1)
    got = read(tmp_path)
    assert set(got.label_duration) == {1.1}
    assert got.warnings == ()
    assert json.loads((tmp_path / got.sidecar).read_text())["BolusCutOffTechnique"] == "VSS"


@pytest.mark.parametrize("name", ["VSASL", "VSI", "VSS"])
@pytest.mark.parametrize("acq", [None, "velocity"])
def test_alias(make, tmp_path, name, acq):
    make(scheme="VSASL", acq=acq).edit(ArterialSpinLabelingType=name, PASLType=None)
    got = read(tmp_path)
    assert got.scheme is Scheme.VSASL
    (warning,) = got.warnings
    assert "JSON_SCHEMA_VALIDATION_ERROR" in warning
    pattern = "*acq-velocity*" if acq else "sub-01_asl*"
    assert f"the line {pattern} in .bidsignore" in warning


@pytest.mark.parametrize(("time", "tau"), [(None, np.inf), (1.2, 1.2)])
def test_alias_without_the_flag(make, tmp_path, time, tau):
    make(scheme="VSASL").edit(
        ArterialSpinLabelingType="VSASL",
        PASLType=None,
        BolusCutOffFlag=None,
        BolusCutOffDelayTime=time,
        BolusCutOffTechnique="VSS",
    )
    got = read(tmp_path)
    assert set(got.label_duration) == {tau}
    assert any("BolusCutOffFlag: found nothing" in warning for warning in got.warnings)


def test_unused_cut_off_time_is_told(make, tmp_path):
    make(scheme="VSASL").edit(BolusCutOffDelayTime=1.2)
    got = read(tmp_path)
    assert set(got.label_duration) == {np.inf}
    assert "BolusCutOffDelayTime" in got.warnings[0]
