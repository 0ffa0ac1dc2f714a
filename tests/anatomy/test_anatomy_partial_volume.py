"""Flows of grey and white matter of a series on its T1w: files, spaces, regions, and no harm."""

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from heads import grid, pose, scan_map
from slices import PROTOCOLS, measured
from t1w_derivatives import derive_template, save

from asl_bids_app.anatomy import register
from asl_bids_app.anatomy.atlases import read_spec
from asl_bids_app.anatomy.request import Request, UnitMaps
from asl_bids_app.anatomy.run import run
from asl_bids_app.anatomy.signals import signals_of
from asl_bids_app.anatomy.spaces import read_space
from asl_bids_app.anatomy.tissue_flows import Data
from asl_bids_app.atlas import load_atlas
from asl_bids_app.quality.registration_metrics import partial_volume_metrics
from asl_bids_app.schemes import transit_prior

pytestmark = pytest.mark.slow
"""Each registers heads: seconds of CPU a test."""

MOVED = pose((6, -5, 9), (5, -4, 7))
SHAPE, AFFINE = grid(voxel=(5.0, 5.0, 7.0), shape=(40, 46, 24))
TITLE = "sub-01"
GREY, WHITE = 60.0, 20.0
KEYS = ("gm", "gmstd", "wm", "wmstd")


@pytest.fixture(scope="module")
def fmriprep(tmp_path_factory):
    root = tmp_path_factory.mktemp("fmriprep")
    derive_template(root, MOVED @ load_atlas().affine)
    return root


def averaged(volume):
    """A map of the head averaged over the voxels of the series, for these are large."""
    total = np.zeros(SHAPE)
    for offset in np.stack(np.meshgrid(*[(-1 / 3, 0, 1 / 3)] * 3), -1).reshape(-1, 3):
        moved = AFFINE.copy()
        moved[:3, 3] += moved[:3, :3] @ offset
        total += scan_map(volume, SHAPE, moved)
    return total / 27


def series():
    """A series of the template's head, in which each tissue has one flow; and its fractions."""
    atlas = load_atlas()
    gm, wm, csf = (averaged(getattr(atlas, key)) for key in ("gm", "wm", "csf"))
    mask = gm + wm + csf > 0.5
    rng = np.random.default_rng(0)
    m0 = 0.85 * gm + 0.7 * wm + csf + 0.01 * rng.standard_normal(SHAPE)
    cbf = (GREY * gm + WHITE * wm) * mask
    slices = [np.moveaxis(values, 2, 0) for values in (cbf, np.full(SHAPE, 1.2), mask)]
    observation = measured(PROTOCOLS["pcasl"], *slices, 20.0)
    prior = transit_prior(("PCASL",))
    return UnitMaps(
        {"sub": "01"},
        {"M0": m0, "CBF": cbf},
        mask,
        np.zeros(SHAPE, bool),
        AFFINE,
        {"cbf": cbf, "att": np.where(mask, 1.2, 0)},
        {"cbf_sd": 5.0 * mask, "att_sd": 0.1 * mask},
        signals_of(observation, 2, prior),
        data=Data(observation, 2, (7.0, 5.0, 5.0), prior),
    ), {"gm": gm, "wm": wm}


@pytest.fixture(scope="module")
def unit():
    return series()


@pytest.fixture(scope="module")
def done(fmriprep, unit, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    labels = out / "blocks.nii.gz"
    save(labels, np.arange(SHAPE[1])[None, :, None] // 16 * unit[0].mask, AFFINE)
    labels.with_name("blocks.tsv").write_text("index\tname\n1\tmiddle\n2\tfront\n")
    request = Request(
        fmriprep / "none",
        out,
        {"fmriprep": fmriprep},
        (read_space("T1w"),),
        (read_spec(f"Block:asl={labels}"),),
        pvc="bayesian",
    )
    return out / "sub-01/perf", run(request, unit[0])


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_maps_hold_the_flow_of_each_tissue(done, unit):
    folder, outcome = done
    names = {path.name for path in outcome.outputs}
    assert {f"{TITLE}_desc-{key}_cbf.nii.gz" for key in KEYS} <= names
    for key, flow in (("gm", GREY), ("wm", WHITE)):
        values, sd = (read(folder / f"{TITLE}_desc-{k}_cbf.nii.gz") for k in (key, f"{key}std"))
        share = unit[1][key]
        assert not values[share < 0.02].any()
        chosen = unit[0].mask & (share > 0.4)
        assert abs(values[chosen].mean() / flow - 1) < 0.05
        assert (np.abs(values[chosen] - flow) < 1.96 * sd[chosen]).mean() > 0.9
    about = json.loads((folder / f"{TITLE}_desc-gm_cbf.json").read_text())
    assert about["PartialVolumeCorrection"]["Method"] == "bayesian"
    assert about["Units"] == "mL/100 g/min"
    assert about["Anatomy"]["registration"]["registered"]


def test_maps_go_to_other_spaces_without_the_voxels_that_have_no_tissue(done):
    folder, _ = done
    for key, flow in (("gm", GREY), ("wm", WHITE)):
        values = read(folder / f"{TITLE}_space-T1w_desc-{key}_cbf.nii.gz")
        # Were zeros of voxels without the tissue averaged in, half of it would be too low.
        assert np.percentile(values[values > 0], 2) > 0.7 * flow
        assert (folder / f"{TITLE}_space-T1w_desc-{key}std_cbf.nii.gz").is_file()


def test_regions_have_the_flow_of_their_tissues(done):
    folder, _ = done
    with (folder / f"{TITLE}_atlas-Block_desc-fit_cbf.tsv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert set(rows) == {"middle", "front"}
    for row in rows.values():
        for key, flow in (("gm", GREY), ("wm", WHITE)):
            assert float(row[f"{key}_cbf_mean"]) == pytest.approx(flow, rel=0.06)
            se = float(row[f"{key}_cbf_se"])
            assert abs(float(row[f"{key}_cbf_fit"]) - flow) < 2 * se
            # The error of fractions is in it, which no number of voxels takes away.
            assert se > 0.05 * flow
    columns = json.loads((folder / f"{TITLE}_atlas-Block_desc-fit_cbf.json").read_text())
    assert set(rows["front"]) <= set(columns)
    with (folder / f"{TITLE}_atlas-Block_desc-gm_cbf.tsv").open() as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert float(row["front"]) == pytest.approx(float(rows["front"]["gm_cbf_mean"]), rel=1e-4)
    # Hardly any white matter where a voxel counts as grey.
    with (folder / f"{TITLE}_atlas-tissue_desc-fit_cbf.tsv").open() as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    assert row["name"] == "GM"
    assert float(row["gm_cbf_mean"]) == pytest.approx(GREY, rel=0.05)
    assert row["wm_cbf_mean"] == "n/a"


def test_the_record_holds_the_means_for_the_metrics(done):
    found = partial_volume_metrics(done[1].facts)
    assert found["cbf_pvc_gm"] == pytest.approx(GREY, rel=0.05)
    assert found["cbf_pvc_wm"] == pytest.approx(WHITE, rel=0.1)
    assert 0.9 < found["pvc_explained"] <= 1
    assert found["cbf_pvc_gm_sd"] > 0
    assert partial_volume_metrics({}) == {}


@pytest.fixture
def registered(done, monkeypatch):
    """The pose is found once for all, which takes many seconds."""
    monkeypatch.setattr(register, "register_asl", lambda *_: done[1].registration)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("fault", ["no T1w", "other tissue"])
def test_without_tissue_there_is_one_line_and_no_map(fault, fmriprep, unit, tmp_path):
    given, derivatives = unit[0], {"fmriprep": fmriprep}
    if fault == "no T1w":
        derivatives = {}
    else:
        # Flow that lies where there is no tissue: that of the head turned from front to back.
        observation = given.data.observation
        turned = torch.flip(observation.delta_m, (3,)) * observation.mask.unsqueeze(1)
        observation = replace(observation, delta_m=turned)
        given = replace(given, data=replace(given.data, observation=observation))
    outcome = run(Request(tmp_path / "none", tmp_path, derivatives, pvc="linear"), given)
    lines = [line for line in outcome.warnings if "--pvc" in line]
    assert len(lines) == 1
    assert "no partial volume correction (--pvc)" in lines[0]
    assert "expected" in lines[0]
    assert not list(tmp_path.glob("**/*desc-gm*"))
    assert "partial_volume" not in outcome.facts


@pytest.mark.usefixtures("registered")
def test_what_an_earlier_run_left_is_not_kept(fmriprep, unit, tmp_path):
    request = Request(tmp_path / "none", tmp_path, {"fmriprep": fmriprep}, pvc="linear")
    run(request, unit[0])
    table = tmp_path / f"sub-01/perf/{TITLE}_atlas-tissue_desc-gm_cbf.tsv"
    assert table.is_file()
    run(replace(request, pvc=""), unit[0])
    assert not table.exists()
