"""Damaged sidecars and headers: never a traceback, and never a change that nobody is told of.

A change is *silent* if what is understood of the input differs from that of the whole one, while
neither an error nor a further warning says so, and what was changed is no legal value of its
field (an account of which is in `mutations`, apart from the package). A legal other value, such
as a delay of 1.9 s for 1.8 s, is another statement and nobody's fault.
"""

import json
import random

import nibabel as nib
import numpy as np
import pytest
from fake_bids import FakeDataset, runs_of
from mutations import legal_change, legal_header, mutate_header, mutate_sidecar

from asl_bids_app.bids.images import load
from asl_bids_app.errors import InputError
from asl_bids_app.options.table import AppOptions
from asl_bids_app.workflows.plan import _plan_participant
from asl_bids_app.workflows.run_reading import choose_reading

BASES = {
    "PCASL": {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 2},
    "2D PCASL": {"slice_step": 0.04, "SliceEncodingDirection": "k"},
    "PCASL with its M0 inside": {"m0": "Included", "LabelingEfficiency": 0.8},
    "PCASL with M0 of blood": {"m0": "Estimate"},
    "PCASL without M0": {"m0": "Absent"},
    "PASL": {"scheme": "PASL"},
    "VSASL": {"scheme": "VSASL", "BackgroundSuppression": True},
}
BASES["PCASL"]["BackgroundSuppressionPulseTime"] = [0.5, 1.2]


def plan(root):
    reading = choose_reading(AppOptions(root, root, root))
    return _plan_participant("01", runs_of(root), reading)


def understood(plan):
    """All numbers and files that a quantification starts from."""
    found = []
    for unit in plan.units:
        for run in unit.runs:
            a = run.acquisition
            found += [a.scheme.value, a.volume_types, str(a.m0.path), a.m0.kind.value]
            found += [a.m0.repetition_time, a.m0.estimate, a.slice_axis]
            arrays = (a.post_labeling_delay, a.label_duration, a.slice_time)
            found += [np.round(array, 6).tolist() for array in arrays]
            found += [(name, q.value) for name, q in run.calibration.items()]
    return json.dumps(found)


def warnings_of(plan):
    return {text for unit in plan.units for run in unit.runs for text in run.warnings}


def verdict(before, after):
    """Return what a change came to: refused, told, unchanged, changed, or what is wrong."""
    for failure in after.failures:
        if failure.traceback:
            return f"traceback: {failure.traceback}"
        if "\n" in failure.message or "sub-01" not in failure.message:
            return f"no line that names the file: {failure.message}"
    if after.failures:
        return "refused"
    if warnings_of(after) - warnings_of(before):
        return "told"
    return "unchanged" if understood(after) == understood(before) else "changed"


def fuzz_sidecars(root, count, seed):
    """Damage sidecars of all bases in turn; return what was silent or wrong, and the verdicts."""
    rng = random.Random(seed)
    datasets = {}
    for name, settings in BASES.items():
        run = FakeDataset(root / name.replace(" ", "-")).add("01", **settings)
        datasets[name] = (run, plan(run.asl.parents[2]))
        assert not datasets[name][1].failures, name
    bad, verdicts = [], []
    for number in range(count):
        name = list(BASES)[number % len(BASES)]
        run, before = datasets[name]
        file = rng.choice([run.sidecar, run.sidecar, run.m0_sidecar or run.sidecar])
        whole = file.read_bytes()
        content = json.loads(whole)
        damaged, what = mutate_sidecar(content, rng)
        file.write_bytes(damaged)
        try:
            found = verdict(before, plan(run.asl.parents[2]))
        finally:
            file.write_bytes(whole)
        if found == "changed":
            after = json.loads(damaged)
            found = "legal" if legal_change(content, after) else f"silent: {what}"
        verdicts.append(found.partition(":")[0])
        if ":" in found:
            bad.append(f"{number} {name}, {file.name}, {what}: {found}")
    return bad, verdicts


def fuzz_headers(root, count, seed):
    """Damage images; return what was silent or wrong, and the verdicts."""
    rng = random.Random(seed)
    data = np.random.default_rng(0).integers(1, 1000, (6, 5, 4, 3)).astype(np.int16)
    affine = np.array([[3.0, 0.1, 0, -9], [-0.1, 3, 0, -8], [0, 0, 5, -7], [0, 0, 0, 1]])
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    whole = image.to_bytes()
    path = root / "sub-01_asl.nii"
    path.write_bytes(whole)
    before = load(path, name=path.name)
    bad, verdicts = [], []
    for number in range(count):
        damaged, what, field = mutate_header(whole, rng)
        path.write_bytes(damaged)
        try:
            after = load(path, name=path.name)
            same = after.data.shape == before.data.shape and np.array_equal(
                after.data, before.data
            )
            same = same and np.allclose(after.affine, before.affine, atol=1e-4)
            found = "unchanged" if same else f"silent: {what}"
            if not same and legal_header(damaged, field):
                found = "legal"
            if set(after.warnings) - set(before.warnings):
                found = "told"
        except InputError as error:
            one = path.name in str(error) and "\n" not in str(error)
            found = "refused" if one else f"no line that names the file: {error}"
        except Exception as error:
            found = f"traceback: {error!r}"
        verdicts.append(found.partition(":")[0])
        if ":" in found:
            bad.append(f"{number} {what}: {found}")
    return bad, verdicts


def check(bad, verdicts, kinds):
    assert not bad, "\n".join(bad)
    # All outcomes are met, or the damage would be none.
    assert set(kinds) <= set(verdicts), verdicts


def test_seventy_damaged_sidecars(tmp_path):
    check(*fuzz_sidecars(tmp_path, 70, seed=1), ("refused", "told", "unchanged"))


@pytest.mark.slow
def test_a_thousand_damaged_sidecars(tmp_path):
    check(*fuzz_sidecars(tmp_path, 1000, seed=2), ("refused", "told", "unchanged", "legal"))


def test_sixty_damaged_headers(tmp_path):
    check(*fuzz_headers(tmp_path, 60, seed=1), ("refused", "told", "unchanged"))


@pytest.mark.slow
def test_three_hundred_damaged_headers(tmp_path):
    check(*fuzz_headers(tmp_path, 300, seed=2), ("refused", "told", "unchanged"))
