"""The part of a methods text about the data: acquisition and preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_SCHEMES: Final = {
    "PCASL": "pseudo-continuous",
    "CASL": "continuous",
    "PASL": "pulsed",
    "VSASL": "velocity-selective",
}


def _times(values: Any) -> str:
    numbers = [float(v) for v in values or [] if v is not None and math.isfinite(float(v))]
    if not numbers:
        return ""
    distinct = list(dict.fromkeys(numbers))
    if len(distinct) == 1:
        return f"{distinct[0]:g} s"
    return ", ".join(f"{v:g}" for v in distinct[:-1]) + f" and {distinct[-1]:g} s"


def describe_acquisition(run: Mapping[str, Any]) -> str:
    """Tell how a run was scanned, from its facts in a record."""
    scheme = str(run.get("scheme") or "")
    volumes = run.get("volumes") or {}
    delays = run.get("post_labeling_delay") or []
    word = _SCHEMES.get(scheme, "")
    text = f"The {word + ' ' if word else ''}ASL run ({scheme or 'scheme unknown'}) "
    scanned = _scanner(run)
    if scanned:
        text += f"was acquired {scanned}. It "
    counted = [
        f"{number} {'ΔM' if kind == 'deltam' else kind} volumes"
        for kind, number in volumes.items()
        if kind in {"control", "label", "deltam"}
    ]
    if counted:
        text += f"had {' and '.join(counted)} "
    elif delays or not scanned:
        text += "was acquired "
    if delays:
        text += (
            f"at {'post-labelling delays' if len(set(delays)) > 1 else 'a post-labelling delay'}"
        )
        text += f" of {_times(delays)}"
    durations = _times(run.get("label_duration"))
    if durations:
        kind = "label" if scheme in {"PCASL", "CASL"} else "bolus"
        text += f" with {'a ' if ' and ' not in durations else ''}{kind} duration"
        text += f"{'s' if ' and ' in durations else ''} of {durations}"
    text = text.removesuffix(". It ").rstrip() + "."
    slices = run.get("slice_time") or []
    if len(slices) == 2 and float(slices[1] or 0) > 0:
        text += (
            f" Slices were read out one after the other within {float(slices[1]):.3g} s, and the "
            "delay of each slice was taken into account."
        )
    if scheme == "VSASL":
        text += (
            " Velocity-selective labelling [@wong;@qin] was modelled with label arriving at once."
        )
    return text


def _scanner(run: Mapping[str, Any]) -> str:
    """Tell field strength and voxel size, as far as they are known."""
    parts = []
    field = run.get("field_strength")
    if isinstance(field, int | float) and math.isfinite(field) and field > 0:
        parts.append(f"at {field:g} T")
    size = [float(v) for v in run.get("voxel_size_mm") or []]
    if len(size) == 3:
        parts.append(f"with voxels of {' x '.join(f'{v:.3g}' for v in size)} mm")
    return " ".join(parts)


_ATLAS: Final = "MNI152 atlas"
_COORDINATES: Final = "by the scanner's coordinates"
"""How the sources of tissue maps begin and end, see `asl_bids_app.workflows.tissue`."""


def describe_preprocessing(
    unit: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> str:
    """Tell what was done before the estimate: motion, subtraction, M0, mask and tissue."""
    parts = []
    decoding = [run["decoding"] for run in runs if isinstance(run.get("decoding"), Mapping)]
    kinds_of = [set(run.get("volumes") or {}) for run in runs]
    in_pairs = not kinds_of or sum("control" in kinds for kinds in kinds_of) > len(decoding)
    told = [str(run["motion"]) for run in runs if run.get("motion")]
    uncorrected = bool(told) and all(how.startswith("none") for how in told)
    if options.get("hmc", True) and not uncorrected:
        parts.append(
            "Head motion was corrected by rigid registration, by the Gauss-Newton method among "
            "volumes of one contrast [@baker] and with SimpleITK across contrasts [@simpleitk]"
            + (
                " and summarised by the framewise displacement [@power]"
                if not in_pairs
                else ", apart from the alternation between control and label [@wang], and "
                "summarised by the framewise displacement [@power]"
            )
        )
    kinds = {str((run.get("m0") or {}).get("kind") or "") for run in runs} - {""}
    origin = {
        "Separate": "a separate M0 scan",
        "Included": "the M0 volumes of the series",
        "Estimate": "the M0 estimate of the sidecar",
        "Absent": "the mean control image, in the absence of an M0 scan",
    }
    told = " and ".join(origin.get(kind, kind) for kind in sorted(kinds))
    if decoding:
        matrices = " and ".join(dict.fromkeys(str(each.get("matrix")) for each in decoding))
        parts.append(f"differences of the sub-boli were decoded ({matrices})")
    if in_pairs:
        parts.append("control and label images were subtracted pairwise")
    parts.append(
        "repeats of a measurement were averaged robustly against outliers"
        + (f", and the difference was divided by {told}" if told else "")
    )
    smooth = options.get("m0_smooth_fwhm") or 0
    text = "; ".join(parts) + "."
    text = text[0].upper() + text[1:] + _repetition(unit, runs) + _masking(runs)
    if smooth:
        text += f" The M0 image was smoothed with a Gaussian kernel of {smooth:g} mm."
    source = str((unit.get("tissue") or {}).get("source") or _ATLAS)
    if options.get("tissue", True) and source.endswith(_COORDINATES):
        text += (
            " Maps of grey matter, white matter and fluid of the anatomy were taken from "
            "derivatives, placed by the scanner's coordinates."
        )
    elif options.get("tissue", True) and source.startswith(_ATLAS):
        text += (
            " Priors of grey matter, white matter and fluid came from the ICBM 152 atlas [@fonov] "
            "registered affinely to the M0 image with SimpleITK."
        )
        if (unit.get("tissue") or {}).get("fractions") == "M0":
            text += (
                " What each voxel holds of them was found from the M0 image itself by a mixture "
                "model with a smooth field [@leemput], the atlas being the prior."
            )
    return text


def _repetition(unit: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Tell how M0 was corrected for its repetition time; empty where it was not."""
    entry = (unit.get("calibration") or {}).get("t1_tissue_m0")
    t1 = entry.get("Value") if isinstance(entry, Mapping) else None
    m0s = [run.get("m0") or {} for run in runs]
    factors = [
        float(m0["repetition_time_correction"])
        for m0 in m0s
        if m0.get("repetition_time_correction")
    ]
    if t1 is None or not any(factor != 1 for factor in factors):
        return ""
    times = [time for m0 in m0s for time in m0.get("repetition_time") or []]
    told = [f"{factor:.3f}" for factor in dict.fromkeys(factors)]
    of = f" of {_times(times)}" if times else ""
    return (
        f" M0 was corrected for incomplete recovery during its repetition time{of} by "
        f"1/(1 - exp(-TR/T1)), with a T1 of tissue of {float(t1):g} s [@wright]: a factor of "
        f"{' and '.join(told)}."
    )


def _masking(runs: Sequence[Mapping[str, Any]]) -> str:
    """Tell how the brain mask was made."""
    sources = [str((run.get("mask") or {}).get("source") or "") for run in runs]
    texts = []
    for source in dict.fromkeys(filter(None, sources)):
        made = source.removeprefix("made from the ")
        if made == source:
            texts.append("The brain mask was given.")
        else:
            what = "M0 image" if made == "M0" else made
            texts.append(
                f"The brain mask was made from the {what} by its brightness and by morphological "
                "opening, which cuts off scalp, eyes and neck."
            )
    return "".join(f" {text}" for text in texts)
