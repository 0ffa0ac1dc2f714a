"""Time-encoded runs: decoded where sidecar and data say how, refused in one line otherwise.

The images are sums over label blocks by the closed form of `fake_bids`; the matrices come from
scipy (Sylvester) and from the published first column of Hadamard's matrix of 12.
"""

import json

import numpy as np
import pytest
from fake_bids import CBF, M0, FakeDataset, delta_m, runs_of
from scipy.linalg import hadamard, toeplitz

from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.bids.sidecar import understand
from asl_bids_app.calibration import CalibrationOptions, resolve
from asl_bids_app.cli.app import main
from asl_bids_app.errors import InputError
from asl_bids_app.hadamard import decode, is_hadamard, known_orders
from asl_bids_app.preprocess.moved import correct_motion
from asl_bids_app.preprocess.prepare import prepare_run
from asl_bids_app.workflows.plan import distinct_measurements

BLOCK = {4: 1.0, 8: 0.4, 12: 0.3}  # s
LAST = 0.3  # s, delay of the last sub-bolus


def walsh(size):
    """Rows by falling number of sign changes, the constant one first."""
    full = hadamard(size)
    order = np.argsort(-(np.diff(full, axis=1) != 0).sum(axis=1))
    return np.concatenate([full[:1], full[order[:-1]]])


def twelve():
    """Hadamard's matrix of 12 as textbooks and numerical libraries have it."""
    column = [-1, -1, 1, -1, -1, -1, 1, 1, 1, -1, 1]
    row = [-1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1]
    full = np.ones((12, 12), int)
    full[1:, 1:] = toeplitz(column, row)
    return full


MATRICES = {4: walsh(4), 8: walsh(8), 12: twelve()}


def times(size):
    """Delays of the sub-boli, the first labelled first."""
    return LAST + BLOCK[size] * np.arange(size - 2, -1, -1)


def make(
    root,
    size=4,
    matrix=None,
    cycles=1,
    between=(),
    first="control",
    noise=2e-5,
    slice_step=0.0,
    seed=0,
    **metadata,
):
    """Write a run that is not decoded.

    `matrix` has 1 for control; with `first` "label" it has 1 for label. `between` are volume
    types put before each cycle.
    """
    matrix = MATRICES[size] if matrix is None else np.asarray(matrix)
    content = {
        "PostLabelingDelay": LAST,
        "LabelingDuration": round(BLOCK[size] * (size - 1), 6),
        "TimeEncodedMatrixSize": size,
        "TimeEncodedMatrixType": "Hadamard",
        "RepetitionTimePreparation": 5.0,
    }
    m0 = metadata.pop("m0", "Separate")
    run = FakeDataset(root).add("01", m0=m0, slice_step=slice_step, shape=(14, 14, 8), seed=seed)
    run.edit(**(content | metadata))
    rng = np.random.default_rng(seed)
    shape = run.mask.shape
    slices = slice_step * np.arange(shape[2])
    static = M0 * (1 - np.exp(-5.0 / 1.607)) * run.mask
    signal = [M0 * delta_m("PCASL", w + slices, BLOCK[size]) * run.mask for w in times(size)]
    labelled = matrix[:, 1:] == (-1 if first == "control" else 1)
    volumes, kinds = [], []
    for _ in range(cycles):
        for kind in between:
            volumes.append(static if kind == "m0scan" else static * 0 + 1)
            kinds.append(kind)
        for k, row in enumerate(labelled):
            label = sum((s for s, on in zip(signal, row, strict=True) if on), start=0 * static)
            volumes.append(static - label + noise * M0 * rng.standard_normal(shape))
            other = "label" if first == "control" else "control"
            kinds.append(first if k == 0 else other)
    run.image(np.stack(volumes, axis=-1)).context(kinds)
    return run


def prepare(root):
    """Return the prepared run and what was understood."""
    run = understand(runs_of(root)[0])
    calibration, warnings = resolve(
        run.scheme, run.metadata, CalibrationOptions(), run.sidecar, run.m0.factor
    )
    planned = PlannedRun(run, calibration, (*run.warnings, *warnings))
    moved = correct_motion(run, hmc=False, threads=1)
    return prepare_run(planned, moved, align_m0=False), planned


def fault(root):
    with pytest.raises(InputError) as caught:
        prepare(root)
    return str(caught.value)


def check_signal(prepared, size, tolerance=0.02, slice_step=0.0):
    """Compare each decoded difference with the closed form, in the middle of the ball."""
    delays = times(size)[::-1]
    np.testing.assert_allclose(prepared.post_labeling_delay, delays, atol=1e-6)
    np.testing.assert_allclose(prepared.label_duration, BLOCK[size], atol=1e-6)
    largest = max(delta_m("PCASL", w, BLOCK[size]) for w in delays)
    for z in (3, 4):
        wanted = [delta_m("PCASL", w + slice_step * z, BLOCK[size]) for w in delays]
        got = prepared.delta_m[6:8, 6:8, z].mean(axis=(0, 1))
        np.testing.assert_allclose(got, wanted, atol=tolerance * largest)


@pytest.mark.parametrize("size", [4, 8, 12])
def test_matrices_are_hadamard_and_decoding_inverts_encoding(size):
    rng = np.random.default_rng(size)
    signal = rng.normal(size=(5, size - 1))
    for order in known_orders(size):
        assert is_hadamard(order.blocks)
        label = np.concatenate([np.zeros((1, size - 1)), order.blocks < 0])
        volumes = 7.0 - signal @ label.T
        np.testing.assert_allclose(decode(volumes, order.blocks, 0), signal, atol=1e-5)


@pytest.mark.parametrize("size", [4, 8, 12])
@pytest.mark.parametrize("cycles", [1, 3])
def test_sub_boli_are_decoded(tmp_path, size, cycles):
    make(tmp_path, size, cycles=cycles)
    prepared, planned = prepare(tmp_path)
    check_signal(prepared, size)
    assert prepared.repeats.tolist() == [cycles] * (size - 1)
    assert np.isfinite(prepared.standard_error[prepared.mask]).all() == (cycles > 1)
    wanted = [(w, BLOCK[size], cycles) for w in times(size)[::-1]]
    np.testing.assert_allclose(distinct_measurements(planned.acquisition), wanted, atol=1e-6)
    assert any("taken from the data" in w for w in prepared.warnings)


@pytest.mark.parametrize("slice_step", [0.0, 0.04])
def test_sylvesters_order_is_told_from_walshs(tmp_path, slice_step):
    make(tmp_path, 8, hadamard(8), slice_step=slice_step)
    prepared, _ = prepare(tmp_path)
    check_signal(prepared, 8, slice_step=slice_step)
    assert "Sylvester" in prepared.facts["decoding"]["order"]


def test_all_label_rows_turn_the_sign(tmp_path):
    make(tmp_path, 4, first="label")
    check_signal(prepare(tmp_path)[0], 4)


@pytest.mark.parametrize("kind", ["m0scan", "noRF"])
def test_other_volumes_may_stand_between_cycles(tmp_path, kind):
    make(tmp_path, 4, cycles=2, between=[kind], m0="Included" if kind == "m0scan" else "Separate")
    prepared, _ = prepare(tmp_path)
    check_signal(prepared, 4)
    assert prepared.repeats.tolist() == [2, 2, 2]


def test_whole_cycles_may_be_left_out(tmp_path):
    run = make(tmp_path, 4, cycles=3)
    run.context(["control", *["label"] * 3, *["n/a"] * 4, "control", *["label"] * 3])
    prepared, _ = prepare(tmp_path)
    check_signal(prepared, 4)
    assert prepared.repeats.tolist() == [2, 2, 2]


def test_differences_have_equal_noise_and_no_correlation(tmp_path):
    """4 s^2 / N for each sub-bolus; the standard error over cycles says the same."""
    cycles, noise, size = 12, 0.002, 8
    make(
        tmp_path,
        size,
        cycles=cycles,
        noise=noise,
        TimeEncodedMatrix=MATRICES[size][:, 1:].tolist(),
    )
    prepared, _ = prepare(tmp_path)
    mask = prepared.mask & (prepared.m0 > 0.9 * M0)
    wanted = [delta_m("PCASL", w, BLOCK[size]) for w in times(size)[::-1]]
    error = prepared.delta_m[mask] - wanted
    expected = noise * np.sqrt(4 / size / cycles)
    # Robust averages of 12 lose a little; 400 voxels tell a standard deviation to 4 %.
    np.testing.assert_allclose(error.std(axis=0), expected, rtol=0.2)
    told = np.sqrt((prepared.standard_error[mask] ** 2).mean(axis=0))
    np.testing.assert_allclose(told, expected, rtol=0.1)
    correlation = np.corrcoef(error.T) - np.eye(size - 1)
    assert np.abs(correlation).max() < 0.25


def swapped(size):
    """A matrix in an order that no convention has."""
    full = MATRICES[size].copy()
    return full[[0, 3, 1, 2, *range(4, size)]][:, [0, 2, 1, *range(3, size)]]


def test_a_matrix_of_the_sidecar_is_used_as_it_stands(tmp_path):
    matrix = swapped(8)
    assert not any(np.array_equal(o.blocks, matrix[1:, 1:]) for o in known_orders(8))
    make(tmp_path, 8, matrix, TimeEncodedMatrix=matrix[:, 1:].tolist(), TimeEncodedMatrixType=None)
    prepared, _ = prepare(tmp_path)
    check_signal(prepared, 8)
    assert not prepared.warnings
    assert prepared.facts["decoding"]["order"] == "of the sidecar"


@pytest.mark.parametrize("coding", [lambda m: m, lambda m: -m, lambda m: (m + 1) // 2])
def test_a_square_matrix_is_read_in_the_way_that_fits_the_data(tmp_path, coding):
    matrix = MATRICES[4][[0, 2, 3, 1]]
    make(tmp_path, 4, matrix, TimeEncodedMatrix=coding(matrix.T).tolist())
    check_signal(prepare(tmp_path)[0], 4)


def test_an_unknown_order_is_refused(tmp_path):
    make(tmp_path, 8, swapped(8))
    message = fault(tmp_path)
    assert "not decoded" in message
    assert "TimeEncodedMatrix" in message


def test_data_of_a_type_that_the_sidecar_denies_are_refused(tmp_path):
    make(tmp_path, 12, TimeEncodedMatrixType="Walsh")
    assert "not decoded" in fault(tmp_path)


def test_noise_that_hides_the_order_is_refused_unless_the_matrix_is_given(tmp_path):
    make(tmp_path / "a", 8, noise=0.05)
    assert "not decoded" in fault(tmp_path / "a")
    # A square matrix that is not symmetric can be read in two ways, a narrow one in one.
    make(tmp_path / "b", 8, noise=0.05, TimeEncodedMatrix=MATRICES[8].tolist())
    assert "8 rows, one for each volume, of 7 values" in fault(tmp_path / "b")
    make(tmp_path / "c", 8, noise=0.05, TimeEncodedMatrix=MATRICES[8][:, 1:].tolist())
    prepare(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"TimeEncodedMatrixType": None}, "TimeEncodedMatrixType is missing"),
        ({"TimeEncodedMatrixType": "S-matrix"}, "S-matrix"),
        ({"TimeEncodedMatrixSize": None}, "of unknown TimeEncodedMatrixSize"),
        ({"TimeEncodedMatrixSize": 16}, "of size 16"),
        ({"TimeEncodedMatrixSize": 8}, "no whole cycles"),
        (
            {"TimeEncodedMatrixSize": None, "TimeEncodedMatrixType": None},
            "by their number (3 label to one control",
        ),
        ({"ArterialSpinLabelingType": "PASL", "PASLType": "FAIR"}, "with PASL"),
        ({"TimeEncodedMatrix": [[1, 1, 1]] * 4}, "no Hadamard matrix"),
    ],
)
def test_what_is_not_told_is_refused_in_one_line(tmp_path, change, word):
    make(tmp_path).edit(**change)
    with pytest.raises(InputError) as caught:
        understand(runs_of(tmp_path)[0])
    message = str(caught.value)
    assert word in message
    assert "\n" not in message
    assert "deltam" in message
    assert "don't mark volumes n/a" in message


@pytest.mark.parametrize(
    "kinds",
    [
        ["control", "label", "n/a", "n/a"],
        ["control", "label", "control", "label"],
        ["control", "n/a", "n/a", "label"],
        ["label"] * 4,
    ],
)
@pytest.mark.parametrize("hint", ["keys", "name"])
def test_volumes_marked_na_never_lead_to_a_number(tmp_path, kinds, hint):
    run = make(tmp_path).context(kinds)
    if hint == "name":
        run.edit(TimeEncodedMatrixSize=None, TimeEncodedMatrixType=None)
        run.edit(SeriesDescription="WIP_Encoded_Images_Had4_03_TIs_01_TEs")
    assert "time-encoded volumes that are not decoded" in fault(tmp_path)


@pytest.mark.parametrize("size", [4, 8, 12, 16])
def test_numbers_of_volumes_as_of_a_matrix_are_not_told_to_be_cut_to_pairs(tmp_path, size):
    FakeDataset(tmp_path).add("01", repeats=size, delays=(0.5,)).context(
        ["label", "control", *["label"] * (size - 2)] * 2
    )
    message = fault(tmp_path)
    assert f"{size - 1} label to one control" in message
    assert "TimeEncodedMatrixSize 0" in message


def test_volumes_of_a_cycle_are_registered_as_one_contrast(tmp_path, monkeypatch):
    """Label and control come in no pairs: a drift between the firsts of both is motion."""
    from asl_bids_app.preprocess import motion

    seen = {}

    def estimate(data, affine, kinds, delay, duration, **_):
        seen.update(kinds=list(kinds), delay=set(delay), duration=set(duration))
        raise InputError("", "", "enough", "")

    make(tmp_path)
    monkeypatch.setattr(motion, "estimate_motion", estimate)
    with pytest.raises(InputError, match="enough"):
        correct_motion(understand(runs_of(tmp_path)[0]), hmc=True, threads=1)
    assert seen == {"kinds": ["control"] * 4, "delay": {0.3}, "duration": {3.0}}


@pytest.mark.parametrize("size", [0, 2])
def test_no_encoding_is_no_encoding(tmp_path, size):
    run = FakeDataset(tmp_path).add("01")
    run.edit(TimeEncodedMatrixSize=size, SeriesDescription="hadamard off")
    got = understand(runs_of(tmp_path)[0])
    assert got.encoding is None
    assert got.warnings == ()


def test_decoded_differences_keep_working(tmp_path):
    run = FakeDataset(tmp_path).add("01", order=("deltam",))
    run.edit(TimeEncodedMatrixSize=4, TimeEncodedMatrixType="Hadamard")
    got = understand(runs_of(tmp_path)[0])
    assert got.encoding is None
    assert "decoded before" in got.inferred["time_encoding"]
    run.edit(PostLabelingDelay=0.5)
    with pytest.raises(InputError, match=r"one delay and one duration for 6 deltam"):
        understand(runs_of(tmp_path)[0])


LISTS = [
    # delays and durations of sub-boli, the first labelled first
    ({"PostLabelingDelay": [2.3, 1.3, 0.3], "LabelingDuration": 3.0}, None),
    ({"PostLabelingDelay": [2.3, 1.3, 0.3], "LabelingDuration": 1.0}, None),
    ({"PostLabelingDelay": [0.3, 1.3, 2.3], "LabelingDuration": [1, 1, 1]}, None),
    ({"PostLabelingDelay": 0.3, "LabelingDuration": [1.0, 1.0, 1.0]}, None),
    ({"PostLabelingDelay": [0, 2.3, 1.3, 0.3], "LabelingDuration": [0, 1, 1, 1]}, None),
    ({"PostLabelingDelay": [0.3] * 4, "LabelingDuration": [3.0] * 4}, None),
    (
        {"PostLabelingDelay": [1.6, 0.8, 0.3], "LabelingDuration": 2.6},
        ([1.6, 0.8, 0.3], [1.3, 0.8, 0.5]),
    ),
    (
        {"PostLabelingDelay": [0.3, 0.8, 1.6], "LabelingDuration": [0.5, 0.8, 1.3]},
        ([1.6, 0.8, 0.3], [1.3, 0.8, 0.5]),
    ),
]


@pytest.mark.parametrize(("change", "wanted"), LISTS)
def test_times_of_sub_boli(tmp_path, change, wanted):
    make(tmp_path).edit(**change)
    got = understand(runs_of(tmp_path)[0])
    delay, duration = wanted or ([2.3, 1.3, 0.3], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(got.encoding.post_labeling_delay, delay, atol=1e-9)
    np.testing.assert_allclose(got.encoding.label_duration, duration, atol=1e-9)
    np.testing.assert_allclose(got.post_labeling_delay, 0.3)
    np.testing.assert_allclose(got.label_duration, sum(duration))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"LabelingDuration": 1.0}, "may be the label of 3 sub-boli or one of them"),
        ({"LabelingDuration": [0.5, 0.8, 1.3]}, "the delay of each sub-bolus"),
        ({"PostLabelingDelay": [2.3, 1.3, 0.5]}, "sub-boli that follow on one another"),
        ({"PostLabelingDelay": [2.3, 2.3, 0.3]}, "another delay for each sub-bolus"),
        ({"PostLabelingDelay": [2.3, 1.3]}, "2 values"),
        ({"LabelingDuration": 0}, "more than 0"),
        ({"LabelingDuration": 3000}, "milliseconds"),
    ],
)
def test_times_that_are_open_are_refused(tmp_path, change, words):
    extra = {"LabelingDuration": [1, 1, 1]} if "PostLabelingDelay" in change else {}
    make(tmp_path).edit(**(extra | change))
    assert words in fault(tmp_path)


@pytest.mark.usefixtures("without_pictures")
def test_a_whole_run_ends_at_the_truth(tmp_path, capsys):
    make(tmp_path / "bids", 8, cycles=2, noise=2e-4)
    arguments = ["-w", str(tmp_path / "work"), "--nprocs", "1", "--no-tissue", "--no-hmc"]
    arguments += ["--estimator", "least-squares", "-q"]
    out = tmp_path / "out"
    assert main([str(tmp_path / "bids"), str(out), "participant", *arguments]) == 0
    import nibabel as nib

    cbf = nib.load(out / "sub-01/perf/sub-01_cbf.nii.gz").get_fdata()
    assert np.median(cbf[5:9, 5:9, 2:6]) == pytest.approx(CBF, rel=0.03)
    sidecar = json.loads((out / "sub-01/perf/sub-01_cbf.json").read_text())
    assert [m["Repeats"] for m in sidecar["Measurements"]] == [2] * 7
    assert sidecar["Preprocessing"]["sub-01_asl.nii.gz"]["decoding"]["cycles"] == 2
    assert any("TimeEncodedMatrix" in w for w in sidecar["Warnings"])
