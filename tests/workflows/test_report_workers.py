"""Reports written side by side: the same files, and a fault stays with its participant."""

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
import reports_example as example

from asl_bids_app.errors import InputError
from asl_bids_app.workflows import report_workers
from asl_bids_app.workflows.report_workers import FEWEST, each_report

LABELS = [f"{number:02d}" for number in range(1, FEWEST + 1)]


@pytest.fixture
def out(tmp_path):
    """Derivatives of the first and the last participant."""
    out = tmp_path / "out"
    for label in (LABELS[0], LABELS[-1]):
        example.write_participant(out, label, brain=example.Brain(step=8))
    return out


@pytest.mark.slow
def test_as_one_after_the_other(out):
    beside = list(each_report(out, 2, LABELS))
    pages = {path.name: path.read_text() for path in out.glob("sub-*.html")}
    alone = list(each_report(out, 1, LABELS))
    assert [str(outcome) for outcome in beside] == [str(outcome) for outcome in alone]
    assert all(isinstance(outcome, InputError) for outcome in beside[1:-1])
    assert sorted(pages) == [f"sub-{label}.html" for label in (LABELS[0], LABELS[-1])]
    assert {n: (out / n).read_text() for n in pages} == pages


def test_a_killed_worker_costs_no_report(tmp_path, monkeypatch):
    monkeypatch.setattr(report_workers, "_write", lambda folder, label: folder / label)

    class Killed:
        def __init__(self, **_):
            pass

        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(report_workers, "ProcessPoolExecutor", Killed)
    assert [path.name for path in each_report(tmp_path, 2, LABELS)] == LABELS
