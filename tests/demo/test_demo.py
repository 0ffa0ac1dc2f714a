"""The simulated datasets: physics, files, truth, and the comparison with it."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.integrate import quad

from asl_bids_app.demo import dataset as demo_dataset
from asl_bids_app.demo.__main__ import main
from asl_bids_app.demo.cases import CASES
from asl_bids_app.demo.compare import compare, table
from asl_bids_app.demo.compare import main as compare_main
from asl_bids_app.demo.dataset import simulate
from asl_bids_app.demo.gkm import Physics, delta_m
from asl_bids_app.demo.scanner import Grid, blur, magnitude, view
from asl_bids_app.demo.simulated_head import make_head
from asl_bids_app.errors import InputError
from asl_bids_app.kinetics import tissue_response
from asl_bids_app.scheme_fields import Arrival

CBF = 60.0
ATTS = (0.3, 0.7, 1.0, 1.4, 2.2, 3.5)


def brute_force(scheme, att, delay, duration, efficiency, physics):
    """The convolution as Buxton writes it, by adaptive quadrature over all times."""
    readout = delay + (duration if scheme == "PCASL" else 0)

    def delivered(t):
        if scheme == "PCASL":
            return np.exp(-att / physics.t1_blood) if att < t < att + duration else 0.0
        if scheme == "PASL":
            return np.exp(-t / physics.t1_blood) if att < t < att + duration else 0.0
        return np.exp(-t / physics.t1_blood) if t < min(att, duration) else 0.0

    def integrand(t):
        return delivered(t) * np.exp(-(readout - t) / physics.t1_tissue)

    corners = [p for p in (att, att + duration, duration) if 0 < p < readout]
    value, _ = quad(integrand, 0, readout, points=corners or None, limit=200)
    return 2 * efficiency * CBF / 6000 / physics.partition_coefficient * value


@pytest.mark.parametrize("t1_tissue", [1.65, 1.2])
@pytest.mark.parametrize(
    ("scheme", "delay", "duration", "efficiency"),
    [
        ("PCASL", 0.0, 1.4, 0.85),
        ("PCASL", 1.0, 1.8, 0.77),
        ("PASL", 0.5, 0.7, 0.98),
        ("PASL", 1.8, 0.7, 0.98),
        ("VSASL", 1.2, np.inf, 0.56),
        ("VSASL", 2.4, 1.2, 0.56),
    ],
)
def test_physics_is_the_general_kinetic_model(scheme, delay, duration, efficiency, t1_tissue):
    physics = Physics(t1_tissue=t1_tissue)
    got = delta_m(scheme, CBF, np.array(ATTS), delay, duration, efficiency, physics)
    for att, value in zip(ATTS, got, strict=True):
        true = brute_force(scheme, att, delay, duration, efficiency, physics)
        assert value == pytest.approx(true, rel=1e-6, abs=1e-9)


def test_physics_gives_the_textbook_values():
    # Alsop 2015 for a delay behind the arrival, solved for the signal.
    got = delta_m("PCASL", 60, 1.0, 1.8, 1.8, 0.85, Physics())
    textbook = 2 * 0.85 * 1.65 * 60 * (1 - np.exp(-1.8 / 1.65)) / 6000 / 0.9 / np.exp(1.8 / 1.65)
    assert got == pytest.approx(textbook, rel=1e-9)
    got = delta_m("PASL", 60, 0.5, 1.8, 0.7, 0.98, Physics())
    assert got == pytest.approx(2 * 0.98 * 0.7 * 60 / 6000 / 0.9 * np.exp(-1.8 / 1.65), rel=1e-9)
    with pytest.raises(ValueError, match="scheme"):
        delta_m("EPISTAR", 60, 1, 1, 1, 1, Physics())


ARRIVAL = {
    "PCASL": Arrival.CONTINUOUS,
    "PASL": Arrival.PULSED,
    "VSASL": Arrival.VELOCITY_SELECTIVE,
}


def seconds_of(sidecar, key, n):
    value = sidecar[key]
    return np.array(value if isinstance(value, list) else [value] * n, float)


@pytest.mark.parametrize("case", ["joint", "pcasl", "pasl", "alias", "encoded"])
def test_images_hold_what_the_sidecars_say(case, tmp_path):
    """Read the files as a user would, and predict them with the app's own equations."""
    out = simulate(tmp_path / "d", [case], snr=np.inf, voxel_scale=3, head_motion=False)
    label = CASES[case].label
    truth = out / "derivatives" / "truth" / f"sub-{label}" / "perf"
    cbf, att, dseg = (
        nib.load(truth / f"sub-{label}_{name}.nii.gz").get_fdata()
        for name in ("cbf", "att", "dseg")
    )
    grey = (dseg == 1) & (cbf > 45)  # nearly pure: its M0 recovers with one T1
    assert grey.sum() > 50
    for run in CASES[case].runs:
        name = f"sub-{label}" + (f"_acq-{run.acq}" if run.acq else "")
        perf = out / f"sub-{label}" / "perf"
        data = nib.load(perf / f"{name}_asl.nii.gz").get_fdata()
        sidecar = json.loads((perf / f"{name}_asl.json").read_text())
        kinds = (perf / f"{name}_aslcontext.tsv").read_text().split()[1:]
        assert len(kinds) == data.shape[3]
        if "m0scan" in kinds:
            m0 = data[..., kinds.index("m0scan")]
            m0_time = sidecar["RepetitionTimePreparation"][kinds.index("m0scan")]
        else:
            m0 = nib.load(perf / f"sub-{label}_m0scan.nii.gz").get_fdata()
            m0_time = json.loads((perf / f"sub-{label}_m0scan.json").read_text())[
                "RepetitionTimePreparation"
            ]
        m0 = m0 / (1 - np.exp(-m0_time / 1.331))
        delays = seconds_of(sidecar, "PostLabelingDelay", len(kinds))
        if run.scheme == "PCASL":
            durations = seconds_of(sidecar, "LabelingDuration", len(kinds))
        elif sidecar["BolusCutOffFlag"]:
            cut = sidecar["BolusCutOffDelayTime"]
            durations = np.full(len(kinds), cut[0] if isinstance(cut, list) else cut)
        else:
            durations = np.full(len(kinds), np.inf)
        efficiency = sidecar.get("LabelingEfficiency") or (
            {"PCASL": 0.85, "PASL": 0.98}[run.scheme]
            * 0.95 ** sidecar["BackgroundSuppressionNumberPulses"]
        )
        slices = np.array(sidecar.get("SliceTiming", [0.0] * data.shape[2]))
        assert slices.size == data.shape[2]
        used = [kind != "m0scan" for kind in kinds]
        errors, sizes = [], []
        for delay in np.unique(delays[used]):

            def mean(kind, of=delays == delay, kinds=kinds, data=data):
                return data[..., of & (np.array(kinds) == kind)].mean(-1)

            signal = mean("deltam") if "deltam" in kinds else mean("control") - mean("label")
            predicted = tissue_response(
                torch.tensor(int(ARRIVAL[run.scheme])),
                torch.as_tensor(delay + slices),
                torch.tensor(durations[used][delays[used] == delay][0]),
                torch.tensor(efficiency),
                1.65,
                1.65,
                0.9,
                torch.as_tensor(att),
            ).numpy()
            errors.append(signal[grey] / m0[grey] - (cbf * predicted)[grey])
            sizes.append((cbf * predicted)[grey].mean())
        scale = max(sizes)
        assert 0.002 < scale < 0.02
        # What is left comes from fluid and white matter in a voxel: their M0 recovers otherwise.
        assert np.percentile(np.abs(errors), 95) < 0.05 * scale
        assert np.abs(np.mean(errors, axis=1)).max() < 0.01 * scale


def errors_of(folder):
    run = subprocess.run(
        [Path(sys.executable).with_name("bids-validator-deno"), folder, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    issues = json.loads(run.stdout)["issues"]["issues"]
    assert issues, "the validator says something of every dataset"
    return [i for i in issues if i["severity"] == "error"]


@pytest.mark.slow
def test_official_validator_finds_no_error(tmp_path):
    out = simulate(tmp_path / "d", list(CASES), voxel_scale=4)
    assert errors_of(out) == []
    assert errors_of(out / "derivatives" / "truth") == []
    # It can find one: velocity-selective labelling under its own name is no BIDS yet.
    (out / ".bidsignore").unlink()
    assert {e.get("subCode") for e in errors_of(out)} == {"ArterialSpinLabelingType"}


def test_noise_is_what_snr_says(tmp_path):
    out = simulate(tmp_path / "d", ["pcasl"], snr=5, voxel_scale=2, head_motion=False)
    data = nib.load(out / "sub-02" / "perf" / "sub-02_asl.nii.gz").get_fdata()[..., 1:]
    truth = out / "derivatives" / "truth" / "sub-02" / "perf"
    grey = nib.load(truth / "sub-02_dseg.nii.gz").get_fdata() == 1
    difference = (data[..., 1::2] - data[..., 0::2]).reshape(*data.shape[:3], 4, 6)
    assert difference.shape[3] == CASES["pcasl"].runs[0].repeats
    noise = difference.std(axis=3, ddof=1)[grey].mean() / 2  # of the mean of 4 repeats
    # c4: the expectation of the standard deviation of 4 values is 0.9213 of the true one.
    noise /= 0.9213
    strongest = difference.mean(3)[grey].mean(0).max()
    assert strongest / noise == pytest.approx(5, rel=0.07)


def test_noise_is_rician():
    rng = np.random.default_rng(0)
    # Without signal: Rayleigh, of mean sqrt(pi / 2).
    assert magnitude(np.zeros(200_000), 2.0, rng).mean() == pytest.approx(
        2 * np.sqrt(np.pi / 2), rel=0.01
    )
    assert magnitude(np.full(200_000, 100.0), 2.0, rng).std() == pytest.approx(2, rel=0.01)


@pytest.mark.slow
def test_pose_moves_the_head_that_way():
    grid = Grid((32, 36, 16), (6.0, 6.0, 9.0))
    head = blur(make_head(3), grid)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]

    def centre(pose):
        weight = view(head, grid, np.asarray(pose, float)).grey
        return (points * weight[..., None]).sum((0, 1, 2)) / weight.sum()

    still = centre([0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(centre([4, -3, 2, 0, 0, 0]) - still, [4, -3, 2], atol=0.35)
    # Turned by +6 degrees about x, what lies in front goes up.
    seen = view(head, grid, np.array([0, 0, 0, 6.0, 0, 0]))
    front = points[..., 1] > 20
    before = view(head, grid)

    def height(v):
        return (points[..., 2] * v.grey)[front].sum() / v.grey[front].sum()

    assert height(seen) > height(before) + 1


def test_motion_is_simulated_and_told(small_demo):
    truth = small_demo / "derivatives" / "truth" / "sub-02" / "perf"
    lines = (truth / "sub-02_desc-motion_timeseries.tsv").read_text().splitlines()
    poses = np.array([[float(v) for v in line.split("\t")] for line in lines[1:]])
    data = nib.load(small_demo / "sub-02" / "perf" / "sub-02_asl.nii.gz")
    assert poses.shape == (data.shape[3], 6)
    assert not poses[0].any()
    np.testing.assert_allclose(poses[1:].mean(axis=0), 0, atol=1e-3)
    assert 0.2 < np.abs(poses).max() < 2


@pytest.mark.slow
def test_lesions_are_where_the_truth_says(tmp_path):
    out = simulate(tmp_path / "d", ["stroke", "tumour"], voxel_scale=2)
    truth = out / "derivatives" / "truth"

    def load(label, name):
        path = truth / f"sub-{label}" / "perf" / f"sub-{label}_{name}.nii.gz"
        return nib.load(path).get_fdata()

    cbf, att, dseg = (load("05", n) for n in ("cbf", "att", "dseg"))
    assert cbf[dseg == 4].mean() < 0.5 * cbf[dseg == 1].mean()
    assert att[dseg == 4].mean() > att[dseg == 1].mean() + 0.5
    assert att[dseg == 5].mean() > att[dseg == 1].mean() + 0.4
    cbf, dseg = (load("06", n) for n in ("cbf", "dseg"))
    assert cbf[dseg == 5].mean() > 1.3 * cbf[dseg == 1].mean()
    assert cbf[dseg == 4].mean() < 0.7 * cbf[dseg == 5].mean()


def test_perfusion_is_that_of_a_brain(small_demo):
    truth = small_demo / "derivatives" / "truth" / "sub-01" / "perf"
    cbf, att, dseg = (
        nib.load(truth / f"sub-01_{name}.nii.gz").get_fdata() for name in ("cbf", "att", "dseg")
    )
    assert 40 < np.median(cbf[dseg == 1]) < 70
    assert cbf[dseg == 1].mean() > 1.4 * cbf[dseg == 2].mean()
    assert 0.8 < np.median(att[dseg == 1]) < 1.6
    assert not cbf[dseg == 0].any()
    brain_litres = (
        (dseg > 0).sum()
        * np.abs(np.linalg.det(nib.load(truth / "sub-01_cbf.nii.gz").affine))
        / 1e6
    )
    assert 0.9 < brain_litres < 2.2


def test_seed_decides_everything(tmp_path):
    def data(name, seed):
        out = simulate(tmp_path / name, ["single"], seed=seed, voxel_scale=4)
        return np.asarray(nib.load(out / "sub-08" / "perf" / "sub-08_asl.nii.gz").dataobj)

    first = data("a", 5)
    np.testing.assert_array_equal(first, data("b", 5))
    assert np.abs(first - data("c", 6)).max() > 1


def test_a_dataset_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr(demo_dataset, "_write_m0scan", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        simulate(tmp_path / "d", ["joint"], voxel_scale=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--snr", "0"], "--snr"),
        (["--snr", "nan"], "--snr"),
        (["--voxel-scale", "9"], "--voxel-scale"),
    ],
)
def test_bad_numbers_are_refused(tmp_path, capsys, arguments, said):
    assert main([str(tmp_path / "d"), *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_existing_files_are_kept(tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    assert main([str(tmp_path)]) == 1
    assert "new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "mine"
    with pytest.raises(InputError, match="nonsense"):
        simulate(tmp_path / "d", ["nonsense"])


def write_maps(folder, truth, bias, sd):
    """Derivatives that are wrong by a known amount."""
    perf = folder / "sub-01" / "perf"
    perf.mkdir(parents=True)
    dseg = nib.load(truth / "sub-01" / "perf" / "sub-01_dseg.nii.gz")

    def save(name, data):
        nib.save(nib.Nifti1Image(data.astype(np.float32), dseg.affine), perf / name)

    cbf, att = (
        nib.load(truth / "sub-01" / "perf" / f"sub-01_{n}.nii.gz").get_fdata()
        for n in ("cbf", "att")
    )
    sign = np.where(np.indices(cbf.shape).sum(0) % 2, 1.0, -1.0)
    save("sub-01_cbf.nii.gz", cbf + bias)
    save("sub-01_att.nii.gz", att + 0.1 * sign)
    save("sub-01_desc-std_cbf.nii.gz", np.full(cbf.shape, sd))
    save("sub-01_desc-std_att.nii.gz", np.where(sign > 0, 1.0, 0.01))
    save("sub-01_desc-brain_mask.nii.gz", dseg.get_fdata() > 0)
    (perf / "sub-01_cbf.json").write_text('{"EstimationMethod": "by hand"}')
    (perf / "sub-01_att.json").write_text('{"EstimationMethod": "by hand"}')


def test_compare_tells_the_error(small_demo, tmp_path, capsys):
    truth = small_demo / "derivatives" / "truth"
    write_maps(tmp_path / "out", truth, bias=5.0, sd=5.0 / 1.95)
    scores = {(s.quantity, s.tissue): s for s in compare(tmp_path / "out", truth)}
    assert set(scores) == {("cbf", "GM"), ("cbf", "WM"), ("att", "GM"), ("att", "WM")}
    for tissue in ("GM", "WM"):
        cbf, att = scores["cbf", tissue], scores["att", tissue]
        assert cbf.bias == pytest.approx(5, abs=1e-3)
        assert cbf.mae == pytest.approx(5, abs=1e-3)
        assert cbf.correlation == pytest.approx(1, abs=1e-4)
        assert cbf.coverage == 1
        assert att.mae == pytest.approx(0.1, abs=1e-4)
        assert att.bias == pytest.approx(0, abs=0.01)
        assert 0.45 < att.coverage < 0.55
        assert cbf.estimator == "by hand"
    numbers = tmp_path / "numbers.json"
    assert compare_main([str(tmp_path / "out"), str(truth), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    assert "+5.0" in printed
    assert "100.0 %" in printed
    assert json.loads(numbers.read_text())[0]["bias"] == pytest.approx(5, abs=1e-3)


def test_compare_refuses_what_it_cant_compare(small_demo, tmp_path, capsys):
    truth = small_demo / "derivatives" / "truth"
    assert compare_main([str(tmp_path), str(truth)]) == 1
    assert "no map" in capsys.readouterr().err
    write_maps(tmp_path / "out", truth, bias=0.0, sd=1.0)
    path = tmp_path / "out" / "sub-01" / "perf" / "sub-01_cbf.nii.gz"
    moved = nib.load(path)
    nib.save(nib.Nifti1Image(moved.get_fdata(), moved.affine + np.eye(4)), path)
    with pytest.raises(InputError, match="grid"):
        compare(tmp_path / "out", truth)


def test_table_says_not_available_for_missing_bars(small_demo, tmp_path):
    truth = small_demo / "derivatives" / "truth"
    write_maps(tmp_path / "out", truth, bias=1.0, sd=1.0)
    (tmp_path / "out" / "sub-01" / "perf" / "sub-01_desc-std_cbf.nii.gz").unlink()
    assert "n/a" in table(compare(tmp_path / "out", truth))


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("labels", "more"),
    [(("01",), ["--no-hmc"]), pytest.param(("01", "02"), [], marks=pytest.mark.slow)],
    ids=["a head at rest", "all"],
)
def test_the_app_finds_the_truth(small_demo, tmp_path, labels, more):
    """The whole app against physics that shares no code with it."""
    from asl_bids_app.cli.app import main as asl_app

    out = tmp_path / "out"
    arguments = [str(small_demo), str(out), "participant", "-w", str(tmp_path / "work")]
    arguments += ["--estimator", "least-squares", "--no-tissue", "--nprocs", "1", *more]
    assert asl_app([*arguments, "--participant-label", *labels]) == 0
    scores = compare(out, small_demo / "derivatives" / "truth")
    found = {(s.file, s.tissue): s for s in scores}
    assert set(found) == {
        (f"sub-{label}_{kind}.nii.gz", tissue)
        for label in labels
        for kind in ("cbf", "att")
        for tissue in ("GM", "WM")
    }
    for (file, tissue), score in found.items():
        joint, cbf = file.startswith("sub-01"), score.quantity == "cbf"
        # The head of sub-02 moves, which blurs what lies at the edge of the brain.
        limit = {"cbf": 1.0 if joint else 3.0, "att": 0.03 if joint else 0.06}[score.quantity]
        assert score.mae < limit, score
        assert abs(score.bias) < (0.02 * score.truth if cbf else 0.02), score
        assert score.correlation > (0.97 if joint else 0.85), (file, tissue, score)
