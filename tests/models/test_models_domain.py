"""Which data lie outside a model's training domain: shares, limits with their slack, channels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from slices import PROTOCOLS, maps, series_of

from asl_bids_app.errors import InputError
from asl_bids_app.models.domain import channel_order, domain_warnings, share_outside
from asl_bids_app.models.spec import Channel, ModelSpec, SchemeDomain, TrainingDomain
from asl_bids_app.series import NoiseEstimate

INF = math.inf
SIX = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
PCASL = SchemeDomain((1, 12), (0.2, 3.5), (0.8, 4.0), (0.6, 0.95))
DOMAIN = TrainingDomain(
    schemes={"PCASL": PCASL},
    combinations=(("PCASL",),),
    t1_blood=(1.55, 2.15),
    t1_tissue=(1.2, 2.15),
    partition_coefficient=(0.85, 0.95),
    snr=(2.0, 20.0),
    reference_signal=0.008,
)


def spec(domain=DOMAIN, channels=()):
    return ModelSpec("tiny", "1", "PosteriorASLNet", {}, domain, channels)


@pytest.fixture(scope="module")
def series():
    return series_of(PROTOCOLS["pcasl"], *maps((2, 16, 16)), 10)


def with_snr(series, snr):
    """Give every voxel a signal-to-noise ratio of its own; (S, H, W) or a number."""
    sd = 0.008 / torch.as_tensor(np.broadcast_to(snr, series.mask.shape).copy())
    level = sd.float().unsqueeze(1).expand_as(series.delta_m)
    return replace(series, noise=NoiseEstimate(level, {}))


def test_share_outside_counts_the_brains_voxels(series):
    """The slack is a quarter: 1.6 to 25 are inside."""
    inside = series.mask.numpy()
    rng = np.random.default_rng(0)
    snr = rng.choice([1.5, 1.7, 10.0, 24.0, 26.0], inside.shape)
    snr[~inside] = 0.1
    series = with_snr(series, snr)
    expected = np.isin(snr[inside], (1.5, 26.0)).mean()
    assert 0.3 < expected < 0.5
    assert share_outside(spec(), series) == pytest.approx(expected)


def test_share_outside_pools_the_variances_of_a_voxel(series):
    level = torch.full_like(series.delta_m, 0.008 / 10)
    level[:, 0] = 0.008 / 1.0  # mean variance: (1 + 5 / 100) / 6, so a ratio of 2.39
    series = replace(series, noise=NoiseEstimate(level, {}))
    assert share_outside(spec(), series) == 0
    assert share_outside(spec(replace(DOMAIN, snr=(2.9, 20))), series) == 0
    assert share_outside(spec(replace(DOMAIN, snr=(3.1, 20))), series) == 1


@pytest.mark.parametrize(
    "domain",
    [
        replace(DOMAIN, t1_blood=(1.8, 2.0)),
        replace(DOMAIN, schemes={"PCASL": replace(PCASL, delay=(1.0, 3.5))}),
        replace(DOMAIN, schemes={}),
    ],
)
def test_all_is_outside_where_protocol_or_physics_are(series, domain):
    series = with_snr(series, 10)
    assert share_outside(spec(), series) == 0
    assert share_outside(spec(domain), series) == 1


def test_without_a_domain_or_a_brain_nothing_is_known(series):
    assert share_outside(spec(domain=None), series) is None
    empty = replace(series, mask=torch.zeros_like(series.mask))
    assert share_outside(spec(), empty) is None
    assert domain_warnings(spec(), empty) == ()


@pytest.mark.parametrize(
    ("snr", "told"), [(1.5, "about 1.5"), (1.7, ""), (24, ""), (26, "about 26")]
)
def test_noise_is_told_beyond_a_slack(series, snr, told):
    series = with_snr(series, snr)
    found = domain_warnings(spec(), series)
    if not told:
        assert found == ()
        return
    assert found == (
        f"outside the training domain of model tiny: signal-to-noise ratio {told}, "
        "trained with 2 to 20",
    )


def test_noise_is_that_of_the_middle_voxel(series):
    snr = np.full(series.mask.shape, 10.0)
    few = np.argwhere(series.mask.numpy())[: int(0.45 * series.mask.sum())]
    snr[tuple(few.T)] = 0.01
    series = with_snr(series, snr)
    assert domain_warnings(spec(), series) == ()


@pytest.mark.parametrize(
    ("limits", "inside"),
    [
        # A hundredth and a millisecond beside: 2.97 + 0.0307, 2.96 + 0.0306.
        ((0.2, 2.97), True),
        ((0.2, 2.96), False),
        ((0.505, 3.5), True),  # 0.505 - 0.00605
        ((0.507, 3.5), False),
    ],
)
def test_limits_have_a_slack_of_a_hundredth(series, limits, inside):
    series = with_snr(series, 10)
    domain = replace(DOMAIN, schemes={"PCASL": replace(PCASL, delay=limits)})
    assert (domain_warnings(spec(domain), series) == ()) == inside


def channels(delays=SIX, duration=1.8, scheme="PCASL"):
    return tuple(Channel(scheme, delay, duration) for delay in delays)


def test_channels_find_their_measurements_in_any_order(series):
    asked = (2.5, 0.5, 3.0, 1.0, 2.0, 1.5)
    assert channel_order(spec(channels=channels(asked)), series) == [4, 0, 5, 1, 3, 2]


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        (channels([d + 0.029 for d in SIX]), True),
        (channels([d - 0.029 for d in SIX]), True),
        (channels([d + 0.031 for d in SIX]), False),
        (channels(duration=1.8 / 1.05), True),
        (channels(duration=1.8 / 1.07), False),
        (channels(duration=1.8 * 1.07), False),
        (channels(duration=INF), False),
        (channels(scheme="VSASL"), False),
        (channels(SIX[:5]), False),
        (channels((*SIX, 3.5)), False),
        (channels((*SIX[:5], 0.5)), False),
    ],
)
def test_channels_fit_to_within_their_tolerances(series, asked, fits):
    if fits:
        assert channel_order(spec(channels=asked), series) == [0, 1, 2, 3, 4, 5]
        return
    with pytest.raises(InputError, match=r"found PCASL 0\.5, 1, 1\.5, 2, 2\.5, 3 s of"):
        channel_order(spec(channels=asked), series)


def test_endless_boluses_fit_each_other():
    series = series_of(PROTOCOLS["joint"][6:], *maps((1, 8, 8)), 10)
    asked = channels(duration=INF, scheme="VSASL")
    assert channel_order(spec(channels=asked), series) == [0, 1, 2, 3, 4, 5]


def test_late_slices_count_for_the_channels():
    series = series_of(PROTOCOLS["pcasl"], *maps((3, 8, 8)), 10, slice_step=0.02)
    with pytest.raises(InputError):
        channel_order(spec(channels=channels()), series)
