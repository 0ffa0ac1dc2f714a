"""From nothing to a model folder on one machine; a second run goes on where the first stopped."""

from __future__ import annotations

import argparse
import hashlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_bids_app.allocation import processors
from asl_bids_app.errors import AslAppError
from asl_bids_app.training.data.parts import PARTS, check_phantoms, generate_part
from asl_bids_app.training.fit.launch import run_together
from asl_bids_app.training.fit.training_run import (
    RunFolder,
    check_same_config,
    load_member,
    note,
    trained_members,
)
from asl_bids_app.training.stop_signals import INTERRUPTED
from asl_bids_app.training.whole_files import sha256

if TYPE_CHECKING:
    from asl_bids_app.training.config.run_config import RunConfig

log = logging.getLogger(__name__)


def fit_words(arguments: argparse.Namespace, config: Path | str, member: int) -> list[str]:
    """Return the arguments of ``asl-train fit`` for a member.

    Parameters
    ----------
    arguments
        Of a command with the options of ``fit``.
    config
        What to give as ``--config``.
    member
        Number of the member.
    """
    words = ["fit", "--config", str(config), "--output-dir", str(arguments.output_dir)]
    words += ["--dataset", str(arguments.dataset), "--members", str(member)]
    for change in arguments.changes:
        words += ["--set", change]
    if arguments.allow_noncritical:
        words.append("--allow-noncritical")
    words += ["--device", arguments.device, "--devices", str(arguments.devices)]
    words += ["--threads", str(arguments.threads), "--max-hours", str(arguments.max_hours)]
    if getattr(arguments, "init_from", None):
        words += ["--init-from", str(arguments.init_from)]
    return words


def fit_together(arguments: argparse.Namespace, members: list[int], jobs: int) -> int:
    """Train members in processes of their own.

    Returns
    -------
    int
        0, or 75 if some stopped early with a checkpoint.

    Raises
    ------
    AslAppError
        If one failed; names its log.
    """
    logs = arguments.output_dir / "logs"
    commands = {f"fit_{m}": fit_words(arguments, arguments.config, m) for m in members}
    codes = run_together(commands, jobs, logs)
    failed = [name for name, code in codes.items() if code not in (0, INTERRUPTED)]
    if failed:
        raise AslAppError(f"{', '.join(failed)} failed; see {logs / failed[0]}.log")
    return max(codes.values(), default=0)


def run_pipeline(config: RunConfig, arguments: argparse.Namespace) -> int:
    """Make phantoms, train, validate and export; what is done already is left alone.

    Returns
    -------
    int
        0, or 75 if training stopped early with a checkpoint.
    """
    folder = RunFolder(arguments.output_dir)
    arguments.dataset = arguments.dataset or folder.root / "dataset"
    if arguments.train_only:
        check_phantoms(arguments.dataset)
    check_same_config(folder, config)
    jobs = arguments.jobs or processors()
    # Members read what was resolved once; the overrides are in it.
    arguments.config, arguments.changes = folder.config, []
    arguments.allow_noncritical = True
    took: dict[str, float] = {}

    began = time.monotonic()
    if not arguments.train_only:
        for part in PARTS:
            generate_part(config, arguments.dataset, part, workers=jobs)
        took["generate"] = time.monotonic() - began

    began = time.monotonic()
    members = [m for m in range(config.training.members) if not is_complete(folder, m)]
    if members:
        status = fit_together(arguments, members, jobs)
        if status:
            log.info("training stopped early; the same command goes on from its checkpoints")
            return status
        took["fit"] = time.monotonic() - began

    began = time.monotonic()
    weights = weights_digest(folder)
    done = folder.read_research_config().get("pipeline", {})
    if done.get("validated") != weights:
        from asl_bids_app.training.validate.validation import validate_run

        validate_run(folder.root, dataset=arguments.dataset, device=arguments.device, jobs=jobs)
        note(folder, "pipeline/validated", weights)
        took["validate"] = time.monotonic() - began

    began = time.monotonic()
    if done.get("exported") != weights or "validate" in took:
        from asl_bids_app.training.export.model_folder import export_run

        onnx = folder.root / "onnx" if arguments.onnx else None
        export_run(folder.root, folder.root / "model", onnx=onnx)
        note(folder, "pipeline/exported", weights)
        took["export"] = time.monotonic() - began

    rounded: dict[str, Any] = {name: round(seconds, 1) for name, seconds in took.items()}
    if rounded:
        note(folder, "pipeline/seconds", rounded)
    log.info("done: %s", ", ".join(f"{k} {v} s" for k, v in rounded.items()) or "nothing to do")
    return 0


def is_complete(folder: RunFolder, member: int) -> bool:
    """Tell whether a member is trained to its end."""
    path = folder.model(member)
    return path.is_file() and bool(load_member(path)["complete"])


def weights_digest(folder: RunFolder) -> str:
    """Return a fingerprint of the weights of all members."""
    parts = [sha256(folder.model(member)) for member in trained_members(folder)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()
