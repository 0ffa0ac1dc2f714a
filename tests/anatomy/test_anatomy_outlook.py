"""What the dry run tells of the anatomy, and that a run says the same of the same files."""

import re

import nibabel as nib
import numpy as np
import pytest
from fake_bids import FakeDataset

from asl_bids_app.anatomy.atlases import AtlasSpec, read_atlas
from asl_bids_app.anatomy.outlook import foresee
from asl_bids_app.anatomy.request import Request, UnitMaps
from asl_bids_app.anatomy.run import run
from asl_bids_app.anatomy.spaces import read_space
from asl_bids_app.cli.app import main
from asl_bids_app.errors import InputError

ENTITIES = {"sub": "01"}


def put(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((8, 8, 8)) if data is None else data
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), np.diag([20.0, 20, 20, 1])), path)
    return path


def request_of(root, **asked):
    (root / "bids").mkdir(exist_ok=True)
    spaces = tuple(read_space(text) for text in asked.pop("spaces", ()))
    return Request(root / "bids", root / "out", spaces=spaces, **asked)


def outlook(request):
    (found,) = foresee(request, [ENTITIES])
    return found


def prepared(root, *names):
    """Derivatives of a T1w: its file, and others by the ends of their names."""
    anat = root / "fmriprep/sub-01/anat"
    put(anat / "sub-01_desc-preproc_T1w.nii.gz")
    for name in names:
        if name.endswith(".h5"):
            (anat / f"sub-01_{name}").write_bytes(b"x")
        else:
            put(anat / f"sub-01_{name}")
    return {"fmriprep": root / "fmriprep"}


def test_nothing_to_say_of_a_dataset_without_a_t1w(tmp_path):
    found = outlook(request_of(tmp_path))
    assert (found.usable, found.spaces, found.atlases, found.pvc, found.warnings) == (
        False, (), {}, False, ()
    )  # fmt: skip


def test_a_raw_t1w_leads_to_the_packaged_template_alone(tmp_path):
    put(tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    spaces = ("T1w", "MNI152NLin2009aSym:res-2", "MNI152NLin6Asym", "asl")
    found = outlook(request_of(tmp_path, spaces=spaces, pvc="bayesian"))
    assert found.usable
    assert found.pvc
    assert [str(space) for space in found.spaces] == ["T1w", "MNI152NLin2009aSym:res-2"]
    (line,) = found.warnings
    assert line.startswith(
        "MNI152NLin6Asym: space: found no transform to it, expected one of T1w,"
    )


def test_templateflow_may_lead_on(tmp_path):
    put(tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    folder = tmp_path / "tf/tpl-MNI152NLin6Asym"
    folder.mkdir(parents=True)
    bridge = folder / "tpl-MNI152NLin6Asym_from-MNI152NLin2009aSym_mode-image_xfm.h5"
    bridge.write_bytes(b"x")
    asked = request_of(tmp_path, spaces=("MNI152NLin6Asym",), template_dir=tmp_path / "tf")
    assert [space.name for space in outlook(asked).spaces] == ["MNI152NLin6Asym"]
    assert not outlook(asked).warnings


def test_a_t1w_that_was_not_fetched(tmp_path):
    path = tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.symlink_to("../../.git/annex/objects/x/MD5E-s5--0.nii.gz")
    found = outlook(request_of(tmp_path, spaces=("T1w",), pvc="linear"))
    assert (found.usable, found.pvc, found.spaces) == (False, False, ())
    first, without_flows, by_m0 = found.warnings
    assert first.startswith("sub-01_T1w.nii.gz: found a broken link")
    assert without_flows.endswith("no partial volume correction (--pvc)")
    assert "there are no maps in the space T1w" in by_m0


def test_an_atlas_that_was_not_fetched(tmp_path):
    folder = tmp_path / "atlases"
    folder.mkdir()
    name = "tpl-MNI152NLin2009cAsym_atlas-Link_res-2_dseg.nii.gz"
    (folder / name).symlink_to("../.git/annex/objects/x/MD5E-s5--0.nii.gz")
    with pytest.raises(InputError, match="a broken link") as caught:
        read_atlas(AtlasSpec("Link", path=folder))
    assert "datalad get" in caught.value.cure


def test_derivatives_without_tissue_maps(tmp_path):
    found = outlook(request_of(tmp_path, derivatives=prepared(tmp_path)))
    assert not found.usable
    (line,) = found.warnings
    assert line.startswith("no anatomy by the T1w: sub-01_desc-preproc_T1w.nii.gz: tissue: found")


def test_derivatives_with_all_that_is_needed(tmp_path):
    files = ("dseg.nii.gz", "from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5")
    back = "from-MNI152NLin6Asym_to-T1w_mode-image_xfm.h5"
    spaces = ("MNI152NLin6Asym", "MNI152NLin2009aSym")
    found = outlook(
        request_of(tmp_path, derivatives=prepared(tmp_path, *files, back), spaces=spaces)
    )
    assert [space.name for space in found.spaces] == ["MNI152NLin6Asym"]
    assert found.atlases == {"tissue": True}
    assert len(found.warnings) == 1


def atlas(root, table="index\tname\n1\tLeft-A\n2\tRight-A\n", space="MNI152NLin2009aSym"):
    labels = np.zeros((8, 8, 8))
    labels[:4], labels[4:] = 1, 2
    path = put(root / "x.nii.gz", labels)
    if table:
        (root / "x.tsv").write_text(table)
    return AtlasSpec("X", space, path)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        ({}, ""),
        ({"table": ""}, "no table beside it"),
        ({"table": "index\tname\n9\tB\n"}, "found none of the labels in x.tsv"),
        ({"table": "index\tname\n1\tA\n"}, "found labels 2 that x.tsv doesn't name"),
        ({"space": ""}, "no template in the file's name"),
        ({"space": "fsaverage"}, "x.nii.gz: --atlas X: found no transform to its space fsaverage"),
    ],
)
def test_atlases(tmp_path, made, line):
    put(tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    found = outlook(request_of(tmp_path, atlases=(atlas(tmp_path, **made),)))
    assert ("X" in found.atlases) == (line in {"", "found labels 2 that x.tsv doesn't name"})
    assert len(found.warnings) == bool(line)
    assert all(line in warning for warning in found.warnings)


@pytest.mark.parametrize("asked", [False, True], ids=["no atlas", "an atlas"])
def test_an_inverse_that_is_missing_is_one_line(tmp_path, asked):
    """Maps go by the forward transform; hemispheres, deep grey matter and atlases do not."""
    space = "MNI152NLin2009cAsym"
    files = ("dseg.nii.gz", f"from-T1w_to-{space}_mode-image_xfm.h5")
    atlases = (atlas(tmp_path, space=space),) if asked else ()
    found = outlook(request_of(tmp_path, derivatives=prepared(tmp_path, *files), atlases=atlases))
    assert found.atlases == {"tissue": False}
    (line,) = found.warnings
    assert line == (
        f"found no inverse transform from-{space}_to-T1w that can be used, expected "
        f"from-{space}_to-T1w_mode-image_xfm.h5 beside that from-T1w_to-{space}, by which regions "
        "are laid on a run; left out: the hemispheres with their asymmetry, deep grey matter"
        + (", the atlas X (--atlas)" if asked else "")
    )


def test_an_atlas_that_is_nowhere(tmp_path):
    put(tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    found = outlook(request_of(tmp_path, atlases=(AtlasSpec("Y"),)))
    assert list(found.atlases) == ["tissue"]
    (line,) = found.warnings
    assert "--atlas Y: found no folder to search" in line


def test_a_run_says_what_was_foreseen_where_there_is_no_t1w(tmp_path):
    """Without a brain in its M0 a run comes as far as the warnings that files alone bring."""
    path = tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    zero = np.zeros((8, 8, 8), np.float32)
    unit = UnitMaps(
        ENTITIES, {"M0": zero}, zero > 0, zero > 0, np.eye(4), {"cbf": zero, "att": zero}, {}
    )
    asked = request_of(tmp_path, pvc="bayesian")
    assert run(asked, unit).warnings == outlook(asked).warnings


def go(root, out, capsys, *more):
    quick = ["--nprocs", "1", "--no-hmc", "--no-tissue", "--estimator", "least-squares", "-q"]
    assert main([str(root), str(out), "participant", *quick, "--dry-run", *more]) == 0
    return capsys.readouterr().out


def test_the_dry_run_lists_what_will_be_written(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01")
    more = ("--pvc", "--output-spaces", "T1w", "MNI152NLin2009aSym", "MNI152NLin6Asym")
    without = go(dataset.root, tmp_path / "out", capsys, *more)
    assert "a voxel are known; no partial volume correction (--pvc)" in without
    # The packaged template lies on the M0: its space can be had, that of a T1w not.
    names = set(re.findall(r"sub-01_\S+?\.(?:nii\.gz|tsv)", without))
    assert "sub-01_space-MNI152NLin2009aSym_cbf.nii.gz" in names
    assert not [n for n in names if "space-T1w" in n or "6Asym" in n or "desc-gm_cbf" in n]
    put(dataset.root / "sub-01/anat/sub-01_T1w.nii.gz")
    told = go(dataset.root, tmp_path / "out", capsys, *more)
    for name in (
        "sub-01_space-T1w_desc-gm_cbf.nii.gz",
        "sub-01_desc-wm_cbf.nii.gz",
        "sub-01_atlas-tissue_desc-asymmetry_cbf.tsv",
        "sub-01_atlas-tissue_desc-gm_cbf.tsv",
    ):
        assert name in told
        assert name not in without or "asymmetry" in name
    assert "spaces: T1w, MNI152NLin2009aSym; regions: tissue" in told


def test_no_anatomy_with_what_needs_it_is_one_line_each(tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01")
    more = ("--no-anatomy", "--output-spaces", "T1w", "--atlas", "X")
    lines = [
        s for s in go(dataset.root, tmp_path / "o", capsys, *more).splitlines() if "warn" in s
    ]
    assert lines == [
        "warning: command line: --output-spaces: found T1w with --no-anatomy, expected use of the "
        "T1w; no run uses it",
        "warning: command line: --atlas: found X with --no-anatomy, expected use of the T1w; no "
        "run uses it",
    ]
