"""Facts of a record as the methods text asks for them; every key of a record may be missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from asl_bids_app.anatomy.regions import TISSUE_ATLAS
from asl_bids_app.constants import ConstantKey, read_constants
from asl_bids_app.quality.definitions import METRICS
from asl_bids_app.reports.old_records import mask_kind, output_keys, tissue_kind
from asl_bids_app.run_records import ParticipantRecord, RunFacts, UnitRecord
from asl_bids_app.schemes import find_scheme

M0_ORIGINS: Final = MappingProxyType(
    {
        "Separate": "a separate M0 scan",
        "Included": "the M0 volumes of the series",
        "Estimate": "the M0 estimate of the sidecar",
        "Absent": "the mean control image, in the absence of an M0 scan",
    }
)
CONSTANTS: Final = MappingProxyType(
    {
        "t1_blood": "a T1 of arterial blood",
        "t1_tissue": "a T1 of tissue",
        "partition_coefficient": "a blood-brain partition coefficient",
    }
)
_NOISE: Final = MappingProxyType(
    {
        "repeats": "the spread of the repeats",
        "residuals": "the residuals of a first fit",
        "neighbours": "differences between neighbouring voxels",
    }
)
_JUDGED: Final = MappingProxyType(
    {
        "qei": "the quality evaluation index [@qei]",
        "cbf_scov_gm": "the spatial coefficient of variation of CBF in grey matter [@scov]",
        "residual_to_noise_gm": "the agreement of residuals with the expected noise",
        "registration_dice": "the overlap of the brains of ASL and T1-weighted image",
        "registration_boundary_contrast": "the contrast of CBF across the boundary of white "
        "matter [@greve]",
        "registration_nmi": "the normalised mutual information of M0 and T1-weighted image "
        "[@studholme]",
    }
)
"""Metrics that a text names, if they were computed."""


class Recovery(NamedTuple):
    """How M0 was corrected for its repetition time."""

    t1: float
    """Seconds."""
    factors: tuple[str, ...]
    times: str
    """The repetition times in words; empty if they aren't known."""


class Model(NamedTuple):
    """What a record says of the ensemble's model; empty where it says nothing."""

    members: str
    label: str
    network: str
    bars: str
    separated: bool = False
    """Whether arteries were separated from tissue before the networks looked."""


def join_words(parts: Sequence[str]) -> str:
    """Write a list as in a sentence: a, b and c."""
    if not parts:
        return ""
    return ", ".join(parts[:-1]) + (" and " if parts[1:] else "") + parts[-1]


def write_times(values: Iterable[float | None]) -> str:
    """Write times in seconds, equal ones once; what is not finite is left out."""
    numbers = [float(v) for v in values if v is not None and math.isfinite(float(v))]
    distinct = list(dict.fromkeys(numbers))
    if len(distinct) < 2:
        return f"{distinct[0]:g} s" if distinct else ""
    return ", ".join(f"{v:g}" for v in distinct[:-1]) + f" and {distinct[-1]:g} s"


def describe_scanner(run: RunFacts) -> str:
    """Write field strength and voxel size, as far as they are known."""
    parts = []
    field = run.field_strength
    if isinstance(field, int | float) and math.isfinite(field) and field > 0:
        parts.append(f"at {field:g} T")
    if len(run.voxel_size_mm) == 3:
        parts.append(f"with voxels of {' x '.join(f'{v:.3g}' for v in run.voxel_size_mm)} mm")
    return " ".join(parts)


def list_perfusion_volumes(run: RunFacts) -> list[str]:
    """Write how many volumes of each kind a run has."""
    return [
        f"{number} {'ΔM' if kind == 'deltam' else kind} volumes"
        for kind, number in run.volumes.items()
        if kind in {"control", "label", "deltam"}
    ]


def has_pairs(runs: Sequence[RunFacts]) -> bool:
    """Tell whether some run was subtracted pairwise; supposed of runs that aren't known."""
    decoded = sum(bool(run.decoding) for run in runs)
    return not runs or sum("control" in run.volumes for run in runs) > decoded


def has_several_delays(runs: Sequence[RunFacts]) -> bool:
    """Tell whether some run was measured at several delays."""
    return any(len(set(run.post_labeling_delay)) > 1 for run in runs)


def find_recovery(unit: UnitRecord) -> Recovery | None:
    """Return how M0 was corrected for its repetition time; None where it was not."""
    stored = read_constants(unit.calibration).get(ConstantKey("t1_tissue_m0"))
    found = [float(run.m0.get("repetition_time_correction") or 0) for run in unit.runs]
    factors = [factor for factor in found if factor]
    if stored is None or stored.value is None or all(factor == 1 for factor in factors):
        return None
    times = [time for run in unit.runs for time in run.m0.get("repetition_time") or []]
    reported = tuple(f"{factor:.3f}" for factor in dict.fromkeys(factors))
    return Recovery(float(stored.value), reported, write_times(times))


def list_mask_kinds(runs: Sequence[RunFacts]) -> list[str]:
    """Return what the brain masks were made from, equal ones once."""
    return list(dict.fromkeys(filter(None, (mask_kind(run.mask) for run in runs))))


def describe_noise(unit: UnitRecord) -> str:
    """Write how the noise was estimated; empty if that isn't known."""
    methods = {str(scheme): str(how) for scheme, how in unit.noise_method.items()}
    ways = list(dict.fromkeys(methods.values()))
    if len(ways) < 2:
        return _NOISE.get(ways[0], ways[0]) if ways else ""
    return " and ".join(f"{_NOISE.get(how, how)} ({scheme})" for scheme, how in methods.items())


def find_model(unit: UnitRecord) -> Model:
    """Return what a unit says of the ensemble's model."""
    reported = {key.lower(): str(value or "") for key, value in (unit.model or {}).items()}
    label = " ".join(filter(None, (reported.get("name"), reported.get("version"))))
    network, bars = (reported.get(key, "") for key in ("network", "errorbars"))
    separated = (unit.model or {}).get("ArteriesSeparated") is True
    return Model(reported.get("members", ""), label, network, bars, separated)


def part_of(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a part of what is known of the anatomy; empty where a record has none."""
    found = facts.get(key)
    return found if isinstance(found, Mapping) else {}


def _names(facts: Mapping[str, Any], key: str, name: str) -> list[str]:
    """Return a name of each item of a list, equal ones once."""
    items = facts.get(key)
    items = items if isinstance(items, Sequence) else ()
    return list(dict.fromkeys(str(i.get(name)) for i in items if isinstance(i, Mapping)))


def describe_program(facts: Mapping[str, Any]) -> str:
    """Write which program processed a T1w, with its citation; empty if that isn't known."""
    name = str(facts.get("program") or "")
    first = name.partition(" ")[0].lower()
    work = {"fmriprep": "fmriprep", "smriprep": "fmriprep", "aslprep": "aslprep"}.get(first)
    return f"{name} [@{work}]" if work else name


def describe_spaces(facts: Mapping[str, Any]) -> str:
    """Write the spaces into which maps were resampled."""
    return join_words(_names(facts, "spaces", "space"))


def describe_atlases(facts: Mapping[str, Any]) -> str:
    """Write the atlases of the regions; the tissues, which need none, last."""
    names = _names(facts, "atlases", "atlas")
    own = TISSUE_ATLAS in names
    named = [f"the atlas {name}" for name in names if name != TISSUE_ATLAS]
    return join_words([*named, *(["grey, white and deep grey matter and the hemispheres"] * own)])


def has_output(unit: UnitRecord, key: str) -> bool:
    """Tell whether a unit has a derivative, by its key in the table of outputs."""
    return key in (unit.output_keys or output_keys(unit))


def list_quality(record: ParticipantRecord) -> list[str]:
    """Return the metrics that judged the quality; before a run, the ones that would."""
    if not record.units:
        return []
    known = [unit.metrics for unit in record.units if unit.metrics]
    if not known:
        # All of them need tissue maps.
        words = [text for key, text in _JUDGED.items() if not METRICS[key].anatomy]
        return words if record.options.get("tissue", True) else []
    return [
        words
        for key, words in _JUDGED.items()
        if any(_is_number(metrics.get(key)) for metrics in known)
    ]


def _is_number(value: Any) -> bool:
    # Without tissue a metric is NaN while the run lasts, and null in its record.
    return isinstance(value, int | float) and math.isfinite(value)


NAMES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "CONSTANTS": CONSTANTS,
        "M0_ORIGINS": M0_ORIGINS,
        "constants": read_constants,
        "find_recovery": find_recovery,
        "find_scheme": find_scheme,
        "has_output": has_output,
        "has_pairs": has_pairs,
        "has_several_delays": has_several_delays,
        "listed": join_words,
        "mask_kinds": list_mask_kinds,
        "model_of": find_model,
        "noise_words": describe_noise,
        "atlas_words": describe_atlases,
        "part_of": part_of,
        "program_words": describe_program,
        "space_words": describe_spaces,
        "perfusion_volumes": list_perfusion_volumes,
        "quality_words": list_quality,
        "scanner": describe_scanner,
        "times": write_times,
        "tissue_kind": tissue_kind,
    }
)
"""What the template finds under which name."""
