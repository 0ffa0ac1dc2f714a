"""Strong least squares: a grid over ATT with closed-form CBF, then a bracketed refinement.

CBF is linear given ATT, so the two-parameter fit is a one-dimensional search whose every
step has a closed form; no starting value, no local minimum between grid points, no failed
convergence. CBF is bounded to what is physically possible, as curve fitting in the field is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asl_bids_app.estimators.arteries import CRITERION, ArterialFit, early, fit_arteries
from asl_bids_app.estimators.bars import without_nonsense
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.noise import noise_level
from asl_bids_app.kinetics import tissue_response
from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation, observe
from asl_bids_app.protocol import PRIOR_BY_ARRIVAL, TransitPrior, transit_prior
from asl_bids_app.series import Series
from asl_bids_app.tell import Tell, nobody

_GOLDEN = (math.sqrt(5) - 1) / 2
_WIDE = 6
"""Grid points in the 95 % interval from which its width is taken from the grid."""
_OPEN = 0.7
"""ATT counts as not identifiable if its 95 % interval is more than this part of its range."""


@dataclass(frozen=True)
class LeastSquaresOptions:
    """Range and resolution of the fit.

    Attributes
    ----------
    cbf_max : float
        mL/100 g/min; CBF is searched from 0 to it.
    att_min, att_max : float
        Seconds.
    grid_step : float
        Seconds between the points of the first search.
    tolerance : float
        Seconds to which the refinement narrows ATT.
    att_prior, att_prior_sd : float or None
        Seconds; where the data don't determine ATT it is this, with this uncertainty. None:
        that of the labelling scheme (`asl_bids_app.protocol.SCHEMES`).
    chunk : int
        Voxels fitted at a time; bounds the memory (100 kB for 100 voxels).
    """

    cbf_max: float = 300.0
    att_min: float = 0.05
    att_max: float = 4.0
    grid_step: float = 0.025
    tolerance: float = 1e-4
    att_prior: float | None = None
    att_prior_sd: float | None = None
    chunk: int = 32768


@dataclass(frozen=True)
class _Voxels:
    """Voxels in a row, each with the physics of its slice.

    Attributes
    ----------
    signal, weight : Tensor, shape (V, n)
        ΔM/M0 and the inverse variance of its noise.
    physics : tuple of Tensor
        Leading arguments of `tissue_response`, each of shape (V, n) or (V, 1).
    prior, prior_sd : Tensor, shape (V,)
        Of ATT, seconds.
    """

    signal: Tensor
    weight: Tensor
    physics: tuple[Tensor, ...]
    prior: Tensor
    prior_sd: Tensor

    def response(self, att: Tensor) -> Tensor:
        return tissue_response(*self.physics, att.unsqueeze(1))

    def profile(self, att: Tensor, cbf_max: float) -> tuple[Tensor, Tensor]:
        """Best CBF for given ATT, and how much it lowers the weighted sum of squares."""
        predicted = self.response(att)
        weighted = self.weight * predicted
        return _best_cbf((weighted * self.signal).sum(1), (weighted * predicted).sum(1), cbf_max)


def _best_cbf(projection: Tensor, power: Tensor, cbf_max: float) -> tuple[Tensor, Tensor]:
    cbf = (projection / power.clamp(min=torch.finfo(power.dtype).tiny)).clamp(0, cbf_max)
    return cbf, cbf * (2 * projection - cbf * power)


@dataclass(frozen=True)
class _Fit:
    """Result for voxels in a row, each field of shape (V,)."""

    cbf: Tensor
    att: Tensor
    cbf_sd: Tensor
    att_sd: Tensor
    flags: Tensor


@dataclass(frozen=True)
class _Search:
    """What the grid says of each voxel, each field of shape (V,).

    Attributes
    ----------
    att : Tensor
        Grid point of the best fit, seconds.
    points : Tensor
        Grid points whose fit is not worse than the best one by more than 4 in chi square:
        the 95 % interval by the profile likelihood.
    att_sd, cbf_sd : Tensor
        A quarter of the range of ATT, and of its CBF, over these points. It sees past the
        joints of the curves, where the Jacobian knows one side only.
    """

    att: Tensor
    points: Tensor
    att_sd: Tensor
    cbf_sd: Tensor


def _search_grid(
    voxels: _Voxels, slice_of: Tensor, observation: Observation, options: LeastSquaresOptions
) -> _Search:
    steps = round((options.att_max - options.att_min) / options.grid_step) + 1
    grid = torch.linspace(options.att_min, options.att_max, steps).to(voxels.signal)
    curves = observation.response(grid[None])
    found = torch.empty(4, len(voxels.signal)).to(voxels.signal)
    infinity = float("inf")
    for index in slice_of.unique().tolist():
        chosen = slice_of == index
        curve = curves[index]
        weight = voxels.weight[chosen]
        signal = voxels.signal[chosen]
        cbf, gain = _best_cbf((weight * signal) @ curve, weight @ curve**2, options.cbf_max)
        energy = (weight * signal**2).sum(1, keepdim=True)
        # Where a range of ATT fits equally well (every delay after arrival) take the one that is
        # nearest to the slice's prior; far too small to move a fit that the data decide.
        prior = voxels.prior[chosen][:1]
        tie = 1e-5 * ((grid - prior) / (options.att_max - options.att_min)) ** 2
        energy = energy + (energy == 0)  # Without signal the prior decides.
        best = (gain - tie * energy).argmax(1, keepdim=True)
        near = gain >= gain.gather(1, best) - 4

        def width(values: Tensor, near: Tensor = near) -> Tensor:
            top = values.masked_fill(~near, -infinity).amax(1)
            return top - values.masked_fill(~near, infinity).amin(1)

        found[0, chosen] = grid[best.squeeze(1)]
        found[1, chosen] = near.sum(1).to(found)
        found[2, chosen] = width(grid.expand_as(cbf)) / 4
        found[3, chosen] = width(cbf) / 4
    return _Search(*found.unbind())


def _refine(voxels: _Voxels, att: Tensor, options: LeastSquaresOptions) -> Tensor:
    """Golden-section search between the neighbours of the best grid point."""
    low = (att - options.grid_step).clamp(min=options.att_min)
    high = (att + options.grid_step).clamp(max=options.att_max)
    left = high - _GOLDEN * (high - low)
    right = low + _GOLDEN * (high - low)
    _, gain_left = voxels.profile(left, options.cbf_max)
    _, gain_right = voxels.profile(right, options.cbf_max)
    rounds = math.ceil(math.log(options.tolerance / (2 * options.grid_step), _GOLDEN))
    for _ in range(rounds):
        keep_left = gain_left > gain_right
        low, high = torch.where(keep_left, low, left), torch.where(keep_left, right, high)
        probe = torch.where(keep_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        _, gain = voxels.profile(probe, options.cbf_max)
        left, right = torch.where(keep_left, probe, right), torch.where(keep_left, left, probe)
        gain_left, gain_right = (
            torch.where(keep_left, gain, gain_right),
            torch.where(keep_left, gain_left, gain),
        )
    refined = (low + high) / 2
    # Kept only where it is better: flat stretches and bounds stay where the grid put them.
    candidates = torch.stack([refined, att])
    gains = torch.stack([voxels.profile(c, options.cbf_max)[1] for c in candidates])
    better = gains[0] > gains[1] + 1e-6 * gains[1].abs()
    return torch.where(better, refined, att)


def _uncertainty(
    voxels: _Voxels, cbf: Tensor, att: Tensor, options: LeastSquaresOptions
) -> tuple[Tensor, Tensor]:
    """Compute the standard errors of CBF and ATT from the Jacobian, each of shape (V,).

    The range of ATT enters as the information of a uniform distribution, so that the error
    of an ATT that the data leave open is that of the range and not infinite. The curves have
    joints: the slope is taken on both sides of ATT and the side that knows more counts; what
    lies on the other side is the grid's to say.
    """
    # Double precision: where CBF and ATT are one product, their informations cancel.
    fine = _Voxels(
        voxels.signal.double(),
        voxels.weight.double(),
        tuple(p if p.dtype == torch.int64 else p.double() for p in voxels.physics),
        voxels.prior,
        voxels.prior_sd,
    )
    tiny = torch.finfo(torch.float64).tiny
    floor = 12 / (options.att_max - options.att_min) ** 2
    cbf, att = cbf.double(), att.double()
    predicted = fine.response(att)
    information_cbf = (fine.weight * predicted**2).sum(1).clamp(min=tiny)
    sides = []
    for step in (-1e-4, 1e-4):
        by_att = cbf[:, None] * (fine.response(att + step) - predicted) / step
        information_att = (fine.weight * by_att**2).sum(1)
        shared = (fine.weight * predicted * by_att).sum(1)
        alone = information_att - shared**2 / information_cbf
        alone = torch.where(alone > 1e-9 * information_att, alone, torch.zeros_like(alone))
        variance = (information_att + floor) / (information_cbf * (alone + floor))
        sides.append(torch.stack([variance.sqrt(), (alone + floor).rsqrt()]))
    cbf_sd, att_sd = torch.where(sides[0][1] < sides[1][1], *sides).to(voxels.signal)
    return cbf_sd, att_sd


def _widest(options: LeastSquaresOptions) -> float:
    """Return the standard deviation of a CBF of which only its range is known."""
    return options.cbf_max / math.sqrt(12)


def _by_prior(voxels: _Voxels, options: LeastSquaresOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Return CBF at the prior's ATT, its standard error, and where no label has arrived by then.

    The error holds what CBF would be had the blood come one standard deviation of the prior
    later: half the label may then be missing, and one delay can't tell that from little flow.
    """
    cbf, _ = voxels.profile(voxels.prior, options.cbf_max)
    predicted = voxels.response(voxels.prior)
    power = (voxels.weight * predicted**2).sum(1)
    early, late = (
        voxels.profile(
            (voxels.prior + sign * voxels.prior_sd).clamp(options.att_min, options.att_max),
            options.cbf_max,
        )[0]
        for sign in (-1.0, 1.0)
    )
    spread = torch.maximum((late - early).abs() / 2, (late - cbf).abs())
    variance = 1 / power.clamp(min=torch.finfo(power.dtype).tiny) + spread**2
    # Noise may be wider than the range: only the doubt about ATT is cut to it.
    noise = power.clamp(min=torch.finfo(power.dtype).tiny).rsqrt()
    sd = torch.minimum(variance.sqrt(), noise.clamp(min=_widest(options)))
    return cbf, sd, predicted.amax(1) <= 0


def _fit_voxels(
    voxels: _Voxels, slice_of: Tensor, observation: Observation, options: LeastSquaresOptions
) -> _Fit:
    search = _search_grid(voxels, slice_of, observation, options)
    att = _refine(voxels, search.att, options)
    cbf, _ = voxels.profile(att, options.cbf_max)
    cbf_sd, att_sd = _uncertainty(voxels, cbf, att, options)
    # A wide interval is the grid's to tell, a narrow one is finer than its steps; but more
    # points than the Jacobian explains are a flat stretch, whose sd is that of a uniform one.
    wide = search.points > _WIDE
    flat = search.points > 3 + 6 * att_sd / options.grid_step
    given_att = 1 / (voxels.weight * voxels.response(att) ** 2).sum(1).clamp(min=1e-30)
    cbf_sd = torch.where(wide | flat, (given_att + search.cbf_sd**2).sqrt(), cbf_sd)
    att_sd = torch.where(wide, search.att_sd, att_sd)
    att_sd = torch.where(flat, search.att_sd * 4 / math.sqrt(12), att_sd)

    # Fewer informative measurements than parameters: ATT is the prior's everywhere.
    few = (voxels.weight > 0).sum(1) < 2
    prior, prior_sd = voxels.prior, voxels.prior_sd
    prior_cbf, prior_cbf_sd, unseen = _by_prior(voxels, options)

    cbf = torch.where(few, prior_cbf, cbf)
    att = torch.where(few, prior, att)
    cbf_sd = torch.where(few, prior_cbf_sd, cbf_sd)
    att_sd = torch.where(few, prior_sd, att_sd)

    steps = (options.att_max - options.att_min) / options.grid_step
    open_att = few | (search.points > _OPEN * steps)
    at_cbf_bound = (cbf <= 0) | (cbf >= options.cbf_max)
    edge = 2 * options.tolerance
    at_att_bound = ~few & ((att <= options.att_min + edge) | (att >= options.att_max - edge))
    flags = (
        open_att.to(torch.uint8) * int(Flag.ATT_UNIDENTIFIABLE)
        + at_cbf_bound.to(torch.uint8) * int(Flag.CBF_AT_BOUND)
        + at_att_bound.to(torch.uint8) * int(Flag.ATT_AT_BOUND)
    )
    # A signal of 0 is a measurement; only where no weight is left there is none.
    failed = (voxels.weight.sum(1) == 0) | ~torch.isfinite(cbf + cbf_sd)
    failed |= few & unseen
    zero = torch.zeros_like(cbf)
    return _Fit(
        torch.where(failed, zero, cbf),
        torch.where(failed, prior, att),
        torch.where(failed, torch.full_like(cbf, _widest(options)), cbf_sd),
        torch.where(failed, prior_sd, att_sd),
        torch.where(failed, int(Flag.FAILED), flags).to(torch.uint8),
    )


def _priors(observation: Observation, options: LeastSquaresOptions) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the prior of ATT of each slice, (B,) each."""
    there = observation.noise_sd.isfinite().flatten(2).any(2)
    kinds = PRIOR_BY_ARRIVAL
    # Of several schemes that share one ATT the broadest prior counts, the first of equals.
    order = sorted(kinds, key=lambda arrival: -kinds[arrival].sd)
    like = observation.delta_m
    mean, sd = (torch.zeros(len(like)).to(like) for _ in range(2))
    for arrival in reversed(order):
        found = (there & (observation.arrival == int(arrival))).any(1)
        mean = torch.where(found, kinds[arrival].mean, mean)
        sd = torch.where(found, kinds[arrival].sd, sd)
    if options.att_prior is not None:
        mean = torch.full_like(mean, options.att_prior)
    if options.att_prior_sd is not None:
        sd = torch.full_like(sd, options.att_prior_sd)
    return mean, sd


def least_squares(
    observation: Observation, options: LeastSquaresOptions | None = None, tell: Tell = nobody
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fit CBF and ATT in the mask of a batch of slices.

    Parameters
    ----------
    observation
        Slices; `noise_sd` weights the measurements and scales the standard errors.
    options
        Range and resolution.
    tell
        Takes how many voxels are done.

    Returns
    -------
    cbf, att, cbf_sd, att_sd, flags : Tensor, shape (B, H, W)
        mL/100 g/min, s, and their standard errors; `Flag` bits as uint8. Zero outside the
        mask.
    """
    options = options or LeastSquaresOptions()
    mask = observation.mask
    maps = [torch.zeros(mask.shape).to(observation.delta_m) for _ in range(4)]
    flags = torch.zeros(mask.shape, dtype=torch.uint8, device=mask.device)
    places = mask.nonzero()
    weights = 1 / observation.noise_sd**2
    prior = _priors(observation, options)
    per_slice = (observation.t1_blood, observation.t1_tissue, observation.partition_coefficient)
    per_measurement = (
        observation.arrival,
        observation.delay,
        observation.label_duration,
        observation.efficiency,
    )
    for index, part in enumerate(places.split(options.chunk)):
        tell("voxel", index * options.chunk, len(places))
        where = part.unbind(1)
        slice_of = where[0]

        def at_voxels(image: Tensor, where: tuple[Tensor, ...] = where) -> Tensor:
            return image.expand_as(observation.delta_m)[where[0], :, where[1], where[2]]

        voxels = _Voxels(
            at_voxels(observation.delta_m),
            at_voxels(weights),
            (
                *(values[slice_of] for values in per_measurement),
                *(values[slice_of, None] for values in per_slice),
            ),
            *(values[slice_of] for values in prior),
        )
        fit = _fit_voxels(voxels, slice_of, observation, options)
        for target, values in zip(maps, (fit.cbf, fit.att, fit.cbf_sd, fit.att_sd), strict=True):
            target[where] = values
        flags[where] = fit.flags
    return (*maps, flags)


def residual(observation: Observation, cbf: Tensor, att: Tensor) -> Tensor:
    """Return measured minus predicted ΔM/M0 inside the mask, (B, n, H, W)."""
    predicted = cbf.unsqueeze(1) * observation.response(att)
    return (observation.delta_m - predicted) * observation.mask.unsqueeze(1)


class LeastSquares:
    """The strong least-squares estimator.

    Parameters
    ----------
    options
        Range and resolution of the fit.
    tell
        Takes how many voxels are done.
    arterial
        Fit an artery beside the tissue where it pays, if a delay is early enough to show one.
    """

    name = "least-squares"

    def __init__(
        self,
        options: LeastSquaresOptions | None = None,
        tell: Tell = nobody,
        arterial: bool = True,
    ) -> None:
        self.options = options or LeastSquaresOptions()
        self.tell = tell
        self.arterial = arterial

    @torch.no_grad()
    def fit(self, series: Series) -> ParameterMaps:
        """Estimate CBF and ATT inside the mask of a series."""
        observation = observe(series, noise_level(series))
        fitted = least_squares(observation, self.options, self.tell)
        arteries = None
        if self.arterial and early(series.protocol) is not None:
            arteries, fitted = self._with_arteries(observation, fitted)
            # What is left is tissue's, and noise.
            observation = replace(observation, delta_m=observation.delta_m - arteries.vessels)
        cbf, att, cbf_sd, att_sd, flags = fitted
        left_over = residual(observation, cbf, att)
        given, usual = self.options, transit_prior(series.protocol.schemes)
        prior = usual
        if given.att_prior is not None or given.att_prior_sd is not None:
            prior = TransitPrior(
                usual.mean if given.att_prior is None else given.att_prior,
                usual.sd if given.att_prior_sd is None else given.att_prior_sd,
                "as given",
            )
        maps = ParameterMaps(
            cbf,
            att,
            cbf_sd,
            att_sd,
            left_over,
            flags,
            self.name,
            att_prior=prior,
            abv=None if arteries is None else 100 * arteries.volume,
            abv_sd=None if arteries is None else 100 * arteries.volume_sd,
            vessels=None if arteries is None else arteries.vessels,
        )
        return without_nonsense(maps, series.mask)

    def _with_arteries(
        self, observation: Observation, alone: tuple[Tensor, ...]
    ) -> tuple[ArterialFit, tuple[Tensor, ...]]:
        """Return the arteries that pay, and the fit of tissue beside them.

        Both fits are refined before they are compared: on a grid an artery may make up for the
        points of ATT that are not there.
        """
        arteries = fit_arteries(observation)
        beside = replace(
            observation, delta_m=observation.delta_m - arteries.vessels, mask=arteries.found
        )
        fit = least_squares(beside, self.options)
        gain = _chi_square(observation, *alone[:2]) - _chi_square(beside, *fit[:2])
        arteries = arteries.only(gain > CRITERION)
        kept = arteries.found
        cbf, att, cbf_sd, att_sd, flags = (
            torch.where(kept, new, old) for new, old in zip(fit, alone, strict=True)
        )
        # Their own error: what the data leave open between tissue and artery.
        cbf_sd = torch.hypot(cbf_sd, arteries.cbf_sd)
        att_sd = torch.hypot(att_sd, arteries.att_sd)
        return arteries, (cbf, att, cbf_sd, att_sd, flags | kept.to(flags) * int(Flag.ARTERY))


def _chi_square(observation: Observation, cbf: Tensor, att: Tensor) -> Tensor:
    left = residual(observation, cbf, att)
    return (left.square() * precision_of(observation.noise_sd)).sum(1)
