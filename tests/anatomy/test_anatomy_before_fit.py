"""The T1w's tissue before the fit, of whole runs on a simulated dataset with known truth."""

import json

import nibabel as nib
import numpy as np
import pytest
from heads import scan_map
from scipy import ndimage
from t1w_derivatives import derive_template

from asl_bids_app import quantify_bids
from asl_bids_app.atlas import load_atlas

pytestmark = pytest.mark.slow
"""Each registers heads: seconds of CPU a test."""


def derive(root, shift=0.0):
    """Write derivatives of the head that the simulation draws its anatomy from."""
    affine = np.array(load_atlas().affine)
    affine[:3, 3] += (shift, -shift, 0)
    derive_template(root, affine, "02")
    return root


def run(dataset, out, label="02", **options):
    options = {"estimator": "least-squares", "hmc": False, "baseline": False} | options
    result = quantify_bids(dataset, out, participants=[label], **options)
    assert not result.failures, result.failures
    (unit,) = result.units
    path = out / f"sub-{label}/perf/sub-{label}_cbf.json"
    return unit, json.loads(path.read_text())


def image(out, end, stem="sub-02"):
    return nib.load(out / f"{stem[:6]}/perf/{stem}_{end}.nii.gz")


def test_registered_tissue_is_that_of_the_run(small_demo, tmp_path):
    """The T1w lies 28 mm beside the head by the scanner's coordinates."""
    root = derive(tmp_path / "fmriprep", 20.0)
    unit, sidecar = run(small_demo, tmp_path / "out", derivatives={"fmriprep": root})
    tissue = sidecar["Preprocessing"]["tissue"]
    assert (tissue["kind"], tissue["fractions"]) == ("T1w", "T1w")
    assert tissue["source"].startswith("T1w, registered: fmriprep (sub-02_desc-preproc_T1w")
    assert unit["tissue"] == tissue
    assert unit["anatomy"]["registration"]["moved_mm"] == pytest.approx(20 * np.sqrt(2), abs=2.5)
    gm = image(tmp_path / "out", "label-GM_probseg")
    inside = image(tmp_path / "out", "desc-brain_mask").get_fdata() > 0
    # Of voxels as large as these the truth is the atlas averaged over them.
    sizes = np.array(gm.header.get_zooms()) / 2.0
    mean = ndimage.uniform_filter(np.asarray(load_atlas().gm, float), np.rint(sizes).astype(int))
    true = scan_map(mean, gm.shape, gm.affine)
    assert np.corrcoef(gm.get_fdata()[inside], true[inside])[0, 1] > 0.9
    # The mask of the derivatives lies beside the head, too.
    said = [line for line in unit["warnings"] if "a mask made from the image is used" in line]
    assert len(said) == 1
    assert "sub-02_atlas-tissue_desc-fit_cbf.tsv" in " ".join(unit["outputs"])


def test_without_a_t1w_nothing_is_another(small_demo, tmp_path):
    for name, anatomy in (("with", True), ("without", False)):
        run(small_demo, tmp_path / name, anatomy=anatomy)
    names = [p.name for p in (tmp_path / "with/sub-02/perf").glob("*.nii.gz")]
    assert "sub-02_cbf.nii.gz" in names
    for name in names:
        a, b = (nib.load(tmp_path / f"{k}/sub-02/perf/{name}") for k in ("with", "without"))
        np.testing.assert_array_equal(np.asarray(a.dataobj), np.asarray(b.dataobj))


def test_both_runs_of_a_joint_series_are_calibrated_by_one_region(
    small_demo, tmp_path, monkeypatch
):
    """Voxels of this dataset are too large for pure fluid: the brightest will do here."""
    from asl_bids_app.preprocess import reference

    def brightest(prepared, tissue, _):
        where = prepared.mask & (prepared.m0 > np.percentile(prepared.m0[prepared.mask], 97))
        return reference.Reference(where, tissue.maps, "x")

    monkeypatch.setattr(reference, "find_reference", brightest)
    flow = {}
    for how in ("voxelwise", "csf"):
        unit, sidecar = run(small_demo, tmp_path / how, label="01", calibration=how)
        assert unit["joint"]
        flow[how] = np.asarray(image(tmp_path / how, "cbf", "sub-01").dataobj)
        found = [
            part["m0"].get("reference", {})
            for part in sidecar["Preprocessing"].values()
            if isinstance(part, dict) and "m0" in part
        ]
        assert len(found) == 2
        assert all(bool(part) == (how == "csf") for part in found)
    # One M0 image serves both runs, so both have one M0 of blood.
    assert found[0]["m0_blood"] == pytest.approx(found[1]["m0_blood"], rel=0.03)
    both = flow["voxelwise"] > 10
    ratio = np.median(flow["csf"][both] / flow["voxelwise"][both])
    assert 0.5 < ratio < 2
    assert ratio != 1
