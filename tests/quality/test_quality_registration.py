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


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["without", "with"])
def test_columns_of_the_registration_stand_where_it_ran(facts, tmp_path, monkeypatch):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(delays=(1.8,), repeats=4)
    options = AppOptions(dataset.root, tmp_path / "out", tmp_path / "work")
    (participant,) = make_plan(options).participants
    (unit,) = participant.units
    run = unit.runs[0]
    moved = correct_motion(run.acquisition, hmc=False, threads=1)
    prepared = prepare_run(run, moved, align_m0=False)
    series = assemble(unit, [prepared], move=False)
    maps = estimate(series, "least-squares")
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
        assert "anatomy" not in found
        return
    assert float(row["registration_dice"]) == 0.95
    assert float(row["registration_error"]) == 0.2
    assert float(row["template_dice"]) == 0.79
    assert set(row) - seen[0] <= OF_REGISTRATION
    assert (
        "Studholme"
        in json.loads(path.with_suffix(".json").read_text())["registration_nmi"]["Source"]
    )
    assert found["anatomy"] == FACTS
