"""Where the anatomy is found, and what is said of files that don't fit."""

import json

import nibabel as nib
import numpy as np
import pytest

from asl_bids_app.anatomy.atlases import AtlasSpec, read_atlas, read_spec
from asl_bids_app.anatomy.find import find_anatomy
from asl_bids_app.anatomy.head import read_given
from asl_bids_app.anatomy.resampling import resample_labels
from asl_bids_app.errors import InputError

ONE = {"sub": "01"}
TWO = {"sub": "01", "ses": "2"}


def put(path, data=None, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = np.arange(1000.0).reshape(10, 10, 10)
    image = nib.Nifti1Image(np.asarray(data, np.float32), np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


def derivatives(root, stem="sub-01", folder="sub-01/anat", **but):
    """The files of fMRIPrep that matter, on a small grid."""
    anat = root / folder
    brain = np.zeros((10, 10, 10))
    brain[2:8, 2:8, 2:8] = 1
    parts = {
        "desc-preproc_T1w": None,
        "desc-brain_mask": brain,
        "dseg": brain,
        **{f"label-{key}_probseg": brain / 3 for key in ("GM", "WM", "CSF")},
    }
    for name, data in (parts | but).items():
        put(anat / f"{stem}_{name}.nii.gz", data)
    # Maps in a standard space must not be taken for those of the T1w.
    put(anat / f"{stem}_space-MNI152NLin6Asym_desc-preproc_T1w.nii.gz")
    put(anat / f"{stem}_space-MNI152NLin6Asym_label-GM_probseg.nii.gz")
    for space in ("MNI152NLin6Asym", "fsnative"):
        (anat / f"{stem}_from-T1w_to-{space}_mode-image_xfm.h5").write_bytes(b"x")
        (anat / f"{stem}_from-{space}_to-T1w_mode-image_xfm.h5").write_bytes(b"x")
    return root


def test_derivatives_come_before_the_raw_t1w(tmp_path):
    put(tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    root = derivatives(tmp_path / "fmriprep")
    found = find_anatomy(tmp_path / "bids", {"fmriprep": root}, ONE)
    assert found.prepared
    assert found.t1w.name == "sub-01_desc-preproc_T1w.nii.gz"
    assert found.mask.name == "sub-01_desc-brain_mask.nii.gz"
    assert found.tissue["gm"].name == "sub-01_label-GM_probseg.nii.gz"
    assert list(found.to_space) == ["MNI152NLin6Asym"] == list(found.from_space)
    assert not found.warnings
    raw = find_anatomy(tmp_path / "bids", {}, ONE)
    assert (raw.t1w.name, raw.prepared) == ("sub-01_T1w.nii.gz", False)


def test_nothing_is_found_and_nothing_said(tmp_path):
    found = find_anatomy(tmp_path, {"x": tmp_path}, ONE)
    assert found.t1w is None
    assert not found.warnings


def test_the_session_comes_first_then_that_of_none(tmp_path):
    for folder, stem in (("ses-1/anat", "_ses-1"), ("ses-2/anat", "_ses-2"), ("anat", "")):
        put(tmp_path / f"sub-01/{folder}/sub-01{stem}_T1w.nii.gz")
    assert find_anatomy(tmp_path, {}, TWO).t1w.name == "sub-01_ses-2_T1w.nii.gz"
    (tmp_path / "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz").unlink()
    assert find_anatomy(tmp_path, {}, TWO).t1w.name == "sub-01_T1w.nii.gz"


def test_another_session_is_told(tmp_path):
    put(tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz")
    found = find_anatomy(tmp_path, {}, TWO)
    assert found.t1w is not None
    assert len(found.warnings) == 1
    assert "ses-1 only, expected one of ses-2" in found.warnings[0]


def test_two_t1ws_are_told_and_one_is_used(tmp_path):
    for run in ("1", "2"):
        put(tmp_path / f"sub-01/anat/sub-01_run-{run}_T1w.nii.gz")
    found = find_anatomy(tmp_path, {}, ONE)
    assert found.t1w.name == "sub-01_run-1_T1w.nii.gz"
    assert len(found.warnings) == 1
    assert "found 2 T1w" in found.warnings[0]
    assert found.warnings[0].expected == "one"


@pytest.mark.parametrize(
    ("one", "other"),
    [("run-1", "run-2"), ("acq-a", "acq-b"), ("ce-a", "ce-b"), ("rec-a", "rec-b"), ("", "acq-a")],
)
def test_all_that_belongs_to_another_t1w_is_left_alone(tmp_path, one, other):
    stems = ["_".join(filter(None, ("sub-01", part))) for part in (one, other)]
    for stem in stems:
        derivatives(tmp_path, stem)
    found = find_anatomy(tmp_path / "none", {"f": tmp_path}, ONE)
    transforms = [*found.to_space.values(), *found.from_space.values()]
    files = [*found.files, *transforms]
    assert (len(files), len(transforms)) == (7, 2)
    assert all(path.name.startswith(f"{stems[0]}_") for path in files)
    assert not any(other in path.name for path in files)
    # Of the T1w alone: the files of the other one are no stopgap.
    for path in [*files, found.dseg]:
        if path != found.t1w:
            path.unlink()
    bare = find_anatomy(tmp_path / "none", {"f": tmp_path}, ONE)
    assert (bare.mask, bare.dseg, bare.tissue) == (None, None, {})
    assert not bare.to_space
    assert not bare.from_space


def test_files_that_leave_the_run_out_serve_where_none_names_it(tmp_path):
    derivatives(tmp_path)
    anat = tmp_path / "sub-01/anat"
    (anat / "sub-01_desc-preproc_T1w.nii.gz").rename(anat / "sub-01_run-1_desc-preproc_T1w.nii.gz")
    own = anat / "sub-01_run-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5"
    own.write_bytes(b"x")
    found = find_anatomy(tmp_path / "none", {"f": tmp_path}, ONE)
    assert found.mask.name == "sub-01_desc-brain_mask.nii.gz"
    assert found.to_space["MNI152NLin6Asym"] == own
    back = "sub-01_from-MNI152NLin6Asym_to-T1w_mode-image_xfm.h5"
    assert found.from_space["MNI152NLin6Asym"].name == back


def test_a_t1w_of_another_person_in_the_folder_is_not_used(tmp_path):
    put(tmp_path / "sub-01/anat/sub-02_T1w.nii.gz")
    found = find_anatomy(tmp_path, {}, ONE)
    assert found.t1w is None
    assert "found sub-02 in the folder of sub-01" in found.warnings[0]


def test_an_empty_file_is_told(tmp_path):
    path = tmp_path / "sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    found = find_anatomy(tmp_path, {}, ONE)
    assert found.t1w is None
    assert "empty file (0 bytes)" in found.warnings[0]


def test_given_tissue_and_broken_transforms(tmp_path):
    root = derivatives(tmp_path)
    anatomy = read_given(find_anatomy(tmp_path / "none", {"f": root}, ONE))
    assert anatomy.head.brain.sum() == 216
    # The two transforms of these files are no transforms: each is one line.
    assert len(anatomy.head.warnings) == 2
    assert all("no transform that ITK reads" in w for w in anatomy.head.warnings)
    for label in ("GM", "WM"):
        (root / f"sub-01/anat/sub-01_label-{label}_probseg.nii.gz").unlink()
    found = find_anatomy(tmp_path / "none", {"f": root}, ONE)
    assert "csf only, expected GM, WM and CSF" in found.warnings[0]
    assert read_given(found).head.facts["tissue"] == "dseg"
    (root / "sub-01/anat/sub-01_dseg.nii.gz").unlink()
    with pytest.raises(InputError, match="no label-GM"):
        read_given(find_anatomy(tmp_path / "none", {"f": root}, ONE))


def test_a_mask_elsewhere_is_refused(tmp_path):
    root = derivatives(tmp_path)
    moved = np.eye(4)
    moved[0, 3] = 50
    put(root / "sub-01/anat/sub-01_desc-brain_mask.nii.gz", np.ones((10, 10, 10)), moved)
    with pytest.raises(InputError, match=r"brain_mask.*the grid of sub-01_desc-preproc_T1w"):
        read_given(find_anatomy(tmp_path / "none", {"f": root}, ONE))


@pytest.fixture
def labels(tmp_path):
    data = np.zeros((6, 6, 6))
    data[:3], data[3:] = 1, 5
    folder = tmp_path / "atlases/tpl-MNI152NLin6Asym"
    path = put(folder / "tpl-MNI152NLin6Asym_atlas-Mine_res-02_dseg.nii.gz", data)
    path.with_name("tpl-MNI152NLin6Asym_atlas-Mine_dseg.tsv").write_text(
        "index\tname\tnetwork\n0\tback\tx\n1\tLeft-A\tx\n5\tRight-A\ty\n"
    )
    return path


def test_an_atlas_in_the_peers_layout(labels, tmp_path):
    for spec, places in (
        (AtlasSpec("Mine"), [tmp_path]),
        (AtlasSpec("Mine", path=tmp_path / "atlases"), []),
        (AtlasSpec("Other", path=labels), []),
    ):
        atlas = read_atlas(spec, places)
        assert atlas.space == "MNI152NLin6Asym"
        assert dict(atlas.names) == {1: "Left-A", 5: "Right-A"}
        assert not atlas.warnings


def test_a_plain_nifti_with_its_space_stated(labels, tmp_path):
    path = put(tmp_path / "plain.nii", nib.load(labels).get_fdata())
    (tmp_path / "plain.tsv").write_text("index\tname\n1\tA\n5\tB\n")
    assert read_atlas(read_spec(f"P:MNI152NLin2009cAsym={path}")).space == "MNI152NLin2009cAsym"
    with pytest.raises(InputError, match="no template in the file's name"):
        read_atlas(read_spec(f"P={path}"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "no table beside it"),
        ("a\tb\n1\tx\n", "the columns a, b"),
        ("index\tname\nx\tA\n", "'x', expected a whole number"),
        ("index\tname\n1\tA\n1\tB\n", "1 again"),
        ("index\tname\n9\tA\n", "none of the labels in"),
    ],
)
def test_faults_of_the_table_are_one_line(labels, table, said):
    path = labels.with_name("tpl-MNI152NLin6Asym_atlas-Mine_dseg.tsv")
    path.unlink() if table is None else path.write_text(table)
    with pytest.raises(InputError) as error:
        read_atlas(AtlasSpec("Mine", path=labels))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_without_a_name_and_names_without_a_label_are_told(labels):
    path = labels.with_name("tpl-MNI152NLin6Asym_atlas-Mine_dseg.tsv")
    path.write_text("index\tname\n1\tA\n7\tC\n")
    atlas = read_atlas(AtlasSpec("Mine", path=labels))
    assert len(atlas.warnings) == 2
    assert "found labels 5 that" in atlas.warnings[0]
    assert "found labels 7 that" in atlas.warnings[1]


def test_an_atlas_that_is_nowhere_to_be_found(tmp_path):
    with pytest.raises(InputError) as error:
        read_atlas(AtlasSpec("Mine"), [])
    assert error.value.found.startswith("no folder to search")
    with pytest.raises(InputError) as error:
        read_atlas(AtlasSpec("Mine"), [tmp_path])
    assert error.value.found == f"nothing in {tmp_path}"


def test_probabilities_are_no_labels(labels):
    put(labels, np.random.default_rng(0).random((6, 6, 6)))
    with pytest.raises(InputError, match="values that are no labels"):
        read_atlas(AtlasSpec("Mine", path=labels))


@pytest.mark.parametrize("text", ["", "a b", "A=", "A:=x", "-A=x", "A:b c=x"])
def test_other_spellings_of_atlases_are_refused(text):
    with pytest.raises(InputError, match="--atlas"):
        read_spec(text)


def test_the_commonest_label_of_a_voxel_counts():
    labels = np.arange(8).reshape(8, 1, 1)
    points = [np.array([[[[x, 0.0, 0.0]]]]) for x in (2.0, 5.0, 5.2, 1.0, 4.9, 20.0)]
    assert resample_labels(labels, np.eye(4), points).item() == 5


def test_kept_anatomy_is_read_again_only_for_the_same_file(tmp_path):
    from asl_bids_app.anatomy.own_head import _read_kept, _write, names
    from asl_bids_app.anatomy.records import Head
    from asl_bids_app.anatomy.transforms import affine_transform

    maps = [np.full((10, 10, 10), v, np.float32) for v in (100, 0.2, 0.5, 0.3)]
    head = Head(maps[0], np.eye(4), np.ones((10, 10, 10), bool), *maps[1:], {"source": "x"})
    files, identity = names(tmp_path, "sub-01"), {"File": "a", "Size": 3}
    raw = tmp_path / "sub-01_T1w.nii.gz"
    same = affine_transform(np.eye(4))
    _write(files, head, same, same, {"Source": identity, "Facts": head.facts, "Warnings": ["w"]})
    again = _read_kept(raw, files, identity)
    np.testing.assert_allclose(again.head.wm, head.wm)
    assert again.head.warnings == ("w",)
    assert _read_kept(raw, files, identity | {"Size": 4}) is None
    assert (
        json.loads((tmp_path / "sub-01_desc-preproc_T1w.json").read_text())["Source"] == identity
    )
    files["gm"].unlink()
    assert _read_kept(raw, files, identity) is None
