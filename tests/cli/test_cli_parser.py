"""The command line: spellings, units, refusals, and how fast it answers."""

import re
import subprocess
import sys

import pytest

from asl_bids_app.cli.elsewhere import ELSEWHERE
from asl_bids_app.cli.parser import build_parser, parse


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "bids").mkdir()
    return tmp_path / "bids"


def read(dataset, *arguments, output=None):
    output = output or dataset.parent / "out"
    work = dataset.parent / "work"
    return parse([str(dataset), str(output), "participant", "-w", str(work), *arguments])


def refused(capsys, dataset, *arguments, **places):
    with pytest.raises(SystemExit) as caught:
        read(dataset, *arguments, **places)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_hyphen_and_underscore_spellings(dataset):
    for option in ("--participant-label", "--participant_label"):
        assert read(dataset, option, "sub-01", "02").participant_label == ("01", "02")
    options = read(
        dataset, "--m0_scale", "2", "--no_hmc", "--n_cpus", "3", "--fail_on_implausible"
    )
    assert (options.m0_scale, options.hmc, options.nprocs) == (2.0, False, 3)
    assert options.fail_on_implausible


def test_every_nipreps_option_that_batch_systems_use_exists():
    known = {name for action in build_parser()._actions for name in action.option_strings}
    wanted = (
        "--participant-label --session-label --bids-filter-file -d --derivatives "
        "--bids-database-dir --skip-bids-validation --nprocs --nthreads --n-cpus --omp-nthreads "
        "--mem --mem-mb --use-plugin -w --work-dir --clean-workdir --config-file --random-seed "
        "--reports-only --boilerplate-only --dry-run --stop-on-first-crash --write-graph --debug "
        "-v --version --device --batch-size --model --estimator --no-baseline --tta --no-tta "
        "--joint --m0-scale --m0-smooth-fwhm --t1-blood --t1-tissue --labeling-efficiency "
        "--partition-coefficient --bs-efficiency --brain-mask --no-hmc --run-report"
    )
    assert set(wanted.split()) <= known


@pytest.mark.parametrize(
    ("text", "gigabytes"), [("8G", 8), ("8000", 8), ("8000M", 8), ("0.5TB", 500), ("16gb", 16)]
)
def test_memory_sizes(dataset, text, gigabytes):
    assert read(dataset, "--mem", text).mem_gb == pytest.approx(gigabytes)


@pytest.mark.parametrize(("text", "gigabytes"), [("16", 16), ("16G", 16), ("8000M", 8)])
def test_a_bare_number_is_in_the_unit_that_the_option_names(dataset, text, gigabytes):
    assert read(dataset, "--mem-gb", text).mem_gb == pytest.approx(gigabytes)


def test_a_folder_is_no_run_report(dataset, tmp_path, capsys):
    with pytest.raises(SystemExit):
        read(dataset, "--run-report", str(tmp_path))
    assert "expected the name of a file" in capsys.readouterr().err


def test_labelling_efficiency_for_all_or_by_scheme(dataset):
    assert read(dataset, "--labeling-efficiency", "0.8").labeling_efficiency == {"": 0.8}
    options = read(dataset, "--labeling-efficiency", "PCASL=0.8", "vsasl=0.5")
    assert options.labeling_efficiency == {"PCASL": 0.8, "VSASL": 0.5}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--t1-blood", "1650"], "--t1-blood"),
        (["--t1-blood", "abc"], "expected a number"),
        (["--labeling-efficiency", "85"], "expected 0.01 to 1"),
        (["--labeling-efficiency", "ASL=0.8"], "PCASL"),
        (["--nprocs", "0"], "whole number"),
        (["--mem", "lots"], "8G"),
        (["--device", "gpu"], "cuda:N"),
        (["--estimator", "magic"], "least-squares"),
        (["--brain-mask", "/none.nii.gz"], "/none.nii.gz"),
        (["--derivatives", "fmriprep"], "NAME=PATH"),
        (["--derivatives", "x=/none"], "/none"),
        (["--atlas", "Tian=/none"], "--atlas Tian: found no file or folder /none"),
        (["--atlas", "A", "B:MNI152NLin6Asym=/none.nii"], "--atlas B: found no file or folder"),
        (["--atlas", "tissue:MNI152NLin6Asym"], "--atlas tissue: found a name that of the app's"),
        (["--atlas", "A", "A:MNI152NLin6Asym"], "--atlas A: found a name given twice"),
    ],
)
def test_wrong_values_are_told_in_one_line(capsys, dataset, arguments, told):
    assert told in refused(capsys, dataset, *arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--output-spaces", "MNI:cohort-1"], "expected T1w or a template"),
        (["--atlas", "A="], "expected NAME, NAME=PATH or NAME:SPACE=PATH"),
        (["--fs_license_file", "license.txt"], "nothing is read of FreeSurfer"),
        (["--use-syn-sdc"], "susceptibility distortion is not corrected"),
        (["--participants", "01"], "did you mean --participant-label?"),
        (["--t1_blod=1.6"], "did you mean --t1-blood?"),
        (["--threads", "2"], "did you mean --nthreads?"),
        (["--zzz"], "--zzz: found an unknown option; --help lists the options"),
        (["--joint", "bth"], "found 'bth', expected one of auto, off, both; did you mean both?"),
        (["more"], "found unexpected arguments: more"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_usage_errors_are_one_line_that_helps(capsys, dataset, arguments, told, first):
    places = [str(dataset), str(dataset.parent / "out"), "participant"]
    # In front, the value of an unknown option would be taken for the dataset.
    known = told.startswith("found")
    command = [*arguments, *places] if first and not known else [*places, *arguments]
    with pytest.raises(SystemExit) as caught:
        parse(command)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("asl-app: error: ")
    assert told in line


def test_a_wrong_level_and_nothing_at_all(capsys, dataset):
    for command, told in (
        ([str(dataset), "out", "particpant"], "did you mean participant?"),
        ([], "found nothing for bids_dir, output_dir"),
    ):
        with pytest.raises(SystemExit) as caught:
            parse(command)
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def test_no_option_is_said_to_be_missing_that_exists():
    known = {name for action in build_parser()._actions for name in action.option_strings}
    assert not {f"--{name}" for name in ELSEWHERE} & known
    for sentence in ELSEWHERE.values():
        named = re.findall(r"--[a-z0-9-]+", sentence)
        assert set(named) <= known, sentence


def test_help_tells_no_default_that_reads_as_its_opposite():
    text = " ".join(build_parser().format_help().split())
    assert "(default: True)" not in text
    assert "(default: False)" not in text
    assert "do not correct head motion --no-tissue" in text
    assert "flips of the slices (default: yes)" in text
    assert "(default: total)" in text


def test_output_inside_the_raw_data_is_refused(capsys, dataset):
    for place in (dataset, dataset / "results", dataset / "sub-01"):
        line = refused(capsys, dataset, output=place)
        assert "output_dir" in line
        assert "derivatives" in line
    inside = dataset / "derivatives" / "asl"
    assert read(dataset, output=inside).output_dir == inside
    link = dataset.parent / "link"
    link.symlink_to(dataset)
    assert "output_dir" in refused(capsys, dataset, output=link / "out")
    assert "--work-dir" in refused(capsys, dataset, "-w", str(dataset / "work"))


def test_a_missing_dataset_is_told(capsys, tmp_path):
    assert "BIDS dataset" in refused(capsys, tmp_path / "none")


def test_config_file_gives_defaults_that_the_command_line_outranks(dataset, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(
        "t1-blood: 1.6\nno-hmc: true\ntta: false\njoint: 'off'\n"
        "participant_label: ['01', sub-02]\n"
        "labeling-efficiency: {PCASL: 0.8}\nnprocs: 1\n"
    )
    options = read(dataset, "--config-file", str(config))
    assert (options.t1_blood, options.hmc, options.tta, options.joint) == (
        1.6,
        False,
        False,
        "off",
    )
    assert options.participant_label == ("01", "02")
    assert options.labeling_efficiency == {"PCASL": 0.8}
    other = read(dataset, "--config-file", str(config), "--t1-blood", "1.7")
    assert other.t1_blood == 1.7
    assert str(options.origin("t1_blood")) == "configuration file options.yaml"
    assert str(other.origin("t1_blood")) == "command line"
    assert str(other.origin("labeling_efficiency")) == "configuration file options.yaml"
    assert options.to_json()["origins"]["hmc"] == "configuration file options.yaml"
    assert "origins" not in read(dataset).to_json()


@pytest.mark.parametrize(
    ("text", "arguments", "level"),
    [
        ("verbose: 2", (), 2),
        ("verbose: true", (), 1),
        ("verbose: 0", (), 0),
        ("verbose: 2", ("-v",), 1),
        ("quiet: true", ("-vv",), 2),
    ],
)
def test_how_much_is_said_can_stand_in_a_config_file(dataset, tmp_path, text, arguments, level):
    config = tmp_path / "options.yaml"
    config.write_text(text)
    assert read(dataset, "--config-file", str(config), *arguments).verbose == level


@pytest.mark.parametrize(
    ("text", "flips"),
    [
        ("no-tta: true", False),
        ("no-tta: false", True),
        ("no_tta: true", False),
        ("tta: true", True),
    ],
)
def test_a_switch_of_a_config_file_means_what_its_name_says(dataset, tmp_path, text, flips):
    config = tmp_path / "options.yaml"
    config.write_text(text)
    assert read(dataset, "--config-file", str(config)).tta is flips


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("t1-blod: 1.6", "did you mean t1-blood"),
        ("t1-blood: 1600", "expected 0.5 to 4"),
        ("joint: maybe", "joint: found 'maybe', expected one of auto, off, both"),
        ("estimator: magic", "expected one of ensemble, "),
        ("no-hmc: 3", "true or false"),
        ("verbose: many", "verbose: found 'many', expected true, false, or how often"),
        ("verbose: -1", "expected true, false, or how often"),
        ("verbose: 1.5", "expected true, false, or how often"),
        ("debug: null", "debug: found null, expected true or false"),
        ("atlas: A=/none", "--atlas A: found no file or folder /none"),
        ("participant-label: [010, 011]", "expected labels in quotes"),
        ("session-label: 1", "expected labels in quotes"),
        ("- a\n- b", "list"),
        ("a: [", "YAML"),
    ],
)
def test_faults_of_a_config_file(capsys, dataset, tmp_path, text, told):
    config = tmp_path / "options.yaml"
    config.write_text(text)
    assert told in refused(capsys, dataset, "--config-file", str(config))


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from asl_bids_app.cli.parser import build_parser;"
        "build_parser().format_help();"
        "heavy = {'torch', 'nipype', 'bids', 'nibabel', 'numpy', 'ants', 'nilearn', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_correction_of_means_can_be_left_out(dataset):
    assert read(dataset).tissue_consistency
    assert not read(dataset, "--no-tissue-consistency").tissue_consistency
