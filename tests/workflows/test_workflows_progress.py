"""What a run shows while it works: steps in words, how far they are; lines without a terminal."""

import contextlib
import io
import logging
import os
import pty
import re
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from fake_bids import FakeDataset
from slices import PROTOCOLS, maps, series_of

from asl_bids_app.cli.app import main
from asl_bids_app.estimators import estimate as estimators
from asl_bids_app.estimators.bayes import Bayes
from asl_bids_app.estimators.least_squares import LeastSquares
from asl_bids_app.preprocess.motion import estimate_motion
from asl_bids_app.progress_callback import EVERY_S, ProgressFile, read
from asl_bids_app.reports.explain import step_words
from asl_bids_app.workflows import plan, report_workers
from asl_bids_app.workflows.progress import Progress, progress_path


class Terminal(io.StringIO):
    def isatty(self):
        return True


def node(record):
    return SimpleNamespace(inputs=SimpleNamespace(record=str(record)))


@pytest.fixture
def log():
    """The lines of the program's log with their levels."""
    kept = []
    logger = logging.getLogger("asl-app")
    handler = logging.Handler()
    handler.emit = lambda record: kept.append((record.levelname, record.getMessage()))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_step_tells_how_far_it_is_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    record = tmp_path / "sub-01_acq-a+b.motion0.json"
    shown = Progress(stream=Terminal())
    with shown.stage("reading the dataset"):
        assert re.fullmatch(r"\[0:\d\d\] reading the dataset", shown.line())
    assert shown.line() == ""
    step, other = node(record), node(tmp_path / "sub-02.fit.json")
    merge = SimpleNamespace(inputs=object())
    shown.expect([step, other, merge])
    shown.note(merge, "start")
    shown.note(step, "start")
    words = f"sub-01_acq-a+b: {step_words('motion')}"
    assert re.fullmatch(rf"\[0 of 2 steps done, 0:\d\d\] {re.escape(words)}", shown.line())
    with ProgressFile(progress_path(record)) as tell:
        tell("volume", 34, 97)
        assert shown.line().endswith(f"{words}, volume 34 of 97")
        # What comes too soon after is left out, what comes later isn't.
        tell("volume", 35, 97)
        assert shown.line().endswith("volume 34 of 97")
        tell._last -= 2 * EVERY_S
        tell("volume", 60, 97)
        assert shown.line().endswith("volume 60 of 97")
    assert read(progress_path(record)) == ""
    record.touch()
    shown.note(step, "end")
    shown.note(other, "start")
    assert "[1 of 2 steps done" in shown.line()


def test_steps_of_several_runs_tell_which(tmp_path):
    shown = Progress(stream=Terminal())
    names = ("sub-01.motion0", "sub-01.motion1", "sub-02.motion0", "sub-01.fit")
    nodes = [node(tmp_path / f"{name}.json") for name in names]
    shown.expect(nodes)
    for each in nodes:
        shown.note(each, "start")
    said = shown.line().split("] ")[1].split("; ")
    motion = step_words("motion")
    assert said == [
        f"sub-01: {motion} (run 1 of 2)",
        f"sub-01: {motion} (run 2 of 2)",
        f"sub-02: {motion}",
        f"sub-01: {step_words('fit')}",
    ]


@pytest.mark.parametrize(("terminal", "level"), [(True, "DEBUG"), (False, "INFO")])
def test_finished_steps_are_lines_where_there_is_no_terminal(
    tmp_path, monkeypatch, log, terminal, level
):
    monkeypatch.setenv("TERM", "xterm")
    new, old, bad = (tmp_path / f"sub-01.{name}.json" for name in ("fit", "motion0", "write"))
    old.touch()
    shown = Progress(stream=Terminal() if terminal else io.StringIO())
    nodes = [node(path) for path in (new, old, bad)]
    shown.expect(nodes)
    shown.note(nodes[0], "start")
    new.touch()
    shown.note(nodes[0], "end")
    shown.note(nodes[1], "end")
    shown.note(nodes[2], "exception")
    told = [text for name, text in log if name == level and "begins" not in text]
    assert len(told) == 3
    assert re.fullmatch(r"sub-01: estimation: done \(\d+\.\d s\) \(1 of 3\)", told[0])
    assert told[1] == f"sub-01: {step_words('motion')}: taken from an earlier run (2 of 3)"
    assert told[2] == f"sub-01: {step_words('write')}: failed (3 of 3)"
    assert not shown.stream.getvalue()


def test_the_line_makes_room_for_the_log(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    logger = logging.getLogger("asl-app")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        with Progress(stream=stream) as shown, shown.stage("x" * 500):
            painted = threading.Event()
            write = shown._write
            shown._write = lambda text: (write(text), "x" in text and painted.set())
            painted.wait()
            logger.warning("a line")
        logger.warning("after")
    finally:
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert "\r\x1b[Ka line\n" in text
    assert text.endswith("\r\x1b[Kafter\n") or text.endswith("a line\nafter\n")
    # Never wider than the terminal, or it could not be written over.
    assert max(map(len, re.findall("x+", text))) < 500


@pytest.mark.parametrize(("quiet", "term"), [(True, "xterm"), (False, "dumb")])
def test_nothing_is_shown_where_it_is_not_wanted(monkeypatch, quiet, term):
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    with Progress(quiet, stream) as shown, shown.stage("reading"):
        assert not shown.shown
    assert stream.getvalue() == ""


def test_a_terminal_that_is_closed_ends_the_display_and_not_the_run(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(stream=stream) as shown:
        stream.close()
        shown._write("x")
        assert shown._ended.is_set()


def test_motion_counts_volumes():
    told = []
    data = np.random.default_rng(1).normal(100, 1, (10, 10, 6, 4))
    data[2:8, 2:8, 1:5] += 400
    kinds = ["control", "label"] * 2
    estimate_motion(data, np.diag([8.0, 8, 8, 1]), kinds, tell=lambda *words: told.append(words))
    for word in ("volume", "second pass, volume"):
        assert [(d, t) for what, d, t in told if what == word] == [(n, 4) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("estimator", [Bayes, LeastSquares])
def test_estimators_count_slices_or_voxels(estimator):
    told = []
    cbf, att, mask = maps((3, 12, 12))
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 20)
    estimator(tell=lambda *words: told.append(words)).fit(series)
    expected = [("slice", n, 3) for n in range(3)]
    if estimator is LeastSquares:
        expected = [("voxel", 0, int(mask.sum()))]
    assert told == expected


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("nprocs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_without_a_terminal_tells_each_step_once(tmp_path, nprocs, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", noise=1e-4)
    places = [str(dataset.root), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w")]
    options = ["--nprocs", str(nprocs), "--no-tissue", "--no-hmc", "--estimator", "least-squares"]

    def lines():
        assert main([*places, *options]) == 0
        told = capsys.readouterr().err
        assert "\x1b" not in told
        return re.findall(r"^sub-01: (.*) \((\d) of (\d)\)$", told, re.MULTILINE)

    names = [step_words(n) for n in ("motion", "prepare", "assemble", "fit", "write")]
    first = lines()
    assert [re.sub(r": done \(\d+\.\d s\)", "", text) for text, *_ in first] == names
    assert [tuple(map(int, counts)) for _, *counts in first] == [(n, 5) for n in range(1, 6)]
    if nprocs == 1:
        # The last step always writes; the others are there.
        told = [text.partition(": ")[2] for text, *_ in lines()]
        assert told[:4] == ["taken from an earlier run"] * 4
        assert told[4].startswith("done")


def test_a_run_in_a_terminal_shows_steps_and_report(tmp_path, monkeypatch):
    """A real terminal: the line is there, names the steps, and is gone at the end."""
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", noise=1e-4)
    main_end, other_end = pty.openpty()
    text = bytearray()

    def read_all():
        with contextlib.suppress(OSError):
            while piece := os.read(main_end, 65536):
                text.extend(piece)

    def shown():
        return text.decode(errors="replace")

    def wait_for(pattern, module, name):
        """Let a function begin only when the terminal shows a text: no step is too quick."""
        original = getattr(module, name)

        def late(*arguments, **options):
            while not re.search(pattern, shown()):
                time.sleep(0.01)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, late)

    fit = rf"\[\d of 5 steps done, \d+:\d\d\] sub-01: {step_words('fit')}"
    wait_for("reading the dataset", plan, "find_runs")
    wait_for(fit, estimators, "estimate")
    wait_for(r"sub-01: writing the report \(1 of 1\)", report_workers, "_write")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    places = [str(dataset.root), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w")]
    options = ["--nprocs", "1", "--no-tissue", "--no-hmc", "--estimator", "least-squares"]
    reader = threading.Thread(target=read_all)
    reader.start()
    with os.fdopen(other_end, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main([*places, *options]) == 0
    reader.join()
    os.close(main_end)
    assert shown().count("\x1b[K") > 4
    # The line is gone at the end; what follows is the log.
    assert not re.search(r"\[(\d+ of \d+ steps done, )?\d+:\d\d\]", shown().split("\r\x1b[K")[-1])
