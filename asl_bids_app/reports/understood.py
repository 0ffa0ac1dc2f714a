"""What was understood of the input, in words: runs and constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asl_bids_app.constants import read_constants
from asl_bids_app.reports.page import figure_text
from asl_bids_app.schemes import find_scheme

_WORDED: Final = frozenset(
    {
        "path",
        "scheme",
        "volumes",
        "post_labeling_delay",
        "label_duration",
        "volumes_per_measurement",
        "repeats",
        "rejected",
        "field_strength",
        "voxel_size_mm",
        "slice_time",
        "m0",
        "warnings",
        "inferred",
    }
)
"""Keys of a run's record that have words of their own."""
_NOT_SHOWN: Final = frozenset({"kind"})
"""Keys of a part of a record that say in one word what the others tell readers."""


def run_facts(run: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what was understood of a run.

    Parameters
    ----------
    run
        Of a record; every key may be missing.

    Returns
    -------
    dict
        ``path``, and ``facts`` as pairs of name and text.
    """
    scheme = str(run.get("scheme") or "unknown")
    info = find_scheme(scheme)
    facts = [
        ("Labelling", f"{info.title} ({scheme})" if info else scheme),
        (
            "Field strength",
            f"{words(run['field_strength'])} T" if run.get("field_strength") else "",
        ),
        ("Voxels", _voxels(run.get("voxel_size_mm") or [])),
        ("Volumes", _volumes(run)),
    ]
    facts += _timing(run, scheme)
    facts += [("Readout", _readout(run.get("slice_time") or [])), ("M0", _m0(run.get("m0") or {}))]
    facts += [("Pairs averaged", _pairs(run.get("repeats") or [])), ("Left out", _left_out(run))]
    facts += [(name(key), words(value)) for key, value in run.items() if key not in _WORDED]
    facts += [
        (f"Inferred: {key.replace('_', ' ')}", str(text))
        for key, text in (run.get("inferred") or {}).items()
    ]
    return {"path": str(run.get("path") or ""), "facts": [(k, v) for k, v in facts if v]}


def estimator_name(value: Any) -> str:
    """Return an estimator's name for readers."""
    names = {"least-squares": "least squares", "bayes": "Bayesian posterior"}
    return names.get(str(value), str(value or "main estimate"))


def name(key: str) -> str:
    """Turn a key of a record into a name."""
    return key.replace("_", " ").capitalize()


def words(value: Any) -> str:
    """Turn any value of a record into words; empty for what says nothing."""
    if value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return _mapping_words(value)
    if isinstance(value, list | tuple):
        return ", ".join(words(item) for item in value)
    return figure_text(value, 4) if isinstance(value, float) else str(value)


def _mapping_words(value: Mapping[str, Any]) -> str:
    if set(value) == {"Value", "Units", "Source", "Note"}:  # a constant
        unit = "" if value["Units"] == "fraction" else f" {value['Units']}"
        return f"{words(value['Value'])}{unit} ({value['Source']}: {value['Note']})"
    shown = {key: item for key, item in value.items() if key not in _NOT_SHOWN}
    if list(shown) == ["source"]:
        return words(shown["source"])
    parts = [(key.replace("_", " "), words(item)) for key, item in shown.items()]
    return "; ".join(f"{key}: {text}" for key, text in parts if text)


def _volumes(run: Mapping[str, Any]) -> str:
    volumes = run.get("volumes") or {}
    return ", ".join(
        f"{number} {'ΔM' if kind == 'deltam' else kind}" for kind, number in volumes.items()
    )


def _voxels(size: Sequence[Any]) -> str:
    return " x ".join(figure_text(float(v)) for v in size) + " mm" if len(size) == 3 else ""


def _seconds(values: Sequence[Any]) -> str:
    """Write times; one only if all are equal, ``not cut`` for a bolus without end."""
    distinct = list(dict.fromkeys(values))
    reported = [
        "not cut" if v is None or not math.isfinite(float(v)) else figure_text(float(v), 4)
        for v in (distinct if len(distinct) == 1 else values)
    ]
    text = ", ".join(reported)
    return text if text == "not cut" else f"{text} s"


def _timing(run: Mapping[str, Any], scheme: str) -> list[tuple[str, str]]:
    delays = list(run.get("post_labeling_delay") or [])
    durations = list(run.get("label_duration") or [])
    counts = list(run.get("volumes_per_measurement") or [])
    facts = []
    if delays:
        facts.append(("Post-labelling delays", _seconds(delays)))
    if durations:
        info = find_scheme(scheme)
        kind = f"{info.duration_word if info else 'bolus'} duration".capitalize()
        facts.append((kind, _seconds(durations)))
    if counts:
        distinct = list(dict.fromkeys(counts))
        reported = distinct if len(distinct) == 1 else counts
        facts.append(("Volumes per measurement", ", ".join(str(n) for n in reported)))
    return facts


def _pairs(repeats: Sequence[Any]) -> str:
    if len(set(repeats)) == 1:
        return f"{words(repeats[0])} of each measurement"
    return ", ".join(words(n) for n in repeats)


def _left_out(run: Mapping[str, Any]) -> str:
    """Pairs that the robust average rejected; a record's lines, or their number if many."""
    lines = [words(line) for line in run.get("rejected") or []]
    return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")


def _readout(slice_time: Sequence[Any]) -> str:
    if len(slice_time) != 2:
        return ""
    first, last = (float(t or 0) for t in slice_time)
    if not last:
        return "3D, or all slices at once"
    return (
        f"2D: slices from {figure_text(first)} to {figure_text(last)} s after the first; "
        "each slice has its own delay"
    )


def _m0(m0: Mapping[str, Any]) -> str:
    if not m0:
        return ""
    parts = [str(m0.get("kind") or "unknown")]
    if m0.get("path"):
        parts.append(str(m0["path"]))
    if m0.get("estimate") is not None:
        parts.append(f"M0 of blood {words(m0['estimate'])}")
    if m0.get("repetition_time"):
        parts.append(f"repetition time {_seconds(m0['repetition_time'])}")
    known = {"kind", "path", "estimate", "repetition_time"}
    parts += [
        f"{_M0_NAMES.get(key, key.replace('_', ' '))}: {words(value)}"
        for key, value in m0.items()
        if key not in known and words(value) not in {"", "0"}
    ]
    return "; ".join(parts)


_M0_NAMES: Final = {
    "volumes": "volumes averaged",
    "repetition_time_correction": "factor for the repetition time",
    "filled_voxels": "voxels of the mask filled from their neighbours",
    "smoothing_fwhm_mm": "smoothed by (mm)",
    "value": "M0 of tissue",
    "reference": "M0 of blood by a reference region",
    "repetition_times": "repetition times of the volumes used (s)",
}
_CONSTANTS: Final = {
    "t1_blood": "T1 of arterial blood",
    "t1_tissue": "T1 of tissue (for the label)",
    "partition_coefficient": "Blood-brain partition coefficient",
    "labeling_efficiency": "Labelling efficiency",
    "suppression": "Factor for background suppression",
    "t1_tissue_m0": "T1 of tissue (for the M0)",
    "m0_scale": "Factor on M0",
}


def constant_rows(entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of constants: name, value, unit, source and note."""
    rows = []
    for key, stored in read_constants(entries).items():
        title = _CONSTANTS.get(key.name, name(key.name))
        rows.append(
            {
                "name": f"{title}, {key.scheme}" if key.scheme else title,
                "value": stored.value,
                "unit": stored.unit,
                "source": stored.source,
                "note": stored.note,
            }
        )
    return rows
