"""Options: where they were given is written beside what they did, and slips are warned of."""

import pytest
from fake_bids import FakeDataset, edit_json

import asl_bids_app
from asl_bids_app.cli.app import main
from asl_bids_app.cli.parser import parse
from asl_bids_app.workflows.plan import describe, make_plan


@pytest.fixture
def dataset(tmp_path):
    made = FakeDataset(tmp_path / "bids")
    made.add("01", noise=1e-4)
    return made


def planned(dataset, *arguments, **config):
    places = [str(dataset.root), str(dataset.root.parent / "out"), "participant"]
    if config:
        file = dataset.root.parent / "lab.yaml"
        lines = (f"{key.replace('_', '-')}: {value}" for key, value in config.items())
        file.write_text("\n".join(lines))
        arguments = (*arguments, "--config-file", str(file))
    return make_plan(parse([*places, "-w", str(dataset.root.parent / "work"), *arguments]))


def constants(plan):
    (participant,) = plan.participants
    (unit,) = participant.units
    return unit.runs[0].calibration.to_json()


def test_constants_say_which_configuration_file_they_are_of(dataset):
    plan = planned(
        dataset,
        "--t1-tissue",
        "1.3",
        t1_blood=1.6,
        labeling_efficiency="{PCASL: 0.8}",
        partition_coefficient=0.95,
        m0_scale=1.5,
    )
    found = constants(plan)
    of_file = ("t1_blood", "labeling_efficiency[PCASL]", "partition_coefficient", "m0_scale")
    assert {found[key]["Source"] for key in of_file} == {"configuration file lab.yaml"}
    assert found["labeling_efficiency[PCASL]"]["Note"] == "labeling-efficiency PCASL"
    assert found["t1_tissue"]["Source"] == "command line"
    assert found["t1_tissue"]["Note"] == "--t1-tissue"
    assert "1.6 s (configuration file lab.yaml: t1-blood)" in describe(plan)


def test_the_loss_by_suppression_says_where_its_factor_was_given(dataset):
    for path in dataset.root.glob("sub-*/perf/*_asl.json"):
        edit_json(path, {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 2})
    found = constants(planned(dataset, bs_efficiency=0.9))["suppression[PCASL]"]
    assert found["Source"] == "configuration file lab.yaml"
    assert found["Value"] == pytest.approx(0.81)


def test_the_bolus_duration_says_where_it_was_given(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", scheme="PASL").edit(BolusCutOffFlag=False, BolusCutOffDelayTime=None)
    for arguments, config, words in (
        (("--bolus-duration", "0.7"), {}, "0.7 s by --bolus-duration"),
        ((), {"bolus_duration": 0.7}, "0.7 s by bolus-duration (configuration file lab.yaml)"),
    ):
        (participant,) = planned(dataset, *arguments, **config).participants
        assert participant.units[0].runs[0].acquisition.inferred["label_duration"] == words


def test_constants_of_a_python_call_are_arguments(dataset, tmp_path):
    result = asl_bids_app.quantify_bids(
        dataset.root,
        tmp_path / "out",
        estimator="least-squares",
        hmc=False,
        tissue=False,
        t1_blood=1.6,
        labeling_efficiency={"PASL": 0.9},
    )
    stored = result.units[0].calibration["t1_blood"]
    assert (stored["Source"], stored["Note"]) == ("argument", "t1_blood")
    assert [warning.field for warning in result.warnings] == ["labeling_efficiency"]


@pytest.mark.parametrize(
    ("arguments", "config", "line"),
    [
        (
            ("--labeling-efficiency", "PASL=0.9", "PCASL=0.8"),
            {},
            "command line: --labeling-efficiency: found PASL=0.9, expected a scheme of the data: "
            "PCASL; no run uses it",
        ),
        (
            (),
            {"labeling_efficiency": "{PASL: 0.9}"},
            "configuration file lab.yaml: labeling-efficiency: found PASL=0.9, expected a scheme "
            "of the data: PCASL; no run uses it",
        ),
        (
            ("--bolus-duration", "0.7"),
            {},
            "command line: --bolus-duration: found 0.7 s, expected PASL data, not PCASL; no run "
            "uses it",
        ),
        (
            ("--bs-efficiency", "0.9"),
            {},
            "command line: --bs-efficiency: found 0.9, expected data with BackgroundSuppression "
            "true; no run uses it",
        ),
        (("--labeling-efficiency", "0.8"), {}, None),
        (("--labeling-efficiency", "PCASL=0.8"), {}, None),
    ],
)
def test_an_option_that_no_run_uses_is_warned_of(dataset, arguments, config, line):
    assert list(planned(dataset, *arguments, **config).dataset.warnings) == [line] * bool(line)


def test_an_option_for_a_run_that_has_faults_is_no_slip(dataset):
    dataset.add("02", scheme="PASL").edit(BolusCutOffFlag=None)
    plan = planned(dataset, "--labeling-efficiency", "PASL=0.9")
    assert plan.participants[1].failures
    assert not plan.dataset.warnings


def test_an_error_names_the_file_that_the_option_stood_in(dataset, tmp_path, capsys):
    config = tmp_path / "lab.yaml"
    config.write_text("device: cuda:77\nestimator: least-squares\n")
    out, work = str(tmp_path / "out"), str(tmp_path / "work")
    arguments = [str(dataset.root), out, "participant", "-w", work, "--config-file", str(config)]
    assert main(arguments) == 2
    assert "configuration file lab.yaml: device: found cuda:77" in capsys.readouterr().err
