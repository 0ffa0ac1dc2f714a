"""The registration's metrics reach the table once the anatomy ran, and no table else."""

import csv
import json

import pytest
from anatomy_example import FACTS
from fake_bids import FakeDataset

from asl_bids_app.anatomy.request import Outcome, Request
from asl_bids_app.estimators.estimate import estimate
from asl_bids_app.finish import record
from asl_bids_app.options.table import AppOptions
from asl_bids_app.preprocess.assemble import assemble
from asl_bids_app.preprocess.moved import correct_motion
from asl_bids_app.preprocess.prepare import prepare_run
from asl_bids_app.quality.definitions import METRICS
from asl_bids_app.workflows.plan import make_plan

OF_REGISTRATION = {key for key, metric in METRICS.items() if metric.anatomy}


def fitted(dataset, place):
    """Every step before the last, by its own function."""
    options = AppOptions(dataset.root, place / "out", place / "work")
    (participant,) = make_plan(options).participants
    (unit,) = participant.units
    run = unit.runs[0]
    moved = correct_motion(run.acquisition, hmc=False, threads=1)
    prepared = prepare_run(run, moved, align_m0=False)
    series = assemble(unit, [prepared], move=False)
    return unit, series, estimate(series, "least-squares")


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["without", "with"])
def test_columns_of_the_registration_stand_where_it_ran(facts, tmp_path, monkeypatch):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(delays=(1.8,), repeats=4)
    unit, series, maps = fitted(dataset, tmp_path)
    seen = []

    def anatomy(*_, **__):
        # The maps and their table are complete before the anatomy begins.
        with (tmp_path / "out/sub-01/perf/sub-01_desc-qualitycontrol_cbf.tsv").open() as file:
            seen.append(set(next(csv.reader(file, delimiter="\t"))))
        return Outcome(facts=facts)

    monkeypatch.setattr(record, "run_anatomy", anatomy)
    request = Request(dataset.root, tmp_path / "out")
    found = record.finish_unit(
        tmp_path / "out", unit, series, maps,
        baseline=None, tissue=None, confounds=None, anatomy=request,
    )  # fmt: skip
    path = tmp_path / "out/sub-01/perf/sub-01_desc-qualitycontrol_cbf.tsv"
    with path.open() as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert not seen[0] & OF_REGISTRATION
    assert set(row) >= seen[0]
    assert set(row) == set(found["metrics"])
    if not facts:
        assert set(row) == seen[0]
        assert not found.anatomy
        return
    assert float(row["registration_dice"]) == 0.95
    assert float(row["registration_error"]) == 0.2
    assert float(row["template_dice"]) == 0.79
    assert set(row) - seen[0] <= OF_REGISTRATION
    assert (
        "Studholme"
        in json.loads(path.with_suffix(".json").read_text())["registration_nmi"]["Source"]
    )
    assert found.anatomy == FACTS


def test_without_anatomy_nothing_of_an_earlier_run_stays(tmp_path):
    """Old maps in other spaces would stand beside new ones of this."""
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(delays=(1.8,), repeats=4)
    out = tmp_path / "out"
    gone = [
        out / "sub-01/perf/sub-01_space-T1w_cbf.nii.gz",
        out / "sub-01/perf/sub-01_atlas-tissue_desc-fit_cbf.tsv",
        out / "sub-01/figures/sub-01_desc-anatomy_slices.npz",
    ]
    others = [
        out / "sub-01/perf/sub-01_run-2_space-T1w_cbf.nii.gz",
        out / "sub-01/figures/sub-01_run-2_desc-anatomy_slices.npz",
        out / "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    ]
    for path in (*gone, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    unit, series, maps = fitted(dataset, tmp_path)
    record.finish_unit(out, unit, series, maps, baseline=None, tissue=None, confounds=None)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in others)
