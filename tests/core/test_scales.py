"""Scale factors that sidecars tell: undone and told, or told; never used unseen."""

import numpy as np
import pytest
from fake_bids import FakeDataset, runs_of

from asl_bids_app.bids.sidecar import InputOptions, understand
from asl_bids_app.calibration import CalibrationOptions, resolve
from asl_bids_app.constants import Source
from asl_bids_app.schemes import Scheme

SMALL = {"shape": (3, 3, 3), "repeats": 1}
ASL = {"RescaleSlope": 1.5, "ScaleSlope": 0.01}
M0S = {"RescaleSlope": 3.0, "ScaleSlope": 0.004}
DISPLAY = {"UsePhilipsFloatNotDisplayScaling": 0}
FLOAT = {"UsePhilipsFloatNotDisplayScaling": 1}


def philips(keys):
    """As dcm2niix names them."""
    return {f"Philips{key}": value for key, value in keys.items()}


@pytest.fixture
def scaled(tmp_path):
    def build(asl, m0, **options):
        run = FakeDataset(tmp_path).add("01", **SMALL, Manufacturer="Philips")
        run.edit(**asl).edit_m0(Manufacturer="Philips", **m0)
        got = understand(runs_of(tmp_path)[0])
        calibration, _ = resolve(
            got.scheme, got.metadata, CalibrationOptions(**options), got.sidecar, got.m0.factor
        )
        return got.warnings, calibration.m0_scale

    return build


@pytest.mark.parametrize(
    ("asl", "m0", "ratio"),
    [
        # FP = DV / (RescaleSlope * ScaleSlope): M0 in ASL's display units is M0 * .012 / .015.
        (DISPLAY | ASL, DISPLAY | M0S, 0.015 / 0.012),
        (DISPLAY | philips(ASL), DISPLAY | philips(M0S), 0.015 / 0.012),
        (DISPLAY | ASL, DISPLAY | {"RescaleSlope": 3.0, "MRScaleSlope": 0.004}, 1.25),
        (FLOAT | ASL, DISPLAY | M0S, 1 / 0.012),
        (DISPLAY | ASL, FLOAT | M0S, 0.015),
        (DISPLAY | {"RescaleSlope": [1.5, 1.5], "ScaleSlope": 0.01}, DISPLAY | M0S, 1.25),
    ],
)
def test_display_scaling_is_undone_and_told(scaled, asl, m0, ratio):
    (warning,), scale = scaled(asl, m0)
    assert scale.value == pytest.approx(ratio)
    assert scale.source is Source.INFERRED
    assert "display scaling undone" in scale.note
    assert f"M0 times {ratio:.6g}" in warning
    for side in (asl, m0):
        if side["UsePhilipsFloatNotDisplayScaling"] == 0:
            factors = [value for key, value in side.items() if key.endswith("Slope")]
            assert all(f"Slope {np.ravel(value)[0]:g}" in warning for value in factors)


def test_undoing_restores_the_true_ratio(tmp_path):
    """Numbers built from stored integers: M0's comparable number over ASL's."""
    comparable = {"asl": 700.0, "m0": 1000.0}
    shown = {
        k: comparable[k] * s["RescaleSlope"] * s["ScaleSlope"]
        for k, s in (("asl", ASL), ("m0", M0S))
    }
    run = FakeDataset(tmp_path).add("01", **SMALL)
    run.edit(**DISPLAY, **ASL).edit_m0(**DISPLAY, **M0S)
    factor = understand(runs_of(tmp_path)[0]).m0.factor.value
    assert shown["m0"] * factor / shown["asl"] == pytest.approx(1000 / 700)


def test_the_command_line_outranks_the_sidecars(scaled):
    warnings, scale = scaled(DISPLAY | ASL, DISPLAY | M0S, m0_scale=2.0)
    assert (scale.value, scale.source) == (2.0, Source.COMMAND_LINE)
    assert "unless --m0-scale is given" in warnings[0]


@pytest.mark.parametrize(
    ("asl", "m0", "words"),
    [
        (ASL, M0S, ["--m0-scale 1.25", "RescaleSlope 1.5", "0.004", "not done"]),
        (DISPLAY | ASL, {}, ["unknown scaling", "ScaleSlope 0.01", "may differ in scale"]),
        ({}, DISPLAY | M0S, ["ScaleSlope 0.004", "may differ in scale"]),
        (DISPLAY | ASL, DISPLAY | {"RescaleSlope": 3.0}, ["may differ in scale"]),
        ({"RescaleSlope": 1.5}, {"RescaleSlope": 3.0}, ["1.5", "3", "may differ in scale"]),
        (ASL | {"UsePhilipsFloatNotDisplayScaling": "no"}, M0S, ["--m0-scale 1.25"]),
    ],
)
def test_what_sidecars_leave_open_is_told_and_not_undone(scaled, asl, m0, words):
    warnings, scale = scaled(asl, m0)
    assert scale.value == 1
    assert all(word in warnings[-1] for word in words)


@pytest.mark.parametrize(
    ("asl", "m0"),
    [
        (DISPLAY | ASL, DISPLAY | ASL),
        (DISPLAY | ASL, DISPLAY | {"RescaleSlope": 3.0, "ScaleSlope": 0.005}),
        (FLOAT | ASL, FLOAT | M0S),
        ({}, {}),
        ({"RescaleSlope": 2.0}, {"RescaleSlope": 2.0}),
    ],
)
def test_equal_scales_are_not_told(scaled, asl, m0):
    warnings, scale = scaled(asl, m0)
    assert warnings == ()
    assert scale.value == 1


@pytest.mark.parametrize("maker", ["SIEMENS", "Siemens Healthineers", "GE MEDICAL SYSTEMS"])
def test_the_rescale_slope_of_other_makers_is_the_converters(tmp_path, maker):
    run = FakeDataset(tmp_path).add("01", **SMALL, Manufacturer=maker)
    run.edit(RescaleSlope=1.5).edit_m0(RescaleSlope=3.0)
    assert understand(runs_of(tmp_path)[0]).warnings == ()


GE = ["GE", "GE MEDICAL SYSTEMS", "GE Healthcare", "General Electric", "ge_medical_systems"]


@pytest.mark.parametrize("maker", GE)
def test_ges_differences_name_their_factor(tmp_path, maker):
    run = FakeDataset(tmp_path).add("01", order=("deltam",), delays=(2.0,), **SMALL)
    run.edit(Manufacturer=maker, TotalAcquiredPairs=3)
    runs = runs_of(tmp_path)
    (warning,) = understand(runs[0]).warnings
    assert "32 x NEX" in warning
    assert "--m0-scale 96" in warning
    assert understand(runs[0], InputOptions(m0_scale=96.0)).warnings == ()


def test_ges_factor_of_several_differences_is_left_to_the_user(tmp_path):
    run = FakeDataset(tmp_path).add("01", order=("deltam",), **SMALL)
    run.edit(Manufacturer="GE", TotalAcquiredPairs=3)
    (warning,) = understand(runs_of(tmp_path)[0]).warnings
    assert "--m0-scale 32*NEX" in warning


@pytest.mark.parametrize(
    ("maker", "order"), [("Siemens", ("deltam",)), ("GE", ("control", "label")), ("Geneva", ())]
)
def test_others_have_no_such_factor(tmp_path, maker, order):
    FakeDataset(tmp_path).add("01", order=order or ("deltam",), Manufacturer=maker, **SMALL)
    assert understand(runs_of(tmp_path)[0]).warnings == ()


META = {"MagneticFieldStrength": 3, "BackgroundSuppression": True, "LabelingEfficiency": 0.88}


@pytest.mark.parametrize("pulses", [2, None])
def test_an_efficiency_beside_suppression_is_told(pulses):
    meta = META | ({"BackgroundSuppressionNumberPulses": 2} if pulses else {})
    calibration, (warning,) = resolve(Scheme.PCASL, meta, CalibrationOptions(), "a.json")
    assert calibration.effective_efficiency(Scheme.PCASL) == pytest.approx(0.88)
    assert "--bs-efficiency 0.95" in warning
    assert "0.7942" in warning
    assert "11% higher" in warning


@pytest.mark.parametrize(
    ("meta", "each", "effective"),
    [
        ({"BackgroundSuppressionNumberPulses": 2}, 0.95, 0.88 * 0.95**2),
        ({"BackgroundSuppressionNumberPulses": 2}, 1.0, 0.88),
        ({"BackgroundSuppressionNumberPulses": 0}, None, 0.88),
        ({"BackgroundSuppression": False}, None, 0.88),
    ],
)
def test_an_efficiency_that_is_clear_is_not_told(meta, each, effective):
    options = CalibrationOptions(bs_efficiency=each)
    calibration, warnings = resolve(Scheme.PCASL, META | meta, options, "a.json")
    assert calibration.effective_efficiency(Scheme.PCASL) == pytest.approx(effective)
    assert warnings == []


def test_m0_is_not_needed_for_these(tmp_path):
    """An M0 of the series has the scale of the series."""
    run = FakeDataset(tmp_path).add("01", m0="Included", Manufacturer="Philips", **SMALL)
    run.edit(**DISPLAY, **ASL)
    got = understand(runs_of(tmp_path)[0])
    assert got.m0.factor is None
    assert got.warnings == ()
