"""The model card: what a model is, for whom, made how, how good; for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from asl_bids_app.models.spec import ModelSpec, Range, TrainingDomain


def model_card(spec: ModelSpec, members: int) -> str:
    """Write the model card in Markdown.

    Parameters
    ----------
    spec
        Of the model.
    members
        Number of networks in the ensemble.
    """
    parts = [
        f"# {spec.name} {spec.version}",
        spec.intended_use or "Intended use: not stated.",
        f"Ensemble of {members} `{spec.network}`, arguments "
        f"`{json.dumps(dict(spec.arguments))}`. Weights in half precision.",
        f"Licence: {spec.licence or 'not stated'}.",
        "## Trained with",
        _domain(spec.domain) if spec.domain else "Not recorded.",
    ]
    if spec.channels:
        rows = [
            f"| {c.scheme} | {c.post_labeling_delay:g} | {_number(c.label_duration)} |"
            for c in spec.channels
        ]
        header = "| Scheme | Delay (s) | Label duration (s) |\n|---|---|---|"
        parts += ["## Channels", "\n".join([header, *rows])]
    parts += [
        "## Uncertainty",
        "Mean of the members' variances plus the variance between members"
        + (
            ", times a factor squared that was fitted to phantoms that training never saw."
            if spec.calibration
            else "; not calibrated."
        ),
    ]
    for title, content in (("Measured", spec.metrics), ("How it was made", spec.training)):
        if content:
            parts += [f"## {title}", _nested(content)]
    return "\n\n".join(parts) + "\n"


def _number(value: float) -> str:
    return "no cut" if value == float("inf") else f"{value:g}"


def _span(limits: Range, unit: str = "") -> str:
    unit = f" {unit}" if unit else ""
    return f"{_number(limits[0])} to {_number(limits[1])}{unit}"


def _domain(domain: TrainingDomain) -> str:
    rows = [
        "| Scheme | Measurements | Delay (s) | Label duration (s) | Efficiency |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | {_span(s.measurements)} | {_span(s.delay)} | {_span(s.label_duration)} | "
        f"{_span(s.efficiency)} |"
        for name, s in domain.schemes.items()
    ]
    together = ", ".join(" + ".join(each) for each in domain.combinations) or "any"
    lines = [
        f"- In one series: {together}",
        f"- T1 of blood {_span(domain.t1_blood, 's')}, of tissue {_span(domain.t1_tissue, 's')}",
        f"- Partition coefficient {_span(domain.partition_coefficient, 'mL/g')}",
        f"- Signal-to-noise ratio {_span(domain.snr)}: ΔM/M0 of "
        f"{100 * domain.reference_signal:g} % divided by the noise of an averaged measurement",
    ]
    return "\n".join(rows) + "\n\n" + "\n".join(lines)


def _nested(content: Mapping[str, Any], depth: int = 0) -> str:
    lines = []
    for key, value in content.items():
        indent = "  " * depth
        if isinstance(value, Mapping):
            lines += [f"{indent}- {key}:", _nested(value, depth + 1)]
        else:
            lines.append(f"{indent}- {key}: {value}")
    return "\n".join(lines)
