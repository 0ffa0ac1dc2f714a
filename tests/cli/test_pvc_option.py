"""``--pvc``: with a value, without one, in a configuration file, and from Python."""

import pytest

from asl_bids_app.cli.parser import parse
from asl_bids_app.errors import InputError
from asl_bids_app.estimators.partial_volume import METHODS
from asl_bids_app.options.from_python import read_values
from asl_bids_app.options.groups import PVC_METHODS
from asl_bids_app.workflows.checks import check_pvc


def parsed(folder, *arguments):
    (folder / "bids").mkdir(exist_ok=True)
    places = [str(folder / "bids"), str(folder / "out"), "participant"]
    return parse([*places, "-w", str(folder / "work"), *arguments])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), None),
        (("--pvc",), "bayesian"),
        (("--pvc", "linear"), "linear"),
        (("--pvc", "--output-spaces", "T1w"), "bayesian"),
    ],
)
def test_the_method_may_be_left_out(tmp_path, arguments, expected):
    assert parsed(tmp_path, *arguments).pvc == expected


def test_an_unknown_method_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parsed(tmp_path, "--pvc", "kernel")
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "kernel" in lines[0]
    assert "bayesian" in lines[0]


@pytest.mark.parametrize(
    ("text", "expected"), [("true", "bayesian"), ("false", None), ("linear", "linear")]
)
def test_a_configuration_file_may_have_it_as_a_switch(tmp_path, text, expected):
    file = tmp_path / "options.yaml"
    file.write_text(f"pvc: {text}\n")
    assert parsed(tmp_path, "--config-file", str(file)).pvc == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(True, "bayesian"), (False, None), ("linear", "linear"), (None, None)]
)
def test_python_may_give_it_as_a_switch(value, expected):
    assert read_values({"pvc": value}, "quantify_bids()")["pvc"] == expected


def test_it_needs_the_anatomy():
    with pytest.raises(InputError, match="--pvc: found it with --no-anatomy, expected use of the"):
        check_pvc("linear", anatomy=False)
    check_pvc("linear", anatomy=True)
    check_pvc(None, anatomy=False)


def test_the_methods_are_those_of_the_estimator():
    assert PVC_METHODS == METHODS
