"""The anatomy of a series from files to files, with derivatives as fMRIPrep writes them."""

import csv
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from heads import grid, pose, scan_map
from t1w_derivatives import derive_template, save

from asl_bids_app.anatomy.atlases import read_spec
from asl_bids_app.anatomy.find import program_of
from asl_bids_app.anatomy.foreign import without_foreign
from asl_bids_app.anatomy.head import Anatomy
from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.request import Request, UnitMaps
from asl_bids_app.anatomy.run import run
from asl_bids_app.anatomy.spaces import read_space
from asl_bids_app.anatomy.transforms import affine_transform, write_transform
from asl_bids_app.anatomy.view_files import read_views, views_file
from asl_bids_app.atlas import load_atlas
from asl_bids_app.preprocess import tissue

MOVED = pose((6, -5, 9), (5, -4, 7))
"""Takes the template's points to those of the T1w: the head lies so in its scanner."""
ASL = grid(voxel=(5.0, 5.0, 7.0), shape=(40, 46, 24))
ENTITIES = {"sub": "01", "acq": "x"}
TITLE = "sub-01_acq-x"
NINE = "MNI152NLin2009cAsym"


@pytest.fixture(scope="module")
def fmriprep(tmp_path_factory):
    """Derivatives of a head that is the template's, moved; its template is called 2009cAsym."""
    root, atlas = tmp_path_factory.mktemp("fmriprep"), load_atlas()
    anat = derive_template(root, MOVED @ atlas.affine)
    name = "sub-01_from-{}_to-{}_mode-image_xfm.h5"
    write_transform(anat / name.format("T1w", NINE), affine_transform(MOVED))
    write_transform(anat / name.format(NINE, "T1w"), affine_transform(np.linalg.inv(MOVED)))
    # One that lays the head somewhere else: of another space or another head.
    wrong = pose((25, 30, -20), (30, 0, 20))
    write_transform(anat / name.format("T1w", "MNI152NLin6Asym"), affine_transform(wrong))
    labels = np.zeros(atlas.gm.shape)
    labels[:49], labels[49:] = 1, 2
    labels[:, :, 60:] = 3
    labels *= atlas.brain
    save(root / f"atlas/tpl-{NINE}_atlas-Half_res-02_dseg.nii.gz", labels, atlas.affine)
    (root / f"atlas/tpl-{NINE}_atlas-Half_res-02_dseg.tsv").write_text(
        "index\tname\n1\tLeft-half\n2\tRight-half\n3\ttop\n4\tnowhere\n"
    )
    return root


def unit(motion=None, right=60.0, left=40.0):
    """A series of the same head in another pose: flow differs between the sides."""
    shape, affine = ASL
    atlas = load_atlas()
    x = atlas.affine[0, 0] * np.arange(atlas.gm.shape[0]) + atlas.affine[0, 3]
    side = np.broadcast_to(np.where(x > 0, right, left)[:, None, None], atlas.gm.shape)
    gm, wm, csf = (scan_map(getattr(atlas, k), shape, affine, motion) for k in ("gm", "wm", "csf"))
    mask = gm + wm + csf > 0.5
    rng = np.random.default_rng(0)
    m0 = 0.85 * gm + 0.7 * wm + csf + 0.01 * rng.standard_normal(shape)
    cbf = np.where(mask, scan_map(side, shape, affine, motion), 0)
    sds = {"cbf_sd": np.full(shape, 5.0) * mask, "att_sd": np.full(shape, 0.1) * mask}
    return UnitMaps(
        ENTITIES,
        {"M0": m0},
        mask,
        np.zeros(shape, bool),
        affine,
        {"cbf": cbf, "att": np.where(mask, 1.2, 0)},
        sds,
    )


@pytest.fixture(scope="module")
def done(fmriprep, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    stale = out / f"sub-01/perf/{TITLE}_space-Old_cbf.nii.gz"
    stale.parent.mkdir(parents=True)
    for path in (stale, stale.with_name("sub-01_acq-xy_space-Old_cbf.nii.gz")):
        path.touch()
    request = Request(
        fmriprep / "none",
        out,
        {"fmriprep": fmriprep},
        tuple(map(read_space, ("T1w", f"{NINE}:res-2", "MNI152NLin6Asym", "asl"))),
        tuple(map(read_spec, (f"Half={fmriprep / 'atlas'}", "Absent"))),
    )
    return out / "sub-01/perf", run(request, unit())


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_pose_is_found_and_written_both_ways(done):
    folder, outcome = done
    assert outcome.registration.registered
    point = np.array([10.0, -20.0, 30.0])
    expected = (MOVED @ [*point, 1])[:3]
    lps = np.array([-1.0, -1.0, 1.0])
    back = sitk.ReadTransform(str(folder / f"{TITLE}_from-T1w_to-aslref_mode-image_xfm.txt"))
    moved = np.array(back.TransformPoint((point * lps).tolist())) * lps
    assert np.linalg.norm(moved - expected) < 0.5
    there = sitk.ReadTransform(str(folder / f"{TITLE}_from-aslref_to-T1w_mode-image_xfm.txt"))
    again = np.array(there.TransformPoint((moved * lps).tolist())) * lps
    np.testing.assert_allclose(again, point, atol=1e-3)


def test_flirts_matrix_takes_its_millimetres(done):
    """By FSL's rule: voxels times their size, the first axis mirrored where it runs right."""
    folder, outcome = done
    flirt = np.loadtxt(folder / f"{TITLE}_from-aslref_to-T1w_mode-image_desc-flirt_xfm.mat")
    affine = ASL[1]
    index = np.array([12.0, 20.0, 9.0])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    asl = index * sizes  # The first axis runs to the left: no mirror.
    t1w = nib.Nifti1Image(np.zeros(load_atlas().gm.shape), MOVED @ load_atlas().affine)
    world = outcome.registration.matrix @ affine @ [*index, 1]
    voxel = (np.linalg.inv(t1w.affine) @ world)[:3]
    voxel[0] = t1w.shape[0] - 1 - voxel[0]
    np.testing.assert_allclose((flirt @ [*asl, 1])[:3], voxel * 2.0, atol=1e-4)


def test_maps_stand_in_the_spaces_that_can_be_had(done):
    folder, outcome = done
    names = {path.name for path in outcome.outputs}
    for space in ("space-T1w", f"space-{NINE}_res-2"):
        for end in ("cbf", "att", "desc-std_cbf", "desc-std_att", "desc-brain_mask"):
            assert f"{TITLE}_{space}_{end}.nii.gz" in names
            assert (folder / f"{TITLE}_{space}_{end}.json").is_file()
    # By the NIfTI standard: 2, aligned with another image; 4, MNI 152.
    for space, code in (("space-T1w", 2), (f"space-{NINE}_res-2", 4)):
        header = nib.load(folder / f"{TITLE}_{space}_cbf.nii.gz").header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (code, code)
    image = nib.load(folder / f"{TITLE}_space-{NINE}_res-2_cbf.nii.gz")
    assert image.shape == (97, 115, 97)
    # Right of the middle flow is 60, left 40, as they were made.
    for x, flow in ((20.0, 60.0), (-20.0, 40.0)):
        voxel = np.rint(np.linalg.inv(image.affine) @ [x, -20.0, 30.0, 1])[:3].astype(int)
        assert image.dataobj[tuple(voxel)] == pytest.approx(flow, abs=0.5)
    sd = nib.load(folder / f"{TITLE}_space-T1w_desc-std_cbf.nii.gz").get_fdata()
    inside = sd[sd > 0]
    assert inside.max() <= 5.01
    assert 2 < np.median(inside) < 4.5


def test_regions_have_the_values_of_their_side(done):
    folder, _ = done
    row = table(folder / f"{TITLE}_atlas-Half_cbf.tsv")[0]
    assert float(row["Left-half"]) == pytest.approx(40, abs=1)
    assert float(row["Right-half"]) == pytest.approx(60, abs=1)
    assert row["nowhere"] == "n/a"
    coverage = table(folder / f"{TITLE}_atlas-Half_coverage.tsv")[0]
    assert float(coverage["nowhere"]) == 0
    rows = {r["name"]: r for r in table(folder / f"{TITLE}_atlas-tissue_desc-fit_cbf.tsv")}
    assert float(rows["Left-GM"]["cbf_mean"]) == pytest.approx(40, abs=1)
    assert float(rows["Right-Hemisphere"]["cbf_mean"]) == pytest.approx(60, abs=1)
    assert int(rows["DeepGM"]["voxels"]) > 20


def test_what_can_not_be_had_is_one_line_each(done):
    _, outcome = done
    said = outcome.warnings
    assert all("\n" not in line for line in said)
    wanted = (
        "from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5: found tissue laid beside",
        "MNI152NLin6Asym: space: found no transform to it",
        "--atlas Absent: found nothing",
        "found labels 4 that",
    )
    for part in wanted:
        assert sum(part in line for line in said) == 1, (part, said)
    assert len(said) == len(wanted)


def test_files_of_earlier_runs_go_and_those_of_other_series_stay(done):
    folder, _ = done
    assert not (folder / f"{TITLE}_space-Old_cbf.nii.gz").exists()
    assert (folder / "sub-01_acq-xy_space-Old_cbf.nii.gz").exists()


def test_slices_and_facts_are_kept_for_the_report(done):
    folder, outcome = done
    path = views_file(folder.parents[1], ENTITIES)
    assert path in outcome.outputs
    found, facts = read_views(path)
    assert set(found) == {"registration", "template"}
    assert found["template"].about["space"] == NINE
    assert (facts["kind"], facts["t1w"]) == ("derivatives", "sub-01_desc-preproc_T1w.nii.gz")
    assert facts["registration"]["registered"]
    assert 1.04 < facts["registration"]["nmi"] < 1.6
    # The template's own head lies on the template.
    for item in found["template"].slices:
        t1w, model = item.layers["T1w"].astype(float), item.layers["template"].astype(float)
        assert np.corrcoef(t1w.ravel(), np.kron(model, np.ones((2, 2))).ravel())[0, 1] > 0.97


@pytest.mark.slow
@pytest.mark.usefixtures("laid_on_m0")
def test_the_template_on_the_m0_is_kept_too_and_old_slices_go(tmp_path):
    """Without a T1w: the lines are those of the packaged template."""
    request = Request(tmp_path, tmp_path / "out", spaces=(read_space("MNI152NLin2009aSym"),))
    outcome = run(request, unit())
    path = views_file(tmp_path / "out", ENTITIES)
    found, facts = read_views(path)
    assert set(found) == {"registration"}
    assert found["registration"].about["base"] == "template"
    assert facts["kind"] == "template"
    assert facts["registration"]["registered"], outcome.warnings
    run(Request(tmp_path, tmp_path / "out"), unit())
    assert not path.exists()


def test_a_program_is_known_by_its_dataset_description(tmp_path):
    t1w = tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz"
    assert program_of(t1w) == ""
    description = tmp_path / "dataset_description.json"
    description.write_text('{"GeneratedBy": [{"Name": "fMRIPrep", "Version": "24.1.0"}]}')
    assert program_of(t1w) == "fMRIPrep 24.1.0"
    for odd in ("", "[]", '{"GeneratedBy": []}', '{"GeneratedBy": [3]}', '{"GeneratedBy": {}}'):
        description.write_text(odd)
        assert program_of(t1w) == ""


def test_without_a_t1w_nothing_is_written_and_nothing_said(tmp_path):
    outcome = run(Request(tmp_path, tmp_path / "out"), unit())
    assert (outcome.outputs, outcome.warnings, dict(outcome.facts)) == ((), (), {})
    assert not (tmp_path / "out").exists()


@pytest.fixture
def laid_on_m0(monkeypatch):
    """Let a run find the template on the M0 where it is: looking for it takes seconds."""

    def laid(_, affine, mask):
        found = {
            key: mask * scan_map(getattr(load_atlas(), key), mask.shape, affine)
            for key in ("gm", "wm", "csf")
        }
        return tissue.Tissue(**found, matrix=np.eye(4), likeness=0.9)

    monkeypatch.setattr(tissue, "tissue_priors", laid)


@pytest.mark.usefixtures("laid_on_m0")
@pytest.mark.parametrize(
    ("entities", "begin"), [({"sub": "01"}, ""), (ENTITIES, f"{TITLE}: ")], ids=["one", "several"]
)
def test_maps_in_the_space_of_a_t1w_that_is_not_there_are_one_line(tmp_path, entities, begin):
    """Whoever shows a warning names the participant: only more than it is named here."""
    request = Request(tmp_path, tmp_path / "out", spaces=(read_space("T1w"),))
    series = replace(unit(), entities=entities)
    (line,) = run(request, series).warnings
    assert line.startswith(f"{begin}found no T1w that can be used")
    assert line.endswith("no maps in the space T1w")
    # Without an M0 neither is anything else registered.
    (line,) = run(request, replace(series, images={})).warnings
    assert line.startswith(f"{begin}no T1w, and no anatomy by the M0")


@pytest.mark.usefixtures("laid_on_m0")
def test_a_t1w_that_is_no_head_is_one_line(tmp_path):
    noise = np.random.default_rng(0).random((9, 9, 3))
    save(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", noise, np.eye(4))
    outcome = run(Request(tmp_path, tmp_path / "out"), unit())
    said = "no anatomy by the T1w: sub-01_T1w.nii.gz: found 9x9x3 voxels, expected a volume."
    assert outcome.warnings[0] == said
    assert sum("no anatomy by the T1w" in line for line in outcome.warnings) == 1
    assert not any("_space-" in path.name for path in outcome.outputs)


@pytest.mark.slow
def test_an_image_of_something_else_is_not_registered(fmriprep, tmp_path):
    series = unit()
    rng = np.random.default_rng(0)
    other = replace(series, images={"M0": 1 + rng.random(series.mask.shape)})
    request = Request(tmp_path, tmp_path, {"f": fmriprep}, (read_space("T1w"),))
    outcome = run(request, other)
    assert not outcome.registration.registered
    assert any("not registered to the T1w" in line for line in outcome.warnings)
    # The best pose is kept to be looked at, and nothing else.
    (slices,) = outcome.outputs
    found, facts = read_views(slices)
    assert set(found) == {"registration"}
    assert facts["registration"]["registered"] is False


@pytest.mark.parametrize(
    ("space", "with_forward", "back", "said", "kept"),
    [
        (NINE, True, "right", "", (True, True)),
        (
            NINE,
            True,
            "wrong",
            "mm from their place after it and f.h5, expected 3 mm or less",
            (True, False),
        ),
        (NINE, False, "right", "", (False, True)),
        (NINE, False, "wrong", "tissue laid beside that of MNI152", (False, False)),
        ("MNIInfant", True, "wrong", "neither is used", (False, False)),
        ("MNIInfant", False, "wrong", "", (False, True)),
    ],
)
def test_an_inverse_of_another_space_is_left_out(space, with_forward, back, said, kept):
    """A head that is the template's, moved: the right pair is the movement and its inverse."""
    atlas = load_atlas()
    maps = [
        np.asarray(getattr(atlas, key), np.float32) for key in ("t1w", "brain", "gm", "wm", "csf")
    ]
    maps[1] = maps[1] > 0
    t1w, *tissue = maps
    head = Head(t1w, MOVED @ atlas.affine, *tissue, {}, ())
    wrong = MOVED @ pose((0, 0, 20), (25, 0, 0))
    inverse = affine_transform(np.linalg.inv(MOVED if back == "right" else wrong))
    there = {space: affine_transform(MOVED)} if with_forward else {}
    files = {space: Path("f.h5")} if with_forward else {}
    given = Anatomy(
        head, there, {space: inverse}, files_to=files, files_from={space: Path("b.h5")}
    )
    found, _ = without_foreign(given)
    assert (space in found.to_space, space in found.from_space) == kept
    assert len(found.head.warnings) == bool(said)
    assert all(w.startswith("b.h5: found") and said in w for w in found.head.warnings)
