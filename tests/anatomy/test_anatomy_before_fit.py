"""The T1w's tissue before the fit, of whole runs on a simulated dataset with known truth."""

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import nibabel as nib
import numpy as np
import pytest
from heads import scan_map
from scipy import ndimage
from t1w_derivatives import derive_template

from asl_bids_app import quantify_bids
from asl_bids_app.atlas import load_atlas
from asl_bids_app.cli.app import main

pytestmark = pytest.mark.slow
"""Each registers heads: seconds of CPU a test."""

POSE = "from-T1w_to-aslref_mode-image_xfm.txt"


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


def files_of(sources, out):
    """The files that `Sources` name, by the links of the dataset that they stand in."""
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    found = set()
    for source in sources:
        kind, *rest = source.split(":", 2)
        place = source if kind == "file" else f"{links[rest[0]]}/{rest[1]}" if rest[0] else ""
        path = Path(unquote(urlparse(place).path)) if place else out / rest[1]
        assert path.is_file(), source
        found.add(path)
    return found


def names_of_the_dry_run(dataset, out, capsys, *more):
    """What the dry run says that a run writes."""
    quick = ["--estimator", "least-squares", "--no-hmc", "--no-baseline", "--nprocs", "1", "-q"]
    label = ["--participant-label", "02", "--dry-run"]
    assert main([str(dataset), str(out), "participant", *quick, *label, *more]) == 0
    said = capsys.readouterr().out
    return set(re.findall(r"sub-02_\S+?\.(?:nii\.gz|tsv)", said.partition("outputs of")[2])), said


def test_registered_tissue_is_that_of_the_run(small_demo, tmp_path, capsys):
    """The T1w lies 28 mm beside the head by the scanner's coordinates."""
    root, out = derive(tmp_path / "fmriprep", 20.0), tmp_path / "out"
    labels, table = tmp_path / "halves.nii.gz", tmp_path / "halves.tsv"
    nib.save(nib.Nifti1Image(np.ones((40, 40, 40), np.float32), np.diag([9, 9, 9, 1])), labels)
    table.write_text("index\tname\n1\tQuarter\n")
    unit, sidecar = run(
        small_demo,
        out,
        derivatives={"fmriprep": root},
        output_spaces=("T1w",),
        atlas=(f"Halves:asl={labels}",),
    )
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
    # The mask of the derivatives, which lies beside the head too, is laid by the pose.
    assert not [line for line in unit["warnings"] if "mask" in line]
    mask = sidecar["Preprocessing"]["sub-02_asl.nii.gz"]["mask"]
    assert mask["kind"] == "T1w"
    brain = scan_map(load_atlas().brain, gm.shape, gm.affine) > 0.5
    assert 2 * (brain & inside).sum() / (brain.sum() + inside.sum()) > 0.95
    assert "sub-02_atlas-tissue_desc-fit_cbf.tsv" in " ".join(unit["outputs"])
    # All that was made rests on the T1w: the native maps by their mask.
    of_t1w = {*root.glob("sub-02/anat/*.nii.gz"), out / f"sub-02/perf/sub-02_{POSE}"}
    run_files = {small_demo / "sub-02/perf/sub-02_asl.nii.gz"}
    for name, more in {
        "cbf": set(),
        "label-GM_probseg": set(),
        "space-T1w_att": set(),
        "atlas-Halves_coverage": {labels, table},
    }.items():
        content = json.loads((out / f"sub-02/perf/sub-02_{name}.json").read_text())
        assert files_of(content["Sources"], out) == of_t1w | run_files | more, name
    # And the dry run said so.
    places = ["-d", f"fmriprep={root}", "--atlas", f"Halves:asl={labels}"]
    more = ["--output-spaces", "T1w"]
    named, _ = names_of_the_dry_run(small_demo, tmp_path / "no", capsys, *places, *more)
    written = {path.name for path in (out / "sub-02/perf").iterdir()}
    ends = (".nii.gz", ".tsv")
    assert named == {name for name in written if name.endswith(ends)} - {"sub-02_confounds.tsv"}


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
