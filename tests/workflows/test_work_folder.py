"""What stays in the work folder, and that a long run is worked on in blocks."""

import logging
import re
from types import SimpleNamespace

import pytest
from fake_bids import FakeDataset

from asl_bids_app.cli.app import main
from asl_bids_app.cli.parser import parse
from asl_bids_app.workflows import report_workers, work_folder
from asl_bids_app.workflows.work_folder import Room, blocks, decide, free, needed, size_in_words

FAST = ("--estimator", "least-squares", "--no-hmc", "--no-tissue", "--nprocs", "1", "-q")


def options_of(tmp_path, *words):
    folders = [str(tmp_path / "bids"), str(tmp_path / "out")]
    return parse([*folders, "participant", "-w", str(tmp_path / "work"), *words])


def planned(*sizes, folder, suffix=".nii.gz"):
    """Participants with one series each, of images of these sizes."""
    found = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}{suffix}"
        path.write_bytes(bytes(size))
        run = SimpleNamespace(acquisition=SimpleNamespace(path=path))
        unit = SimpleNamespace(runs=[run])
        found.append(SimpleNamespace(participant=str(number), units=(unit,)))
    return found


def test_need_grows_with_images_and_series(tmp_path):
    one, two = planned(1_000_000, 3_000_000, folder=tmp_path)
    assert needed([]) == Room(0, 0)
    assert needed([one, two]).size == needed([one]).size + needed([two]).size
    assert needed([two]).size - needed([one]).size >= 2_000_000
    assert needed([one, two]).files == 2 * needed([one]).files


def test_free_room_is_that_of_the_disk(tmp_path):
    import shutil

    found = free(tmp_path / "not" / "there")
    assert found.size == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


@pytest.mark.parametrize(
    ("left", "words", "kept"),
    [
        (Room(10**12, 10**9), (), True),
        (Room(30_000_000, 10**9), (), False),
        (Room(10**12, 150), (), False),
        (Room(10**12, None), (), True),
        (Room(30_000_000, 10**9), ("--keep-work", "all"), True),
        (Room(10**12, 10**9), ("--keep-work", "failed"), False),
        (Room(10**12, 10**9), ("--keep-work", "failed", "--debug"), True),
    ],
)
def test_decision_is_by_room_and_said(tmp_path, monkeypatch, caplog, left, words, kept):
    (tmp_path / "bids").mkdir()
    monkeypatch.setattr(work_folder, "free", lambda _: left)
    people = planned(5_000_000, 5_000_000, folder=tmp_path)
    with caplog.at_level(logging.INFO, "asl-app"):
        logging.getLogger("asl-app").propagate = True
        asked = options_of(tmp_path, *words)
        keep_work = "all" if asked.debug else asked.keep_work
        assert decide(asked.work_dir, people, keep_work) is kept
    assert ("kept, so that" if kept else "removed of each participant") in caplog.text
    assert "for 2 participants" in caplog.text


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (1_234_000, "1.2 MB"), (999_000_000, "999 MB"), (2.5e13, "25 TB")],
)
def test_sizes_in_words(size, words):
    assert size_in_words(size) == words


def test_blocks_hold_everybody_once_and_in_order():
    people = [SimpleNamespace(participant=str(number)) for number in range(101)]
    found = blocks(people, 2, together=False)
    assert [p for block in found for p in block] == people
    assert len(found) > 1
    assert max(map(len, blocks(people, 64, together=False))) == 101
    assert len(blocks(people, 2, together=True)) == 1
    assert blocks([], 2, together=False) == [()]


def test_series_are_finished_one_after_the_other(monkeypatch):
    """Of the steps that could run, those of the first series come first."""
    import networkx as nx
    from nipype.pipeline.plugins.multiproc import MultiProcPlugin

    from asl_bids_app.workflows.plugin import WorkersPlugin

    graph = nx.DiGraph()
    for series in ("a", "b", "c"):
        nx.add_path(graph, [f"{series}{step}" for step in range(3)])
    done, order = set(), []

    def run_one_by_one(self, graph, *_, **__):
        self.procs = list(nx.topological_sort(graph))
        while len(order) < len(self.procs):
            ready = [
                number
                for number, step in enumerate(self.procs)
                if step not in done and done.issuperset(graph.predecessors(step))
            ]
            step = self.procs[self._sort_jobs(ready)[0]]
            done.add(step)
            order.append(step)

    monkeypatch.setattr(MultiProcPlugin, "run", run_one_by_one)
    plugin = WorkersPlugin({"n_procs": 1})
    plugin.run(graph, {})
    plugin.pool.shutdown()
    assert order == [f"{series}{step}" for series in ("a", "b", "c") for step in range(3)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Five small participants, the image of one of them empty."""
    root = tmp_path_factory.mktemp("cohort")
    dataset = FakeDataset(root / "bids")
    for number in range(1, 6):
        run = dataset.add(f"{number:02d}", seed=number)
        if number == 3:
            run.asl.write_bytes(b"")
    return root / "bids"


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of two participants, and reports that take no time."""

    def write(folder, label):
        path = folder / f"sub-{label}.html"
        path.touch()
        return path

    monkeypatch.setattr(work_folder, "BLOCK", 2)
    monkeypatch.setattr(work_folder, "BLOCK_PER_PROCESSOR", 1)
    monkeypatch.setattr(report_workers, "_write", write)


@pytest.mark.usefixtures("small_blocks")
def test_a_cohort_in_blocks(cohort, tmp_path):
    """Block by block: records, reports, and nothing left of those who are complete."""
    out, work = tmp_path / "out", tmp_path / "work"
    words = [str(cohort), str(out), "participant", "-w", str(work), *FAST]
    assert main([*words, "--keep-work", "failed"]) == 1
    reports = sorted(path.name for path in out.glob("sub-*.html"))
    assert reports == [f"sub-0{n}.html" for n in range(1, 6)]
    log = next(out.glob("logs/*/asl-app.log")).read_text()
    assert re.findall(r"participants (\d+) to (\d+) of 5", log) == [
        ("1", "2"), ("3", "4"), ("5", "5")
    ]  # fmt: skip
    assert "4 of 5 participants complete" in log
    left = {path.name for path in work.glob("records/*")}
    left |= {path.name for path in work.glob("asl_app/sub_*")}
    assert left == set()


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_a_stop_loses_one_block_only(cohort, tmp_path, monkeypatch):
    """Records and reports of the blocks before it are there."""
    from asl_bids_app.workflows import participant_level

    work_on = participant_level.process_participants

    def stop_at_fifth(plan, *rest):
        if plan.participants[0].participant == "05":
            raise KeyboardInterrupt
        return work_on(plan, *rest)

    monkeypatch.setattr(participant_level, "process_participants", stop_at_fifth)
    out = tmp_path / "out"
    work = tmp_path / "w"
    words = [str(cohort), str(out), "participant", "-w", str(work), *FAST]
    assert main([*words, "--keep-work", "all"]) != 0
    assert (work / "asl_app" / "sub_01").is_dir()
    for label in ("01", "02", "04"):
        assert (out / f"sub-{label}.html").exists()
        assert list(out.glob(f"logs/*/sub-{label}.json"))
    assert not (out / "sub-05.html").exists()
