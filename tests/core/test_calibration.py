"""Every constant has a value and says where it came from."""

import pickle

import pytest

from asl_bids_app.calibration import CalibrationOptions, join, resolve
from asl_bids_app.constants import Source
from asl_bids_app.errors import InputError
from asl_bids_app.schemes import Scheme

META = {"MagneticFieldStrength": 3, "BackgroundSuppression": False}


def settle(scheme=Scheme.PCASL, meta=None, **options):
    return resolve(scheme, META | (meta or {}), CalibrationOptions(**options), "sub-01_asl.json")


@pytest.mark.parametrize(
    ("scheme", "alpha"),
    [(Scheme.PCASL, 0.85), (Scheme.CASL, 0.68), (Scheme.PASL, 0.98), (Scheme.VSASL, 0.56)],
)
def test_default_efficiencies(scheme, alpha):
    calibration, _ = settle(scheme)
    assert calibration.effective_efficiency(scheme) == alpha
    assert calibration.labeling_efficiency[scheme].source is Source.DEFAULT


@pytest.mark.parametrize(
    ("tesla", "t1"), [(1.5, 1.35), (1.494, 1.35), (3, 1.65), (2.89, 1.65), (6.98, 2.087)]
)
def test_t1_of_blood_by_field_strength(tesla, t1):
    calibration, _ = settle(meta={"MagneticFieldStrength": tesla})
    assert calibration.t1_blood.value == t1
    assert calibration.t1_tissue.value == t1
    assert calibration.t1_blood.source is Source.DEFAULT


@pytest.mark.parametrize("strength", [None, "3T", True, 0.064, 4.7, 30000])
def test_unknown_field_strength_is_an_error_that_names_the_option(strength):
    with pytest.raises(InputError, match=r"MagneticFieldStrength.*--t1-blood"):
        settle(meta={"MagneticFieldStrength": strength})


def test_unknown_field_strength_with_t1_given():
    calibration, _ = settle(meta={"MagneticFieldStrength": 4.7}, t1_blood=1.9)
    assert calibration.t1_blood.value == 1.9
    assert calibration.t1_blood.source is Source.COMMAND_LINE
    assert calibration.t1_tissue_m0.source is Source.INFERRED


def test_each_suppression_pulse_costs_five_percent():
    meta = {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 4}
    calibration, warnings = settle(meta=meta)
    assert calibration.effective_efficiency(Scheme.PCASL) == pytest.approx(0.85 * 0.95**4)
    assert not warnings
    calibration, _ = settle(meta=meta, bs_efficiency=0.9)
    assert calibration.suppression[Scheme.PCASL].value == pytest.approx(0.9**4)
    assert calibration.suppression[Scheme.PCASL].source is Source.COMMAND_LINE


def test_number_of_pulses_from_their_times_or_assumed_with_a_warning():
    meta = {"BackgroundSuppression": True, "BackgroundSuppressionPulseTime": [1.8, 2.6, 3.1]}
    calibration, warnings = settle(meta=meta)
    assert calibration.suppression[Scheme.PCASL].value == pytest.approx(0.95**3)
    assert not warnings
    calibration, warnings = settle(meta={"BackgroundSuppression": True})
    assert calibration.suppression[Scheme.PCASL].value == pytest.approx(0.95**2)
    assert calibration.suppression[Scheme.PCASL].source is Source.INFERRED
    assert "BackgroundSuppressionNumberPulses" in warnings[0]


def test_a_measured_efficiency_contains_the_suppression():
    meta = {
        "BackgroundSuppression": True,
        "BackgroundSuppressionNumberPulses": 4,
        "LabelingEfficiency": 0.7,
    }
    calibration, _ = settle(meta=meta)
    assert calibration.effective_efficiency(Scheme.PCASL) == 0.7
    assert calibration.labeling_efficiency[Scheme.PCASL].source is Source.SIDECAR
    # The command line outranks it, and its number is one without suppression.
    calibration, _ = settle(meta=meta, labeling_efficiency={Scheme.PCASL: 0.8})
    assert calibration.effective_efficiency(Scheme.PCASL) == pytest.approx(0.8 * 0.95**4)
    # So does what it says of the suppression.
    calibration, _ = settle(meta=meta, bs_efficiency=0.9)
    assert calibration.effective_efficiency(Scheme.PCASL) == pytest.approx(0.7 * 0.9**4)
    assert calibration.suppression[Scheme.PCASL].source is Source.COMMAND_LINE


def test_velocity_selective_default_is_told():
    _, warnings = settle(Scheme.VSASL)
    assert "LabelingEfficiency" in warnings[0]
    assert "0.56" in warnings[0]


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"LabelingEfficiency": 85}, "LabelingEfficiency"),
        ({"LabelingEfficiency": 0}, "LabelingEfficiency"),
        ({"LabelingEfficiency": [0.85, 0.85]}, "LabelingEfficiency"),
        ({"LabelingEfficiency": "0.85"}, "LabelingEfficiency"),
        (
            {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": -1},
            "BackgroundSuppressionNumberPulses",
        ),
    ],
)
def test_values_out_of_range_are_refused(meta, field):
    with pytest.raises(InputError) as caught:
        settle(meta=meta)
    assert caught.value.field == field
    assert caught.value.file == "sub-01_asl.json"


def test_record_has_value_unit_and_source_of_everything():
    pcasl, _ = settle()
    vsasl, _ = settle(Scheme.VSASL)
    both = join(pcasl, vsasl)
    record = both.to_json()
    assert set(record) == {
        "t1_blood",
        "t1_tissue",
        "partition_coefficient",
        "labeling_efficiency[PCASL]",
        "labeling_efficiency[VSASL]",
        "suppression[PCASL]",
        "suppression[VSASL]",
        "t1_tissue_m0",
        "m0_scale",
    }
    assert all({"Value", "Units", "Source", "Note"} == set(row) for row in record.values())
    assert pickle.loads(pickle.dumps(both)) == both
    with pytest.raises(ValueError, match="PCASL"):
        join(pcasl, pcasl)


@pytest.mark.parametrize(
    ("names", "alpha", "source"),
    [
        ({"PASLType": "VSI"}, 0.56, Source.DEFAULT),
        ({"PASLType": "FT-VSI"}, 0.56, Source.DEFAULT),
        ({"PASLType": "VSS"}, 0.5, Source.DEFAULT),
        ({"PASLType": "BIR8-VSS"}, 0.5, Source.DEFAULT),
        ({"ArterialSpinLabelingType": "VSS"}, 0.5, Source.DEFAULT),
        ({"PASLType": "velocity-selective saturation"}, 0.5, Source.DEFAULT),
        ({"PASLType": "VSASL", "VelocitySelectiveType": "VSS"}, 0.5, Source.DEFAULT),
        ({"PASLType": "DRHS"}, 0.5, Source.INFERRED),
        # The second module, which cuts the bolus, saturates: it isn't the label.
        ({"PASLType": "VSI", "BolusCutOffTechnique": "VSS"}, 0.56, Source.DEFAULT),
        ({"PASLType": "VSASL", "BolusCutOffTechnique": "VSS"}, 0.56, Source.DEFAULT),
    ],
)
def test_velocity_selective_saturation_is_half_an_inversion(names, alpha, source):
    calibration, warnings = settle(Scheme.VSASL, names)
    found = calibration.labeling_efficiency[Scheme.VSASL]
    assert found.value == alpha
    assert found.source is source
    assert f"{alpha:g} assumed" in " ".join(warnings)
    assert ("saturation" in found.note) == (alpha == 0.5 or names["PASLType"] == "VSASL")


def test_a_measured_efficiency_outranks_the_modules():
    calibration, warnings = settle(Scheme.VSASL, {"PASLType": "VSS", "LabelingEfficiency": 0.45})
    assert calibration.labeling_efficiency[Scheme.VSASL].value == 0.45
    assert not warnings
