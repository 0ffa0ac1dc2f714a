"""What all pages share: templates, style, and the charting library inside the page.

`nireports`, the field's report system, is not used here. Its assembler writes a page that
loads its style and scripts from the network and its figures from files beside it, so a page
neither opens offline nor travels as one file; it has no place for a viewer; and its plots set
colour scales per figure, without units. The order of its reports is kept: summary, data,
results, methods, errors.
"""

from __future__ import annotations

import math
import re
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from asl_bids_app import __version__
from asl_bids_app.quality.metric import Metric


@cache
def charting_library() -> str:
    """Return plotly.js compressed, as text for a page."""
    from plotly.offline import get_plotlyjs

    from asl_bids_app.reports.compressed import compress

    return compress(get_plotlyjs().encode())


def asset(name: str) -> str:
    """Return a script or style of this package."""
    return files("asl_bids_app.reports").joinpath("templates", name).read_text(encoding="utf-8")


def figure_text(value: float, digits: int = 3) -> str:
    """Write a number for readers: a dash for what isn't finite.

    Examples
    --------
    >>> figure_text(48.2461), figure_text(0.0), figure_text(float("nan")), figure_text(1234.6)
    ('48.2', '0', '–', '1235')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.2e}"
    return f"{value:.{digits}g}"


def share_text(share: float) -> str:
    """Write a fraction in percent.

    Examples
    --------
    >>> share_text(0.0312), share_text(0.0), share_text(1.0), share_text(0.00003)
    ('3.1 %', '0 %', '100 %', '< 0.01 %')
    >>> share_text(0.9997)
    '> 99.9 %'
    """
    percent = 100 * share
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.2g} %" if percent < 99 else f"{percent:.3g} %"


def value_text(value: float, unit: str) -> str:
    """Write a measured number with as many digits as it has, zeros at the end included.

    Examples
    --------
    >>> value_text(1.0, "s"), value_text(52.0, "mL/100 g/min"), value_text(0.85, "ratio")
    ('1.00', '52.0', '0.850')
    >>> value_text(-0.0041, "s"), value_text(2079.3, "mL"), value_text(float("nan"), "s")
    ('-0.0041', '2079', '–')
    """
    if value is None or not math.isfinite(value) or value == 0 or abs(value) >= 1000:
        return figure_text(value)
    if unit == "s" and abs(value) >= 0.095:
        return f"{value:.2f}"
    # Of small seconds, two digits are all that is known.
    return f"{value:#.{2 if unit == 's' else 3}g}".removesuffix(".")


def metric_text(metric: Metric, value: float, unit_tag: str = "") -> str:
    """Write the value of a metric with its unit; fractions in percent.

    Parameters
    ----------
    metric, value
        What is shown.
    unit_tag
        HTML element for the unit, such as ``"small"``; plain by default.
    """
    text = value_text(100 * value if metric.unit == "fraction" else value, metric.unit)
    unit = {"fraction": "%", "ratio": "", "units of the image": ""}.get(metric.unit, metric.unit)
    if text == "–" or not unit:
        return text
    if not unit_tag:
        return f"{text} {unit}"
    return Markup(f"{{}} <{unit_tag}>{{}}</{unit_tag}>").format(text, unit)


def limits_text(metric: Metric) -> str:
    """Write the green and amber ranges of a metric in words."""
    if metric.good is None or metric.fair is None:
        return ""

    def ends(limits: tuple[float, float]) -> str:
        factor, unit = (100, " %") if metric.unit == "fraction" else (1, "")
        low, high = (factor * end for end in limits)
        if not math.isfinite(high):
            return f"≥ {low:g}{unit}"
        return f"{low:g} to {high:g}{unit}"

    return f"good {ends(metric.good)}; fair {ends(metric.fair)}"


def breakable(name: str) -> Markup:
    """Let a long name break where its words do: after marks, and before a capital.

    Examples
    --------
    >>> breakable("LH_DorsalAttn<1")
    Markup('LH_<wbr>Dorsal<wbr>Attn&lt;1')
    """
    words = re.findall(r".*?(?:[_\-./ ]+|(?<=[a-z])(?=[A-Z])|$)", name)
    return Markup("<wbr>").join(word for word in words if word)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asl_bids_app.reports", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(
        asset=asset,
        charting_library=charting_library,
        limits_text=limits_text,
        metric_text=metric_text,
        version=__version__,
    )
    environment.filters["figure"] = figure_text
    environment.filters["breakable"] = breakable
    return environment


def render(template: str, **content: Any) -> str:
    """Fill a template; everything put in is escaped unless marked as safe by the template."""
    return _environment().get_template(template).render(**content)
