"""What the pictures of a report show: colours, slice numbers, flags, and the carpet of volumes."""

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
import reports_example as example
from PIL import Image

from asl_bids_app.bids.estimate_keys import estimates
from asl_bids_app.bids.flags import FLAGS
from asl_bids_app.bids.outputs import OUTPUTS, Output
from asl_bids_app.estimators.base import Flag
from asl_bids_app.preprocess.carpet_table import BANDS, carpet_table, describe_carpet
from asl_bids_app.preprocess.measurements import find_measurements
from asl_bids_app.preprocess.volumes import average_measurements
from asl_bids_app.reports import scales
from asl_bids_app.reports.carpet import draw_time_course, time_course
from asl_bids_app.reports.estimates import find_estimates
from asl_bids_app.reports.load import load_series
from asl_bids_app.reports.mosaics import Frame, categories, mosaic
from asl_bids_app.reports.page import metric_text, value_text
from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.section import section


def drawing(address):
    """Return the text of an embedded SVG."""
    return base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")).decode()


def pixels(address, which=0):
    """Return an embedded picture of a drawing as RGB."""
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", drawing(address))
    return np.array(Image.open(io.BytesIO(base64.b64decode(found[which]))).convert("RGB"))


def texts(address):
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing(address))


def frame_of(shape, stored=None):
    return Frame(np.ones(shape, bool), np.eye(4), np.eye(4) if stored is None else stored)


@pytest.fixture(scope="module")
def brain():
    return example.Brain(step=4)


# Scales


def test_error_bars_of_both_kinds_use_the_colours():
    """Bars four times as wide as the others: neither map is of one colour."""
    rng = np.random.default_rng(0)
    wide, narrow = rng.uniform(4, 9, 5000), rng.uniform(1.4, 2.2, 5000)
    scale = scales.spread_scale("s", wide, narrow)
    for values in (wide, narrow):
        share = scale.share(values)
        assert np.ptp(np.percentile(share, [5, 95])) > 0.15
        assert np.mean((share > 0) & (share < 1)) > 0.95
    assert scale.kind == "log"
    assert len(scale.ticks()) >= 3


def test_late_measurements_are_readable_beside_arterial_ones():
    """Tissue of 0.1 % in the last measurement, arteries of 3 % in the first."""
    rng = np.random.default_rng(1)
    late = np.where(np.arange(4000) < 2000, 0.10, 0.03) + rng.normal(0, 0.01, 4000)
    early = np.where(np.arange(4000) % 10 == 0, 3.0, 0.3)
    scale = scales.signal_scale("% of M0", np.stack([early, late], axis=1))
    grey, white = scale.share(0.10), scale.share(0.03)
    assert grey - white > 0.1  # a linear scale has 0.07 / 3 = 0.02
    # The order of strengths stays.
    ladder = scale.share(np.linspace(scale.low, scale.high, 50))
    assert np.all(np.diff(ladder) > 0)


@pytest.mark.parametrize(
    "scale",
    [
        Scale(0, 80, "inferno", "x"),
        Scale(0.8, 2.0, "viridis", "s"),
        Scale(-0.25, 0.25, "RdBu_r", "s"),
        Scale(0.013, 0.9, "cividis", "s", "log"),
        Scale(1.4, 9, "cividis", "s", "log"),
        Scale(-0.02, 0.86, "inferno", "%", "asinh", 0.1),
        Scale(0, 1234.0, "gray", "x"),
    ],
)
def test_ticks_are_round_inside_and_apart(scale):
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    places = [float(scale.share(tick)) for tick in ticks]
    assert all(b - a > 0.1 for a, b in pairwise(places))


def test_a_logarithmic_scale_is_even_in_ratios():
    scale = Scale(0.1, 10, "cividis", "s", "log")
    np.testing.assert_allclose(scale.share([0.1, 1, 10]), [0, 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(scale.share([0.0, 100]), [0, 1])
    assert np.isnan(scale.share(np.nan))


# Mosaics


def test_a_voxel_is_where_it_belongs_in_its_colour():
    """Right is right, front is up, and the value has the colour of its scale."""
    volume = np.zeros((5, 4, 2))
    volume[4, 3, 1] = 1.0  # right, front, upper slice
    picture = pixels(mosaic(volume, frame_of(volume.shape), Scale(0, 1, "gray", "x")))
    assert picture.shape == (4, 10, 3)
    assert picture[0, 9].tolist() == [255, 255, 255]
    assert picture.sum() == 3 * 255


@pytest.mark.parametrize(
    ("stored", "numbers"),
    [
        (np.eye(4), ["0", "1", "2"]),
        # Stored head first, and with the slices along the first axis.
        (np.array([[0, 0, -1, 2], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]), ["2", "1", "0"]),
    ],
)
def test_slices_have_their_numbers_in_the_file(stored, numbers):
    volume = np.zeros((4, 4, 3))
    shown = texts(mosaic(volume, frame_of(volume.shape, stored), Scale(0, 1, "gray", "x")))
    assert shown[:3] == numbers


def test_the_number_of_a_slice_of_a_flipped_file_finds_its_voxels(brain, tmp_path):
    """The slice that the report calls n is slice n of the file."""
    import nibabel as nib

    example.write_series(tmp_path, {"sub": "01"}, brain=brain, flip=True)
    folder = tmp_path / "sub-01" / "perf"
    data = load_series(folder, {"sub": "01"})
    on_disk = np.asarray(nib.load(folder / "sub-01_cbf.nii.gz").dataobj)
    place = np.array(np.unravel_index(data.images["cbf"].argmax(), on_disk.shape))
    index = (data.stored @ [*place, 1])[:3].round().astype(int)
    assert on_disk[tuple(index)] == data.images["cbf"].max()
    assert index[0] != place[0]


def test_values_beyond_a_scale_have_an_arrow():
    volume = np.linspace(0, 2, 64).reshape(4, 4, 4)

    def arrows(high):
        address = mosaic(volume, frame_of(volume.shape), Scale(0, high, "gray", "x"))
        return drawing(address).count('z" fill="rgb')

    assert arrows(2.0) == 0
    assert arrows(1.0) == 1


def test_an_outline_surrounds_what_is_inside():
    """Each of two blobs has its line; one of a single point doesn't break the others."""
    inside = np.zeros((9, 9, 2))
    inside[2:5, 2:5, 0] = 1
    inside[4:8, 4:8, 1] = 1
    inside[0, 0, 0] = 0.5
    address = mosaic(inside, frame_of(inside.shape), Scale(0, 1, "gray", "x"), contour=inside)
    path = re.search(
        r' d="([^"]*)"', drawing(address)[drawing(address).index('stroke-width="1.3"') :]
    )
    lines = path[1].split("M")[1:]
    assert all(re.fullmatch(r"\d+ \d+l-?\d+ -?\d+( -?\d+ -?\d+)*", line) for line in lines)
    assert sum(len(line.split()) > 12 for line in lines) >= 2


def test_kinds_have_a_legend_and_its_colours():
    values = np.zeros((4, 4, 1), int)
    values[0, 0, 0] = 1
    address = categories(values, frame_of(values.shape), [("#101010", "none"), ("#ff0000", "a")])
    picture = pixels(address)
    assert picture[3, 0].tolist() == [255, 0, 0]
    assert picture[0, 0].tolist() == [16, 16, 16]
    assert texts(address)[-2:] == ["none", "a"]


# Flags and estimates


def test_the_table_of_flags_is_that_of_the_estimators():
    assert {row.value for row in FLAGS} == {int(flag) for flag in Flag}
    for row in FLAGS:
        assert f"{row.value} ({row.name})" in OUTPUTS["flags"].units


@pytest.mark.usefixtures("without_charts")
def test_flags_are_shown_with_their_share(brain, tmp_path):
    example.write_series(tmp_path, {"sub": "01"}, brain=brain)
    data = load_series(tmp_path / "sub-01" / "perf", {"sub": "01"})
    content = section(data, {}, 10**7)
    assert [item["title"] for item in content["flags"]] == [
        "Flags – ensemble",
        "Flags – least squares",
    ]
    fluid = brain.mask & (brain.csf > 0.8)
    share = 100 * fluid.sum() / brain.mask.sum()
    told = texts(content["flags"][0]["src"])[-1]
    assert told.startswith("ATT not identifiable: ")
    assert float(told.split()[-2]) == pytest.approx(share, rel=0.06)


@pytest.mark.usefixtures("without_charts")
def test_a_map_without_flags_is_said_to_have_none(brain, tmp_path):
    from asl_bids_app.bids.derivatives import write_image
    from asl_bids_app.reports.participant import write_participant_report

    example.write_series(tmp_path, {"sub": "01"}, brain=brain, baseline=False)
    folder = tmp_path / "sub-01" / "perf"
    none = np.zeros(brain.mask.shape, np.uint8)
    write_image(folder, {"sub": "01"}, OUTPUTS["flags"], none, brain.affine, {})
    page = write_participant_report(tmp_path, "01").read_text()
    assert "No voxel has a flag" in page
    (folder / "sub-01_desc-flags_cbf.nii.gz").unlink()
    assert "No voxel has a flag" not in write_participant_report(tmp_path, "01").read_text()


def test_estimates_follow_from_the_labels_of_files():
    assert estimates()[""] == {
        "cbf": "cbf",
        "att": "att",
        "cbf_sd": "cbf_sd",
        "att_sd": "att_sd",
        "flags": "flags",
    }
    assert estimates()["lsq"]["att_sd"] == "lsq_att_sd"


@pytest.mark.usefixtures("without_charts")
def test_another_estimate_of_cbf_stands_beside_the_main_one(brain, tmp_path, monkeypatch):
    """A row of the table of outputs is all that it takes."""
    from asl_bids_app.bids.derivatives import write_image

    monkeypatch.setitem(
        OUTPUTS, "consensus_cbf", Output("consensus_cbf", "desc-consensus", "cbf", "x", "y")
    )
    monkeypatch.setitem(
        OUTPUTS,
        "consensus_cbf_sd",
        Output("consensus_cbf_sd", "desc-consensusstd", "cbf", "x", "y"),
    )
    example.write_series(tmp_path, {"sub": "01"}, brain=brain, baseline=False)
    folder = tmp_path / "sub-01" / "perf"
    sidecar = {"EstimationMethod": "consensus", "ErrorBars": "noise"}
    for key, values in (("consensus_cbf", brain.cbf), ("consensus_cbf_sd", 0 * brain.cbf + 3)):
        write_image(folder, {"sub": "01"}, OUTPUTS[key], values, brain.affine, sidecar)
    data = load_series(folder, {"sub": "01"})
    content = section(data, {}, 10**7)
    titles = [[picture["title"] for picture in row] for row in content["maps"]]
    assert titles[0] == ["CBF – ensemble", "CBF – consensus formula (white paper)"]
    assert titles[1][1] == (
        "CBF, one standard deviation (noise only) – consensus formula (white paper)"
    )
    keys = [estimate["keys"] for estimate in content["viewer"]["estimates"]]
    assert keys[1] == {"cbf": "consensus_cbf", "cbf_sd": "consensus_cbf_sd"}


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("total", ["noise and calibration", "noise only"]),
        ("noise", ["noise only", "noise only"]),
    ],
)
def test_error_bars_are_named_by_what_they_hold(brain, tmp_path, kind, told):
    import json

    from asl_bids_app.reports.participant import write_participant_report

    example.write_participant(tmp_path, "01", brain=brain)
    path = tmp_path / "sub-01" / "perf" / "sub-01_cbf.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ErrorBars": kind}))
    path = path.with_name("sub-01_desc-lsq_cbf.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ErrorBars": "noise"}))
    page = write_participant_report(tmp_path, "01").read_text()
    found = re.findall(r"CBF, one standard deviation \(([^)]*)\) – ", page)
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(told))
    assert ("so they can be compared" in page) == (kind == "noise")
    assert ("don't all hold the same" in page) == (kind == "total")
    row = re.search(r"Uncertainty of CBF in grey matter.*?</tr>", page, re.S)[0]
    assert re.findall(r"<br><span class=\"soft\">([^<]*)<", row) == told


def test_error_bars_of_a_single_delay_hold_att(brain, tmp_path):
    """All but the consensus formula's, which takes all label as arrived."""
    example.write_series(tmp_path, {"sub": "01"}, brain=brain, baseline=True)
    folder = tmp_path / "sub-01" / "perf"
    data = load_series(folder, {"sub": "01"})
    row = {"Scheme": "PCASL", "PostLabelingDelay": 1.8, "LabelingDuration": 1.8}
    sidecars = {
        "cbf": {"EstimationMethod": "ensemble", "ErrorBars": "total", "Measurements": [row]},
        "lsq_cbf": {"ErrorBars": "noise", "Measurements": [row]},
        "consensus_cbf": {"ErrorBars": "noise", "Measurements": [row]},
    }
    images = {**data.images, "consensus_cbf": data.images["cbf"]}
    found = {one.word: one.bars for one in find_estimates(images, sidecars)}
    assert found[""] == "noise, calibration and ATT"
    assert found["lsq"] == "noise and ATT"
    assert found["consensus"] == "noise only"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.0, "s", "1.00"),
        (0.8, "s", "0.80"),
        (-0.0035, "s", "-0.0035"),
        (52.0, "mL/100 g/min", "52.0"),
        (100.0, "fraction", "100"),
        (0.0, "s", "0"),
        (np.nan, "s", "–"),
        (2079.2, "mL", "2079"),
    ],
)
def test_numbers_keep_their_zeros(value, unit, text):
    assert value_text(value, unit) == text


def test_a_transit_time_of_one_second_has_two_decimals():
    from asl_bids_app.quality.definitions import METRICS

    assert metric_text(METRICS["att_mean_gm"], 1.0) == "1.00 s"


# Carpet


def volumes(n_pairs=6, bad=3):
    """A head of twenty slices: controls of 100, labels of 99, maybe one bad pair."""
    types = ["control", "label"] * n_pairs
    data = np.full((4, 5, 20, len(types)), 100.0)
    data[..., 1::2] = 99.0
    if bad is not None:
        data[..., 2 * bad] = 108.0
    mask = np.ones(data.shape[:3], bool)
    mask[0] = False
    delay, duration = np.full(len(types), 1.8), np.full(len(types), 1.8)
    return data, mask, types, delay, duration


def test_the_carpet_holds_the_signal_of_each_volume():
    data, mask, types, delay, duration = volumes()
    data *= 1 + 0.01 * np.arange(20)[:, None]  # slices differ
    m0 = np.full(mask.shape, 200.0)
    table = carpet_table(
        data, mask, m0, 2, types, find_measurements(types, delay, duration), (6, 7)
    )
    assert list(table) == list(describe_carpet())
    assert table["pair"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert table["averaged"].tolist() == [1] * 6 + [0, 0] + [1] * 4
    # 60 bands over 20 slices of 15 voxels: three to a slice, in their order.
    assert BANDS == 60
    for band, slice_number in ((1, 0), (3, 0), (4, 1), (60, 19)):
        expected = 100 * (1 + 0.01 * slice_number) / 200 * 100
        assert table[f"band_{band:02d}"][0] == pytest.approx(expected)


def test_volumes_without_a_partner_in_the_average_are_blank():
    data, mask, types, delay, duration = volumes(n_pairs=2, bad=None)
    types = ["m0scan", *types]
    data = np.concatenate([data[..., :1] * 3, data], axis=3)
    delay, duration = np.r_[np.nan, delay], np.r_[np.nan, duration]
    table = carpet_table(
        data, mask, data[..., 0], 2, types, find_measurements(types, delay, duration), ()
    )
    assert np.isnan(table["band_01"][0])
    assert np.isnan(table["pair"][0])
    panels = time_course(table)
    assert np.isnan(panels["delta_m"][:, 0]).all()
    np.testing.assert_allclose(panels["delta_m"][:, 1:], 100 / 300, rtol=1e-6)


def test_the_time_course_shows_deviations_and_differences():
    data, mask, types, delay, duration = volumes()
    m0 = np.full(mask.shape, 200.0)
    table = carpet_table(
        data, mask, m0, 2, types, find_measurements(types, delay, duration), (6, 7)
    )
    panels = time_course(table)
    assert list(panels) == ["control", "label", "delta_m"]
    # Both volumes of a pair show it; the mean is that of what was averaged.
    np.testing.assert_allclose(panels["control"][:, 6:8], 8.0)
    np.testing.assert_allclose(panels["control"][:, :6], 0.0, atol=1e-9)
    np.testing.assert_allclose(panels["label"], 0.0, atol=1e-9)
    np.testing.assert_allclose(panels["delta_m"][:, :6], 0.5)
    np.testing.assert_allclose(panels["delta_m"][:, 6:8], 4.5)


def test_differences_from_the_scanner_have_one_panel():
    data, mask, _, delay, duration = volumes()
    types = ["deltam"] * 12
    table = carpet_table(
        data, mask, data[..., 0], 2, types, find_measurements(types, delay, duration), ()
    )
    assert list(time_course(table)) == ["delta_m"]


def test_what_the_average_left_out_is_told_as_volumes():
    """One of eight pairs is ten times as restless as the others."""
    rng = np.random.default_rng(3)
    types = ["label", "control"] * 8
    data = 100 + rng.normal(0, 1, (6, 6, 6, 16))
    data[..., 10:12] += rng.normal(0, 10, (6, 6, 6, 2))
    delay = np.full(16, 1.0)
    found = average_measurements(data, types, delay, delay, np.ones((6, 6, 6), bool))
    assert sorted(found.left_out) == [10, 11]
    assert len(found.rejected) == 1


@pytest.mark.parametrize("with_motion", [True, False])
def test_runs_are_divided_by_a_line_and_bad_pairs_are_hatched(with_motion):
    data, mask, types, delay, duration = volumes()
    one = carpet_table(
        data, mask, data[..., 0], 2, types, find_measurements(types, delay, duration), (6, 7)
    )
    both = {name: np.concatenate([values, values]) for name, values in one.items()}
    both["run"] = np.repeat([1, 2], 12)
    motion = {
        **{f"{kind}_{axis}": np.zeros(24) for kind in ("trans", "rot") for axis in "xyz"},
        "framewise_displacement": np.r_[np.nan, np.full(23, 0.1)],
        "run": both["run"],
    }
    text = drawing(draw_time_course(motion if with_motion else {}, both))
    alone = drawing(draw_time_course({}, one))
    assert "run 2" in text
    assert "run 2" not in alone
    assert text.count("<pattern") >= 1
    clean = dict(one) | {"averaged": np.ones(12)}
    assert "<pattern" not in drawing(draw_time_course({}, clean))


def test_a_carpet_of_other_length_than_the_motion_is_not_drawn_beside_it():
    data, mask, types, delay, duration = volumes()
    table = carpet_table(
        data, mask, data[..., 0], 2, types, find_measurements(types, delay, duration), ()
    )
    motion = {"framewise_displacement": np.zeros(7)}
    assert "label" not in drawing(draw_time_course(motion, table))
