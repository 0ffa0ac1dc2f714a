"""The methods text of a run, with citations, ready to be pasted into a paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.reports.methods_data import describe_acquisition, describe_preprocessing
from asl_bids_app.reports.references import REFERENCES, Reference, bibtex

_CITE: Final = re.compile(r"\[@([a-z; @]+)\]")


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

    def bibtex(self) -> str:
        """Return the references as a BibTeX file."""
        return bibtex(self.references)


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
    paragraphs += filter(None, [_quality(units, options)] if units else [])
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
    texts = [describe_acquisition(run) for run in runs]
    if unit.get("joint") and len(runs) > 1:
        texts.append("The runs were quantified together, as one series.")
    texts.append(describe_preprocessing(unit, runs, options))
    texts.append(_kinetics(unit, runs))
    texts.append(_estimation(unit))
    return [text for text in texts if text]


_NOISE: Final = MappingProxyType(
    {
        "repeats": "the spread of the repeats",
        "residuals": "the residuals of a first fit",
        "neighbours": "differences between neighbouring voxels",
    }
)


def _noise(unit: Mapping[str, Any]) -> str:
    """Tell how the noise was estimated."""
    methods = {str(k): str(v) for k, v in (unit.get("noise_method") or {}).items()}
    if not methods:
        return ""
    ways = list(dict.fromkeys(methods.values()))
    if len(ways) == 1:
        told = _NOISE.get(ways[0], ways[0])
    else:
        told = " and ".join(
            f"{_NOISE.get(how, how)} ({scheme})" for scheme, how in methods.items()
        )
    return (
        f" The noise of each voxel was estimated from {told}, pooled over measurements and "
        "neighbouring voxels."
    )


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
        corrected = unit.get("tissue_consistency") or {}
        if corrected.get("TissueWeight"):
            text += (
                " The maps were then corrected in closed form so that the residuals of grey and "
                "of white matter vanish in the mean within a Gaussian window of "
                f"{corrected['WindowFWHM']:g} mm."
            )
    elif name.startswith("bayes"):
        text = (
            "The main estimates are mean and standard deviation of the voxelwise Bayesian "
            "posterior of CBF and ATT, computed on a grid."
        )
    elif name:
        return f"The estimates come from {least}; standard errors are those of the fit." + _noise(
            unit
        )
    else:
        return ""
    if unit.get("baseline"):
        text += f" For comparison, CBF and ATT were also estimated by {least}."
    return text + _noise(unit)


_JUDGED: Final = MappingProxyType(
    {
        "qei": "the quality evaluation index [@qei]",
        "cbf_scov_gm": "the spatial coefficient of variation of CBF in grey matter [@scov]",
        "residual_to_noise_gm": "the agreement of residuals with the expected noise",
    }
)
"""Metrics that a text names, if they were computed."""


def _quality(units: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    known = [unit["metrics"] for unit in units if isinstance(unit.get("metrics"), Mapping)]
    if known:
        told = [
            words
            for key, words in _JUDGED.items()
            if any(isinstance(metrics.get(key), int | float) for metrics in known)
        ]
    else:  # before a run: all need tissue maps
        told = list(_JUDGED.values()) if options.get("tissue", True) else []
    if not told:
        return ""
    return f"Quality was judged by {', '.join(told[:-1])}{' and ' if told[1:] else ''}{told[-1]}."
