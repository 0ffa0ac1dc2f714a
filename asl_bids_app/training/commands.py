"""What the commands of ``asl-train`` do: read the configuration, call, tell the result."""

from __future__ import annotations

import argparse
import logging
import sys

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.run_config import RunConfig, load, presets

log = logging.getLogger(__name__)


def _config(arguments: argparse.Namespace) -> RunConfig:
    return load(arguments.config, arguments.changes, arguments.allow_noncritical)


def generate(arguments: argparse.Namespace) -> int:
    """Make phantoms."""
    from asl_bids_app.training.data.parts import PARTS, generate_part

    config = _config(arguments)
    parts = arguments.parts or list(PARTS)
    for name in parts:
        if name not in PARTS:
            raise InputError("--part", "", name, f"one of {', '.join(PARTS)}")
    if arguments.shards is not None and len(parts) != 1:
        raise InputError("--shards", "", f"{len(parts)} parts", "one --part")
    for name in parts:
        generate_part(config, arguments.output_dir, name, arguments.shards, arguments.jobs)
    return 0


def preview(arguments: argparse.Namespace) -> int:
    """Draw a sheet of phantoms."""
    from asl_bids_app.training.phantoms.preview_sheet import preview_sheet

    config = _config(arguments)
    preview_sheet(
        config.phantoms,
        arguments.output,
        seed=arguments.seed,
        domain=config.domain,
        noise=config.noise,
    )
    log.info("wrote %s", arguments.output)
    return 0


def fit(arguments: argparse.Namespace) -> int:
    """Train members, one after the other in this process or several at a time."""
    from asl_bids_app.training.stop_signals import INTERRUPTED

    config = _config(arguments)
    members = arguments.members or list(range(config.training.members))
    if len(members) > 1 and arguments.jobs > 1:
        from asl_bids_app.training.pipeline import fit_together

        return fit_together(arguments, members, arguments.jobs)
    from asl_bids_app.training.fit.fit_member import fit_member
    from asl_bids_app.training.fit.trainer import FitOptions

    options = FitOptions(
        arguments.device,
        arguments.devices,
        arguments.max_hours,
        arguments.threads,
        arguments.init_from,
        progress=True,
        stop=arguments.stop,
    )
    for member in members:
        result = fit_member(config, arguments.dataset, arguments.output_dir, member, options)
        if not result.finished:
            log.info(
                "member %d stopped at step %d of %d (%s); the same command goes on from there",
                result.member,
                result.step,
                result.steps,
                result.reason,
            )
            return INTERRUPTED
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """Compare an ensemble with the baselines."""
    from asl_bids_app.training.validate.validation import validate_run

    report = validate_run(
        arguments.run_dir,
        arguments.output_dir,
        arguments.dataset,
        arguments.device,
        arguments.changes,
        arguments.jobs,
    )
    log.info("wrote %s", report)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Make a model folder."""
    from asl_bids_app.training.export.model_folder import export_run

    folder = export_run(
        arguments.run_dir,
        arguments.output_dir,
        arguments.name,
        arguments.model_version,
        arguments.onnx,
    )
    log.info("wrote %s", folder)
    return 0


def pipeline(arguments: argparse.Namespace) -> int:
    """Do everything on this machine."""
    from asl_bids_app.training.pipeline import run_pipeline

    return run_pipeline(_config(arguments), arguments)


def benchmark(arguments: argparse.Namespace) -> int:
    """Measure how fast this machine trains."""
    from asl_bids_app.training.fit.training_speed import run_benchmark

    run_benchmark(_config(arguments), arguments.seconds, arguments.threads, arguments.output)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print a configuration."""
    if arguments.config is None:
        text = "\n".join(presets())
    else:
        from asl_bids_app.training.data.parts import describe_part

        config = _config(arguments)
        if arguments.dataset:
            from asl_bids_app.training.data.parts import check_phantoms

            check_phantoms(arguments.dataset)
        answers = {
            None: config.to_yaml().rstrip(),
            "members": config.training.members,
            "steps": config.steps,
            "shards": describe_part(config, "train").shards,
        }
        text = str(answers[arguments.query])
    sys.stdout.write(text + "\n")
    return 0


def slurm_scripts(arguments: argparse.Namespace) -> int:
    """Write the scripts for SLURM into a folder."""
    from asl_bids_app.training.slurm_scripts import write_scripts

    for path in write_scripts(arguments.folder):
        sys.stdout.write(f"{path}\n")
    return 0
