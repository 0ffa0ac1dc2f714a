"""Which runs are joined, and that no two results bear one name."""

from pathlib import Path

import numpy as np
import pytest

from asl_bids_app.bids.acquisition import Acquisition, M0Input, M0Kind
from asl_bids_app.bids.files import parse_name
from asl_bids_app.bids.sessions import group
from asl_bids_app.errors import InputError
from asl_bids_app.schemes import Scheme


def run(stem, scheme):
    name = f"{stem}_asl.nii.gz"
    return Acquisition(
        path=Path("/data") / name,
        sidecar=f"{stem}_asl.json",
        entities=dict(parse_name(name).entities),
        metadata={},
        scheme=Scheme(scheme),
        volume_types=("control", "label"),
        post_labeling_delay=np.ones(2),
        label_duration=np.ones(2),
        slice_time=np.zeros(3),
        slice_axis=2,
        m0=M0Input(M0Kind.ESTIMATE, None, (), 1.0),
    )


def outcome(units):
    return {
        unit.name: tuple(a.path.name.removesuffix("_asl.nii.gz") for a in unit.acquisitions)
        for unit in units
    }


P, V = run("sub-01_acq-pcasl", "PCASL"), run("sub-01_acq-vsasl", "VSASL")


def test_auto_joins_the_two_runs_of_a_session():
    (unit,) = group([V, P], "auto")
    assert unit.joint
    assert unit.acquisitions == (P, V)
    assert unit.entities == {"sub": "01"}
    assert unit.name == "sub-01"
    assert unit.warnings == ()


def test_off_keeps_every_run_alone():
    units = group([P, V], "off")
    assert [unit.joint for unit in units] == [False, False]
    assert outcome(units) == {
        "sub-01_acq-pcasl": ("sub-01_acq-pcasl",),
        "sub-01_acq-vsasl": ("sub-01_acq-vsasl",),
    }


def test_both():
    assert outcome(group([P, V], "both")) == {
        "sub-01_acq-pcasl": ("sub-01_acq-pcasl",),
        "sub-01_acq-vsasl": ("sub-01_acq-vsasl",),
        "sub-01": ("sub-01_acq-pcasl", "sub-01_acq-vsasl"),
    }


def test_default_is_auto():
    assert outcome(group([P, V])) == outcome(group([P, V], "auto"))


def test_unknown_mode():
    with pytest.raises(ValueError, match="auto, off, both"):
        group([P], "always")


def test_casl_is_joined_too():
    assert group([run("sub-01_acq-c", "CASL"), V])[0].joint


@pytest.mark.parametrize(
    "schemes", [("PASL", "VSASL"), ("PASL", "PCASL"), ("PCASL", "PCASL"), ("VSASL", "VSASL")]
)
def test_others_are_not(schemes):
    units = group([run(f"sub-01_acq-{i}", scheme) for i, scheme in enumerate(schemes)])
    assert [unit.joint for unit in units] == [False, False]


def test_sessions_and_participants_stay_apart():
    runs = [
        run("sub-01_ses-a_acq-p", "PCASL"),
        run("sub-01_ses-b_acq-v", "VSASL"),
        run("sub-02_ses-a_acq-v", "VSASL"),
    ]
    assert not any(unit.joint for unit in group(runs))
    runs += [run("sub-01_ses-b_acq-p", "PCASL")]
    assert outcome(group(runs)) == {
        "sub-01_ses-a_acq-p": ("sub-01_ses-a_acq-p",),
        "sub-01_ses-b": ("sub-01_ses-b_acq-p", "sub-01_ses-b_acq-v"),
        "sub-02_ses-a_acq-v": ("sub-02_ses-a_acq-v",),
    }


def test_common_entities_keep_their_order():
    runs = [
        run("sub-01_ses-a_acq-p_dir-ap_run-1", "PCASL"),
        run("sub-01_ses-a_acq-v_dir-ap_run-1", "VSASL"),
    ]
    assert group(runs)[0].name == "sub-01_ses-a_dir-ap_run-1"


def test_runs_pair_by_their_number():
    runs = [
        run(f"sub-01_acq-{acq}_run-{i}", scheme)
        for i in (1, 2)
        for acq, scheme in (("p", "PCASL"), ("v", "VSASL"))
    ]
    assert outcome(group(runs)) == {
        "sub-01_run-1": ("sub-01_acq-p_run-1", "sub-01_acq-v_run-1"),
        "sub-01_run-2": ("sub-01_acq-p_run-2", "sub-01_acq-v_run-2"),
    }


def test_ambiguous_partners_stay_alone_aloud():
    units = group([P, V, run("sub-01_acq-other", "PCASL")])
    assert not any(unit.joint for unit in units)
    assert len(outcome(units)) == 3
    for unit in units:
        assert "no one-to-one pairs" in unit.warnings[0]
        assert "sub-01_acq-other_asl.nii.gz" in unit.warnings[0]


def test_pairs_that_are_clear_are_joined_beside_unclear_ones():
    runs = [
        run("sub-01_acq-p_run-1", "PCASL"),
        run("sub-01_acq-v_run-1", "VSASL"),
        run("sub-01_acq-p_run-2", "PCASL"),
        run("sub-01_acq-q", "PASL"),
    ]
    units = {unit.name: unit for unit in group(runs)}
    assert units["sub-01_run-1"].joint
    assert "sub-01_acq-p_run-2" in units["sub-01_acq-p_run-2"].warnings[0]
    assert units["sub-01_acq-q"].warnings == ()


@pytest.mark.parametrize("mode", ["auto", "off", "both"])
def test_names_are_never_the_same(mode):
    """The common entities may be the whole name of a run."""
    runs = [run("sub-01", "PCASL"), V, run("sub-01_acq-fair", "PASL")]
    units = group(runs, mode)
    assert len({unit.name for unit in units}) == len(units)
    expected = {"auto": "sub-01", "off": None, "both": "sub-01_acq-joint"}[mode]
    assert [u.name for u in units if u.joint] == ([expected] if expected else [])


def test_name_of_a_third_run():
    runs = [run("sub-01", "PASL"), P, V]
    units = group(runs)
    assert outcome(units) == {
        "sub-01": ("sub-01",),
        "sub-01_acq-joint": ("sub-01_acq-pcasl", "sub-01_acq-vsasl"),
    }
    assert "acq-joint" in units[1].warnings[0]


def test_joint_label_already_taken():
    runs = [run("sub-01", "PASL"), run("sub-01_acq-joint", "PASL"), P, V]
    units = group(runs)
    assert {unit.name for unit in units} == {"sub-01", "sub-01_acq-joint", "sub-01_acq-joint2"}


def test_joint_label_stands_in_its_place():
    runs = [run("sub-01_run-1", "PASL"), run("sub-01_acq-p_run-1", "PCASL")]
    runs += [run("sub-01_acq-v_run-1", "VSASL")]
    assert group(runs)[1].name == "sub-01_acq-joint_run-1"


def test_two_runs_of_one_name():
    with pytest.raises(InputError) as caught:
        group([P, P])
    assert caught.value.file == "/data/sub-01_acq-pcasl_asl.nii.gz"


def test_nothing():
    assert group([]) == ()
