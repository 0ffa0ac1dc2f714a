"""What Python callers may do wrong: one line that names the argument, and nothing written."""

import warnings

import numpy as np
import pytest
from fake_bids import FakeDataset

from asl_bids_app import Protocol, quantify, quantify_bids
from asl_bids_app.errors import InputError
from asl_bids_app.options.from_python import read_values


def test_milliseconds_are_refused():
    for times in (([500, 1500], 1800), ([0.5, 1.5], 1800), ([500.0], 1.8)):
        with pytest.raises(ValueError, match="milliseconds"):
            Protocol.pcasl(*times)
    with pytest.raises(ValueError, match="milliseconds"):
        Protocol.pcasl([0.5], 1.8, slice_time=[0, 45, 90])


def test_the_caller_keeps_its_threads_and_its_random_numbers():
    import torch

    delta_m, m0, protocol = simple()
    torch.set_num_threads(2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    quantify(delta_m, m0, protocol, estimator="least-squares", threads=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"m0": "x.nii"}, "m0"),
        ({"m0": None}, "m0"),
        ({"m0": 1j * np.ones((4, 4, 2))}, "m0"),
        ({"protocol": None}, "protocol"),
        ({"repeats": "8"}, "repeats"),
        ({"field_strength": "3T"}, "field_strength"),
        ({"threads": 0}, "threads"),
        ({"tta": "no"}, "tta"),
        ({"arterial": "False"}, "arterial"),
        ({"device": None}, "device"),
        ({"seed": "x"}, "seed"),
        ({"error_bars": "none"}, "error_bars"),
        ({"affine": np.zeros((4, 4))}, "affine"),
        ({"affine": np.full((4, 4), np.nan)}, "affine"),
        ({"mask": np.full((4, 4, 2), "yes")}, "mask"),
        ({"mask": np.full((4, 4, 2), np.nan)}, "mask"),
        ({"tissue": {"GM": np.ones((4, 4, 2))}}, "tissue"),
        ({"tissue": [np.ones((4, 4, 2))]}, "tissue"),
        ({"tissue": {"gm": 100 * np.ones((4, 4, 2))}}, "tissue: gm"),
        ({"tissue": {"gm": "x"}}, "tissue: gm"),
        ({"tissue": {"gm": np.ones((4, 4, 2))}}, "tissue"),
        ({"tissue": {key: np.ones((4, 4, 2)) for key in ("gm", "wm")}}, "tissue"),
        ({"affine": "eye"}, "affine"),
        ({"affine": 1j * np.eye(4)}, "affine"),
        ({"affine": {"a": 1}}, "affine"),
        ({"m0": 0}, "m0"),
        ({"m0": [[1, 2], [3]]}, "m0"),
        ({"mask": [[1, 2], [3]]}, "mask"),
        ({"estimator": np.zeros(2)}, "estimator"),
        ({"model": 5}, "model"),
        ({"model": ["any-protocol"]}, "model"),
        ({"model": "nowhere", "estimator": "ensemble"}, "model"),
        ({"device": "cuda:99", "estimator": "ensemble"}, "device"),
        ({"device": "gpu"}, "device"),
        ({"slice_axis": True}, "slice_axis"),
        ({"slice_axis": np.zeros(2)}, "slice_axis"),
        ({"slice_time": []}, "slice_time"),
        ({"slice_time": [0, np.inf]}, "slice_time"),
        ({"repeats": np.inf}, "repeats"),
        ({"repeats": [[1, 2], [3]]}, "repeats"),
        ({"batch_size": 10**30}, "batch_size"),
        ({"t1_blood": np.datetime64("2020-01-01")}, "t1_blood"),
        ({"slice_time": "abc"}, "slice_time"),
        ({"slice_time": [0, 45]}, "slice_time"),
        ({"standard_error": np.ones((4, 4, 2, 3))}, "repeats"),
        ({"standard_error": -np.ones((4, 4, 2, 3)), "repeats": 8}, "standard_error"),
    ],
    ids=str,
)
def test_what_cant_be_is_one_line_that_names_the_argument(changes, field):
    delta_m, m0, protocol = simple()
    given = {"m0": m0, "protocol": protocol, "estimator": "least-squares"} | changes
    with pytest.raises(InputError) as caught:
        quantify(delta_m, given.pop("m0"), given.pop("protocol"), **given)
    assert caught.value.field == field
    assert caught.value.file == "quantify"
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
    assert str(caught.value).count(f"{field}:") == 1


def test_what_is_not_finite_is_left_out_without_a_warning():
    delta_m, m0, protocol = simple()
    delta_m[0, 0, 0, 1], delta_m[1, 0, 0, 0], m0[2, 0, 0] = np.inf, np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = quantify(delta_m, m0, protocol, estimator="least-squares")
    assert not maps.cbf[:3, 0, 0].any()
    assert np.isfinite(maps.cbf).all()
    np.testing.assert_allclose(maps.cbf[3], 60, rtol=0.01)


@pytest.mark.parametrize(
    ("factor", "m0", "said"), [(100, 1, True), (1, 100, True), (100, 100, False)]
)
def test_flow_that_cant_be_is_a_warning(factor, m0, said):
    """ΔM in per cent of M0 makes flow a hundred times too high, unless M0 is 100."""
    delta_m, _, protocol = simple()
    maps = quantify(factor * delta_m / 1000, m0, protocol, estimator="least-squares")
    found = [text for text in maps.warnings if "in per cent" in text]
    assert len(found) == said
    assert all("The mean CBF of the brain" in text for text in found)


def test_errors_of_a_dataset_name_arguments(tmp_path):
    FakeDataset(tmp_path / "bids").add("01")
    for options, field in (
        ({"device": "cuda:99"}, "device"),
        ({"model": "nowhere"}, "model"),
        ({"model": "any-protocol", "estimator": "bayes"}, "model"),
        ({"pvc": "linear", "anatomy": False}, "pvc"),
        ({"participants": ["nobody"]}, "participant_label"),
    ):
        with pytest.raises(InputError) as caught:
            quantify_bids(tmp_path / "bids", tmp_path / "out", **options)
        assert (caught.value.file, caught.value.field) == ("quantify_bids", field)
        assert "--" not in str(caught.value)
    with pytest.raises(InputError, match="bids_dir: found 5"):
        quantify_bids(5, tmp_path / "out")


def simple():
    """ΔM, M0 and protocol of three delays, small."""
    delays = np.array([1.0, 1.5, 2.0])
    start = np.maximum(delays, 1.2)
    arrived = np.exp(-start / 1.65) - np.exp(-(delays + 1.8) / 1.65)
    fraction = 2 * 0.85 / 0.9 * 60 / 6000 * 1.65 * arrived
    return (
        np.full((4, 4, 2, 3), 1000 * fraction),
        np.full((4, 4, 2), 1000.0),
        Protocol.pcasl(delays, 1.8),
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"estimator": "least_squares"}, "estimator"),
        ({"estimator": "Ensemble"}, "estimator"),
        ({"hmc": "no"}, "hmc"),
        ({"m0_smooth_fwhm": -1}, "m0_smooth_fwhm"),
        ({"error_bars": "none"}, "error_bars"),
        ({"batch_size": 0}, "batch_size"),
        ({"atlas": "nonsense"}, "atlas"),
        ({"output_spaces": ["nonsense space"]}, "output_spaces"),
        ({"dry_run": True}, "dry_run"),
        ({"work_dir": "w"}, "work_dir"),
        ({"participant_label": ["01"]}, "participant_label"),
        ({"participants": [8]}, "participants"),
        ({"t1_blood": "long"}, "t1_blood"),
        ({"nprocs": 0}, "nprocs"),
        ({"derivatives": {"x": "/nope"}}, "derivatives"),
        ({"bids_filter_file": "nope.json"}, "bids_filter_file"),
        ({"nonsense": 1}, "nonsense"),
    ],
    ids=str,
)
def test_options_of_a_dataset_are_read_as_on_the_command_line(tmp_path, options, field):
    (tmp_path / "bids").mkdir()
    with pytest.raises(InputError) as caught:
        quantify_bids(tmp_path / "bids", tmp_path / "out", **options)
    assert caught.value.field == field


def test_values_of_options_are_those_of_the_command_line():
    given = {"t1_blood": "1.65", "labeling_efficiency": 0.85, "hmc": False, "atlas": ["a=x.nii"]}
    read = read_values(given, "call")
    assert read["t1_blood"] == 1.65
    assert read["labeling_efficiency"] == {"": 0.85}
    assert read["hmc"] is False
    by_scheme = read_values({"labeling_efficiency": {"PCASL": 0.8, "VSASL": 0.5}}, "call")
    assert by_scheme["labeling_efficiency"] == {"PCASL": 0.8, "VSASL": 0.5}


@pytest.mark.parametrize("place", ["", "sub-01", "derivatives/../x"])
def test_nothing_is_written_into_raw_data(tmp_path, place):
    data = tmp_path / "bids"
    data.mkdir()
    description = '{"Name": "x", "BIDSVersion": "1.9.0"}'
    (data / "dataset_description.json").write_text(description)
    with pytest.raises(InputError, match="inside the raw data"):
        quantify_bids(data, data / place)
    assert (
        data / "dataset_description.json"
    ).read_text() == '{"Name": "x", "BIDSVersion": "1.9.0"}'


def test_the_function_shows_its_arguments():
    import inspect
    import pickle

    import asl_bids_app

    parameters = inspect.signature(asl_bids_app.quantify).parameters
    assert "delta_m" in parameters
    assert all(name in asl_bids_app.quantify.__doc__ for name in parameters)
    assert pickle.loads(pickle.dumps(asl_bids_app.quantify)) is asl_bids_app.quantify


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Protocol.pcasl([[1.8, 2.0]], 1.8), "post_labeling_delay: 2 axes"),
        (lambda: Protocol.pcasl(1.8, [[1.8]]), "label_duration: 2 axes"),
        (lambda: Protocol.of_scheme("FOO", [2.0], [1.8]), "'FOO' is not a valid Scheme"),
        (lambda: Protocol.pcasl(1.8, 1.8, vascular_crushing="no"), "expected True or False"),
    ],
)
def test_a_protocol_that_cant_be_is_one_line(make, said):
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_protocol_joins_protocols_only():
    with pytest.raises(TypeError, match="only protocols"):
        Protocol.pcasl(1.8, 1.8) + 3
    assert Protocol.of_scheme("PCASL", [1.8], [1.8]).schemes == Protocol.pcasl(1.8, 1.8).schemes
