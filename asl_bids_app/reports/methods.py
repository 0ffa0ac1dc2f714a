"""The methods text of a run, with citations, ready to be pasted into a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.reports.references import REFERENCES, Reference

_CITE: Final = re.compile(r"\[@([a-z; @]+)\]")
_SCHEMES: Final = {
    "PCASL": "pseudo-continuous",
    "CASL": "continuous",
    "PASL": "pulsed",
    "VSASL": "velocity-selective",
}


@dataclass(frozen=True)
class Methods:
    """A methods text in parts.

    Attributes
    ----------
    paragraphs : tuple of str
        With the citations in their short form.
    references : tuple of Reference
        Those cited, in the order of the alphabet.
    """

    paragraphs: tuple[str, ...]
    references: tuple[Reference, ...]

    def markdown(self) -> str:
        """Return the text as Markdown."""
        lines = [
            "### Methods",
            "",
            *(f"{text}\n" for text in self.paragraphs),
            "### References",
            "",
        ]
        lines += [f"- {r.full} doi:{r.doi}" for r in self.references]
        return "\n".join(lines) + "\n"


def methods_text(record: Mapping[str, Any]) -> str:
    """Write the methods text of a participant's record.

    Parameters
    ----------
    record
        As runs write it; every key may be missing.

    Returns
    -------
    str
        Markdown, with the works it cites.
    """
    return methods(record).markdown()


def methods(record: Mapping[str, Any]) -> Methods:
    """Write the methods text of a participant's record in parts.

    Parameters
    ----------
    record
        As runs write it; every key may be missing.
    """
    units = [unit for unit in record.get("units") or [] if isinstance(unit, Mapping)]
    options = record.get("options")
    options = options if isinstance(options, Mapping) else {}
    paragraphs = [_opening(record)]
    described: list[str] = []
    for unit in units:
        for text in _of_unit(unit, options):
            if text not in described:
                described.append(text)
    paragraphs += described
    if units:
        paragraphs.append(_quality())
    cited: list[str] = []

    def short(match: re.Match[str]) -> str:
        keys = [key.strip().lstrip("@") for key in match[1].split(";")]
        cited.extend(keys)
        return "(" + "; ".join(REFERENCES[key].short for key in keys) + ")"

    texts = tuple(_CITE.sub(short, text) for text in paragraphs)
    references = sorted((REFERENCES[key] for key in dict.fromkeys(cited)), key=lambda r: r.full)
    return Methods(texts, tuple(references))


def _opening(record: Mapping[str, Any]) -> str:
    version = record.get("version")
    software = record.get("software") or {}
    named = f"asl-bids-app{f' {version}' if version else ''}"
    nipype = software.get("nipype")
    return (
        f"Arterial spin labelling (ASL) data in BIDS [@bids;@aslbids] were processed with "
        f"{named}, a BIDS app [@apps] built on nipype{f' {nipype}' if nipype else ''} [@nipype]."
    )


def _of_unit(unit: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    runs = [run for run in unit.get("runs") or [] if isinstance(run, Mapping)]
    texts = [_acquisition(run) for run in runs]
    if unit.get("joint") and len(runs) > 1:
        texts.append("The runs were quantified together, as one series.")
    texts.append(_preprocessing(unit, runs, options))
    texts.append(_kinetics(unit, runs))
    texts.append(_estimation(unit))
    return [text for text in texts if text]


def _times(values: Any) -> str:
    numbers = [float(v) for v in values or [] if v is not None and math.isfinite(float(v))]
    if not numbers:
        return ""
    distinct = list(dict.fromkeys(numbers))
    if len(distinct) == 1:
        return f"{distinct[0]:g} s"
    return ", ".join(f"{v:g}" for v in distinct[:-1]) + f" and {distinct[-1]:g} s"


def _acquisition(run: Mapping[str, Any]) -> str:
    scheme = str(run.get("scheme") or "")
    volumes = run.get("volumes") or {}
    delays = run.get("post_labeling_delay") or []
    word = _SCHEMES.get(scheme, "")
    text = f"The {word + ' ' if word else ''}ASL run ({scheme or 'scheme unknown'}) "
    counted = [
        f"{number} {'ΔM' if kind == 'deltam' else kind} volumes"
        for kind, number in volumes.items()
        if kind in {"control", "label", "deltam"}
    ]
    text += f"had {' and '.join(counted)} " if counted else "was acquired "
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
    text = text.rstrip() + "."
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


_ATLAS: Final = "MNI152 atlas"
_COORDINATES: Final = "by the scanner's coordinates"
"""How the sources of tissue maps begin and end, see `asl_bids_app.workflows.tissue`."""


def _preprocessing(
    unit: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> str:
    parts = []
    decoding = [run["decoding"] for run in runs if isinstance(run.get("decoding"), Mapping)]
    kinds_of = [set(run.get("volumes") or {}) for run in runs]
    in_pairs = not kinds_of or sum("control" in kinds for kinds in kinds_of) > len(decoding)
    told = [str(run["motion"]) for run in runs if run.get("motion")]
    uncorrected = bool(told) and all(how.startswith("none") for how in told)
    if options.get("hmc", True) and not uncorrected:
        parts.append(
            "Head motion was corrected by rigid registration with SimpleITK [@simpleitk]"
            + (
                " and summarised by the framewise displacement [@power]"
                if decoding and not in_pairs
                else ", apart from the alternation between control and label [@wang], and "
                "summarised by the framewise displacement [@power]"
            )
        )
    else:
        parts.append("Head motion was not corrected")
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
    return text


_NAMES: Final = {
    "t1_blood": "a T1 of arterial blood of",
    "t1_tissue": "a T1 of tissue of",
    "partition_coefficient": "a blood-brain partition coefficient of",
    "labeling_efficiency": "a labelling efficiency",
    "suppression": "a loss by background suppression",
}


def _kinetics(unit: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    calibration = unit.get("calibration") or {}
    told = []
    for name, entry in calibration.items():
        if not isinstance(entry, Mapping) or entry.get("Value") is None:
            continue
        base, _, scheme = name.partition("[")
        value, unit_name = float(entry["Value"]), str(entry.get("Units") or "")
        if base in {"t1_blood", "t1_tissue", "partition_coefficient"}:
            told.append(f"{_NAMES[base]} {value:g} {unit_name}")
        elif base == "labeling_efficiency":
            told.append(f"{_NAMES[base]} ({scheme.rstrip(']')}) of {value:g}")
        elif base == "suppression" and value != 1:
            told.append(
                f"a factor of {value:.4g} for background suppression ({scheme.rstrip(']')})"
            )
    several = any(len(set(run.get("post_labeling_delay") or [])) > 1 for run in runs)
    cited = "@buxton;@alsop;@woods" if several else "@buxton;@alsop"
    text = (
        "Cerebral blood flow (CBF) and arterial transit time (ATT) were estimated with the "
        f"general kinetic model of a single compartment and plug flow [{cited}]"
    )
    if told:
        text += ", with " + ", ".join(told[:-1]) + (" and " if told[1:] else "") + told[-1]
    return text + "."


_LEARNT: Final = MappingProxyType(
    {
        "PosteriorASLNet": ", which correct the Bayesian posterior of each voxel under the "
        "kinetic model by the posteriors of its neighbourhood"
    }
)
_ERROR_BARS: Final = MappingProxyType(
    {
        "total": " and include how much the T1 of blood, the labelling efficiency and M0 differ "
        "between scanners and people",
        "noise": " and take the calibration as exact",
    }
)
"""By the words of the option ``--error-bars``."""


def _estimation(unit: Mapping[str, Any]) -> str:
    name = str(unit.get("estimator") or "")
    model = {key.lower(): value for key, value in (unit.get("model") or {}).items()}
    least = (
        "a voxelwise least-squares fit (an exhaustive search over ATT with CBF in closed form, "
        "weighted by the noise of each measurement)"
    )
    if name.startswith("ensemble"):
        count = f"{model['members']} " if model.get("members") else ""
        label = " ".join(str(model[k]) for k in ("name", "version") if model.get(k))
        text = (
            f"The main estimates come from an ensemble of {count}convolutional neural networks"
            f"{f' ({label})' if label else ''} [@unet;@ensembles], trained on simulated data only "
            "and run with PyTorch [@pytorch]"
            f"{_LEARNT.get(str(model.get('network')), '')}; their standard deviations combine "
            "each member's own uncertainty with the spread between members"
            f"{_ERROR_BARS.get(str(model.get('errorbars')), '')}."
        )
    elif name.startswith("bayes"):
        text = (
            "The main estimates are mean and standard deviation of the voxelwise Bayesian "
            "posterior of CBF and ATT, computed on a grid."
        )
    elif name:
        return f"The estimates come from {least}; standard errors are those of the fit."
    else:
        return ""
    if unit.get("baseline"):
        text += f" For comparison, CBF and ATT were also estimated by {least}."
    return text


def _quality() -> str:
    return (
        "Quality was judged by the quality evaluation index [@qei], the spatial coefficient of "
        "variation of CBF in grey matter [@scov] and the agreement of residuals with the expected "
        "noise, besides visual inspection of the report."
    )
