"""The app end to end: right numbers, resume, kill, plugins, validator, real data."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_bids import ATT, CBF, FakeDataset

from asl_bids_app.cli.app import main
from asl_bids_app.reports.cohort import read_cohort
from asl_bids_app.reports.damage import RECORD, read_object

pytestmark = pytest.mark.usefixtures("without_pictures")
QUICK = ["--nprocs", "1", "--no-hmc", "--no-tissue", "--estimator", "least-squares", "-q"]
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def go(bids, out, *arguments):
    return main([str(bids), str(out), "participant", "-w", f"{out}-work", *QUICK, *arguments])


def maps(out, name, subject="01"):
    folder = Path(out) / f"sub-{subject}" / "perf"
    return nib.load(folder / f"{name}.nii.gz").get_fdata()


def check(out, name, run, subject="01"):
    inside = maps(out, f"{name}_desc-brain_mask", subject) > 0
    assert inside.sum() > 0.5 * run.mask.sum()
    cbf, att = (maps(out, f"{name}_{kind}", subject)[inside] for kind in ("cbf", "att"))
    assert np.median(cbf) == pytest.approx(CBF, rel=0.01)
    assert np.median(att) == pytest.approx(ATT, abs=0.01)
    assert np.isfinite(cbf).all()
    return cbf


@pytest.mark.parametrize("m0", ["Separate", "Included", "Estimate", "Absent"])
def test_every_kind_of_m0_gives_the_same_true_maps(tmp_path, m0):
    dataset = FakeDataset(tmp_path / "bids")
    # Included volumes share the series' repetition time; the correction must undo it.
    run = dataset.add(m0=m0, noise=2e-5)
    assert go(dataset.root, tmp_path / "out") == 0
    check(tmp_path / "out", "sub-01", run)


@pytest.mark.parametrize("scheme", ["PCASL", "CASL", "PASL", "VSASL"])
def test_every_scheme_with_slice_times(tmp_path, scheme):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(scheme=scheme, slice_step=0.04, noise=2e-5, order=("label", "control"))
    assert go(dataset.root, tmp_path / "out") == 0
    check(tmp_path / "out", "sub-01", run)
    sidecar = json.loads((tmp_path / "out/sub-01/perf/sub-01_cbf.json").read_text())
    assert sidecar["Units"] == "mL/100 g/min"
    assert sidecar["Calibration"]["t1_blood"]["Source"] == "default"
    assert sidecar["Measurements"][0]["Scheme"] == scheme
    assert len(sidecar["Measurements"][0]["SliceTiming"]) == 6


def test_a_joint_session_and_its_modes(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(acq="pcasl", noise=2e-5)
    dataset.add(acq="vsasl", scheme="VSASL", noise=2e-5, seed=3)
    assert go(dataset.root, tmp_path / "auto") == 0
    check(tmp_path / "auto", "sub-01", run)
    sidecar = json.loads((tmp_path / "auto/sub-01/perf/sub-01_cbf.json").read_text())
    assert [m["Scheme"] for m in sidecar["Measurements"]] == ["PCASL"] * 3 + ["VSASL"] * 3
    assert len(sidecar["Sources"]) == 4
    # What a sound run writes is not taken for damaged by the group level.
    (record,) = (tmp_path / "auto" / "logs").glob("*/sub-01.json")
    assert read_object(record, RECORD, tmp_path / "auto")[1] == []
    assert main([str(dataset.root), str(tmp_path / "auto"), "group"]) == 0
    table = (tmp_path / "auto" / "group_cbf.tsv").read_text().splitlines()
    assert table[1].split("\t")[:2] == ["sub-01", "complete"]
    assert go(dataset.root, tmp_path / "both", "--joint", "both") == 0
    for name in ("sub-01", "sub-01_acq-pcasl", "sub-01_acq-vsasl"):
        check(tmp_path / "both", name, run)
    # What a run writes is no damage to the group level.
    for name in ("auto", "both"):
        assert read_cohort(tmp_path / name).damage == {}


@pytest.mark.slow
def test_runs_of_a_session_quantified_alone(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(acq="pcasl", noise=2e-5)
    dataset.add(acq="vsasl", scheme="VSASL", noise=2e-5, seed=3)
    assert go(dataset.root, tmp_path / "off", "--joint", "off") == 0
    assert not (tmp_path / "off/sub-01/perf/sub-01_cbf.nii.gz").exists()
    check(tmp_path / "off", "sub-01_acq-vsasl", run)
    assert read_cohort(tmp_path / "off").damage == {}


def test_a_bad_run_of_a_joint_session_leaves_the_other_alone(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(acq="pcasl", noise=2e-5)
    dataset.add(acq="vsasl", scheme="VSASL").edit(PostLabelingDelay=[1.0, 2.0])
    assert go(dataset.root, tmp_path / "out") == 1
    check(tmp_path / "out", "sub-01_acq-pcasl", run)
    record = json.loads(next((tmp_path / "out").glob("logs/*/sub-01.json")).read_text())
    assert record["status"] == "partial"


def test_runs_on_other_grids_are_brought_together(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(acq="pcasl", noise=2e-5, shape=(24, 24, 10), zooms=(6, 6, 10))
    dataset.add(
        acq="vsasl",
        scheme="VSASL",
        noise=2e-5,
        shape=(32, 32, 15),
        zooms=(4.5, 4.5, 6.7),
        slice_step=0.03,
    )
    assert go(dataset.root, tmp_path / "out") == 0
    check(tmp_path / "out", "sub-01", run)
    assert maps(tmp_path / "out", "sub-01_cbf").shape == (24, 24, 10)


def test_command_line_outranks_and_scales_as_physics_says(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(noise=2e-5)
    assert go(dataset.root, tmp_path / "a") == 0
    assert (
        go(dataset.root, tmp_path / "b", "--labeling-efficiency", "0.425", "--m0-scale", "2") == 0
    )
    first, second = check(tmp_path / "a", "sub-01", run), None
    inside = maps(tmp_path / "b", "sub-01_desc-brain_mask") > 0
    second = maps(tmp_path / "b", "sub-01_cbf")[inside]
    assert np.median(second) == pytest.approx(np.median(first) * 2 / 2, rel=1e-3)
    sidecar = json.loads((tmp_path / "b/sub-01/perf/sub-01_cbf.json").read_text())
    assert sidecar["Calibration"]["m0_scale"]["Source"] == "command line"
    assert sidecar["Calibration"]["labeling_efficiency[PCASL]"]["Value"] == 0.425


def test_masks_and_tissue_of_derivatives_are_used(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(noise=2e-5)
    anat = tmp_path / "fmriprep" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    half = run.mask.copy()
    half[:2] = False
    for name, data in (
        ("desc-brain_mask", half),
        ("space-MNI152NLin2009cAsym_desc-brain_mask", ~half),
        ("label-GM_probseg", np.full(half.shape, 0.75)),
        ("label-WM_probseg", np.full(half.shape, 0.24)),
        ("label-CSF_probseg", np.full(half.shape, 0.01)),
    ):
        image = nib.Nifti1Image(np.asarray(data, np.float32), run.affine)
        image.to_filename(anat / f"sub-01_{name}.nii.gz")
    out = tmp_path / "out"
    arguments = [a for a in QUICK if a != "--no-tissue"]
    places = [str(dataset.root), str(out), "participant", "-w", f"{out}-work"]
    assert main([*places, *arguments, "-d", f"fmriprep={anat.parents[1]}"]) == 0
    assert np.array_equal(maps(out, "sub-01_desc-brain_mask") > 0, half)
    assert maps(out, "sub-01_label-GM_probseg")[half] == pytest.approx(0.75)
    # The mask on the command line outranks that of derivatives.
    other = tmp_path / "other"
    whole = tmp_path / "mask.nii.gz"
    nib.Nifti1Image(run.mask.astype(np.float32), run.affine).to_filename(whole)
    assert go(dataset.root, other, "--brain-mask", str(whole), "-d", f"x={anat.parents[1]}") == 0
    assert np.array_equal(maps(other, "sub-01_desc-brain_mask") > 0, run.mask)


def test_a_second_run_resumes_and_restores_what_was_removed(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(noise=2e-5)
    out = tmp_path / "out"
    assert go(dataset.root, out) == 0
    results = {p: p.stat().st_mtime_ns for p in Path(f"{out}-work").rglob("result.pkl")}
    fits = [p for p in results if "__fit" in str(p)]
    cbf = out / "sub-01" / "perf" / "sub-01_cbf.nii.gz"
    before = maps(out, "sub-01_cbf")
    cbf.unlink()
    assert go(dataset.root, out) == 0
    assert np.array_equal(maps(out, "sub-01_cbf"), before)
    assert all(p.stat().st_mtime_ns == results[p] for p in fits)
    assert len(list(out.glob("logs/*/run.json"))) == 2
    # Another constant is another result.
    assert go(dataset.root, out, "--t1-blood", "1.5") == 0
    assert any(p.stat().st_mtime_ns != results[p] for p in fits)
    assert not np.allclose(maps(out, "sub-01_cbf"), before)


def command(dataset, out, *arguments):
    return [
        sys.executable,
        "-m",
        "asl_bids_app.cli.app",
        str(dataset),
        str(out),
        "participant",
        "-w",
        f"{out}-work",
        *arguments,
    ]


@pytest.mark.slow
def test_killed_half_way_and_run_again(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    for subject in ("01", "02", "03"):
        dataset.add(subject, noise=2e-5)
    out = tmp_path / "out"
    done = command(dataset.root, out, *QUICK)
    process = subprocess.Popen(done, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(out.glob("sub-*/perf/sub-*_cbf.nii.gz")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (out / "sub-01" / "perf" / ".part-0-half.nii.gz").write_text("half")
    # What stands under its own name is whole.
    for path in out.glob("sub-*/perf/sub-*_cbf.nii.gz"):
        assert np.isfinite(nib.load(path).get_fdata()).all()
    assert subprocess.run(done, check=False).returncode == 0
    assert len(list(out.glob("sub-*/perf/sub-??_cbf.nii.gz"))) == 3
    assert not list(out.rglob(".part-*"))


@pytest.mark.slow
def test_parallel_processes_give_what_one_gives(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    for subject in ("01", "02"):
        dataset.add(subject, noise=1e-4, seed=int(subject))
    dataset.add("03").asl.write_bytes(b"")
    assert go(dataset.root, tmp_path / "one") == 1
    parallel = [*QUICK, "--nprocs", "2"]
    done = subprocess.run(
        command(dataset.root, tmp_path / "two", *parallel),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    told = done.stderr.splitlines()
    errors = [line for line in told if line and not line.startswith("warning: ")]
    assert len(errors) == 1, errors
    assert "empty" in errors[0]
    for subject in ("01", "02"):
        name = f"sub-{subject}_cbf"
        assert np.allclose(
            maps(tmp_path / "one", name, subject), maps(tmp_path / "two", name, subject), atol=1e-3
        )


def test_a_plugin_of_nipype_by_file(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(noise=2e-5)
    plugin = tmp_path / "plugin.yaml"
    plugin.write_text("plugin: Linear\nplugin_args: {}\n")
    assert go(dataset.root, tmp_path / "out", "--use-plugin", str(plugin)) == 0
    check(tmp_path / "out", "sub-01", run)
    plugin.write_text("plugin: Nowhere\n")
    assert go(dataset.root, tmp_path / "other", "--use-plugin", str(plugin)) == 1
    assert "Nowhere" in capsys.readouterr().err


def test_implausible_maps_are_loud_and_can_fail_the_run(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(noise=2e-5)
    scale = ["--m0-scale", "0.001"]
    assert go(dataset.root, tmp_path / "a", *scale) == 0
    assert "implausible" in capsys.readouterr().err
    assert go(dataset.root, tmp_path / "a", *scale, "--fail-on-implausible") == 1
    warnings = json.loads((tmp_path / "a/sub-01/perf/sub-01_cbf.json").read_text())["Warnings"]
    assert warnings


@pytest.mark.slow
@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_the_official_validator_passes_the_output_with_sessions(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", session="a", noise=2e-5)
    dataset.add("01", session="b", acq="pcasl", noise=2e-5)
    dataset.add("01", session="b", acq="vsasl", scheme="VSASL", noise=2e-5)
    out = tmp_path / "out"
    report = tmp_path / "report.json"
    assert go(dataset.root, out, "--run-report", str(report)) == 0
    assert main([str(dataset.root), str(out), "group", "-q"]) == 0
    done = subprocess.run(
        [VALIDATOR, out, "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    content = json.loads(report.read_text())
    assert content["participants"][0]["status"] == "complete"
    assert {u["folder"] for u in content["participants"][0]["units"]} == {
        "sub-01/ses-a/perf",
        "sub-01/ses-b/perf",
    }


@pytest.mark.parametrize(
    "figures", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["without", "with"]
)
def test_reports_and_methods_text_alone(tmp_path, monkeypatch, figures):
    if figures:
        monkeypatch.undo()
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(noise=2e-5)
    out = tmp_path / "out"
    assert go(dataset.root, out, "--boilerplate-only") == 0
    assert "PCASL" in (out / "logs" / "CITATION.md").read_text()
    assert "@article{buxton," in (out / "logs" / "CITATION.bib").read_text()
    assert not list(out.glob("sub-*"))
    assert go(dataset.root, out) == 0
    (out / "sub-01.html").unlink()
    assert go(dataset.root, out, "--reports-only") == 0
    # Whole, though there are no tissue maps: no part of it had to be left out.
    assert "can't be drawn" not in (out / "sub-01.html").read_text()
    assert "can't be drawn" not in next(out.glob("logs/*/asl-app.log")).read_text()


@pytest.mark.slow
@pytest.mark.real_data
def test_real_data_gives_plausible_maps(real_data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--nprocs", "2", "--no-hmc", "--estimator", "least-squares", "-q"]
    done = subprocess.run(command(real_data, out, *arguments), check=False)
    assert done.returncode == 0
    name = "sub-01_acq-pcasl2depi"
    inside = maps(out, f"{name}_desc-brain_mask") > 0
    gm, wm = (maps(out, f"{name}_label-{t}_probseg") for t in ("GM", "WM"))
    cbf, att = maps(out, f"{name}_cbf"), maps(out, f"{name}_att")
    assert np.isfinite(cbf[inside]).all()
    assert np.isfinite(att[inside]).all()
    grey, white = inside & (gm > 0.7), inside & (wm > 0.8)
    assert 40 < np.median(cbf[grey]) < 80
    assert np.median(cbf[grey]) / np.median(cbf[white]) > 1.2
    assert 0.5 < np.median(att[grey]) < 1.8
    sidecar = json.loads((out / f"sub-01/perf/{name}_cbf.json").read_text())
    assert max(sidecar["Measurements"][0]["SliceTiming"]) == pytest.approx(1.07)
