"""Volumes of an M0 series that are empty, NaN or unlike the rest, and runs of a CBF map alone."""

import nibabel as nib
import numpy as np
import pytest
from fake_bids import CBF, M0, FakeDataset, runs_of

from asl_bids_app.bids.images import load
from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.calibration import CalibrationOptions, resolve
from asl_bids_app.cli.app import main
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.m0_volumes import choose_volumes
from asl_bids_app.preprocess.moved import correct_motion
from asl_bids_app.preprocess.prepare import prepare_run


def prepare(root):
    run = understand(runs_of(root)[0])
    calibration, _ = resolve(run.scheme, run.metadata, CalibrationOptions(), run.sidecar)
    moved = correct_motion(run, hmc=False, threads=1)
    return prepare_run(PlannedRun(run, calibration, ()), moved, align_m0=False)


def ball(run):
    return np.asarray(nib.load(run.m0scan).dataobj, np.float32)


NAN = np.float32("nan")


@pytest.mark.parametrize(
    ("factors", "used", "word"),
    [
        ((0, 1, 1), 2, "volume 0 (counted from 0) is empty"),
        ((1, 1, 0), 2, "volume 2 (counted from 0) is empty"),
        ((NAN, 1), 1, "volume 0 (counted from 0) is empty"),
        ((0.2, 1, 1), 2, "volume 0 (counted from 0) is 0.2 times as bright"),
        ((0.3, 1), 1, "volume 0 (counted from 0) is 0.3 times as bright"),
        ((1, 5, 1), 2, "volume 1 (counted from 0) is 5 times as bright"),
        ((1, 0.8, 1.2), 3, ""),
    ],
)
def test_volumes_unlike_the_rest_are_passed_over(tmp_path, factors, used, word):
    run = FakeDataset(tmp_path).add("01")
    m0 = ball(run)
    run.image_m0(np.stack([m0 * f for f in factors], axis=-1))
    prepared = prepare(tmp_path)
    assert prepared.facts["m0"]["volumes"] == used
    told = [w for w in prepared.warnings if "passed over" in w]
    assert len(told) == len(factors) - used
    assert all(word in w and "sub-01_m0scan.nii.gz" in w for w in told)
    assert not any("n/a" in w for w in prepared.warnings)
    np.testing.assert_allclose(prepared.m0[6, 6, 3], M0, rtol=0.002)


def test_a_volume_of_nan_for_the_most_part_costs_no_voxel_of_the_others(tmp_path):
    run = FakeDataset(tmp_path).add("01")
    m0 = ball(run)
    spoilt = m0.copy()
    spoilt[:, :9] = np.nan
    run.image_m0(np.stack([m0, spoilt, m0], axis=-1))
    prepared = prepare(tmp_path)
    assert prepared.facts["m0"]["volumes"] == 2
    assert prepared.facts["m0"]["filled_voxels"] == 0


def test_nan_around_the_head_in_all_volumes_is_usual(tmp_path):
    run = FakeDataset(tmp_path).add("01")
    m0 = np.where(run.mask, ball(run), np.nan)
    run.image_m0(np.stack([m0, m0], axis=-1))
    assert prepare(tmp_path).facts["m0"]["volumes"] == 2
    run.image_m0(m0)
    assert prepare(tmp_path).facts["m0"]["volumes"] == 1


def test_shorter_repetition_times_are_not_taken_for_faint(tmp_path):
    run = FakeDataset(tmp_path).add("01")
    times = [0.5, 10.0]
    full = ball(run) / (1 - np.exp(-10 / 1.607))
    run.image_m0(np.stack([full * (1 - np.exp(-t / 1.607)) for t in times], axis=-1))
    run.edit_m0(RepetitionTimePreparation=times)
    prepared = prepare(tmp_path)
    assert prepared.facts["m0"]["volumes"] == 2
    np.testing.assert_allclose(prepared.m0[6, 6, 3], M0, rtol=0.002)


def test_an_empty_m0_volume_of_the_series_is_passed_over(tmp_path):
    run = FakeDataset(tmp_path).add("01", m0="Included")
    data = np.asarray(nib.load(run.asl).dataobj, np.float32)
    kinds = run.aslcontext.read_text().split()[1:]
    run.image(np.concatenate([0 * data[..., :1], data], axis=3)).context(["m0scan", *kinds])
    delays = [0, 0, *[d for d in (1.0, 1.5, 2.0) * 2 for _ in range(2)]]
    run.edit(PostLabelingDelay=delays)
    prepared = prepare(tmp_path)
    assert any("volume 0 (counted from 0) is empty" in w for w in prepared.warnings)
    np.testing.assert_allclose(prepared.m0[6, 6, 3], M0, rtol=0.002)


def test_an_m0_without_any_signal_stops_the_run(tmp_path):
    run = FakeDataset(tmp_path).add("01")
    run.image_m0(np.zeros((*run.mask.shape, 2)))
    with pytest.raises(InputError, match="only zeros") as caught:
        prepare(tmp_path)
    assert "n/a" not in str(caught.value)


def test_an_empty_perfusion_volume_is_still_an_error(tmp_path):
    path = tmp_path / "a.nii.gz"
    data = np.ones((4, 4, 4, 3), np.float32)
    data[..., 1] = 0
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    with pytest.raises(InputError, match="volume 1"):
        load(path, spare=[0])
    assert load(path, spare=[1]).finite.all()


def test_without_any_signal_nothing_is_chosen():
    assert choose_volumes(np.zeros((2, 2, 2, 3)), [1, 1, 1]).used == (0, 1, 2)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("dimensions", [3, 4])
@pytest.mark.parametrize("units", [None, "mL/100 g/min"])
def test_a_cbf_map_alone_is_told_as_such(tmp_path, capsys, dimensions, units):
    run = FakeDataset(tmp_path / "bids").add("01", m0="Absent", Units=units)
    run.image(run.mask * CBF if dimensions == 3 else (run.mask * CBF)[..., None]).context(["cbf"])
    out = tmp_path / "out"
    arguments = [str(tmp_path / "bids"), str(out), "participant", "--dry-run", "-q"]
    main([*arguments, "-w", str(tmp_path / "work")])
    told = "".join(capsys.readouterr())
    assert "holds only a CBF map made by another program" in told
    assert "convert the series again" not in told
    assert ("unknown Units" in told) == (units is None)
