"""The response against numerical integration of the general kinetic model and closed forms."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from asl_bids_app.calibration import CalibrationOptions, join, resolve
from asl_bids_app.kinetics import arrived, response, tissue_response
from asl_bids_app.protocol import Protocol
from asl_bids_app.scheme_fields import Arrival
from asl_bids_app.schemes import Scheme

INF = float("inf")
TISSUE_T1 = (1.65, 1.3, 2.2)


def integrate(scheme, delay, duration, efficiency, t1_blood, t1_tissue, partition, att):
    """Integrate arrival times decay; time runs from the start of the label or its pulse."""
    seen = delay + duration if scheme in {"PCASL", "CASL"} else delay
    first = {"PCASL": att, "CASL": att, "PASL": att, "VSASL": 0.0}[scheme]
    # PCASL and PASL: the bolus passes from ATT to ATT + tau. VSASL: label already stands in
    # front of the voxel and runs in until the upstream end of it has arrived at ATT (or tau).
    last = min(att, duration) if scheme == "VSASL" else att + duration

    def arriving(t):
        age = att if scheme in {"PCASL", "CASL"} else t
        return np.exp(-age / t1_blood) * np.exp(-(seen - t) / t1_tissue)

    end = min(seen, last)
    area = quad(arriving, first, end, epsabs=1e-12)[0] if end > first else 0.0
    return 2 * efficiency / partition / 6000 * area


def one(scheme, delay, duration, att, t1_tissue, dtype=torch.float64):
    arrival = {
        "PCASL": Arrival.CONTINUOUS,
        "CASL": Arrival.CONTINUOUS,
        "PASL": Arrival.PULSED,
        "VSASL": Arrival.VELOCITY_SELECTIVE,
    }[scheme]
    values = (torch.as_tensor(v, dtype=dtype) for v in (delay, duration, 0.8))
    return tissue_response(
        torch.tensor(int(arrival)),
        *values,
        1.65,
        t1_tissue,
        0.9,
        torch.as_tensor(att, dtype=dtype),
    )


@pytest.mark.parametrize("t1_tissue", TISSUE_T1)
@pytest.mark.parametrize(
    ("scheme", "duration"),
    [("PCASL", 1.8), ("CASL", 0.4), ("PASL", 0.7), ("VSASL", 1.1), ("VSASL", 99.0)],
)
def test_equals_numerical_integration_of_the_general_kinetic_model(scheme, duration, t1_tissue):
    for delay in (0.0, 0.25, 1.0, 1.8, 3.0):
        # The joints of the curves (ATT = delay, delay + tau, tau) are among the points.
        joints = {delay, delay + duration, abs(delay - duration), duration}
        for att in sorted({0.0, 0.1, 0.7, 1.3, 2.0, 3.9} | {j for j in joints if j < 5}):
            truth = integrate(scheme, delay, duration, 0.8, 1.65, t1_tissue, 0.9, att)
            found = float(one(scheme, delay, duration, att, t1_tissue))
            assert found == pytest.approx(truth, rel=1e-6, abs=1e-12), (delay, att)


def test_consensus_closed_forms():
    """Alsop 2015 eq. 1 and 3, and the VSASL form of Wong 2006, written out by hand."""
    scale = 2 * 0.8 / 0.9 / 6000
    pcasl = scale * 1.65 * np.exp(-1.8 / 1.65) * (1 - np.exp(-1.5 / 1.65))
    assert float(one("PCASL", 1.8, 1.5, 1.0, 1.65)) == pytest.approx(pcasl, rel=1e-9)
    pasl = scale * 0.7 * np.exp(-1.8 / 1.65)
    assert float(one("PASL", 1.8, 0.7, 0.5, 1.65)) == pytest.approx(pasl, rel=1e-9)
    vsasl = scale * 0.9 * np.exp(-1.8 / 1.65)
    assert float(one("VSASL", 1.8, INF, 0.9, 1.65)) == pytest.approx(vsasl, rel=1e-9)
    assert float(one("VSASL", 0.6, INF, 0.9, 1.65)) == pytest.approx(
        scale * 0.6 * np.exp(-0.6 / 1.65), rel=1e-9
    )


def test_textbook_values_of_a_pcasl_curve():
    """Buxton's curve for ATT 1 s, tau 1.8 s, CBF 60: six values computed independently.

    In units of 1e-3 M0, lambda 0.9, alpha 0.85, T1b 1.65 s, T1t 1.65 s; the label of PLD 0.2
    is still arriving.
    """
    found = [float(one("PCASL", d, 1.8, 1.0, 1.65)) * 60 * 0.85 / 0.8 * 1e3 for d in (0.2, 1, 2.5)]
    truth = [
        2 * 0.85 / 0.9 * 0.01 * 1.65 * np.exp(-1 / 1.65) * (1 - np.exp(-1.0 / 1.65)) * 1e3,
        2 * 0.85 / 0.9 * 0.01 * 1.65 * np.exp(-1 / 1.65) * (1 - np.exp(-1.8 / 1.65)) * 1e3,
        2 * 0.85 / 0.9 * 0.01 * 1.65 * np.exp(-2.5 / 1.65) * (1 - np.exp(-1.8 / 1.65)) * 1e3,
    ]
    assert found == pytest.approx(truth, rel=1e-6)
    assert [round(v, 1) for v in found] == [7.7, 11.3, 4.5]


def test_equals_an_independent_program():
    """A table that ASLDRO made, of continuous and pulsed labelling (tests/asldro)."""
    lines = (Path(__file__).parents[1] / "asldro" / "table.csv").read_text().splitlines()
    rows = [*csv.DictReader(line for line in lines if not line.startswith("#"))]
    assert {row["label_type"] for row in rows} == {"pcasl", "pasl"}
    assert sum(float(row["delta_m"]) > 0 for row in rows) > 150
    codes = {"pcasl": Arrival.CONTINUOUS, "pasl": Arrival.PULSED}
    for row in rows:
        number = {k: float(v) for k, v in row.items() if k != "label_type"}
        flow, partition = number["perfusion_rate"], number["lambda_blood_brain"]
        # ASLDRO's tissue also loses label with the blood that leaves it.
        t1_tissue = 1 / (1 / number["t1_tissue"] + flow / 6000 / partition)
        keys = ("post_labeling_delay", "label_duration", "label_efficiency", "t1_arterial_blood")
        found = tissue_response(
            torch.tensor(int(codes[row["label_type"]])),
            *(torch.tensor(number[key], dtype=torch.float64) for key in keys),
            t1_tissue,
            partition,
            torch.tensor(number["transit_time"], dtype=torch.float64),
        )
        truth = number["delta_m"]
        assert flow * float(found) == pytest.approx(truth, rel=1e-7, abs=1e-12), row


@pytest.mark.parametrize("scheme", ["PCASL", "PASL", "VSASL"])
@pytest.mark.parametrize("t1_tissue", TISSUE_T1)
def test_gradient_by_finite_differences(scheme, t1_tissue):
    att = torch.tensor([0.31, 0.8, 1.27, 1.9, 2.6], dtype=torch.float64, requires_grad=True)
    one(scheme, 1.5, 0.9, att, t1_tissue).sum().backward()
    step = 1e-6
    with torch.no_grad():
        slope = one(scheme, 1.5, 0.9, att + step, t1_tissue)
        slope = (slope - one(scheme, 1.5, 0.9, att - step, t1_tissue)) / (2 * step)
    assert att.grad.numpy() == pytest.approx(slope.numpy(), rel=1e-5, abs=1e-12)


def test_gradients_stay_finite_with_an_uncut_bolus_and_equal_relaxation():
    att = torch.tensor([0.0, 0.5, 1.5, 4.0], requires_grad=True)
    one("VSASL", 1.5, INF, att, 1.65, torch.float32).sum().backward()
    assert torch.isfinite(att.grad).all()


@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e-5, 1e-3])
def test_smooth_through_equal_relaxation_times_in_single_precision(offset):
    rate = torch.tensor(1 / 1.65 - 1 / (1.65 + offset))
    truth = quad(lambda t: np.exp(-float(rate) * t), 0, 1.7)[0]
    assert float(arrived(rate, torch.tensor(1.7))) == pytest.approx(truth, rel=1e-6)


def test_response_of_a_protocol_has_slices_measurements_and_the_scheme_of_each():
    meta = {"MagneticFieldStrength": 3}
    pcasl, _ = resolve(Scheme.PCASL, meta, CalibrationOptions(), "a.json")
    vsasl, _ = resolve(
        Scheme.VSASL, meta | {"LabelingEfficiency": 0.5}, CalibrationOptions(), "b.json"
    )
    protocol = Protocol(
        (Scheme.PCASL, Scheme.PCASL, Scheme.VSASL),
        torch.tensor([0.0, 1.5, 1.2]),
        torch.tensor([0.9, 1.8, INF]),
        torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.4, 0.1]]),
    )
    calibration = join(pcasl, vsasl)
    maps = response(protocol, calibration, torch.full((2, 4, 5), 1.1))
    assert maps.shape == (2, 3, 4, 5)
    table = response(protocol, calibration, 1.1)
    assert table.shape == (2, 3)
    assert torch.allclose(maps[..., 2, 3], table)
    assert response(protocol, calibration, 1).shape == (2, 3)
    assert response(protocol, calibration, torch.linspace(0, 4, 9)[None]).shape == (2, 3, 9)
    expected = [
        [
            integrate("PCASL", 0.0, 0.9, 0.85, 1.65, 1.65, 0.9, 1.1),
            integrate("PCASL", 1.5, 1.8, 0.85, 1.65, 1.65, 0.9, 1.1),
            integrate("VSASL", 1.2, 99, 0.5, 1.65, 1.65, 0.9, 1.1),
        ],
        [
            integrate("PCASL", 0.4, 0.9, 0.85, 1.65, 1.65, 0.9, 1.1),
            integrate("PCASL", 1.9, 1.8, 0.85, 1.65, 1.65, 0.9, 1.1),
            integrate("VSASL", 1.3, 99, 0.5, 1.65, 1.65, 0.9, 1.1),
        ],
    ]
    assert table.numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"post_labeling_delay": torch.tensor([-0.1])}, "post_labeling_delay"),
        ({"post_labeling_delay": torch.tensor([float("nan")])}, "post_labeling_delay"),
        ({"label_duration": torch.tensor([0.0])}, "label_duration"),
        ({"label_duration": torch.tensor([INF])}, "label_duration"),
        ({"slice_time": torch.zeros(3, 2)}, "slice_time"),
        ({"schemes": ()}, "at least one"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(change, message):
    fields = {
        "schemes": (Scheme.PCASL,),
        "post_labeling_delay": torch.tensor([1.0]),
        "label_duration": torch.tensor([1.8]),
        "slice_time": torch.zeros(1, 1),
    }
    with pytest.raises(ValueError, match=message):
        Protocol(**{**fields, **change})
