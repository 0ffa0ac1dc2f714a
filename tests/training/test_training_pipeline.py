"""The pipeline from nothing to a model, export, and the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from asl_bids_app.errors import InputError
from asl_bids_app.models.store import load_model
from asl_bids_app.networks.spatial import SpatialASLNet
from asl_bids_app.training import cli
from asl_bids_app.training.config.run_config import load
from asl_bids_app.training.data.parts import PARTS, describe_part, generate_part
from asl_bids_app.training.data.shards import read_manifest
from asl_bids_app.training.export.model_folder import describe_domain, export_run
from asl_bids_app.training.export.onnx_files import count_channels
from asl_bids_app.training.fit.fit_member import fit_member
from asl_bids_app.training.fit.launch import run_together
from asl_bids_app.training.fit.training_run import RunFolder, load_member
from asl_bids_app.training.stop_signals import INTERRUPTED
from asl_bids_app.training.validate import baselines
from asl_bids_app.training.validate.validation_report import plot_curves
from asl_bids_app.training.validate.validation_report import words as report_words


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A whole run by the command line, smaller than smoke; read it, never write to it."""
    changes = [
        "phantoms.size=32",
        "phantoms.voxel_size=[5, 8]",
        "phantoms.smallest_brain=60",
        "data.phantoms=32",
        "data.phantoms_per_shard=16",
        "data.validation_phantoms=8",
        "data.calibration_phantoms=8",
        "data.test_phantoms=16",
        "network.arguments.features=[4, 8, 8, 8]",
        "training.steps=8",
        "training.batch_size=4",
        "training.crop=16",
        "training.validate_every=4",
        "validation.naive_voxels=40",
        "logging.tensorboard=false",
    ]
    root = tmp_path_factory.mktemp("small") / "run"
    words = ["pipeline", "--config", "smoke", "--output-dir", str(root), "--jobs", "2"]
    words += [word for change in changes for word in ("--set", change)]
    words.append("--no-onnx")
    assert cli.main(words) == 0
    return root


# --- the run folder


@pytest.mark.slow
def test_run_folder_is_as_documented(small_run):
    names = {path.name for path in small_run.iterdir()}
    assert {
        "config.yaml",
        "norm_stats.json",
        "research_config.json",
        "trained_models",
        "validation_results",
        "model",
    } <= names
    stats = json.loads((small_run / "norm_stats.json").read_text())
    assert set(stats) == {"y_mean_cbf", "y_std_cbf", "y_mean_att", "y_std_att"}
    # Milliseconds in this one file.
    assert 500 < stats["y_mean_att"] < 3000
    provenance = json.loads((small_run / "research_config.json").read_text())
    assert provenance["run"]["config_sha256"] == load(small_run / "config.yaml").digest()
    assert set(provenance["members"]) == {"0", "1"}
    for member in (0, 1):
        state = torch.load(
            small_run / f"trained_models/ensemble_model_{member}.pt", weights_only=True
        )
        assert state["complete"]
        assert state["model_state_dict"]


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(small_run, capsys):
    before = {p: p.stat().st_mtime_ns for p in small_run.rglob("*.pt")}
    config = str(small_run / "config.yaml")
    words = ["pipeline", "--config", config, "--output-dir", str(small_run), "--jobs", "1"]
    assert cli.main(words) == 0
    assert {p: p.stat().st_mtime_ns for p in small_run.rglob("*.pt")} == before


@pytest.mark.slow
def test_model_folder_gives_what_the_weights_give(small_run):
    model = load_model(small_run / "model")
    run = load_model(small_run)
    assert len(model.members) == 2
    assert set(model.spec.calibration) == {"total", "noise"}
    assert model.spec.calibration["total"]["voxels"] > 1000
    assert model.spec.calibration["total"] != model.spec.calibration["noise"]
    assert model.spec.training["config_sha256"] == load(small_run / "config.yaml").digest()
    maps = torch.randn(1, count_channels(model.members[0]), 40, 32)
    for half, whole in zip(model.members, run.members, strict=True):
        answer, wanted = half.corrections(maps), whole.corrections(maps)
        # Weights are kept in half precision.
        assert (answer - wanted).abs().max() < 0.02 * wanted.abs().max()
    card = (small_run / "model/MODEL_CARD.md").read_text()
    assert "PCASL" in card
    assert "strong least squares" in card
    assert (small_run / "model/validation/llm_analysis_report.md").is_file()
    assert (small_run / "model/training/metrics-0.csv").is_file()


@pytest.mark.slow
def test_training_domain_is_that_of_the_configuration(small_run):
    domain = describe_domain(load(small_run / "config.yaml"))
    assert domain.t1_blood == (1.55, 2.15)
    assert domain.snr == load(small_run / "config.yaml").noise.snr
    assert {"PCASL", "PASL", "VSASL"} <= set(domain.schemes)
    low, high = domain.schemes["PCASL"].efficiency
    assert low == pytest.approx(0.75 * 0.85)
    assert high == pytest.approx(0.95)


@pytest.mark.slow
def test_onnx_agrees_with_torch_for_any_slice(small_run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export_run(small_run, tmp_path / "model", onnx=tmp_path / "onnx")
    contract = json.loads((tmp_path / "onnx/onnx.json").read_text())
    for number, member in enumerate(load_model(small_run).members):
        session = onnxruntime.InferenceSession(str(tmp_path / f"onnx/member-{number}.onnx"))
        for batch, height, width in ((1, 64, 64), (3, 40, 56), (2, 128, 96)):
            maps = torch.randn(batch, count_channels(member), height, width)
            name = contract["input"]["name"]
            found = session.run(None, {name: maps.numpy()})[0]
            wanted = member.corrections(maps).numpy()
            assert np.abs(wanted).max() > 0.01
            np.testing.assert_allclose(found, wanted, atol=1e-4)


# --- the report


@pytest.mark.slow
def test_report_of_a_run_is_whole_and_names_its_baselines(small_run):
    folder = small_run / "validation_results"
    report = json.loads((folder / "llm_analysis_report.json").read_text())
    config = load(small_run / "config.yaml")
    assert set(report["scenarios"]) == set(config.validation.scenarios)
    for scenario in report["scenarios"].values():
        assert set(scenario["snr"]) == {f"{snr:g}" for snr in config.validation.snr}
        for tables in scenario["snr"].values():
            methods = tables["groups"]["tissue"]
            wanted = set(baselines.METHODS)
            if scenario["calibration_known"]:
                wanted.remove(baselines.ORACLE)
            assert set(methods) == wanted
            assert "tissue of held-out anatomy" in tables["groups"]
            network = methods[baselines.NETWORK]
            assert network["cbf"]["n"] > 1000
            assert 0 < methods[baselines.NAIVE]["cbf"]["n"] < network["cbf"]["n"]
    text = (folder / "llm_analysis_report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| 5 ") and "tissue" not in line]
    # No row of a table may say "least squares" without saying which.
    for row in rows:
        if "least squares" in row:
            assert any(method in row for method in baselines.METHODS), row
    for picture in ("errors_joint.png", "coverage_joint.png"):
        assert (folder / picture).stat().st_size > 10_000
    curves = json.loads((folder / "interactive_plot_data.json").read_text())
    assert curves["curves"]["joint"]["snr"] == list(config.validation.snr)
    assert report["model"]["complete"]


@pytest.mark.slow
def test_least_squares_in_the_report_covers_what_it_claims(small_run):
    """Known calibration, thermal noise: the strong baseline's own errors are its yardstick."""
    report = json.loads((small_run / "validation_results/llm_analysis_report.json").read_text())
    row = report["scenarios"]["joint"]["snr"]["10"]["groups"]["grey matter"][baselines.STRONG]
    assert row["cbf"]["coverage_68"] == pytest.approx(0.683, abs=0.05)
    assert row["cbf"]["coverage_95"] == pytest.approx(0.95, abs=0.03)


@pytest.mark.slow
def test_words_tell_an_unfinished_training(small_run):
    report = json.loads((small_run / "validation_results/llm_analysis_report.json").read_text())
    assert "NOT COMPLETE" not in report_words(report, [])
    report["model"]["complete"] = False
    report["model"]["noncritical_settings"] = {"training.dc_weight": 0.1}
    text = report_words(report, [])
    assert "TRAINING NOT COMPLETE" in text
    assert "training.dc_weight" in text
    assert plot_curves(report)["joint"]["groups"]["tissue"]["cbf"]


# --- the published network


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A run of the published network, as small as it can be."""
    root = tmp_path_factory.mktemp("published")
    changes = [
        "name=published",
        "domain.protocol=joint 6+6",
        "domain.nominal_random=false",
        "domain.truth_from_ranges=true",
        "network.name=SpatialASLNet",
        "network.arguments={n_plds: 6}",
        "phantoms.size=32",
        "phantoms.voxel_size=[5, 8]",
        "phantoms.smallest_brain=60",
        "data.phantoms=16",
        "data.validation_phantoms=8",
        "training.members=1",
        "training.steps=2",
        "training.batch_size=4",
        "training.crop=16",
    ]
    config = load("smoke", changes)
    for part in PARTS[:2]:
        generate_part(config, root / "dataset", part)
    assert fit_member(config, root / "dataset", root / "run", 0).finished
    return root / "run"


def test_published_weights_load_as_printed_in_the_docs(published):
    model = SpatialASLNet(n_plds=6)
    state = torch.load(published / "trained_models/ensemble_model_0.pt", weights_only=True)
    model.load_state_dict(state["model_state_dict"])
    stats = json.loads((published / "norm_stats.json").read_text())
    cbf_norm, att_norm = model(torch.rand(1, 12, 24, 40))[:2]
    cbf = cbf_norm * stats["y_std_cbf"] + stats["y_mean_cbf"]
    att = att_norm * stats["y_std_att"] + stats["y_mean_att"]
    assert cbf.shape[-2:] == att.shape[-2:] == (24, 40)
    assert 300 < float(att.detach().mean()) < 4000


def test_published_run_becomes_a_model_with_channels(published, tmp_path):
    model = load_model(export_run(published, tmp_path / "model", "joint", "2"))
    assert (model.spec.name, model.spec.version) == ("joint", "2")
    assert [c.scheme for c in model.spec.channels] == ["PCASL"] * 6 + ["VSASL"] * 6
    assert set(model.spec.domain.schemes) == {"PCASL", "VSASL"}


# --- commands and processes


def test_help_imports_nothing_heavy():
    for words in ([], ["fit"], ["pipeline"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "asl_bids_app.training.cli", *words, "-h"],
            capture_output=True,
            text=True,
            check=True,
        )
        for heavy in ("torch", "lightning", "numpy", "yaml"):
            assert f" {heavy}\n" not in done.stderr, heavy


def test_errors_are_one_line(capsys):
    assert cli.main(["show", "--config", "lapto"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "did you mean laptop" in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "--config", "smoke", "--part", "tain", "--output-dir", "x"], "train"),
        (["generate", "--config", "smoke", "--shards", "0", "--output-dir", "x"], "one --part"),
        (
            [
                "generate",
                "--config",
                "smoke",
                "--output-dir",
                "x",
                *["--part", "test", "--shards", "9"],
            ],
            "0 to 0",
        ),
        (["fit", "--config", "smoke", "--dataset", "none", "--output-dir", "x"], "manifest"),
        (["validate", "--run-dir", "none"], "config.yaml"),
        (["export", "--run-dir", "none", "--output-dir", "x"], "config.yaml"),
    ],
)
def test_bad_commands_are_told(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err


def test_show_prints_numbers_for_scripts(capsys):
    for query, answer in (
        ("members", "5"),
        ("shards", "500"),
        ("steps", str(500_000 * 200 // 64)),
    ):
        assert cli.main(["show", "--config", "production_v1", "--query", query]) == 0
        assert capsys.readouterr().out.strip() == answer


def test_parts_never_share_phantoms(tmp_path):
    config = load("smoke", ["phantoms.size=32", "phantoms.voxel_size=[5, 8]", "data.phantoms=16"])
    parts = [describe_part(config, name) for name in PARTS]
    assert len({part.seed for part in parts}) == len(PARTS)
    assert [part.config.held_out for part in parts] == [False] * 4 + [True]
    assert sum(part.phantoms for part in parts[3:]) == config.data.test_phantoms


def test_shards_of_an_array_job_make_the_same_dataset(tmp_path, capsys):
    changes = ["phantoms.size=32", "phantoms.voxel_size=[5, 8]", "data.phantoms=24"]
    changes += ["data.phantoms_per_shard=8", "phantoms.smallest_brain=60"]
    words = ["generate", "--config", "smoke", "--part", "train"]
    words += [word for change in changes for word in ("--set", change)]
    for shard in ("2", "0,1"):
        assert cli.main([*words, "--shards", shard, "--output-dir", str(tmp_path / "a")]) == 0
    assert cli.main([*words, "--output-dir", str(tmp_path / "b")]) == 0
    first, second = (read_manifest(tmp_path / name / "train") for name in "ab")
    assert first.digest == second.digest


def test_processes_that_fail_are_told_and_signals_handed_on(tmp_path):
    codes = run_together({"bad": ["show", "--config", "nonsense"]}, 1, tmp_path)
    assert codes == {"bad": 1}
    assert "nonsense" in (tmp_path / "bad.log").read_text()


@pytest.mark.slow
def test_a_signal_stops_all_members_with_checkpoints(published, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        load(published / "config.yaml", ["training.steps=100000", "training.members=2"]).to_yaml()
    )
    words = [sys.executable, "-m", "asl_bids_app.training.cli", "fit", "--config", str(config)]
    words += ["--dataset", str(published.parent / "dataset"), "--jobs", "2", "--threads", "1"]
    process = subprocess.Popen([*words, "--output-dir", str(tmp_path / "run")])
    folder = RunFolder(tmp_path / "run")
    try:
        while not all(folder.checkpoint(m).is_file() for m in (0, 1)):
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == INTERRUPTED
    finally:
        process.kill()
    for member in (0, 1):
        state = torch.load(folder.checkpoint(member), weights_only=True)
        assert 0 < state["global_step"] < 100_000


def test_weights_have_the_names_of_the_network_alone(published):
    state = load_member(published / "trained_models/ensemble_model_0.pt")["model_state_dict"]
    assert not [name for name in state if name.startswith(("network.", "module."))]


def test_export_needs_a_run(tmp_path):
    with pytest.raises(InputError):
        export_run(Path(tmp_path), tmp_path / "model")
