"""Scale factors that converters leave in sidecars: what they do to the ratio of ASL and M0.

BIDS wants images that hold comparable numbers; these keys tell when they don't.

Philips stores integers with two scales (Chenevert 2014, doi:10.1593/tlo.13811): a display value
is ``DV = PV * RescaleSlope + RescaleIntercept``, and the number that is comparable between series
is ``FP = DV / (RescaleSlope * ScaleSlope)``. dcm2niix writes the one it stored as
`UsePhilipsFloatNotDisplayScaling` (1: FP, 0: DV). GE's difference images are a sum over their
excitations times 32, the M0 beside them is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.spans import show

FLOAT: Final = "UsePhilipsFloatNotDisplayScaling"
RESCALE: Final = ("PhilipsRescaleSlope", "RescaleSlope")
SCALE: Final = ("PhilipsScaleSlope", "ScaleSlope", "MRScaleSlope")
SAME: Final = 0.002
"""Relative difference of scale factors that is rounding."""
GE_FACTOR: Final = 32
"""Of GE's difference images, beside the number of excitations (GE's quantification formula)."""


@dataclass(frozen=True)
class M0Factor:
    """A factor that the M0 image needs to be comparable with the ASL image, and why."""

    value: float
    why: str


@dataclass(frozen=True)
class _Scale:
    """How the numbers of one image are scaled, as its sidecar tells."""

    display: bool | None
    rescale: float | None
    slope: float | None

    @property
    def factor(self) -> float | None:
        """Stored number over comparable number; None if unknown."""
        if self.display is False:
            return 1.0
        if self.rescale is None or self.slope is None:
            return None
        return self.rescale * self.slope

    def __str__(self) -> str:
        parts = (("RescaleSlope", self.rescale), ("ScaleSlope", self.slope))
        reported = ", ".join(f"{name} {value:g}" for name, value in parts if value is not None)
        if self.display is False:
            return "comparable numbers"
        kind = "display values" if self.display else "values of unknown scaling"
        return f"{kind} ({reported or 'no scale factors'})"


def compare(asl: Fields, m0: Fields) -> M0Factor | None:
    """Compare the display scaling of a run with that of its separate M0.

    Where both sidecars say how their numbers were scaled, the ratio is returned, to be undone
    and reported. Where they leave it open, a warning names the factors.

    Parameters
    ----------
    asl, m0
        The sidecars.

    Returns
    -------
    M0Factor or None
        None if nothing is to be undone.
    """
    first, second = _read(asl), _read(m0)
    a, b = first.factor, second.factor
    if first == second or (a and b and abs(a / b - 1) <= SAME):
        return None
    reported, expected = str(second), f"the scaling of the ASL image, {first}"
    if a is None or b is None:
        outcome = (
            "M0 and ASL may differ in scale, which scales CBF; convert both again with dcm2niix "
            "-p y, or give --m0-scale"
        )
        m0.warn(_key(m0), reported, expected, outcome)
        return None
    ratio = a / b
    if first.display is None or second.display is None:
        outcome = (
            f"if both hold display values, M0 has to be multiplied by {ratio:.6g}: --m0-scale "
            f"{ratio:.6g}; not done, for {FLOAT} doesn't say so in both"
        )
        m0.warn(_key(m0), reported, expected, outcome)
        return None
    outcome = f"their ratio is undone: M0 times {ratio:.6g} (unless --m0-scale is given)"
    m0.warn(_key(m0), reported, expected, outcome)
    return M0Factor(ratio, f"display scaling undone: {_factors(first)} / {_factors(second)}")


def _factors(scale: _Scale) -> str:
    return "1" if scale.display is False else f"({scale.rescale:g} * {scale.slope:g})"


def _key(fields: Fields) -> str:
    return next((key for key in (*SCALE, *RESCALE, FLOAT) if key in fields), SCALE[0])


def _read(fields: Fields) -> _Scale:
    """Read the scaling of an image, unknown if its sidecar has nothing of Philips' scaling."""
    maker = fields.get("Manufacturer")
    philips = isinstance(maker, str) and "philips" in maker.casefold()
    slope = _number(fields, SCALE)
    flag = fields.get(FLOAT)
    if not philips and flag is None and not any(key in fields for key in SCALE):
        # Other makers' images have a RescaleSlope, too, which converters apply.
        return _Scale(None, None, None)
    if flag is not None and flag not in (0, 1):
        expected = "1 (comparable numbers) or 0 (display values)"
        fields.warn(FLOAT, show(flag), expected, "taken for unknown")
        flag = None
    return _Scale(None if flag is None else not flag, _number(fields, RESCALE), slope)


def _number(fields: Fields, keys: Sequence[str]) -> float | None:
    """Return the one positive number of a key; None if there is none, or several."""
    for key in keys:
        if key not in fields:
            continue
        values = fields[key] if isinstance(fields[key], list) else [fields[key]]
        good = values and all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < float("inf")
            for v in values
        )
        if good and max(values) - min(values) <= SAME * max(values):
            return float(values[0])
        fields.warn(key, show(fields[key]), "one number above 0", "taken for unknown")
        return None
    return None


def check_ge(fields: Fields, kinds: Sequence[str], *, scale_given: bool) -> None:
    """Warn where GE's difference images come with an M0 that nobody says was scaled.

    Parameters
    ----------
    fields, kinds
        The run.
    scale_given
        Whether the command line gives a scale of the M0.
    """
    maker = fields.get("Manufacturer")
    words = maker.upper().replace("_", " ").split() if isinstance(maker, str) else []
    ge = "GE" in words or words[:2] == ["GENERAL", "ELECTRIC"]
    if scale_given or not ge or "deltam" not in kinds or fields.get("M0Type") == "Estimate":
        return
    single = list(kinds).count("deltam") == 1
    for key in ("TotalAcquiredPairs", "NumberOfAverages"):
        number = fields.get(key)
        usable = isinstance(number, int | float) and not isinstance(number, bool) and number > 0
        if single and usable:
            rule = f"{GE_FACTOR} x NEX = {GE_FACTOR * number:g} with {key} {number:g}"
            advice = f"--m0-scale {GE_FACTOR * number:g}"
            break
    else:
        rule, advice = f"{GE_FACTOR} x NEX, the number of excitations", "--m0-scale 32*NEX"
    fields.warn(
        "Manufacturer",
        f"{maker} with deltam volumes and no scale of the M0",
        f"an M0 that was multiplied by GE's factor at conversion ({rule})",
        f"taken as scaled, as BIDS wants it; give {advice} if CBF comes out far too high",
    )
