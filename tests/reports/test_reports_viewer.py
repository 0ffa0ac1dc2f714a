"""What the viewer is given is the derivatives, to within the packing's precision."""

import base64
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import reports_example as example

from asl_bids_app.reports.load import load_series
from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.viewer import MISSING, pack, quantise, stride_for

SCALES = {"cbf": Scale(0, 100, "inferno", "mL/100 g/min"), "att": Scale(0, 3, "viridis", "s")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    brain = example.Brain(step=4)
    example.write_series(folder, {"sub": "01"}, ("PCASL", "VSASL"), brain=brain, two_d=True)
    return load_series(folder / "sub-01" / "perf", {"sub": "01"})


def unpack(packed):
    """As the page's script does, written apart from the package."""

    def of(key, kind):
        return np.frombuffer(gzip.decompress(base64.b64decode(packed[key])), kind)

    mask = of("mask", np.uint8).reshape(packed["shape"]).astype(bool)
    values = of("values", "<i2").reshape(-1, packed["voxels"])
    channels = {}
    for channel in packed["channels"]:
        row = values[channel["row"]]
        volume = np.full(mask.shape, np.nan)
        volume[mask] = np.where(row == packed["missing"], np.nan, row * channel["scale"])
        channels[channel["name"]] = volume
    return mask, channels


def test_every_channel_comes_back(data):
    packed = json.loads(json.dumps(pack(data, SCALES, 10**8), allow_nan=False))
    mask, channels = unpack(packed)
    # Only the box around the brain is kept; the affine says where it is.
    brain = data.images["mask"] > 0
    assert mask.sum() == brain.sum()
    first = [int(np.flatnonzero(brain.any(axis=a))[0]) for a in ((1, 2), (0, 2), (0, 1))]
    inner = [int(np.flatnonzero(mask.any(axis=a))[0]) for a in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(
        np.array(packed["affine"]) @ [*inner, 1], data.affine @ [*first, 1], atol=1e-4
    )
    for name in ("cbf", "att_sd", "lsq_cbf", "gm", "flags"):
        source = data.images[name].astype(float)
        np.testing.assert_allclose(
            channels[name][mask], source[brain], atol=np.abs(source).max() * 3e-4
        )
    for i in range(12):
        source = data.images["delta_m"][..., i]
        np.testing.assert_allclose(
            channels[f"delta_m{i}"][mask], source[brain], atol=np.abs(source).max() * 3e-4
        )
    # Both schemes share one slice timing, so it is stored once.
    assert "time1" not in channels
    np.testing.assert_allclose(channels["time0"][mask], data.slice_time[0][brain], atol=1e-4)
    assert packed["measurements"][11]["duration"] is None
    assert packed["measurements"][0]["duration"] == 1.8
    assert packed["measurements"][11]["efficiency"] == pytest.approx(0.56)


def test_the_start_is_a_voxel_of_the_brain(data):
    packed = pack(data, SCALES, 10**8)
    mask, channels = unpack(packed)
    assert mask[tuple(packed["start"])]
    assert channels["gm"][tuple(packed["start"])] > 0.5


def test_a_small_budget_thins_the_voxels(data):
    whole, thin = pack(data, SCALES, 10**8), pack(data, SCALES, 100_000)
    assert whole["step"] == 1
    assert thin["step"] > 1
    assert len(json.dumps(thin)) < 130_000
    mask, channels = unpack(thin)
    back = np.linalg.inv(data.affine) @ np.array(thin["affine"])
    for place in np.argwhere(mask)[::50]:
        source = tuple(np.round(back @ [*place, 1])[:3].astype(int))
        assert channels["cbf"][tuple(place)] == pytest.approx(data.images["cbf"][source], abs=0.03)


def test_stride_keeps_the_estimate_under_the_budget():
    assert stride_for(1000, 10, 10**6) == 1
    step = stride_for(400_000, 50, 8_000_000)
    assert 400_000 / step**2 * 50 * 2 * 1.1 <= 8_000_000


def test_what_is_no_number_stays_none():
    outlier = quantise(np.r_[np.linspace(0, 1, 999), 1e6])
    assert outlier[0][-1] * outlier[1] == pytest.approx(1e6)
    integers, scale = quantise(np.array([0.0, -2.0, np.nan, np.inf, 1.0]))
    assert integers.tolist()[2:4] == [MISSING, MISSING]
    assert integers[1] * scale == pytest.approx(-2, rel=1e-3)
    assert quantise(np.zeros(3))[0].tolist() == [0, 0, 0]


def test_without_measurements_there_is_no_viewer(data):
    from dataclasses import replace

    assert pack(replace(data, measurements=()), SCALES, 10**8) is None
    images = {key: value for key, value in data.images.items() if key != "delta_m"}
    assert pack(replace(data, images=images), SCALES, 10**8) is None


def test_scripts_ask_for_nothing_outside():
    folder = Path(example.__file__).parents[2] / "asl_bids_app" / "reports" / "templates"
    for path in folder.glob("*.js"):
        text = path.read_text()
        for word in ("fetch(", "XMLHttpRequest", "http://", "https://", "import("):
            assert word not in text, (path.name, word)
