"""Error bars that can't be refuted, arteries, and what is said beside the maps.

Truth is that of simulated slices whose physics is written independently (`physics`, `slices`).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import integrated, simulate
from slices import PROTOCOLS, maps, series_of

from asl_bids_app.bids.flags import FLAGS
from asl_bids_app.estimators import bars
from asl_bids_app.estimators.arteries import find_arteries, find_early_delay
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.bayes import Bayes
from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.least_squares import LeastSquares
from asl_bids_app.estimators.map_warnings import warn_of_maps
from asl_bids_app.estimators.noise import noise_level
from asl_bids_app.models.store import load_model
from asl_bids_app.observation import observe
from asl_bids_app.scheme_fields import TransitPrior
from asl_bids_app.schemes import SCHEMES, Scheme, transit_prior

EARLY = [("PCASL", w, 1.4) for w in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)]


def flat(cbf, att=1.0, shape=(2, 24, 24)):
    """Maps of one value, and a mask."""
    _, _, mask = maps(shape)
    return np.full(shape, float(cbf)), np.full(shape, float(att)), mask


def observed(series):
    return observe(series, noise_level(series))


def told(series, found):
    warnings = warn_of_maps(series, observed(series), found)
    assert all(warning.field and warning.found for warning in warnings)
    return " | ".join(warnings)


def some_maps(cbf, sd, **rest):
    cbf, sd = (torch.tensor([[values]], dtype=torch.float32) for values in (cbf, sd))
    zero = torch.zeros_like(cbf)
    flags = torch.zeros_like(cbf, dtype=torch.uint8)
    return ParameterMaps(cbf, zero, sd, zero, zero.unsqueeze(1), flags, "x", **rest)


def test_every_flag_is_in_the_words_of_the_outputs():
    assert {int(flag) for flag in Flag} == {row.value for row in FLAGS}


def test_what_flow_cant_be_is_flagged_and_its_bars_reach_what_it_can():
    """The cases of a real 2D scan of three pairs, and noise that is no fault."""
    values = [-564.0, 562.0, -169.0, -30.0, 60.0, 0.0, -5.0, 230.0, 190.0]
    sds = [300.0, 120.0, 9.0, 25.0, 10.0, 5.0, 4.0, 200.0, 2.0]
    expected = [True, True, True, False, False, False, False, True, False]
    given = some_maps(values, sds)
    found = bars.without_nonsense(given, torch.ones(1, 1, len(values), dtype=torch.bool))
    flagged = (found.flags & int(Flag.CBF_IMPLAUSIBLE)) > 0
    assert flagged[0, 0].tolist() == expected
    assert torch.equal(found.cbf, given.cbf)
    low, high = bars.CBF_RANGE
    sd = found.cbf_sd
    assert bool(((found.cbf + sd >= low) & (found.cbf - sd <= high))[flagged].all())
    assert torch.equal(sd[~flagged], given.cbf_sd[~flagged])
    assert bool((sd >= given.cbf_sd).all())
    outside = bars.without_nonsense(given, torch.zeros(1, 1, len(values), dtype=torch.bool))
    assert not bool(outside.flags.any())


def test_bars_of_flow_that_is_zero_stay_right():
    """Half of the estimates of a true 0 are negative: few are flagged, and 95 % bars hold 95 %."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 10, 4000).tolist()
    given = some_maps(values, [10.0] * 4000)
    found = bars.without_nonsense(given, torch.ones(1, 1, 4000, dtype=torch.bool))
    flagged = (found.flags & int(Flag.CBF_IMPLAUSIBLE)) > 0
    assert 0.01 < float(flagged.float().mean()) < 0.04
    held = float((found.cbf.abs() <= 1.96 * found.cbf_sd).float().mean())
    assert 0.93 < held <= 1.0


def test_each_estimator_flags_by_the_same_definition():
    cbf, att, mask = maps((2, 20, 20))
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 20)
    series.delta_m[0, :, 9:12, 9:12] *= -4
    series.delta_m[1, :, 9:12, 9:12] *= 8
    for estimator in (LeastSquares(), Bayes()):
        found = estimator.fit(series)
        high = bars.CBF_RANGE[1]
        far = (found.cbf < bars.CBF_MEANINGLESS) | (found.cbf > high)
        far &= (found.flags & int(Flag.FAILED)) == 0
        assert bool(far.any()), estimator.name
        assert bool(((found.flags & int(Flag.CBF_IMPLAUSIBLE)) > 0)[far].all())
        assert bool((found.cbf - found.cbf_sd <= high)[far].all())


# ---- the prior of ATT ----------------------------------------------------------------------


def test_every_scheme_has_a_prior_of_its_own_and_pasl_an_earlier_one():
    assert all(info.transit.mean > 0 and info.transit.sd > 0 for info in SCHEMES.values())
    assert all(info.transit.source for info in SCHEMES.values())
    assert SCHEMES[Scheme.PASL].transit.mean == pytest.approx(0.7)
    assert SCHEMES[Scheme.PCASL].transit.mean == pytest.approx(1.3)
    assert transit_prior([Scheme.VSASL, Scheme.PCASL]).mean == pytest.approx(1.3)


@pytest.mark.parametrize("flow", [60.0, 24.0])
def test_one_inversion_time_after_the_whole_bolus(flow):
    """TI 1.8 s, bolus 0.7 s, transit 0.65 s: the signal doesn't depend on ATT."""
    cbf, att, mask = flat(flow, 0.65)
    series = series_of([("PASL", 1.8, 0.7)], cbf, att, mask, 60)
    inside = series.mask
    fits = {e.name: e.fit(series) for e in (LeastSquares(), Ensemble(load_model(None)))}
    for name, found in fits.items():
        assert float(found.cbf[inside].mean()) == pytest.approx(flow, rel=0.03), name
        assert found.att_prior.mean == pytest.approx(0.7)
        assert bool(((found.flags[inside] & int(Flag.ATT_UNIDENTIFIABLE)) > 0).all())
        text = told(series, found)
        assert "ATT comes from a prior" in text
        assert "had not arrived" not in text


def test_part_of_the_bolus_had_not_arrived():
    cbf, att, mask = flat(60, 0.65)
    series = series_of([("PASL", 1.2, 0.5)], cbf, att, mask, 60)
    found = LeastSquares().fit(series)
    assert float(found.cbf[series.mask].mean()) == pytest.approx(60, rel=0.03)
    assert "part of the bolus had not arrived" in told(series, found)
    # One standard deviation later only a fifth of the bolus is there.
    assert float(found.cbf_sd[series.mask].median()) > 60


def test_no_label_by_the_priors_att_is_no_estimate_and_said():
    cbf, att, mask = flat(60, 0.4)
    series = series_of([("PASL", 0.6, 0.5)], cbf, att, mask, 60)
    found = LeastSquares().fit(series)
    assert bool((found.flags[series.mask] == int(Flag.FAILED)).all())
    assert bool(torch.isfinite(found.cbf_sd).all())
    assert float(found.cbf_sd.max()) < 100
    assert "no label has arrived by the prior's ATT" in told(series, found)


@pytest.mark.parametrize("estimator", [LeastSquares, Bayes, lambda: Ensemble(load_model(None))])
def test_one_delay_with_late_arrival_has_bars_that_hold_the_truth(estimator):
    cbf, att, mask = flat(42, 2.1)
    series = series_of([("PCASL", 1.8, 1.8)], cbf, att, mask, 60)
    found = estimator().fit(series)
    inside = series.mask
    held = (found.cbf - 42).abs()[inside] <= 1.96 * found.cbf_sd[inside]
    assert float(held.float().mean()) > 0.95
    assert "one delay cannot tell late arrival from low flow" in told(series, found)


def test_several_delays_keep_their_bars():
    observation = observed(series_of(PROTOCOLS["pcasl"], *maps((2, 16, 16)), 20))
    given = replace(some_maps([1.0], [2.0]), att_prior=TransitPrior(1.3, 0.8, "x"))
    assert bars.with_late_arrival(observation, given, given.cbf_sd) is given


def test_att_that_the_data_leave_open_is_told_with_its_share():
    """Delays after arrival by a saturating curve: all that is known of ATT is that it is early."""
    cbf, att, mask = flat(8, 1.0)
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 1)
    text = told(series, Bayes().fit(series))
    assert "ATT comes from a prior (1.30 ± 0.80 s)" in text
    assert "late arrival" not in text


# ---- means, noise --------------------------------------------------------------------------


def test_mean_flow_is_the_closed_form():
    """At the true ATT the mean by the signal is the true one, however noisy the voxels."""
    cbf, att, mask = flat(40, 1.0, (3, 32, 32))
    series = series_of([("PCASL", 1.8, 1.8)], cbf, att, mask, 0.5)
    observation = observed(series)
    mean, error = bars.mean_flow(observation, 1.0)
    response = integrated("PCASL", 1.8, 1.8, np.array(1.0))
    noise = float(observation.noise_sd[series.mask.unsqueeze(1)].mean())
    expected = noise / response / np.sqrt(mask.sum()) * bars.SHARED_NOISE
    assert error == pytest.approx(expected, rel=0.1)
    assert mean == pytest.approx(40, abs=3 * error)


def test_a_map_whose_mean_contradicts_its_data_has_wider_bars_and_a_warning():
    cbf, att, mask = flat(60, 1.0, (3, 32, 32))
    series = series_of([("PCASL", 1.8, 1.8)], cbf, att, mask, 5)
    observation = observed(series)
    right = LeastSquares().fit(series)
    assert not bars.balance(observation, right).contradicts
    shrunk = replace(
        right,
        cbf=right.cbf * 0.6,
        residual=right.residual + 0.4 * right.cbf.unsqueeze(1) * observation.response(right.att),
        estimator="ensemble",
    )
    found = bars.balance(observation, shrunk)
    assert found.contradicts
    assert found.of_data == pytest.approx(60, rel=0.05)
    wider = bars.with_offset(observation, shrunk)
    assert bool((wider.cbf_sd[series.mask] >= abs(found.offset)).all())
    assert "leans on what brains usually have" in told(series, wider)
    assert torch.equal(bars.with_offset(observation, right).cbf_sd, right.cbf_sd)


@pytest.mark.parametrize("protocol", ["single", "pcasl"])
def test_a_phantom_without_flow(protocol):
    """At least 93 % of the ensemble's 95 % bars hold zero, and the warning says so."""
    cbf, att, mask = flat(0, 1.2, (4, 32, 32))
    series = series_of(PROTOCOLS[protocol], cbf, att, mask, 3, seed=2)
    found = Ensemble(load_model(None)).fit(series)
    inside = series.mask
    held = (found.cbf.abs() <= 1.96 * found.cbf_sd)[inside]
    assert float(held.float().mean()) >= 0.93
    assert "hardly different from zero" in told(series, found)


def test_swapped_volumes_are_called_so():
    """Control and label swapped: the signal is that of a flow of -60."""
    cbf, att, mask = flat(-60, 1.2, (4, 32, 32))
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 3)
    text = told(series, Bayes().fit(series))
    assert "below zero" in text
    assert "swapped" in text
    assert "hardly" not in text


def test_flow_is_not_called_none():
    cbf, att, mask = maps((4, 32, 32))
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 3)
    assert "different from zero" not in told(series, Bayes().fit(series))


@pytest.mark.parametrize(
    ("pairs", "snr", "expected"),
    [(3, 0.3, "few repeats, noisy: 3 pairs"), (3, 40, "few repeats: 3 pairs"), (30, 0.3, "noisy")],
)
def test_few_and_noisy_repeats_are_told(pairs, snr, expected):
    cbf, att, mask = flat(60)
    series = series_of([("PCASL", 1.8, 1.8)], cbf, att, mask, snr)
    series = replace(series, repeats=torch.tensor([pairs]))
    assert expected in told(series, Bayes().fit(series))


def test_good_data_are_told_nothing():
    cbf, att, mask = maps((2, 20, 20))
    late = [("PCASL", w, 1.8) for w in (1.2, 1.6, 2.0, 2.4, 2.8, 3.2)]
    series = series_of(late, cbf + 20, 0 * att + 1.9, mask, 40)
    series = replace(series, repeats=torch.full((6,), 8))
    assert told(series, Bayes().fit(series)) == ""


# ---- arteries ------------------------------------------------------------------------------


def artery(delay, duration, volume, arrival=0.5):
    """ΔM/M0 of an artery of PCASL, written out: 2 α v / λ e^(-a / T1b) while label is there."""
    there = (delay < arrival) & (arrival < delay + duration)
    return 2 * 0.85 / 0.9 * volume * np.exp(-arrival / 1.65) * there


def test_arteries_are_found_and_tissue_is_not():
    rng = np.random.default_rng(1)
    cbf, att, mask = maps((3, 32, 32))
    series = series_of(EARLY, cbf, np.clip(att, 0.8, 1.6), mask, 10)
    volume = np.where(rng.random(mask.shape) < 0.15, rng.uniform(0.005, 0.02, mask.shape), 0)
    volume *= mask
    beside = np.stack([artery(w, d, volume) for _, w, d in EARLY], 1)
    with_them = replace(series, delta_m=series.delta_m + torch.tensor(beside).float())
    found = find_arteries(observe(with_them, torch.full((3, 6, 1, 1), 0.0007)))
    there, inside = torch.tensor(volume > 0), series.mask
    assert float(found[there].float().mean()) > 0.85
    assert float(found[inside & ~there].float().mean()) < 0.01
    assert not bool(found[~inside].any())


def test_early_delays_are_told_unless_arteries_were_crushed():
    cbf, att, mask = maps((2, 20, 20))
    series = series_of(EARLY, cbf, att, mask, 10)
    found = Bayes(arterial=False).fit(series)
    assert "label still in arteries" in told(series, found)
    assert "arteries" not in told(series, Bayes().fit(series)), "they are in the model"
    crushed = replace(series.protocol, vascular_crushing=(True,) * len(EARLY))
    assert "arteries" not in told(replace(series, protocol=crushed), found)


@pytest.mark.parametrize(
    ("protocol", "first"),
    [
        (EARLY, 0.25),
        ([("PCASL", 1.8, 1.8)], None),
        ([("PASL", 1.8, 0.7)], None),
        ([("PASL", 0.4, 0.7), ("PASL", 1.8, 0.7)], 0.4),
        ([("VSASL", 0.3, 1.4)], None),
    ],
)
def test_which_delays_are_early(protocol, first):
    cbf, att, _ = flat(60, shape=(1, 4, 4))
    found = find_early_delay(simulate(protocol, cbf, att).protocol)
    assert found is None if first is None else found == pytest.approx(first)
