"""A program that is told to end says so, ends with the right code, and leaves no process."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fake_bids import FakeDataset

from asl_bids_app.processes import Stopped, exit_code, stop_message

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
FOREVER = 1000
"""Seconds after which a wait counts as endless: no outcome hangs on a loaded machine."""

# Python runs this file at its start, in workers too: a function of the app never returns, and
# whoever isn't deaf has all the time it needs to end by itself.
HANG = """
import importlib.abc, importlib.util, os, pathlib, sys, time

module, name = os.environ["HANG_IN"].split(":")

def hang(*arguments, **options):
    pathlib.Path(os.environ["HANG_MARK"]).write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            if "HANG_DEAF" not in os.environ:
                raise

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, wanted, path, target=None):
        if wanted != module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(wanted)
        execute = spec.loader.exec_module

        def changed(made):
            execute(made)
            setattr(made, name, hang)

        spec.loader.exec_module = changed
        return spec

sys.meta_path.insert(0, Finder())
if "HANG_DEAF" not in os.environ:
    from asl_bids_app import processes

    processes.stoppable.__wrapped__.__defaults__ = (1000.0,)
"""
MOMENTS = {
    "planning": "asl_bids_app.workflows.plan:find_runs",
    "motion": "asl_bids_app.preprocess.motion:estimate_motion",
    "fit": "asl_bids_app.estimators.estimate:estimate",
    "report": "asl_bids_app.reports.participant:write_participant_report",
}


def session(leader):
    """Return the processes of a session that live, by number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = path.with_name("cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if fields[3] == str(leader) and fields[0] != "Z":
            found[int(path.parent.name)] = command.decode(errors="replace")
    return found


def wait_for(what, seconds=FOREVER):
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return value


def start(tmp_path, moment, nprocs, *, deaf=False):
    """Start a run that hangs at a moment; return it once it is there."""
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01", noise=1e-4)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HANG)
    mark = tmp_path / "mark"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(hooks), str(Path(__file__).parents[2])]),
        "HANG_IN": MOMENTS[moment],
        "HANG_MARK": str(mark),
        **({"HANG_DEAF": "1"} if deaf else {}),
    }
    program = [sys.executable, "-m", "asl_bids_app.cli.app", dataset.root, tmp_path / "out"]
    options = ["participant", "-w", tmp_path / "w", "--nprocs", str(nprocs), "--no-tissue"]
    process = subprocess.Popen(
        [*program, *options, "--estimator", "least-squares", "-q"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: process.poll() is not None or (mark.exists() and mark.read_text()))
    assert process.poll() is None, process.stderr.read()
    return process, int(mark.read_text())


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("moment", "nprocs", "number"),
    [
        ("planning", 1, signal.SIGTERM),
        slow("motion", 2, signal.SIGTERM),
        slow("motion", 1, signal.SIGTERM),
        slow("fit", 1, signal.SIGTERM),
        slow("fit", 2, signal.SIGTERM),
        slow("report", 1, signal.SIGTERM),
        slow("report", 2, signal.SIGTERM),
        slow("motion", 2, signal.SIGINT),
        slow("fit", 2, signal.SIGHUP),
    ],
)
def test_a_signal_ends_the_run_with_a_sentence_and_no_process_is_left(
    tmp_path, moment, nprocs, number
):
    process, at_work = start(tmp_path, moment, nprocs)
    assert (at_work == process.pid) == (nprocs == 1 or moment in {"planning", "report"})
    process.send_signal(number)
    _, told = process.communicate(timeout=FOREVER)
    assert process.returncode == 128 + number
    # What the estimates are warned of is no part of how the run ends.
    lines = [line for line in told.splitlines() if line and not line.startswith("warning: ")]
    assert lines == [f"error: {stop_message(number)}"]
    assert "resumes" in lines[0]
    wait_for(lambda: not session(process.pid))
    assert not list((tmp_path / "w" / "locks").glob("sub-*"))
    # A signal is no fault to report.
    assert not list((tmp_path / "out").glob("logs/*/crash"))


@pytest.mark.parametrize(("moment", "nprocs"), [slow("motion", 2), slow("fit", 1)])
def test_killing_the_run_ends_its_workers(tmp_path, moment, nprocs):
    process, at_work = start(tmp_path, moment, nprocs)
    assert at_work in session(process.pid)
    process.kill()
    _, told = process.communicate(timeout=FOREVER)
    wait_for(lambda: not session(process.pid))
    assert "resource_tracker" not in told


@pytest.mark.slow
def test_a_step_that_swallows_the_signal_is_ended_all_the_same(tmp_path):
    process, _ = start(tmp_path, "fit", 1, deaf=True)
    process.terminate()
    _, told = process.communicate(timeout=FOREVER)
    assert process.returncode == 143
    assert stop_message(signal.SIGTERM) in told
    wait_for(lambda: not session(process.pid))


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=FOREVER,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    "swallow", ["pass", "raise KeyboardInterrupt", "raise ValueError('mine')"]
)
def test_an_exception_that_a_library_swallows_or_changes_is_raised_again(swallow):
    done = run(f"""
        import os, signal, sys, time
        from asl_bids_app.processes import Stopped, exit_code, stoppable
        try:
            with stoppable():
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(1000)
                except BaseException:
                    {swallow}
        except (Stopped, ValueError) as error:
            print(type(error).__name__, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    """)
    # An error of its own is told as such; what ended the run is the signal all the same.
    assert done.stdout.split() == ["ValueError" if "Value" in swallow else "Stopped", "True"]


def test_code_that_never_comes_back_is_ended_after_the_grace():
    done = run("""
        import os, signal, time
        from asl_bids_app.processes import stoppable
        with stoppable(grace_s=0.2):
            sent = False
            while True:
                try:
                    if not sent:
                        sent = True
                        os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(0.05)
                except BaseException:
                    pass
    """)
    assert done.returncode == 143
    assert stop_message(signal.SIGTERM) in done.stderr


def test_an_interrupt_ends_a_run_that_a_shell_has_started_behind_itself():
    done = run("""
        import os, signal
        from asl_bids_app.processes import Stopped, stoppable
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with stoppable():
                os.kill(os.getpid(), signal.SIGINT)
        except Stopped as stop:
            print(stop.number)
    """)
    assert done.stdout.strip() == "2"


def test_a_hangup_that_is_ignored_stays_ignored():
    done = run("""
        import os, signal
        from asl_bids_app.processes import stoppable
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            print("goes on")
    """)
    assert (done.returncode, done.stdout.strip()) == (0, "goes on")


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_workers_end_with_a_killed_parent(tmp_path, context):
    """Several, for forked ones hold the pipes of those before them."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, os, pathlib, time
        from concurrent.futures import ProcessPoolExecutor
        from asl_bids_app.processes import begin_worker

        def work(path):
            pathlib.Path(path).touch()
            time.sleep(3600)

        if __name__ == "__main__":
            context = multiprocessing.get_context({context!r})
            pool = ProcessPoolExecutor(3, mp_context=context, initializer=begin_worker)
            for number in range(3):
                pool.submit(work, f"{tmp_path}/mark{{number}}")
            time.sleep(3600)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, script],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    wait_for(lambda: len(list(tmp_path.glob("mark*"))) == 3)
    assert len(session(process.pid)) >= 4
    process.kill()
    process.wait()
    wait_for(lambda: not session(process.pid))


def test_the_codes_and_words_are_those_of_the_signal():
    assert exit_code(KeyboardInterrupt()) == exit_code(Stopped(signal.SIGINT)) == 130
    assert exit_code(Stopped(signal.SIGTERM)) == 143
    assert "SIGTERM" in str(Stopped(signal.SIGTERM))
    assert str(Stopped(signal.SIGINT)).startswith("interrupted")


def test_the_end_does_not_wait_for_a_pool_that_nobody_has_closed(tmp_path):
    """As while reports are written side by side: Python would join the pool's workers."""
    script = tmp_path / "stopped.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from asl_bids_app.processes import begin_worker, end_now\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('forkserver')\n"
        "    pool = ProcessPoolExecutor(2, initializer=begin_worker, mp_context=context)\n"
        "    waiting = [pool.submit(time.sleep, 1000) for _ in range(2)]\n"
        "    while not any(future.running() for future in waiting):\n"
        "        time.sleep(0.01)\n"
        "    end_now(143)\n"
    )
    done = subprocess.run([sys.executable, str(script)], timeout=300, check=False)
    assert done.returncode == 143
