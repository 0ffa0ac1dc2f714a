"""Derivatives: whole or not at all, readable back, and clean for the official validator."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from asl_bids_app.bids import derivatives as d
from asl_bids_app.bids.dataset_description import describe_dataset
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.bids.uris import dataset_uri
from asl_bids_app.errors import InputError

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def write_all(root, entities):
    folder = d.perf_folder(root, entities)
    for output in OUTPUTS.values():
        path = folder / output.name(entities)
        if output.extension == ".tsv":
            d.write_table(path, {"a": [1.0, None], "b": [float("nan"), 2]})
            d.write_json(d.sidecar_path(path), {"a": {"Description": "x"}})
        else:
            shape = (4, 5, 6, 3) if output.suffix == "asl" else (4, 5, 6)
            d.write_image(
                folder, entities, output, np.ones(shape), np.eye(4), {"SkullStripped": True}
            )


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_the_official_validator_reports_no_error(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    out = tmp_path / "out"
    describe_dataset(out, raw, {"Name": "x", "Authors": ["A", "B"], "DatasetDOI": "doi:10.1/x"})
    for entities in ({"sub": "01", "acq": "pcasl"}, {"sub": "02", "ses": "1"}):
        write_all(out, entities)
        (out / f"sub-{entities['sub']}.html").write_text("x")
        (out / f"sub-{entities['sub']}" / "figures").mkdir()
        (out / f"sub-{entities['sub']}" / "figures" / "a.svg").write_text("x")
    (out / "logs" / "1").mkdir(parents=True)
    (out / "logs" / "1" / "run.json").write_text("{}")
    for name in ("group_cbf.tsv", "group_cbf.json", "group.html"):
        (out / name).write_text("{}")
    done = subprocess.run(
        [VALIDATOR, out, "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []
    assert done.returncode == 0
    # The test can fail: without .bidsignore the same folder is not clean.
    (out / ".bidsignore").unlink()
    assert subprocess.run([VALIDATOR, out], capture_output=True, check=False).returncode != 0


def test_images_come_back_as_they_were_with_units_and_geometry(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 4, 5)).astype(np.float32)
    affine = np.array([[-3.4, 0.1, 0, 90], [0, 3.4, 0.2, -80], [0, 0, 5, -30], [0, 0, 0, 1]])
    path = d.write_image(tmp_path, {"sub": "01"}, OUTPUTS["att"], data, affine, {"X": 1})
    image = nib.load(path)
    assert path.name == "sub-01_att.nii.gz"
    assert np.array_equal(image.get_fdata(dtype=np.float32), data)
    assert np.allclose(image.affine, affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    sidecar = json.loads((tmp_path / "sub-01_att.json").read_text())
    assert sidecar["Units"] == "s"
    assert sidecar["X"] == 1
    mask = d.write_image(tmp_path, {"sub": "01"}, OUTPUTS["mask"], data > 0, affine, {})
    assert nib.load(mask).get_data_dtype() == np.uint8


def test_nothing_half_written_is_left_when_writing_fails(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write():
        with d.write_whole(target) as beside:
            beside.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01" / f"{d.PARTIAL}1-a.nii.gz").write_text("half")
    (tmp_path / "sub-01" / "a.nii.gz").write_text("whole")
    d.remove_partial(tmp_path)
    assert [p.name for p in tmp_path.rglob("*.gz")] == ["a.nii.gz"]


def test_no_way_to_write_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        d.write_text(tmp_path / "file" / "a.txt", "x")


def test_numbers_that_are_none_become_null_and_not_available(tmp_path):
    d.write_json(tmp_path / "a.json", {"x": np.float32("nan"), "y": np.arange(2), "z": Path("p")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [0, 1], "z": "p"}
    d.write_table(tmp_path / "a.tsv", {"x": [1.5, float("nan")], "y": ["a", None]})
    assert (tmp_path / "a.tsv").read_text() == "x\ty\n1.5\ta\nn/a\tn/a\n"


@pytest.mark.parametrize("inside", [True, False])
def test_the_link_to_the_raw_data_leads_there(tmp_path, inside):
    raw = tmp_path / "raw"
    out = raw / "derivatives" / "asl" if inside else tmp_path / "out"
    out.mkdir(parents=True)
    raw.mkdir(exist_ok=True)
    describe_dataset(out, raw, {})
    link = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]["raw"]
    found = (out / link).resolve() if inside else Path(link.removeprefix("file://"))
    assert found == raw.resolve()


def test_datasets_that_earlier_runs_named_stay(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    describe_dataset(out, raw, {}, {"fmriprep": tmp_path / "a"})
    describe_dataset(out, raw, {}, {"smriprep": tmp_path / "b"})
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert links == {
        "raw": raw.as_uri(),
        "fmriprep": (tmp_path / "a").as_uri(),
        "smriprep": (tmp_path / "b").as_uri(),
    }


def test_a_file_is_named_by_the_innermost_dataset_that_holds_it(tmp_path):
    inner = tmp_path / "raw/derivatives/fmriprep"
    datasets = {"raw": tmp_path / "raw", "": tmp_path / "out", "fmriprep": inner}
    for place, uri in {
        "raw/sub-01/x.nii": "bids:raw:sub-01/x.nii",
        "raw/derivatives/fmriprep/sub-01/x.nii": "bids:fmriprep:sub-01/x.nii",
        "out/x.nii": "bids::x.nii",
        "other/x.nii": (tmp_path / "other/x.nii").as_uri(),
    }.items():
        assert dataset_uri(tmp_path / place, datasets) == uri
