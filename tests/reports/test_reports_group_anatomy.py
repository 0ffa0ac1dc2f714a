"""Regions and maps of a cohort against numbers worked out here."""

import csv
import json

import anatomy_example as anatomy
import nibabel as nib
import numpy as np
import pytest
import reports_example as example
from group_example import add, rows_of

from asl_bids_app.bids.derivatives import perf_folder
from asl_bids_app.reports.group import write_group

# Where nobody has a value, numpy's own mean and deviation say so.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SPACE = "MNI152NLin2009cAsym"
SHAPE = (7, 8, 6)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = [-7, -9, -5]


def title_of(entities):
    return "_".join(f"{key}-{value}" for key, value in entities.items())


def add_map(folder, entities, values, inside, *, affine=AFFINE, suffix="cbf", res="_res-2"):
    """A map in standard space with its mask, as a participant has them."""
    stem = perf_folder(folder, entities) / f"{title_of(entities)}_space-{SPACE}{res}"
    for end, data in ((suffix, values), ("desc-brain_mask", inside.astype(np.uint8))):
        nib.save(nib.Nifti1Image(data, affine), f"{stem}_{end}.nii.gz")
    return stem.with_name(f"{stem.name}_{suffix}.nii.gz")


def read(folder, name):
    image = nib.load(folder / name)
    return image.get_fdata(), image


def cohort(folder, number, rng, **changes):
    """Maps of several participants: values, and where each has some."""
    made = {}
    for k in range(1, number + 1):
        entities = {"sub": f"{k:02d}"}
        add(folder, entities, {"cbf_mean_gm": 50.0, "cbf_mean_brain": 40.0})
        inside = rng.random(SHAPE) < 0.8
        # Flow may be 0 inside the brain: the mask says where it is measured.
        values = np.where(rng.random(SHAPE) < 0.1, 0, rng.normal(50, 10, SHAPE)).astype(np.float32)
        add_map(
            folder, entities, np.where(inside, values, 0).astype(np.float32), inside, **changes
        )
        made[entities["sub"]] = (values.astype(float), inside)
    return made


def expected(made, leave_out=()):
    stack = np.stack([np.where(w, v, np.nan) for k, (v, w) in made.items() if k not in leave_out])
    count = np.isfinite(stack).sum(axis=0)
    return np.nanmean(stack, axis=0), np.nanstd(stack, axis=0, ddof=1), count


def check(folder, made, leave_out=(), prefix="group_"):
    begin = f"{prefix}space-{SPACE}_res-2"
    mean, sd, count = expected(made, leave_out)
    found, image = read(folder, f"{begin}_stat-mean_cbf.nii.gz")
    np.testing.assert_array_equal(read(folder, f"{begin}_stat-count_cbf.nii.gz")[0], count)
    np.testing.assert_allclose(found, np.where(count > 0, mean, 0), atol=1e-4)
    spread = read(folder, f"{begin}_stat-std_cbf.nii.gz")[0]
    np.testing.assert_allclose(spread, np.where(count > 1, sd, 0), atol=1e-4)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 4
    return json.loads((folder / f"{begin}_stat-mean_cbf.json").read_text())


def test_mean_and_deviation_are_those_of_the_files(tmp_path):
    made = cohort(tmp_path, 5, np.random.default_rng(0))
    _, page, *files = write_group(tmp_path)
    assert len(files) == 3
    sidecar = check(tmp_path, made)
    assert sidecar["Participants"] == 5
    assert sidecar["Units"] == "mL/100 g/min"
    assert sidecar["LeftOut"] == {}
    assert sidecar["Sources"] == [
        f"bids::sub-{k:02d}/perf/sub-{k:02d}_space-{SPACE}_res-2_cbf.nii.gz" for k in range(1, 6)
    ]
    assert f"CBF in {SPACE} (res-2)" in page.read_text()


def test_what_can_not_be_used_is_left_out_and_said(tmp_path):
    rng = np.random.default_rng(1)
    made = cohort(tmp_path, 7, rng)
    folder = tmp_path / "sub-02/perf"
    path = folder / f"sub-02_space-{SPACE}_res-2_cbf.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    add(tmp_path, {"sub": "03"}, {"cbf_mean_gm": 500.0})  # can't be believed
    add_map(tmp_path, {"sub": "04"}, *made["04"], affine=np.diag([3.0, 3, 3, 1]))
    mask = tmp_path / f"sub-05/perf/sub-05_space-{SPACE}_res-2_desc-brain_mask.nii.gz"
    mask.write_bytes(b"")
    table, page, *_ = write_group(tmp_path)
    sidecar = check(tmp_path, made, ("02", "03", "04", "05"))
    assert sidecar["Participants"] == 3
    assert {key: text.split(":")[0] for key, text in sidecar["LeftOut"].items()} == {
        "sub-02": "damaged",
        "sub-03": "not believed",
        "sub-04": "on another grid than most",
        "sub-05": "damaged",
    }
    status = {row["participant_id"]: row["status"] for row in rows_of(table)}
    assert [key for key, value in status.items() if value == "damaged"] == ["sub-02", "sub-05"]
    assert status["sub-03"] == "complete"
    text = page.read_text()
    assert f"{path.relative_to(tmp_path).as_posix()}: the program found" in text


def test_runs_are_averaged_first_and_sessions_stay_apart(tmp_path):
    rng = np.random.default_rng(2)
    made = {"pre": {}, "post": {}}
    for sub in ("01", "02", "03"):
        for ses, of_session in made.items():
            runs = []
            for run in ("1", "2") if sub == "01" else ("1",):
                entities = {"sub": sub, "ses": ses, "run": run}
                add(tmp_path, entities, {"cbf_mean_gm": 50.0})
                values, inside = rng.normal(50, 9, SHAPE), rng.random(SHAPE) < 0.7
                add_map(tmp_path, entities, values.astype(np.float32), inside)
                runs.append(np.where(inside, values, np.nan))
            mean = np.nanmean(runs, axis=0) if len(runs) > 1 else runs[0]
            of_session[sub] = (mean, np.isfinite(mean))
    write_group(tmp_path)
    for ses, maps in made.items():
        assert check(tmp_path, maps, prefix=f"group_ses-{ses}_")["Participants"] == 3


def test_one_participant_has_no_map_and_old_files_go(tmp_path):
    made = cohort(tmp_path, 2, np.random.default_rng(3))
    anatomy.add_regions(tmp_path, {"sub": "01"}, atlas="Old")
    write_group(tmp_path)
    assert len(list(tmp_path.glob("group_*stat-*.nii.gz"))) == 3
    assert (tmp_path / "group_atlas-Old_cbf.tsv").exists()
    for path in [*tmp_path.glob("sub-01/perf/*_space-*"), *tmp_path.glob("sub-01/perf/*Old*")]:
        path.unlink()
    assert len(made) == 2
    _, page, *files = write_group(tmp_path)
    assert files == []
    assert not [*tmp_path.glob("group_*stat-*"), *tmp_path.glob("group_atlas-*")]
    assert "Maps of the group" not in page.read_text()


def test_the_long_table_has_every_region_and_everyone_without(tmp_path):
    add(tmp_path, {"sub": "01", "ses": "a"}, {"cbf_mean_gm": 50.0})
    anatomy.add_regions(tmp_path, {"sub": "01", "ses": "a"})
    add(tmp_path, {"sub": "02"}, {"cbf_mean_gm": 50.0})
    damaged = anatomy.add_regions(tmp_path, {"sub": "02"})
    damaged.write_text(damaged.read_text().replace("coverage", "cover"))
    add(tmp_path, {"sub": "03"}, {"cbf_mean_gm": 50.0})
    unit = {
        "entities": {"sub": "03"},
        "warnings": [],
        "plausibility": [],
        "anatomy": {"registration": {"registered": False}},
    }
    example.write_record(tmp_path, "03", [unit])
    add(tmp_path, {"sub": "04"}, {"cbf_mean_gm": 50.0})
    example.write_record(tmp_path, "05", status="failed", errors=[{"message": "x"}])
    table, page, *files = write_group(tmp_path)
    assert [path.name for path in files] == [
        "group_atlas-tissue_cbf.tsv",
        "group_atlas-tissue_att.tsv",
    ]
    flow, time = (rows_of(path) for path in files)
    assert [(row["participant_id"], row["status"]) for row in flow] == [
        *[("sub-01", "complete")] * 4,
        ("sub-02", "damaged"),
        ("sub-03", "not registered"),
        ("sub-04", "missing"),
        ("sub-05", "failed"),
    ]
    assert [row["region"] for row in flow[:4]] == [row[0] for row in anatomy.USUAL]
    assert [row["hemisphere"] for row in flow[:4]] == ["n/a", "L", "R", "n/a"]
    grey, lost = flow[0], flow[3]
    assert grey["session_id"] == "ses-a"
    assert (float(grey["cbf_fit"]), float(grey["cbf_se_noise"])) == (55.0, 1.0)
    assert float(grey["cbf_se"]) == pytest.approx(np.sqrt(1 + 0.25 + 4.4**2), rel=1e-5)
    assert (lost["cbf_fit"], float(lost["coverage"])) == ("n/a", 0.3)
    assert float(time[0]["att_fit"]) == 1.25
    assert not any(key.startswith("att") for key in flow[0])
    assert not any(key.startswith("cbf") for key in time[0])
    for path, rows in zip(files, (flow, time), strict=True):
        entries = json.loads(path.with_suffix(".json").read_text())
        assert set(entries) == set(rows[0])
        assert all(entry["Description"] for entry in entries.values())
    status = {row["participant_id"]: row["status"] for row in rows_of(table)}
    assert status["sub-02"] == "damaged"
    assert status["sub-04"] == "complete"
    assert "Not registered to their T1w or the template" in page.read_text()


@pytest.mark.parametrize("participants", [2, 4, 12])
def test_the_page_has_the_numbers_of_the_tables(tmp_path, participants):
    for k in range(participants):
        entities = {"sub": f"{k:02d}"}
        add(tmp_path, entities, {"cbf_mean_gm": 50.0, "registration_dice": 0.9})
        rows = [
            (name, coverage, cbf * (3 if k == 11 else 1 + 0.01 * (k % 5)), *rest)
            for name, coverage, cbf, *rest in anatomy.USUAL
        ]
        anatomy.add_regions(tmp_path, entities, rows)
    text = write_group(tmp_path)[1].read_text()
    # The registration is there as other metrics are.
    assert "Overlap of the brains, ASL and T1w" in text
    if participants < 4:
        assert "55.0 ± 8.9" in text
        assert '<td class="number na"' in text
        assert "region-data" not in text
        return
    start = text.index('id="region-data">') + len('id="region-data">')
    (atlas,) = json.loads(text[start : text.index("</script>", start)])
    flow = atlas["quantities"]["cbf"]
    assert [region["side"] for region in atlas["regions"]] == ["", "L", "R", ""]
    assert flow["values"][0][:2] == [55.0, 55.55]
    assert flow["values"][3] == [None] * participants
    assert flow["outliers"] == ([[k, 11] for k in range(3)] if participants == 12 else [])


def test_a_table_with_another_order_of_regions_is_laid_by_name(tmp_path):
    for k in range(4):
        add(tmp_path, {"sub": f"{k:02d}"}, {"cbf_mean_gm": 50.0})
        rows = anatomy.USUAL[:3] if k else anatomy.USUAL[2::-1]
        anatomy.add_regions(tmp_path, {"sub": f"{k:02d}"}, rows)
    _, page, flow, _ = write_group(tmp_path)
    with flow.open() as stream:
        first = next(csv.DictReader(stream, delimiter="\t"))
    assert first["region"] == "Right-Thalamus"
    text = page.read_text()
    start = text.index('id="region-data">') + len('id="region-data">')
    (atlas,) = json.loads(text[start : text.index("</script>", start)])
    names = [region["name"] for region in atlas["regions"]]
    values = dict(zip(names, atlas["quantities"]["cbf"]["values"], strict=True))
    assert values["GM"] == [55.0] * 4
    assert values["Left-Thalamus"] == [60.0] * 4


def test_columns_that_not_every_table_has_are_kept(tmp_path):
    """Such as those of partial volume correction: with what their own JSON file says of them."""
    for k in range(4):
        entities = {"sub": f"{k:02d}"}
        add(tmp_path, entities, {"cbf_mean_gm": 50.0})
        path = anatomy.add_regions(tmp_path, entities)
        if k != 1:
            lines = path.read_text().splitlines()
            more = ["gm_cbf_fit\tgm_cbf_se\tnote", *[f"{70 + k}\t2\tany text"] * 3, "n/a\tn/a\tx"]
            path.write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines, more, strict=True)))
            about = {"gm_cbf_fit": {"Description": "Of grey matter", "Units": "mL/100 g/min"}}
            path.with_suffix(".json").write_text(json.dumps(about))
    _, page, flow, time = write_group(tmp_path)
    rows = rows_of(flow)
    assert [row["gm_cbf_fit"] for row in rows[:5]] == ["70", "70", "70", "n/a", "n/a"]
    assert "note" not in rows[0]
    assert "gm_cbf_fit" not in rows_of(time)[0]
    entries = json.loads(flow.with_suffix(".json").read_text())
    assert entries["gm_cbf_fit"]["Description"] == "Of grey matter"
    text = page.read_text()
    start = text.index('id="region-data">') + len('id="region-data">')
    (atlas,) = json.loads(text[start : text.index("</script>", start)])
    assert atlas["quantities"]["gm_cbf"]["values"][0] == [70, None, 72, 73]


def test_flow_of_a_tissue_counts_where_there_is_some(tmp_path):
    rng = np.random.default_rng(5)
    maps = []
    for k in range(3):
        entities = {"sub": f"{k:02d}"}
        add(tmp_path, entities, {"cbf_mean_gm": 50.0})
        flow = np.where(rng.random(SHAPE) < 0.6, rng.normal(60, 5, SHAPE), 0).astype(np.float32)
        add_map(tmp_path, entities, flow, np.ones(SHAPE, bool), suffix="desc-gm_cbf")
        maps.append(np.where(flow != 0, flow, np.nan))
    write_group(tmp_path)
    found, _ = read(tmp_path, f"group_space-{SPACE}_res-2_stat-mean_desc-gm_cbf.nii.gz")
    np.testing.assert_allclose(found, np.nan_to_num(np.nanmean(maps, axis=0)), atol=1e-4)
