"""What a quality metric is: name, definition, unit, source and traffic light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Light(StrEnum):
    """Traffic light of a value."""

    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"
    NONE = "none"


@dataclass(frozen=True)
class Metric:
    """One quality metric.

    Attributes
    ----------
    key : str
        Column name.
    group : str
        Heading in reports.
    name : str
        In words.
    description : str
        How it is computed.
    unit : str
        ``"fraction"``, ``"ratio"`` or a unit.
    source : str
        Paper with DOI, or empty where the definition is common knowledge.
    good, fair : (float, float) or None
        Closed ranges of the green and the amber light; outside both it is red. None for a
        metric without a light.
    basis : str
        Where the ranges come from.
    baseline : bool
        Computed for least squares too, where that runs beside another estimator.
    anatomy : bool
        Of the registration: has a column only where the anatomy ran.
    """

    key: str
    group: str
    name: str
    description: str
    unit: str
    source: str = ""
    good: tuple[float, float] | None = None
    fair: tuple[float, float] | None = None
    basis: str = ""
    baseline: bool = False
    anatomy: bool = False

    @property
    def by_tissue(self) -> bool:
        """Whether it rests on maps of the tissues."""
        return self.key.startswith("qei") or bool({"gm", "wm", "tissue"} & {*self.key.split("_")})

    def light(self, value: float) -> Light:
        """Return the traffic light of a value; none for what isn't finite."""
        if self.good is None or not math.isfinite(value):
            return Light.NONE
        if self.good[0] <= value <= self.good[1]:
            return Light.GOOD
        if self.fair is not None and self.fair[0] <= value <= self.fair[1]:
            return Light.FAIR
        return Light.POOR
