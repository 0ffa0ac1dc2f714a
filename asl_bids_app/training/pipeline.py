"""From nothing to a model folder on one machine; a second run goes on where the first stopped."""

from __future__ import annotations

import argparse


def fit_words(arguments: argparse.Namespace, members: list[int]) -> list[str]:
    """Return the arguments of ``asl-train fit`` for some members, as another command has them."""
    words = ["fit", "--config", str(arguments.config), "--output-dir", str(arguments.output_dir)]
    words += ["--dataset", str(arguments.dataset), "--members", ",".join(map(str, members))]
    for change in arguments.changes:
        words += ["--set", change]
    if arguments.allow_noncritical:
        words.append("--allow-noncritical")
    words += ["--device", arguments.device, "--devices", str(arguments.devices)]
    words += ["--threads", str(arguments.threads), "--max-hours", str(arguments.max_hours)]
    if getattr(arguments, "init_from", None):
        words += ["--init-from", str(arguments.init_from)]
    return words
