"""What a run does when a worker dies, when it follows an earlier one, and with whose files."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_bids import CBF, FakeDataset
from nipype.interfaces.utility import Function
from nipype.pipeline.engine import Node, Workflow

from asl_bids_app.cli.app import main
from asl_bids_app.errors import InputError
from asl_bids_app.options.table import AppOptions
from asl_bids_app.preprocess.carpet_table import join_tables
from asl_bids_app.preprocess.tissue_maps import given_mask, given_tissue
from asl_bids_app.workflows.execute import run_workflow

pytestmark = pytest.mark.usefixtures("without_pictures")
QUICK = ["--nprocs", "1", "--no-tissue", "-q"]


def go(bids, out, *arguments):
    return main([str(bids), str(out), "participant", "-w", f"{out}-work", *QUICK, *arguments])


def leave_a_mark(path, dies):
    """Run in a worker: leave a file, or be killed as for want of memory."""
    # A step's function comes to its worker without the names around it.
    import os
    import signal
    from pathlib import Path

    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    Path(path).touch()
    return path


def step(name, path, dies):
    node = Node(Function(function=leave_a_mark, output_names=["out"]), name=name)
    node.inputs.path, node.inputs.dies = str(path), dies
    return node


@pytest.fixture
def options(tmp_path):
    return AppOptions(tmp_path, tmp_path / "out", tmp_path / "work", nprocs=2, quiet=True)


def flow_of(options, *nodes):
    flow = Workflow(name="flow")
    flow.config["execution"]["crashdump_dir"] = str(options.work_dir)
    flow.add_nodes([*nodes])
    return flow


def test_a_killed_worker_costs_its_step_alone(options, tmp_path):
    lost, after, kept = (tmp_path / name for name in ("lost", "after", "kept"))
    # All of the memory each, so that they come one after the other, the killed one first.
    nodes = [step("a_lost", lost, True), step("b_after", after, False)]
    nodes.append(step("c_kept", kept, False))
    for node in nodes:
        node._n_procs = 2
    flow = flow_of(options, *nodes)
    flow.connect(nodes[0], "out", nodes[1], "path")
    run_workflow(flow, options)
    assert kept.exists()
    assert not lost.exists()


def test_a_step_that_needs_more_memory_than_there_may_be_is_told(options, tmp_path):
    node = step("big", tmp_path / "never", False)
    node._mem_gb = 3
    few = AppOptions(tmp_path, tmp_path, tmp_path / "work", nprocs=2, mem_gb=1, quiet=True)
    with pytest.raises(InputError, match=r"--mem-gb.*found 1 GB.*at least 3 GB"):
        run_workflow(flow_of(few, node), few)


def test_what_a_stopped_run_never_came_to_is_not_reported_as_done(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01", noise=2e-5)
    dataset.add("02", noise=2e-5)
    quick = ["--no-hmc", "--estimator", "least-squares"]
    assert go(dataset.root, tmp_path / "out", *quick) == 0
    data = nib.load(run.asl).get_fdata()
    data[...] = np.nan
    run.image(data)
    stop = ["--stop-on-first-crash", "--t1-blood", "1.4"]
    assert go(dataset.root, tmp_path / "out", *quick, *stop) == 1
    for path in (tmp_path / "out/logs").glob("*/sub-02.json"):
        record = json.loads(path.read_text())
        for unit in record["units"]:
            used = unit["calibration"]["t1_blood"]["Value"]
            assert used == (record["options"]["t1_blood"] or 1.65)


def test_nothing_of_an_earlier_run_stands_beside_the_maps_of_this_one(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(noise=2e-5)
    folder = tmp_path / "out/sub-01/perf"
    assert go(dataset.root, tmp_path / "out", "--estimator", "bayes") == 0
    ours = folder / "sub-01_desc-notes_cbf.json"
    ours.write_text("{}")
    before = {path.name for path in folder.iterdir()}
    assert {"sub-01_desc-lsq_cbf.nii.gz", "sub-01_desc-confounds_timeseries.tsv"} <= before
    less = ["--estimator", "bayes", "--no-baseline", "--no-hmc"]
    assert go(dataset.root, tmp_path / "out", *less) == 0
    left = {path.name for path in folder.iterdir()}
    assert left < before
    assert not [name for name in left if "desc-lsq" in name or "confounds" in name]
    assert {"sub-01_cbf.nii.gz", "sub-01_cbf.json", ours.name} <= left


def test_the_m0_shows_what_lies_outside_the_mask(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(noise=2e-5)
    m0 = nib.load(run.m0scan).get_fdata()
    m0[0, 0, 0] = 500
    run.image_m0(m0)
    assert go(dataset.root, tmp_path / "out", "--estimator", "least-squares", "--no-hmc") == 0
    folder = tmp_path / "out/sub-01/perf"
    written = nib.load(folder / "sub-01_desc-preproc_m0scan.nii.gz")
    assert written.get_fdata()[0, 0, 0] > 400
    mask = nib.load(folder / "sub-01_desc-brain_mask.nii.gz").get_fdata()
    assert mask[0, 0, 0] == 0
    sidecar = json.loads((folder / "sub-01_desc-preproc_m0scan.json").read_text())
    assert sidecar["SkullStripped"] is False


def test_labels_with_a_plus_sign_and_volumes_that_are_not_used(tmp_path, capsys):
    """NaN in a volume that is marked n/a is nobody's business; what the images hold is told."""
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add(acq="a+b", noise=2e-5, repeats=4)
    kinds = run.aslcontext.read_text().split()[1:]
    run.context(["n/a", "n/a", *kinds[2:]])
    data = nib.load(run.asl).get_fdata()
    data[6, 6, 3, :2] = np.nan
    data[0, 0, 0, 5] = np.nan
    run.image(data)
    quick = ["--no-hmc", "--estimator", "least-squares", "--skip-bids-validation"]
    assert go(dataset.root, tmp_path / "out", *quick) == 0
    folder = tmp_path / "out/sub-01/perf"
    cbf = nib.load(folder / "sub-01_acq-a+b_cbf.nii.gz").get_fdata()
    assert cbf[6, 6, 3] == pytest.approx(CBF, rel=0.02)
    told = "1 of 864 voxels are NaN or infinite"
    assert told in capsys.readouterr().err
    assert told in next((tmp_path / "out").glob("logs/*/asl-app.log")).read_text()


def test_a_run_that_breaks_off_while_writing_leaves_no_main_maps(tmp_path, monkeypatch):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add(noise=2e-5)
    quick = ["--no-hmc", "--estimator", "least-squares"]
    folder = tmp_path / "out/sub-01/perf"
    assert go(dataset.root, tmp_path / "out", *quick) == 0
    save = nib.save

    def full(image, path):
        if "preproc_asl" in Path(path).name:
            raise OSError(28, "No space left on device")
        save(image, path)

    monkeypatch.setattr(nib, "save", full)
    before = (folder / "sub-01_desc-preproc_asl.json").read_text()
    assert go(dataset.root, tmp_path / "out", *quick, "--m0-scale", "2") == 1
    # The sidecar is that of the image that stands beside it.
    assert (folder / "sub-01_desc-preproc_asl.json").read_text() == before
    assert not list(folder.glob("sub-01_[ac][bt][ft].*"))
    record = max((tmp_path / "out/logs").glob("*/sub-01.json"), key=lambda p: p.stat().st_mtime)
    (error,) = json.loads(record.read_text())["errors"]
    assert "No space left on device" in error["message"]
    assert "the disk is full" in error["message"]


@pytest.mark.slow
def test_an_interrupt_ends_a_run_on_one_processor(tmp_path):
    dataset = FakeDataset(tmp_path / "bids")
    for subject in ("01", "02", "03"):
        dataset.add(subject, noise=1e-4)
    program = Path(sys.executable).with_name("asl-app")
    command = [program, dataset.root, tmp_path / "out", "participant", "-w", tmp_path / "w"]
    with subprocess.Popen([*command, *QUICK, "--estimator", "bayes"]) as process:
        # The first step that is done: the run is in the midst of the others.
        while process.poll() is None and not list((tmp_path / "w/records").glob("*/*.motion0.*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert len(list((tmp_path / "out").glob("sub-*/perf/sub-0?_cbf.nii.gz"))) < 3


def derivatives(root, *names):
    for name in names:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return {"prep": root}


def test_masks_are_of_the_session_or_of_none(tmp_path, caplog):
    given = derivatives(
        tmp_path,
        "sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii.gz",
        "sub-01/ses-2/func/sub-01_ses-2_task-rest_desc-brain_mask.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_desc-brain_mask.nii.gz",
        "sub-02/anat/sub-02_desc-brain_mask.nii.gz",
    )

    def mask(subject, session):
        found = given_mask(
            given, {"sub": subject, "ses": session} if session else {"sub": subject}
        )
        return found and found.name

    assert mask("01", "1") == "sub-01_ses-1_desc-brain_mask.nii.gz"
    assert mask("01", "2") == "sub-01_ses-2_desc-brain_mask.nii.gz"
    assert mask("02", "2") == mask("02", None) == "sub-02_desc-brain_mask.nii.gz"
    assert not caplog.records
    assert mask("01", "3") is None
    assert "sessions 1, 2 only, expected ses-3" in caplog.text


def test_tissue_maps_are_of_the_session(tmp_path):
    names = [
        f"sub-01/ses-{session}/anat/sub-01_ses-{session}_label-{label}_probseg.nii.gz"
        for session in (1, 2)
        for label in ("GM", "WM", "CSF")
    ]
    given = derivatives(tmp_path, *names)
    found = given_tissue(given, {"sub": "01", "ses": "2"})
    assert {key: Path(path).name for key, path in found.items()} == {
        label.lower(): f"sub-01_ses-2_label-{label}_probseg.nii.gz"
        for label in ("GM", "WM", "CSF")
    }
    assert given_tissue(given, {"sub": "01", "ses": "3"}) == {}


def test_motion_of_a_joint_series_is_that_of_all_its_runs():
    still = {"trans_x": np.zeros(3), "framewise_displacement": np.array([np.nan, 0, 0])}
    moved = {"trans_x": np.array([0, 4]), "framewise_displacement": np.array([np.nan, 4.0])}
    both = join_tables([still, moved])
    assert np.nanmax(both["framewise_displacement"]) == 4
    assert both["run"].tolist() == [1, 1, 1, 2, 2]
    assert "run" not in join_tables([still])
    assert join_tables([None, None]) is None
