"""What a run is set to do, in words: for the dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asl_bids_app.bids.sessions import Unit
from asl_bids_app.errors import AslAppError
from asl_bids_app.options.table import AppOptions
from asl_bids_app.workflows.plan import Plan
from asl_bids_app.workflows.planned_outputs import list_outputs
from asl_bids_app.workflows.work_folder import free, needed

if TYPE_CHECKING:
    from asl_bids_app.anatomy.outlook import Outlook


def describe_settings(plan: Plan, options: AppOptions) -> tuple[list[str], list[AslAppError]]:
    """Tell estimator, error bars, motion, tissue, device, work folder and outputs.

    What would end the run before it starts (a model or device that isn't there) is shown as an
    error in its line.

    Returns
    -------
    list of str, list of AslAppError
        Lines, and what would end the run before it starts.
    """
    units = [unit for participant in plan.participants for unit in participant.units]
    outlooks = _foresee(options, units)
    faults: list[AslAppError] = []

    def attempt(describe: Callable[[AppOptions], tuple[str, str]]) -> tuple[str, str]:
        try:
            return describe(options)
        except AslAppError as error:
            faults.append(error)
            return "", f"error: {options.locate(error)}"

    estimator, reported = attempt(_estimator)
    _, device = attempt(_device)
    _, processors = attempt(_processors)
    lines = ["what the run would do", f"  estimator: {reported}"]
    if estimator == "ensemble":
        bars = {
            "total": "total: noise and the uncertainty of T1 of blood, T1 of tissue, efficiency, "
            "partition coefficient and M0",
            "noise": "noise only (--error-bars noise)",
        }[options.error_bars]
    else:
        bars = "noise only, as always with this estimator"
    if estimator:
        lines.append(f"  error bars: {bars}")
    if estimator == "ensemble":
        lines.append(f"  means of tissues: {_means(options)}")
    lines += [
        "  motion: " + ("rigid correction of every volume" if options.hmc else "none (--no-hmc)"),
        f"  brain mask: {_mask(options, units)}",
        f"  tissue: {_tissue(options, units, outlooks)}",
        *_calibration(options),
        *_anatomy(options, outlooks),
        f"  device: {device}",
        f"  processors: {processors}",
        f"  work folder: {options.work_dir}"
        + (" (emptied first, --clean-workdir)" if options.clean_workdir else "")
        + f"; about {needed(plan.participants)}, {free(options.work_dir)} free",
        f"  output folder: {options.output_dir}",
    ]
    for index, unit in enumerate(units):
        lines += list_outputs(unit, options, estimator, outlooks[index] if outlooks else None)
    if units:
        lines.append("  reports: " + ", ".join(f"sub-{p}.html" for p in _labels(plan)))
    return lines, faults


def _labels(plan: Plan) -> list[str]:
    labels = [p.participant for p in plan.participants if p.units]
    return labels if len(labels) < 12 else [*labels[:10], "..."]


def _estimator(options: AppOptions) -> tuple[str, str]:
    from asl_bids_app.workflows.checks import check_model, choose_estimator

    name, (model, digest) = choose_estimator(options.estimator, options.model)
    check_model(options.model)
    why = "--estimator" if options.estimator else "default"
    if name == "ensemble":
        flips = "averaged over flips" if options.tta else "without flips (--no-tta)"
        reported = f"ensemble ({why}), model {model} ({digest[:12]}), {flips}"
    else:
        reported = f"{name} ({why})"
    if name != "least-squares":
        beside = "least squares beside it" if options.baseline else "no least squares beside it"
        reported += f"; {beside}"
    return name, reported


def _device(options: AppOptions) -> tuple[str, str]:
    from asl_bids_app.estimators.devices import find_device

    found = str(find_device(options.device))
    return found, f"{found} (--device {options.device})"


def _processors(options: AppOptions) -> tuple[str, str]:
    from asl_bids_app.workflows.execute import read_plugin

    plugin, _ = read_plugin(options.use_plugin, options.nprocs, options.mem_gb)
    memory = f"{options.mem_gb:g} GB" if options.mem_gb else "what the machine has"
    by = f"; by nipype's {plugin} (--use-plugin)" if options.use_plugin else ""
    return plugin, f"{options.nprocs}; memory: {memory}{by}"


def _mask(options: AppOptions, units: list[Unit]) -> str:
    from asl_bids_app.settings import offered_mask

    if options.brain_mask:
        return f"{options.brain_mask} (--brain-mask)"
    offered = [offered_mask(options, unit) for unit in units]
    given = list(dict.fromkeys(str(path) for path, _ in offered if path))
    if not given:
        return "made from the M0"
    without = sum(path is None for path, _ in offered)
    rest = f"; {without} made from the M0" if without else ""
    laid = ", laid by the registration to its T1w" if any(of_t1w for _, of_t1w in offered) else ""
    return f"{', '.join(given[:3])}{', ...' * (len(given) > 3)} (--derivatives){laid}{rest}"


def _tissue(options: AppOptions, units: list[Unit], outlooks: list[Outlook]) -> str:
    from asl_bids_app.preprocess.tissue_maps import given_tissue

    if not options.tissue:
        return "none (--no-tissue): no metrics by tissue"
    with_t1w = {unit.name for unit, o in zip(units, outlooks, strict=False) if o.usable}
    parts = []
    if with_t1w:
        parts.append(f"the T1w's, registered, for {len(with_t1w)} of {len(units)} series")
    rest = [unit for unit in units if unit.name not in with_t1w]
    given = sum(bool(given_tissue(options.derivatives, unit.entities)) for unit in rest)
    if given:
        parts.append(f"maps of --derivatives for {given} of {len(units)} series")
    if given < len(rest) or not parts:
        parts.append("the bundled atlas (MNI152), moved onto each head")
    return "; ".join(parts)


def _foresee(options: AppOptions, units: list[Unit]) -> list[Outlook]:
    """Return what the anatomy of each series will come to; none with ``--no-anatomy``."""
    from asl_bids_app.anatomy.outlook import foresee
    from asl_bids_app.finish.unit_anatomy import make_request
    from asl_bids_app.settings import unit_settings

    if not units:
        return []
    request = make_request(unit_settings(options, units[0], ""), options.output_dir)
    return foresee(request, [unit.entities for unit in units]) if request is not None else []


def _anatomy(options: AppOptions, outlooks: list[Outlook]) -> list[str]:
    """Tell the T1w of the series, where there is one or anything asks for it, and what fails."""
    if not options.anatomy:
        return ["  anatomy: none (--no-anatomy)"]
    sources = [outlook.found.source for outlook in outlooks if outlook.usable]
    said = Counter(warning for outlook in outlooks for warning in outlook.warnings)
    asked = options.output_spaces or options.atlas or options.pvc
    if not (sources or said or asked):
        return []
    named = ", ".join(dict.fromkeys(sources[:3])) + ", ..." * (len(sources) > 3)
    return [
        f"  anatomy: {len(sources)} of {len(outlooks)} series with a T1w"
        + (f" ({named})" if named else ""),
        f"    spaces: {_shared([o.spaces for o in outlooks]) or 'none but that of the run'}; "
        f"regions: {_shared([tuple(o.atlases) for o in outlooks]) or 'none'}",
        *([f"    partial volume correction: {options.pvc}, where registered"] * bool(options.pvc)),
        *(
            f"    warning: {warning}" + (f" ({count} series)" if count > 1 else "")
            for warning, count in said.items()
        ),
    ]


def _shared(each: Sequence[Sequence[object]]) -> str:
    """Name what is made of the series, and of how many where not of all."""
    counts = Counter(thing for things in each for thing in things)
    return ", ".join(
        f"{thing}" if count == len(each) else f"{thing} ({count} series)"
        for thing, count in counts.items()
    )


def _calibration(options: AppOptions) -> list[str]:
    if options.calibration == "voxelwise":
        return []
    other = "; else that of each voxel" if options.calibration != "csf" else ""
    how = f"--calibration {options.calibration}"
    return [f"  M0: that of blood, by the fluid of the lateral ventricles{other} ({how})"]


def _means(options: AppOptions) -> str:
    if not options.tissue_consistency:
        return "as the networks leave them (--no-tissue-consistency)"
    if not options.tissue:
        return "none without tissue (--no-tissue): only the mean of the brain is corrected"
    return "of grey and white matter, corrected by the data"
