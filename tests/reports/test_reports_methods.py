"""Methods texts say what was done, with citations that exist; errors are told in plain words."""

import re

import pytest

from asl_bids_app.errors import InputError
from asl_bids_app.reports.explain import explain
from asl_bids_app.reports.methods import methods, methods_text
from asl_bids_app.reports.references import REFERENCES


def quantity(value, unit="fraction"):
    return {"Value": value, "Units": unit, "Source": "default", "Note": ""}


def run(scheme="PCASL", **changes):
    base = {
        "path": "sub-01_asl.nii.gz",
        "scheme": scheme,
        "volumes": {"m0scan": 1, "control": 48, "label": 48},
        "post_labeling_delay": [0.25, 0.5, 1.5],
        "label_duration": [1.4, 1.4, 1.4],
        "slice_time": [0.0, 1.07],
        "m0": {"kind": "Included"},
        "motion": "rigid, SimpleITK",
    }
    return base | changes


def record(*runs, estimator="ensemble", options=None, **changes):
    calibration = {
        "t1_blood": quantity(1.65, "s"),
        "t1_tissue": quantity(1.3, "s"),
        "partition_coefficient": quantity(0.9, "mL/g"),
        "labeling_efficiency[PCASL]": quantity(0.85),
        "suppression[PCASL]": quantity(0.9025),
    }
    unit = {
        "joint": len(runs) > 1,
        "estimator": estimator,
        "baseline": estimator != "least-squares",
        "model": {"Name": "posterior", "Version": "1.2", "Members": 5}
        if estimator == "ensemble"
        else None,
        "runs": list(runs),
        "calibration": calibration,
    }
    return {"version": "0.1.0", "options": options or {}, "units": [unit]} | changes


def test_the_text_has_the_numbers_of_the_data():
    text = methods_text(record(run()))
    for words in (
        "asl-bids-app 0.1.0",
        "pseudo-continuous",
        "48 control volumes and 48 label volumes",
        "0.25, 0.5 and 1.5 s",
        "label duration of 1.4 s",
        "within 1.07 s",
        "T1 of arterial blood of 1.65 s",
        "T1 of tissue of 1.3 s",
        "0.9 mL/g",
        "efficiency (PCASL) of 0.85",
        "0.9025 for background suppression",
        "ensemble of 5 convolutional neural networks (posterior 1.2)",
        "M0 volumes of the series",
        "least-squares",
    ):
        assert words in text, words
    assert "None" not in text
    assert not re.search(r"\bnan\b", text)


@pytest.mark.parametrize(
    ("kind", "words"), [("total", "differ between scanners"), ("noise", "calibration as exact")]
)
def test_the_text_tells_what_error_bars_hold(kind, words):
    told = record(run())
    [unit] = told["units"]
    unit["model"] |= {"Network": "PosteriorASLNet", "ErrorBars": kind}
    text = methods_text(told)
    assert "posterior of each voxel" in text
    assert words in text


def test_every_citation_is_in_the_list_and_nothing_else():
    for estimator in ("ensemble", "bayes", "least-squares"):
        found = methods(record(run(), run("VSASL"), estimator=estimator))
        body = " ".join(found.paragraphs)
        assert "[@" not in body
        cited = {
            part.strip()
            for group in re.findall(r"\(([^()]*?, \d{4}[^()]*?)\)", body)
            for part in group.split(";")
        }
        assert cited == {work.short for work in found.references}
        assert ("Ronneberger" in body) == (estimator == "ensemble")


def test_what_was_not_done_is_not_claimed():
    text = methods_text(
        record(
            run(m0={"kind": "Separate"}, motion="none (--no-hmc)", slice_time=[0, 0]),
            estimator="least-squares",
            options={"hmc": False, "tissue": False},
        )
    )
    assert not re.search(r"\bnot\b|Head motion", text.split("### References")[0])
    assert "SimpleITK" not in text
    assert "atlas" not in text
    assert "Slices were read out" not in text
    assert "neural" not in text
    assert "a separate M0 scan" in text


def test_the_text_tells_scanner_m0_mask_and_noise():
    told = record(
        run(
            m0={
                "kind": "Separate",
                "repetition_time": [4.1],
                "repetition_time_correction": 1.08457,
            },
            mask={"source": "made from the M0"},
            field_strength=3,
            voxel_size_mm=[3.4375, 3.4375, 5.0],
        )
    )
    [unit] = told["units"]
    unit["calibration"]["t1_tissue_m0"] = quantity(1.607, "s")
    unit["noise_method"] = {"PCASL": "neighbours"}
    text = methods_text(told)
    for words in (
        "acquired at 3 T with voxels of 3.44 x 3.44 x 5 mm",
        "its repetition time of 4.1 s",
        "T1 of tissue of 1.607 s (Wright et al., 2008): a factor of 1.085",
        "mask was made from the M0 image",
        "estimated from differences between neighbouring voxels",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"m0": {"kind": "Estimate", "value": 900.0}}, "incomplete recovery"),
        ({"m0": {"kind": "Separate", "repetition_time_correction": 1.0}}, "incomplete recovery"),
        ({"mask": {"source": "mask.nii.gz"}}, "made from the M0"),
        ({"field_strength": None}, " T "),
    ],
)
def test_what_does_not_apply_is_left_out(changes, absent):
    told = record(run(**changes))
    told["units"][0]["calibration"]["t1_tissue_m0"] = quantity(1.607, "s")
    assert absent not in methods_text(told).split("### References")[0]


def test_only_metrics_that_were_computed_are_named():
    told = record(run())
    told["units"][0]["metrics"] = {"qei": None, "residual_to_noise_gm": 1.02}
    text = methods_text(told)
    assert "Quality was judged by the agreement of residuals" in text
    assert "visual inspection" not in text
    assert "Dolui" not in text


def test_a_metric_that_could_not_be_computed_is_not_named():
    """It is NaN while the run lasts."""
    told = record(run(), estimator="least-squares")
    told["units"][0]["metrics"] = dict.fromkeys(
        ("qei", "cbf_scov_gm", "residual_to_noise_gm"), float("nan")
    )
    assert "Quality was judged" not in methods_text(told)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"WindowFWHM": 25.0, "TissueWeight": 0.7}, "mean residuals of grey and of white matter"),
        ({"WindowFWHM": 25.0, "TissueWeight": 0.0}, "mean residuals of the brain as a whole"),
        ({}, ""),
    ],
)
def test_the_correction_of_means_is_told_as_it_was_done(facts, words):
    told = record(run(), estimator="ensemble")
    told["units"][0]["tissue_consistency"] = facts
    text = methods_text(told)
    assert ("corrected in closed form" in text) == bool(facts)
    assert words in text


def test_tissue_of_a_registered_t1w_is_told():
    told = record(run())
    told["units"][0]["tissue"] = {"kind": "T1w", "fractions": "T1w", "source": "T1w, registered"}
    text = methods_text(told)
    assert "to which the series was registered rigidly before the fit" in text
    assert "ICBM 152 atlas" not in text


def test_m0_of_blood_by_fluid_is_told():
    constants = {
        "t1_fluid": quantity(4.3, "s"),
        "partition_coefficient_fluid": quantity(1.15, "mL/g"),
    }
    reference = {"voxels": 41, "constants": constants}
    text = methods_text(record(run(m0={"kind": "Included", "reference": reference})))
    assert "from the fluid of the lateral ventricles (41 voxels) with a T1 of 4.3 s" in text
    assert "1.15 mL/g" in text
    assert "lateral ventricles" not in methods_text(record(run()))


@pytest.mark.parametrize("single", [True, False])
def test_the_consensus_formula_is_named_where_it_was_used(single):
    told = record(run(), estimator="least-squares")
    name = "consensus" if single else "std"
    told["units"][0]["outputs"] = [f"sub-01/perf/sub-01_desc-{name}_cbf.nii.gz"]
    assert ("formula of the consensus" in methods_text(told)) == single
    # A record that has the keys is not read by the names of its files.
    told["units"][0]["output_keys"] = ["cbf"] if single else ["cbf", "consensus_cbf"]
    assert ("formula of the consensus" in methods_text(told)) == (not single)


def test_participants_with_another_text_are_named(tmp_path):
    from asl_bids_app.workflows.reporting import write_citation

    first, same, other = (record(run(), estimator="least-squares") for _ in range(3))
    for label, each in (("01", first), ("02", same), ("03", other)):
        each["participant"] = label
    other["units"][0]["estimator"] = "bayes"
    text = write_citation(first, tmp_path, [same, other]).read_text()
    assert "sub-01" in text
    assert "sub-03" in text
    assert "sub-02" not in text
    assert "sub-" not in write_citation(first, tmp_path, [same]).read_text()


@pytest.mark.parametrize("work", REFERENCES.values(), ids=REFERENCES)
def test_bibtex_has_every_field_of_a_reference(work):
    entry = work.bibtex()
    assert entry.startswith(f"@article{{{work.key},\n")
    assert entry.count("{") == entry.count("}")
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.M))
    assert fields["doi"] == work.doi
    assert fields["year"] == work.short[-4:]
    people = fields["author"].split(" and ")
    assert all(re.fullmatch(r"[^,]+, ([A-Z]\. ?)+|others", name) for name in people)
    assert people[0].split(",")[0] == re.split(r",| et al| and ", work.short)[0]
    assert fields["title"].strip("{}") in work.full


def test_the_bibtex_of_a_text_has_what_it_cites():
    found = methods(record(run()))
    keys = re.findall(r"@article\{(\w+),", found.bibtex())
    assert [REFERENCES[key] for key in keys] == list(found.references)


def test_schemes_are_told_apart_and_joined():
    text = methods_text(record(run(), run("VSASL", label_duration=[None] * 3)))
    assert "velocity-selective" in text
    assert "quantified together" in text
    assert "Wong et al., 2006" in text
    assert "bolus duration" not in text  # nothing cuts it
    pasl = methods_text(record(run("PASL", label_duration=[0.7])))
    assert "bolus duration of 0.7 s" in pasl


@pytest.mark.parametrize(
    "empty", [{}, {"units": []}, {"units": [{}]}, {"units": [{"runs": [{}]}]}]
)
def test_an_empty_record_still_gives_a_text(empty):
    assert "BIDS" in methods_text(empty)


def test_a_planned_run_is_told_as_its_options_say():
    planned = run()
    del planned["motion"]
    assert "Head motion was corrected" in methods_text(record(planned))
    assert (
        "motion" not in methods_text(record(planned, options={"hmc": False})).split("### Ref")[0]
    )


def test_differences_from_the_scanner_were_not_subtracted():
    text = methods_text(record(run(volumes={"m0scan": 1, "deltam": 21})))
    assert "21 ΔM volumes" in text
    assert "subtracted" not in text
    assert "subtracted pairwise" in methods_text(record(run()))


def test_decoded_runs_were_not_subtracted_pairwise():
    decoded = run(volumes={"control": 2, "label": 6}, decoding={"matrix": "Hadamard, size 4"})
    text = methods_text(record(decoded))
    assert "decoded (Hadamard, size 4)" in text
    assert "pairwise" not in text
    assert "alternation" not in text
    assert "framewise displacement" in text
    both = methods_text(record(decoded, run()))
    assert "pairwise" in both
    assert "alternation" in both


def test_equal_sessions_are_told_once():
    one = record(run())
    two = record(run())
    two["units"] *= 2
    assert methods_text(one) == methods_text(two)


@pytest.mark.parametrize("work", REFERENCES.values(), ids=REFERENCES)
def test_references_are_complete(work):
    assert re.fullmatch(r"10\.\d{4,5}/\S+", work.doi)
    year = re.search(r"\d{4}$", work.short)[0]
    assert work.full.endswith(f"{year}.")
    assert work.full.split()[0].rstrip(",") == work.short.split()[0].rstrip(",")


def test_input_errors_keep_their_cure(tmp_path):
    error = InputError("sub-01_asl.json", "PostLabelingDelay", "1800", "seconds", "divide by 1000")
    told = explain({"unit": "sub-01", "step": "input", "message": str(error)}, tmp_path)
    assert told.meaning == (
        "sub-01_asl.json: PostLabelingDelay: the program found 1800, but needs seconds."
    )
    assert told.cure == "Divide by 1000."
    assert told.where == "sub-01, reading the input"
    bare = explain({"message": str(InputError("a.json", "X", "1", "2"))}, tmp_path)
    assert "found 1" in bare.meaning
    assert "a.json" in bare.cure


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("sub-07: found no ASL run, expected sub-07/**/perf/*_asl.nii[.gz].", "No ASL image"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "ran out of memory"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "could not be written"),
        ("RuntimeError: CUDA error: invalid device", "graphics card"),
        ("nibabel.filebasedimages.ImageFileError: x", "damaged"),
        ("ZeroDivisionError: division by zero", "did not foresee"),
        ("", "did not foresee"),
    ],
)
def test_errors_have_a_meaning_and_a_cure(tmp_path, message, meaning):
    told = explain({"message": message}, tmp_path)
    assert meaning in told.meaning
    assert told.cure


def test_the_end_of_the_crash_file_is_shown(tmp_path):
    path = tmp_path / "logs" / "run" / "crash" / "crash-1.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(f"line {i}" for i in range(100)))
    told = explain({"message": "x", "step": "motion0", "crash_file": str(path)}, tmp_path)
    assert told.crash_file == "logs/run/crash/crash-1.txt"
    assert told.traceback.startswith("line 60")
    assert told.where == "head-motion correction"
    gone = explain({"message": "x", "crash_file": "/nowhere/crash.txt"}, tmp_path)
    assert gone.traceback == ""
