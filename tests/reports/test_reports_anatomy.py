"""The anatomy in a participant's report: lines where tissue is, intervals where values are."""

import re
from dataclasses import replace

import anatomy_example as anatomy
import numpy as np
import pytest
import reports_example as example

from asl_bids_app.quality.definitions import METRICS
from asl_bids_app.quality.metric import Light
from asl_bids_app.quality.registration_metrics import registration_metrics
from asl_bids_app.reports import slices
from asl_bids_app.reports.methods import methods_text
from asl_bids_app.reports.participant import write_participant_report
from asl_bids_app.reports.region_figure import draw_regions
from asl_bids_app.reports.region_tables import read_region_table

ENTITIES = {"sub": "01"}


def points(line):
    """Points of a path in mm of the slice, from its left upper corner."""
    found = []
    for part in filter(None, line["path"].split("M")):
        start, steps = part.split("l")
        numbers = np.array(re.findall(r"-?\d+", steps), float).reshape(-1, 2)
        found.append(np.cumsum(np.vstack([np.array(start.split(), float), numbers]), axis=0))
    return np.vstack(found) * [float(line["across"]), float(line["down"])]


def test_lines_lie_at_the_boundary_of_the_tissue():
    middle, radius = (40.0, 90.0), 25.0
    view = anatomy.views_of("T1w", ("M0",), middle, radius)
    for drawn in slices.draw_base(view):
        width, height = anatomy.SIZE_MM
        assert (drawn["width"], drawn["height"]) == (width, height)
        for line, r in zip(drawn["lines"], (radius, 2 * radius), strict=True):
            # A picture's rows run down, those of a slice up.
            place = points(line)
            place = place[place[:, 0] > 1] - [middle[0], height - middle[1]]  # cut at the left
            np.testing.assert_allclose(np.linalg.norm(place, axis=1), r, atol=0.6)


def test_intervals_lie_where_the_numbers_are(tmp_path):
    path = anatomy.add_regions(tmp_path, ENTITIES)
    drawn = draw_regions(read_region_table(path, "tissue", tmp_path))
    axis = drawn["axes"]["cbf"]

    def value(percent):
        return axis["low"] + percent / 100 * (axis["high"] - axis["low"])

    names = [row["name"] for row in drawn["rows"]]
    assert names == ["GM", "Thalamus", "Cerebellum"]
    grey, thalamus, lost = drawn["rows"]
    mark = grey["members"][0]["cbf"]
    inner, outer = 1.96 * np.hypot(1.0, 0.5), 1.96 * np.sqrt(1 + 0.25 + 4.4**2)
    assert value(mark["at"]) == pytest.approx(55, abs=0.05)
    for key, half in (("inner", inner), ("outer", outer)):
        assert value(mark[f"{key}_from"]) == pytest.approx(55 - half, abs=0.05)
        width = mark[f"{key}_width"] / 100 * (axis["high"] - axis["low"])
        assert width == pytest.approx(2 * half, abs=0.05)
    assert grey["members"][0]["cbf_text"] == f"55.0 ± {outer:.1f}"
    assert [member["side"] for member in thalamus["members"]] == ["L", "R"]
    # 200 (60 - 40) / 100 = 40 %, far beyond its error by noise.
    assert thalamus["asymmetry"] == pytest.approx(40)
    assert thalamus["beyond"]
    assert lost["absent"]
    assert lost["members"][0]["cbf"] is None
    assert lost["members"][0]["coverage"] == "30 %"
    assert drawn["absent"] == 1


def test_flows_of_one_tissue_have_a_figure_of_their_own(tmp_path):
    path = anatomy.add_regions(tmp_path, ENTITIES)
    table = read_region_table(path, "tissue", tmp_path)
    assert table.of_tissue("gm", "grey matter") is None
    more = {"gm_cbf_fit": np.array([70.0, 71, 72, np.nan]), "gm_cbf_se": np.array([2.0] * 4)}
    table = replace(table, columns={**table.columns, **more})
    assert table.of_tissue("wm", "white matter") is None
    drawn = draw_regions(table.of_tissue("gm", "grey matter"))
    assert drawn["atlas"] == "tissue, grey matter alone"
    assert drawn["rows"][0]["members"][0]["cbf_text"] == "70.0 ± 3.9"
    assert not drawn["timed"]


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    """A participant whose anatomy ran, and one without."""
    folder = tmp_path_factory.mktemp("out")
    brain = example.Brain(step=6)
    unit = example.write_series(folder, ENTITIES, brain=brain)
    unit["anatomy"] = anatomy.FACTS
    example.write_record(folder, "01", [unit])
    anatomy.add_views(folder, ENTITIES)
    anatomy.add_regions(folder, ENTITIES)
    example.write_record(folder, "02", [example.write_series(folder, {"sub": "02"}, brain=brain)])
    return folder


def report(folder, label):
    return write_participant_report(folder, label).read_text()


def test_a_report_without_anatomy_has_no_such_section(derivatives, without_pictures):
    text = report(derivatives, "02")
    assert "-anatomy" not in text
    assert "T1-weighted" not in text


def test_the_section_has_views_regions_and_a_methods_text(derivatives, without_pictures):
    text = report(derivatives, "01")
    for words in (
        '<h3 id="sub-01-anatomy">Anatomy</h3>',
        "ASL on the T1w",
        "T1w and CBF in MNI152NLin2009aSym",
        "sagittal 5",
        "tissue: 4 regions, 1 without a value",
        "boundary-based registration (Greve and Fischl, 2009)",
    ):
        assert words in text
    assert text.count('<figure class="blend"') == 4
    assert text.count("<tr class=absent") == 1
    # Lines and the T1w stand in the page once, and are used again by the second figure.
    assert text.count('<image id="sub-01-pose-b') == 2
    assert text.count('<use href="#sub-01-pose-b') == 2
    assert "can't be" not in text


def test_not_registered_is_said_with_the_reason_and_what_to_do(derivatives, without_pictures):
    reason = "the brains of M0 and of the T1w overlap by 0.61 (Dice), expected 0.8 or more"
    pose = anatomy.FACTS["registration"] | {"registered": False, "reason": reason, "dice": 0.61}
    facts = {**anatomy.FACTS, "registration": pose}
    unit = example.write_series(derivatives, {"sub": "03"}, brain=example.Brain(step=6))
    unit["anatomy"] = facts
    example.write_record(derivatives, "03", [unit])
    anatomy.add_views(derivatives, {"sub": "03"}, facts)
    text = report(derivatives, "03")
    start = text.index("<b>Not registered to the T1w.</b>")
    box = text[start : text.index("</div>", start)]
    assert "overlap by 0.61 (Dice)" in box
    assert "What to do:" in box
    # The best pose is there to be looked at; nothing rests on the template.
    assert "ASL on the T1w" in text
    assert "T1w and CBF in" not in text
    assert "was rejected" in text


@pytest.mark.parametrize("what", ["slices", "regions", "both"])
def test_a_damaged_file_is_a_line_and_the_rest_stands(what, tmp_path, without_pictures):
    unit = example.write_series(tmp_path, ENTITIES, brain=example.Brain(step=6))
    unit["anatomy"] = anatomy.FACTS
    example.write_record(tmp_path, "01", [unit])
    kept = anatomy.add_views(tmp_path, ENTITIES)
    table = anatomy.add_regions(tmp_path, ENTITIES)
    if what != "regions":
        kept.write_bytes(kept.read_bytes()[:500])
    if what != "slices":
        table.write_text(table.read_text().replace("55", "much"))
    text = report(tmp_path, "01")
    assert ("slices.npz: can&#39;t be read" in text) == (what != "regions")
    assert ("column" in text and "&#39;much&#39;" in text) == (what != "slices")
    assert ("ASL on the T1w" in text) == (what == "regions")
    assert ("tissue: 4 regions" in text) == (what == "slices")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no column name"),
        ("name\tcoverage\tcbf_mean\n", "no region"),
        ("name\tcoverage\tname\tcbf_mean\nGM\t1\tGM\t2\n", "a column twice"),
        ("name\tcoverage\tcbf_mean\nGM\t1\n", "2 cells in line 2, 3 columns"),
        ("name\tcoverage\tcbf_mean\nGM\t1\tinf\n", "'inf' in column cbf_mean"),
        ("name\tcoverage\tcbf_mean\tnew\nGM\t1\tn/a\tany text\n", ""),
    ],
)
def test_tables_that_can_not_be_used_are_one_line(text, found, tmp_path):
    path = tmp_path / "sub-01_atlas-x_desc-fit_cbf.tsv"
    path.write_text(text)
    read = read_region_table(path, "x", tmp_path)
    if found:
        assert read.found == found
        assert "\n" not in read
    else:
        assert read.names == ("GM",)


def test_metrics_of_a_registration_and_their_lights():
    found = registration_metrics(anatomy.FACTS)
    assert found["registration_dice"] == 0.95
    assert found["template_dice"] == 0.79  # the lesser of grey and white matter
    assert set(found) < {key for key, metric in METRICS.items() if metric.anatomy}
    lights = {key: METRICS[key].light(value) for key, value in found.items()}
    assert set(lights.values()) == {Light.GOOD, Light.NONE}
    bad = {"dice": 0.61, "score": 0.01, "nmi": 1.01, "boundary_contrast": 0.0}
    found = registration_metrics({"registration": bad})
    assert {METRICS[key].light(value) for key, value in found.items()} == {Light.POOR}
    given = registration_metrics({"template_dice": {"MNI152NLin6Asym": 0.2, "Other": 0.75}})
    assert given == {"template_dice": 0.75}
    assert registration_metrics({}) == {}


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        (
            {},
            ("(N4) (Tustison", "demons (Vercauteren", "its M0 image"),
            ("derivatives", "want of"),
        ),
        (
            {"kind": "derivatives", "program": "fMRIPrep 24.1.0"},
            ("derivatives of fMRIPrep 24.1.0 (Esteban et al., 2019)",),
            ("N4", "demons"),
        ),
        ({"kind": "template"}, ("For want of a T1-weighted image",), ("rigidly", "N4")),
        ({"normalisation": {"kind": "affine"}}, ("by an affine transform.",), ("demons",)),
        ({"spaces": [], "atlases": []}, (), ("resampled", "regions")),
        ({"registration": 5, "spaces": "x", "atlases": [3]}, ("N4",), ("rigidly", "regions (")),
    ],
)
def test_the_methods_text_has_the_steps_that_ran(changes, there, absent):
    unit = {"estimator": "bayes", "anatomy": anatomy.FACTS | changes}
    text = methods_text({"version": "1", "units": [unit]})
    part = text[text.index("T1-weighted image") - 30 :].split("### References")[0]
    for words in there:
        assert words in part
    for words in absent:
        assert words not in part
