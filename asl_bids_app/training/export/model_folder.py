"""Turn a run folder into a model folder for the app, and into ONNX files."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from asl_bids_app.models.run_folder import load_run_folder
from asl_bids_app.models.save import save_model
from asl_bids_app.models.spec import SchemeDomain, TrainingDomain
from asl_bids_app.training.fit.training_run import RunFolder, load_member, trained_members
from asl_bids_app.training.validate.validation_report import REPORT

if TYPE_CHECKING:
    from torch import nn

    from asl_bids_app.training.config.run_config import RunConfig
from asl_bids_app.training.export.onnx_files import export_onnx

log = logging.getLogger(__name__)

LICENCE: Final = "Apache-2.0"
INTENDED_USE: Final = (
    "Estimates CBF and ATT with error bars from multi-delay ASL for research. Trained on "
    "simulated slices only. Not a medical device; not for decisions about patients."
)


def export_run(
    run: Path,
    output: Path,
    name: str | None = None,
    version: str = "1",
    onnx: Path | None = None,
) -> Path:
    """Make a model folder out of a run folder.

    Parameters
    ----------
    run
        Run folder; its validation, if there is one, goes with the model.
    output
        Model folder to make.
    name
        Of the model; that of the configuration if not given.
    version
        Of the model.
    onnx
        Folder for ONNX files; None for none.

    Returns
    -------
    Path
        The model folder.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    found, networks = load_run_folder(run)
    members = cast("tuple[nn.Module, ...]", networks)
    spec = replace(
        found,
        name=name or config.name,
        version=version,
        arguments=core_arguments(members[0]),
        domain=describe_domain(config),
        calibration=_calibration(folder),
        metrics=_metrics(folder),
        training=_training(folder, config),
        licence=LICENCE,
        intended_use=INTENDED_USE,
    )
    made = save_model(output, spec, members, _extras(folder))
    if onnx is not None:
        export_onnx(spec, members, onnx)
    return made


def core_arguments(member: nn.Module) -> dict[str, Any]:
    """Return all arguments of a network, defaults included."""
    from asl_bids_app.training.fit.run_members import inner_network

    core: Any = inner_network(member)
    return dict(core.arguments)


def describe_domain(config: RunConfig) -> TrainingDomain:
    """Describe with which data a run was trained."""
    from asl_bids_app.training.simulate.disturbances import REFERENCE_SIGNAL
    from asl_bids_app.training.simulate.physics import training_domain

    domain = training_domain(config.domain)
    schemes = {
        name: SchemeDomain(
            measurements=tuple(entry.get("measurements", domain["measurements"])),
            delay=tuple(entry["delay"]),
            label_duration=tuple(entry["label_duration"]),
            efficiency=tuple(entry["efficiency"]),
        )
        for name, entry in domain["schemes"].items()
    }
    return TrainingDomain(
        schemes=schemes,
        combinations=tuple(domain["combinations"]),
        t1_blood=tuple(domain["t1_blood"]),
        t1_tissue=tuple(domain["t1_tissue"]),
        partition_coefficient=tuple(domain["partition_coefficient"]),
        snr=config.noise.snr,
        reference_signal=REFERENCE_SIGNAL,
    )


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _calibration(folder: RunFolder) -> dict[str, Any]:
    return _read_json(folder.validation / "uncertainty_calibration.json")


def _metrics(folder: RunFolder) -> dict[str, Any]:
    """Take the main numbers out of the validation: network and strong baseline, by name."""
    from asl_bids_app.training.validate import baselines

    report = _read_json(folder.validation / f"{REPORT}.json")
    summary: dict[str, Any] = {}
    for scenario in report.get("scenarios", {}).values():
        for level, tables in scenario["snr"].items():
            methods = tables["groups"]["tissue"]
            summary.setdefault(scenario["title"], {})[f"SNR {level}"] = {
                method: {
                    f"{quantity} {metric}": round(methods[method][quantity][metric], 3)
                    for quantity in ("cbf", "att")
                    for metric in ("mae", "bias")
                }
                for method in (baselines.NETWORK, baselines.STRONG)
            }
    return summary


def _training(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    """Say how the model was made."""
    provenance = folder.read_research_config()
    members = {
        f"member {number}": {
            key: content[key] for key in ("seed", "step", "steps", "complete", "metrics")
        }
        for number in trained_members(folder)
        for content in [load_member(folder.model(number))]
    }
    seconds = sum(m.get("seconds", 0.0) for m in provenance.get("members", {}).values())
    environments = [m["environment"] for m in provenance.get("members", {}).values()]
    return {
        "preset": config.name,
        "command": f"asl-train pipeline --config {config.name}",
        "config_sha256": config.digest(),
        "critical_settings_changed": config.noncritical() or "none",
        "dataset": provenance.get("dataset", {}),
        "training_hours_of_all_members": round(seconds / 3600, 2),
        "environment": environments[0] if environments else {},
        "members": members,
    }


def _extras(folder: RunFolder) -> dict[str, Path]:
    """Name the files that go with the model."""
    extras = {"training/config.yaml": folder.config}
    if folder.research_config.is_file():
        extras["training/research_config.json"] = folder.research_config
    for member in trained_members(folder):
        curve = folder.logs(member) / "metrics.csv"
        if curve.is_file():
            extras[f"training/metrics-{member}.csv"] = curve
    for path in sorted(folder.validation.glob("*")):
        # The data of interactive plots are large and of no use to the app.
        if path.suffix in {".md", ".png"} or path.stem in {REPORT, "uncertainty_calibration"}:
            extras[f"validation/{path.name}"] = path
    return extras
