"""What a run is set to do, in words: for the dry run."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from asl_bids_app.bids.acquisition import Acquisition, distinct_measurements
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.bids.sessions import Unit
from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.options.table import AppOptions
from asl_bids_app.settings import runs_baseline
from asl_bids_app.workflows.plan import Plan
from asl_bids_app.workflows.work_folder import free, needed


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
    faults: list[AslAppError] = []

    def attempt(describe: Callable[[AppOptions], tuple[str, str]]) -> tuple[str, str]:
        try:
            return describe(options)
        except AslAppError as error:
            faults.append(error)
            return (
                "",
                f"error: {options.locate(error) if isinstance(error, InputError) else error}",
            )

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
        f"  tissue: {_tissue(options, units)}",
        *_calibration(options),
        *_anatomy(options, units),
        f"  device: {device}",
        f"  processors: {processors}",
        f"  work folder: {options.work_dir}"
        + (" (emptied first, --clean-workdir)" if options.clean_workdir else "")
        + f"; about {needed(plan.participants)}, {free(options.work_dir)} free",
        f"  output folder: {options.output_dir}",
    ]
    for unit in units:
        lines += _outputs(unit, options, estimator)
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
    from asl_bids_app.preprocess.tissue_maps import given_mask

    if options.brain_mask:
        return f"{options.brain_mask} (--brain-mask)"
    given = [str(path) for u in units if (path := given_mask(options.derivatives, u.entities))]
    if not given:
        return "made from the M0"
    rest = "" if len(given) == len(units) else f"; {len(units) - len(given)} made from the M0"
    return f"{', '.join(given[:3])}{', ...' * (len(given) > 3)} (--derivatives){rest}"


def _tissue(options: AppOptions, units: list[Unit]) -> str:
    from asl_bids_app.preprocess.tissue_maps import given_tissue

    if not options.tissue:
        return "none (--no-tissue): no metrics by tissue"
    by_t1w = [unit for unit, _ in _find_t1ws(options, units)]
    parts = [f"the T1w's, registered, for {len(by_t1w)} of {len(units)} series"] if by_t1w else []
    rest = [unit for unit in units if unit not in by_t1w]
    given = sum(bool(given_tissue(options.derivatives, unit.entities)) for unit in rest)
    if given:
        parts.append(f"maps of --derivatives for {given} of {len(units)} series")
    if given < len(rest) or not parts:
        parts.append("the bundled atlas (MNI152), moved onto each head")
    return "; ".join(parts)


def _find_t1ws(options: AppOptions, units: list[Unit]) -> list[tuple[Unit, str]]:
    """Return the units that have a T1w, and where it is from."""
    from asl_bids_app.anatomy.find import find_anatomy

    if not options.anatomy:
        return []
    found = [(u, find_anatomy(options.bids_dir, options.derivatives, u.entities)) for u in units]
    return [(unit, anatomy.source) for unit, anatomy in found if anatomy.t1w is not None]


def _anatomy(options: AppOptions, units: list[Unit]) -> list[str]:
    """Tell the T1w of the series, where there is one or anything asks for it."""
    if not options.anatomy:
        return ["  anatomy: none (--no-anatomy)"]
    sources = [source for _, source in _find_t1ws(options, units)]
    if not (sources or options.output_spaces or options.atlas or options.pvc):
        return []
    named = ", ".join(dict.fromkeys(sources[:3])) + ", ..." * (len(sources) > 3)
    spaces = ", ".join(options.output_spaces) or "none but that of the run"
    atlases = ", ".join(["tissue", *options.atlas])
    return [
        f"  anatomy: {len(sources)} of {len(units)} series with a T1w"
        + (f" ({named})" if named else ""),
        f"    spaces: {spaces}; regions: {atlases}",
        *([f"    partial volume correction: {options.pvc}, where registered"] * bool(options.pvc)),
    ]


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


def _shows_arteries(runs: Sequence[Acquisition], estimator: str) -> bool:
    """Tell whether a delay is early enough to show arteries that nothing crushes."""
    import torch

    from asl_bids_app.estimators.arteries import FEWEST, FEWEST_FOR_POSTERIOR, shows_arteries
    from asl_bids_app.protocol import Protocol

    rows = [
        (run.scheme, *times[:2], run.metadata.get("VascularCrushing") is True)
        for run in runs
        for times in distinct_measurements(run)
    ]
    if not rows:
        return False
    schemes, delays, durations, crushed = zip(*rows, strict=True)
    times = (torch.tensor(delays), torch.tensor(durations), torch.zeros(1, len(rows)))
    fewest = FEWEST if estimator == "least-squares" else FEWEST_FOR_POSTERIOR
    return shows_arteries(Protocol(schemes, *times, crushed), fewest)


def _outputs(unit: Unit, options: AppOptions, estimator: str) -> list[str]:
    without = set()
    runs = [run.acquisition for run in unit.runs]
    if sum(len(distinct_measurements(run)) for run in runs) > 1:
        # The consensus formula is for a single delay.
        without |= {"consensus_cbf", "consensus_cbf_sd"}
    if all(run.encoding for run in runs):
        without.add("carpet")
    if not options.hmc:
        without.add("confounds")
    if not options.tissue:
        without |= {"gm", "wm", "csf"}
    if not options.pvc:
        without |= {key for key, output in OUTPUTS.items() if output.asked}
    if not options.arterial or not _shows_arteries(runs, estimator):
        without |= {"abv", "abv_sd"}
    baseline = runs_baseline(options.baseline, estimator)
    names = [
        output.name(unit.entities)
        for key, output in OUTPUTS.items()
        if key not in without and (baseline or not output.baseline)
    ]
    folder = Path(f"sub-{unit.entities['sub']}")
    if "ses" in unit.entities:
        folder /= f"ses-{unit.entities['ses']}"
    listed = textwrap.wrap(", ".join(names), 100, break_long_words=False, break_on_hyphens=False)
    head = f"  outputs of {unit.name}, in {folder / 'perf'}/:"
    return [head, *(f"    {line}" for line in listed)]
