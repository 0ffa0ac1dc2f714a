"""What is wrong with a T1w, its derivatives or an atlas is one line, and the run is complete.

The series is seen to be complete by `place`, which comes before the fit and must hand on tissue
only where it is sure, and by `run`, which comes after it and must never raise.
"""

from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from heads import grid, pose, scan_map
from scipy import ndimage
from t1w_derivatives import KEYS, derive, save

from asl_bids_app.anatomy.atlases import read_spec
from asl_bids_app.anatomy.find import Found
from asl_bids_app.anatomy.place import Placed, place
from asl_bids_app.anatomy.records import Registration
from asl_bids_app.anatomy.request import Request, UnitMaps
from asl_bids_app.anatomy.run import run
from asl_bids_app.anatomy.spaces import read_space
from asl_bids_app.anatomy.transforms import affine_transform, write_transform
from asl_bids_app.atlas import load_atlas

pytestmark = pytest.mark.slow
"""Each registers heads: seconds of CPU a test."""

ASL = grid(voxel=(5.0, 5.0, 7.0), shape=(40, 46, 24))
MOVED = pose((6, -5, 9), (5, -4, 7))
SPACE = "MNI152NLin2009cAsym"


@pytest.fixture(scope="module")
def man():
    """The tissues of one man: the template, stretched and bent, unlike itself in a mirror."""
    return bent(1)


def bent(seed):
    atlas, rng = load_atlas(), np.random.default_rng(seed)
    shape = atlas.gm.shape
    field = [ndimage.gaussian_filter(rng.standard_normal(shape), 5) for _ in range(3)]
    field = 2 * np.stack(field) / np.std(field)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    middle = np.array(shape)[:, None, None, None] / 2
    stretch = 1 + 0.04 * rng.standard_normal(3)[:, None, None, None]
    place_of = (index - middle) * stretch + middle + field
    return {
        key: ndimage.map_coordinates(
            np.asarray(getattr(atlas, key), np.float32), place_of, order=1
        )
        for key in KEYS
    }


@pytest.fixture(scope="module")
def series(man):
    """M0 and ΔM of the man, in the space of his template."""
    shape, affine = ASL
    gm, wm, csf = (scan_map(man[key], shape, affine) for key in KEYS)
    mask = gm + wm + csf > 0.5
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, *shape))
    images = {
        "M0": 0.85 * gm + 0.7 * wm + csf + 0.01 * noise[0],
        "ΔM": (0.008 * gm + 0.003 * wm + 0.0015 * noise[1]) * mask,
    }
    maps = {"cbf": 60.0 * mask, "att": 1.2 * mask}
    sds = {"cbf_sd": 5.0 * mask, "att_sd": 0.1 * mask}
    nothing = np.zeros(shape, bool)
    return UnitMaps({"sub": "01"}, images, mask, nothing, affine, maps, sds)


def small(root):
    """Derivatives of a head of few voxels: never registered, for its fault comes first."""
    ball = np.zeros((12, 12, 12))
    ball[3:9, 3:9, 3:9] = 1 / 3
    return derive(root, dict.fromkeys(KEYS, ball), np.diag([12.0, 12.0, 12.0, 1.0]))


def both(request, unit):
    """Do what a run does before and after its fit."""
    placed = place(request, unit.entities, unit.images, unit.mask, unit.affine)
    return placed, run(request, unit, placed=placed)


def the_line(outcome, part):
    assert all("\n" not in line for line in outcome.warnings)
    found = [line for line in outcome.warnings if part in line]
    assert len(found) == 1, outcome.warnings
    return found[0]


def no_tissue(root):
    for path in root.glob("*_label-*"):
        path.unlink()


def mask_elsewhere(root):
    save(root / "sub-01_desc-brain_mask.nii.gz", np.ones((4, 4, 4)), np.diag([9.0, 9.0, 9.0, 1.0]))


def mask_beside_the_head(root):
    beside = np.zeros((12, 12, 12))
    beside[10:, 10:, 10:] = 1
    save(root / "sub-01_desc-brain_mask.nii.gz", beside, np.diag([12.0, 12.0, 12.0, 1.0]))


def mask_of_nothing(root):
    affine = np.diag([12.0, 12.0, 12.0, 1.0])
    save(root / "sub-01_desc-brain_mask.nii.gz", np.zeros((12, 12, 12)), affine)


def broken(root):
    path = root / "sub-01_desc-preproc_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:60])


def several_volumes(root):
    save(root / "sub-01_desc-preproc_T1w.nii.gz", np.ones((12, 12, 12, 3)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_tissue, "no label-GM, -WM and -CSF_probseg and no dseg beside it"),
        (mask_elsewhere, "sub-01_desc-brain_mask.nii.gz: grid: found 4 x 4 x 4 voxels elsewhere"),
        (mask_beside_the_head, "tissue maps that fill 0% of the brain mask"),
        (mask_of_nothing, "sub-01_desc-brain_mask.nii.gz: found only zeros"),
        (broken, "sub-01_desc-preproc_T1w.nii.gz"),
        (several_volumes, "sub-01_desc-preproc_T1w.nii.gz"),
    ],
)
def test_derivatives_that_can_not_be_used(series, tmp_path, spoil, said):
    spoil(small(tmp_path / "fmriprep"))
    request = Request(tmp_path, tmp_path / "out", {"f": tmp_path / "fmriprep"})
    placed, outcome = both(request, series)
    assert not placed.tissue
    assert said in placed.facts["t1w"]
    assert the_line(outcome, "no anatomy by the T1w: ").count(said) == 1
    assert not outcome.outputs


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "found an empty file (0 bytes), expected a T1w"),
        (np.zeros((20, 20, 20)), "found only zeros, expected an image"),
        (np.full((20, 20, 20), np.nan), "found only zeros and NaN, expected an image"),
        (np.ones((20, 20)), "sub-01_T1w.nii.gz"),
        (np.random.default_rng(0).random((9, 9, 3)), "found 9x9x3 voxels, expected a volume"),
    ],
    ids=["no bytes", "zeros", "not a number", "one slice", "three slices"],
)
def test_a_raw_t1w_that_is_empty(series, tmp_path, image, said):
    path = tmp_path / "sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch() if image is None else save(path, image)
    placed, outcome = both(Request(tmp_path, tmp_path / "out"), series)
    assert placed is None or not placed.tissue
    the_line(outcome, said)
    assert not outcome.outputs


def test_whatever_fails_before_the_fit_is_a_line(series, tmp_path, monkeypatch):
    from asl_bids_app.anatomy import place as module

    def fail(*_):
        raise MemoryError("no room")

    small(tmp_path / "f")
    monkeypatch.setattr(module, "read_head", fail)
    placed, outcome = both(Request(tmp_path, tmp_path, {"f": tmp_path / "f"}), series)
    assert not placed.tissue
    assert "MemoryError (no room)" in the_line(outcome, "no anatomy by the T1w: ")


@pytest.fixture(scope="module")
def placed(man, series, tmp_path_factory):
    """The man registered as he lies, so that a test of atlases needs no search."""
    root = tmp_path_factory.mktemp("good")
    anat = derive(root, man, MOVED @ load_atlas().affine)
    name = "sub-01_from-{}_to-{}_mode-image_xfm.h5"
    write_transform(anat / name.format("T1w", SPACE), affine_transform(MOVED))
    write_transform(anat / name.format(SPACE, "T1w"), affine_transform(np.linalg.inv(MOVED)))
    registration = Registration(MOVED, "M0", 0.5, 0.1, True)
    return root, Placed(Found(), registration, dict.fromkeys(KEYS, series.mask))


def no_table(folder):
    next(folder.glob("*.tsv")).unlink()


def labels_missing(folder):
    next(folder.glob("*.tsv")).write_text("index\tname\n1\tLeft-half\n9\tnowhere\n")


def another_space(folder):
    for path in folder.glob("*"):
        path.rename(path.with_name(path.name.replace(SPACE, "MNIInfant")))


def no_space(folder):
    for path in folder.glob("*"):
        path.rename(path.with_name(path.name.replace(f"tpl-{SPACE}_", "")))


def far_away(folder):
    path = next(folder.glob("*.nii.gz"))
    affine = np.array(load_atlas().affine)
    affine[:3, 3] += 500
    save(path, np.asarray(nib.load(path).dataobj), affine)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_table, "found no table beside it"),
        (labels_missing, "found labels 2 that"),
        (another_space, "--atlas Half: found no transform to its space MNIInfant"),
        (no_space, "found no template in the file's name"),
        (far_away, "found none on the brain of the run"),
    ],
)
def test_atlases_that_can_not_be_used(series, placed, tmp_path, spoil, said):
    root, laid = placed
    atlas = load_atlas()
    labels = np.where(np.arange(atlas.gm.shape[0])[:, None, None] < 49, 1, 2) * atlas.brain
    stem = tmp_path / f"atlas/tpl-{SPACE}_atlas-Half_dseg"
    save(stem.with_suffix(".nii.gz"), labels, atlas.affine)
    stem.with_suffix(".tsv").write_text("index\tname\n1\tLeft-half\n2\tRight-half\n")
    spoil(tmp_path / "atlas")
    path = next((tmp_path / "atlas").glob("*.nii.gz"))
    asked = (read_spec(f"Half={path}"),)
    request = Request(tmp_path, tmp_path / "out", {"f": root}, atlases=asked)
    outcome = run(request, series, placed=laid)
    the_line(outcome, said)
    names = {path.name for path in outcome.outputs}
    # Regions that need no atlas have their tables all the same.
    assert "sub-01_atlas-tissue_desc-fit_cbf.tsv" in names
    assert ("sub-01_atlas-Half_cbf.tsv" in names) == (spoil is labels_missing)


@pytest.mark.parametrize("how", ["missing", "of another space"])
def test_without_an_inverse_what_is_left_out_is_one_line(series, placed, man, tmp_path, how):
    """Maps in the space are written all the same."""
    anat = derive(tmp_path / "f", man, MOVED @ load_atlas().affine)
    name = "sub-01_from-{}_to-{}_mode-image_xfm.h5"
    write_transform(anat / name.format("T1w", SPACE), affine_transform(MOVED))
    if how != "missing":
        other = affine_transform(pose((0, 0, 30), (40, 0, 0)))
        write_transform(anat / name.format(SPACE, "T1w"), other)
    labels = np.where(np.arange(load_atlas().gm.shape[0])[:, None, None] < 49, 1, 2)
    stem = tmp_path / f"atlas/tpl-{SPACE}_atlas-Half_dseg"
    save(stem.with_suffix(".nii.gz"), labels * load_atlas().brain, load_atlas().affine)
    stem.with_suffix(".tsv").write_text("index\tname\n1\tLeft-half\n2\tRight-half\n")
    atlases = (read_spec(f"Half={stem.with_suffix('.nii.gz')}"),)
    spaces = (read_space(SPACE),)
    request = Request(tmp_path, tmp_path / "out", {"f": tmp_path / "f"}, spaces, atlases)
    outcome = run(request, series, placed=placed[1])
    line = the_line(outcome, f"no inverse transform from-{SPACE}_to-T1w")
    assert "left out: the hemispheres" in line
    assert line.endswith("deep grey matter, the atlas Half (--atlas)")
    assert len(outcome.warnings) == (1 if how == "missing" else 2)
    names = {path.name for path in outcome.outputs}
    assert f"sub-01_space-{SPACE}_cbf.nii.gz" in names
    assert not any("asymmetry" in name or "Half" in name for name in names)


def test_a_t1w_of_another_session_only_is_used_and_told(man, series, placed, tmp_path):
    derive(tmp_path / "f", man, load_atlas().affine, "sub-01_ses-1", "sub-01/ses-1/anat")
    request = Request(tmp_path, tmp_path / "out", {"f": tmp_path / "f"})
    unit = replace(series, entities={"sub": "01", "ses": "2"})
    outcome = run(request, unit, placed=placed[1])
    assert "ses-1 only, expected one of ses-2" in the_line(outcome, "found T1w of")
    assert any("_from-aslref_to-T1w" in path.name for path in outcome.outputs)


def test_two_t1ws_are_one_line(man, series, placed, tmp_path):
    for number in (1, 2):
        derive(tmp_path / "f", man, load_atlas().affine, f"sub-01_run-{number}")
    request = Request(tmp_path, tmp_path / "out", {"f": tmp_path / "f"})
    outcome = run(request, series, placed=placed[1])
    assert "sub-01_run-1_desc-preproc_T1w.nii.gz is used" in the_line(outcome, "found 2 T1w")


def test_tissue_of_a_doubtful_t1w_is_not_that_of_the_fit():
    """Nor that of the scanner's coordinates, where the T1w's derivatives hold it."""
    from asl_bids_app import quantify
    from asl_bids_app.preprocess import tissue_maps
    from asl_bids_app.settings import Settings

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        nothing = tissue_maps.TissueMaps({}, {"kind": "none"})
        patch.setattr(tissue_maps, "find_tissue", lambda _, given: seen.append(given) or nothing)
        patch.setattr(tissue_maps, "sharpen", lambda _, found, **__: found)
        settings = Settings(tissue_maps={"gm": "a", "wm": "b", "csf": "c"})
        doubtful = Registration(np.eye(4), "M0", 0.1, 0.1, True, warnings=("odd",))
        for found in (Found(prepared=True), Found(prepared=False)):
            placed = Placed(found, doubtful, {}, "odd")
            maps = quantify.find_tissue(None, settings, prepared=None, placed=placed)
            assert maps.facts["t1w"] == "not used: odd"
        sure = replace(doubtful, warnings=())
        part = np.ones((2, 2, 2))
        brain = np.arange(8).reshape(2, 2, 2) > 2
        lying = SimpleNamespace(mask=brain)
        placed = Placed(Found(source="raw T1w x"), sure, dict.fromkeys(KEYS, part))
        maps = quantify.find_tissue(None, settings, prepared=lying, placed=placed)
    assert [bool(given) for given in seen] == [False, True]
    assert (maps.facts["kind"], maps.facts["fractions"]) == ("T1w", "T1w")
    assert maps.facts["source"] == "T1w, registered: raw T1w x"
    np.testing.assert_array_equal(maps.alike["gm"], brain)


def test_another_persons_t1w_does_no_harm(series, tmp_path):
    derive(tmp_path / "f", bent(2), MOVED @ load_atlas().affine)
    request = Request(tmp_path, tmp_path / "out", {"f": tmp_path / "f"})
    placed, outcome = both(request, series)
    assert not placed.tissue
    said = the_line(outcome, "another person's T1w, or blurred images")
    assert said.endswith("the tissue of the T1w is not used by the fit")


def test_a_mirrored_t1w_is_told(man, series, tmp_path):
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    derive(tmp_path / "f", man, MOVED @ mirror @ load_atlas().affine)
    placed, outcome = both(Request(tmp_path, tmp_path / "out", {"f": tmp_path / "f"}), series)
    assert not placed.tissue
    assert any(
        "left and right look swapped" in w or "another person" in w for w in outcome.warnings
    )


@pytest.mark.parametrize("name", ["oblique", "thick"])
def test_an_oblique_t1w_and_one_of_thick_slices_are_registered(man, series, tmp_path, name):
    """Within a millimetre, or two of slices of 5 mm."""
    affine = np.array(load_atlas().affine)
    maps = man
    if name == "thick":
        maps = {k: ndimage.uniform_filter1d(m, 3, axis=2)[:, :, 1::3] for k, m in man.items()}
        affine = affine @ np.diag([1, 1, 3, 1.0])
        affine[:3, 3] += load_atlas().affine[:3, 2]
    turned = pose((10, 5, -8), (35, -20, 25))
    derive(tmp_path / "f", maps, turned @ affine)
    placed, outcome = both(Request(tmp_path, tmp_path / "out", {"f": tmp_path / "f"}), series)
    assert placed.tissue
    assert not outcome.warnings
    for point in ((50.0, -20.0, 20.0), (-50.0, 10.0, 30.0), (0.0, -80.0, 10.0)):
        off = (placed.registration.matrix - turned) @ [*point, 1]
        assert np.linalg.norm(off) < (1.0 if name == "oblique" else 2.0)


def test_a_space_that_is_nowhere_is_one_line(series, placed, tmp_path):
    root, laid = placed
    asked = tuple(map(read_space, ("MNI152NLin6Asym", SPACE)))
    outcome = run(Request(tmp_path, tmp_path, {"f": root}, asked), series, placed=laid)
    the_line(outcome, "MNI152NLin6Asym: space: found no transform to it")
    assert any(f"_space-{SPACE}_cbf" in path.name for path in outcome.outputs)


def test_without_a_t1w_nothing_is_placed(series, tmp_path):
    request = SimpleNamespace(bids_dir=tmp_path, derivatives={})
    assert place(request, {"sub": "01"}, series.images, series.mask, series.affine) is None
