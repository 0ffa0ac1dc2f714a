"""From files to files: what stands beside the maps of one delay, and what arteries need."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_bids import CBF, FakeDataset

from asl_bids_app.estimators.estimate import estimate
from asl_bids_app.finish.record import finish_unit
from asl_bids_app.options.table import AppOptions
from asl_bids_app.preprocess.assemble import assemble
from asl_bids_app.preprocess.moved import correct_motion
from asl_bids_app.preprocess.prepare import prepare_run
from asl_bids_app.workflows.plan import make_plan


def assembled(root: Path):
    """Every step before the estimators, by its own function."""
    options = AppOptions(root, root.parent / "out", root.parent / "work")
    (participant,) = make_plan(options).participants
    assert not participant.failures
    (unit,) = participant.units
    moved = [correct_motion(r.acquisition, hmc=False, threads=1) for r in unit.runs]
    prepared = [
        prepare_run(run, each, align_m0=False, m0_smooth_fwhm=0.0, brain_mask=None)
        for run, each in zip(unit.runs, moved, strict=True)
    ]
    return unit, assemble(unit, prepared, move=False)


def written(root: Path, name: str = "least-squares") -> Path:
    unit, series = assembled(root)
    out = root.parent / "out"
    fit = estimate(series, name)
    finish_unit(out, unit, series, fit, baseline=None, tissue=None, confounds=None)
    return out / "sub-01" / "perf"


@pytest.mark.parametrize(
    ("scheme", "delay", "duration"),
    [("PCASL", 1.8, 1.8), ("PASL", 1.9, 0.7), ("VSASL", 1.5, 0.8)],
)
def test_the_consensus_estimate_stands_beside_the_map_of_one_delay(
    tmp_path, scheme, delay, duration
):
    """The fake's whole bolus has arrived in every slice, so the formula gives its CBF."""
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(
        scheme=scheme, delays=(delay,), label_duration=duration, repeats=6, slice_step=0.03,
        noise=1e-4,
    )  # fmt: skip
    folder = written(dataset.root)
    name = "sub-01_desc-consensus"
    cbf = nib.load(folder / f"{name}_cbf.nii.gz").get_fdata()
    inside = nib.load(folder / "sub-01_desc-brain_mask.nii.gz").get_fdata() > 0
    assert inside.sum() > 0.5 * run.mask.sum()
    assert cbf[inside & run.mask].mean() == pytest.approx(CBF, rel=0.03)
    per_slice = [cbf[..., k][inside[..., k]].mean() for k in range(2, 4)]
    assert per_slice == pytest.approx([CBF, CBF], rel=0.05)
    sd = nib.load(folder / f"{name}std_cbf.nii.gz").get_fdata()
    assert sd[inside].min() > 0
    assert np.std(cbf[inside & run.mask]) == pytest.approx(np.median(sd[inside]), rel=0.5)
    sidecar = json.loads((folder / f"{name}_cbf.json").read_text())
    assert sidecar["EstimationMethod"].startswith("consensus")
    assert sidecar["ErrorBars"] == "noise"
    assert sidecar["TransitTimePrior"] is None
    main = json.loads((folder / "sub-01_cbf.json").read_text())
    assert main["TransitTimePrior"]["Mean"] == {"PASL": 0.7}.get(scheme, 1.3)
    assert any("ATT comes from a prior" in text for text in main["Warnings"])


def test_several_delays_have_no_consensus_estimate_and_take_an_old_one_away(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(delays=(1.8,), repeats=6, noise=1e-4)
    folder = written(dataset.root)
    assert list(folder.glob("*consensus*"))
    dataset.add(delays=(0.5, 1.2, 1.8, 2.4), repeats=6, noise=1e-4)
    assert written(dataset.root) == folder
    assert not list(folder.glob("*consensus*"))


@pytest.mark.parametrize("crushed", [False, True])
def test_early_delays_are_told_unless_the_sidecar_says_that_arteries_were_crushed(
    tmp_path, crushed
):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(
        delays=(0.25, 0.5, 0.75, 1.0, 1.5), repeats=6, noise=1e-4, VascularCrushing=crushed
    )
    _, series = assembled(dataset.root)
    told = " ".join(estimate(series, "bayes", arterial=False).warnings)
    assert ("label still in arteries" in told) != crushed


@pytest.mark.parametrize(("delays", "there"), [((1.8,), True), ((1.0, 1.8), False)])
def test_the_dry_run_names_the_consensus_maps_of_one_delay_only(tmp_path, capsys, delays, there):
    from asl_bids_app.cli.app import main

    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(delays=delays, repeats=2)
    assert main([str(dataset.root), str(tmp_path / "out"), "participant", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert ("sub-01_desc-consensus_cbf.nii.gz" in told) == there
    assert "sub-01_desc-lsq_cbf.nii.gz" in told
    assert "means of tissues: of grey and white matter" in told
