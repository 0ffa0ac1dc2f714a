"""The parser of ``asl-train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asl_bids_app.usage import OneLineParser

DESCRIPTION = "Train the networks of asl-app from physics alone: phantoms, simulation, ensembles."


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = OneLineParser(prog="asl-train", description=DESCRIPTION)
    parser.add_argument("-v", "--verbose", action="store_true", help="tell more, show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _generate,
        _preview,
        _fit,
        _validate,
        _export,
        _pipeline,
        _benchmark,
        _show,
        _slurm_scripts,
    ):
        add(commands)
    return parser


def _numbers(text: str) -> list[int]:
    """Read ``0,3-5`` as [0, 3, 4, 5]."""
    found: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        try:
            found += range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected e.g. 0,3-5") from None
    if not found:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected e.g. 0,3-5")
    return found


def _command(
    commands: argparse._SubParsersAction[Any], name: str, text: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    return made


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="NAME|FILE", help="a preset, or a YAML file"
    )
    _add_changes(parser)


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting: training.batch_size=8 (times in ms); may be repeated",
    )
    parser.add_argument(
        "--allow-noncritical",
        action="store_true",
        help="accept critical settings other than those known to work",
    )


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="(auto)"
    )
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="GPUs or processes a member uses (1)"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads of a process on the CPU"
    )


def _generate(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(commands, "generate", "Make phantoms, or what is missing of them.")
    _add_config(parser)
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument(
        "--part", dest="parts", action="append", help="train, validation, ...; all if not given"
    )
    parser.add_argument(
        "--shards", type=_numbers, metavar="0,3-5", help="only these (with one --part)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")


def _preview(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(commands, "preview", "Draw a sheet of phantoms and simulated signals.")
    _add_config(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--seed", type=int, default=1)


def _fit(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(
        commands, "fit", "Train members, or go on with them; finished members are left alone."
    )
    _add_config(parser)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of asl-train generate")
    parser.add_argument("--output-dir", type=Path, required=True, help="run folder")
    parser.add_argument("--members", type=_numbers, metavar="0,2-4", help="(all)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="members trained at a time (1)"
    )
    parser.add_argument(
        "--max-hours",
        type=float,
        default=float("inf"),
        metavar="H",
        help="stop with a checkpoint after so long (exit status 75)",
    )
    parser.add_argument(
        "--init-from", type=Path, metavar="PATH", help="weights to start from: run folder or .pt"
    )
    _add_devices(parser)


def _validate(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(
        commands, "validate", "Compare an ensemble with least squares on phantoms never seen."
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="run folder")
    parser.add_argument(
        "--output-dir", type=Path, help="for tables and figures (validation_results of the run)"
    )
    parser.add_argument(
        "--dataset", type=Path, help="folder of phantoms; made anew if not given or incomplete"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    _add_changes(parser)


def _export(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(commands, "export", "Make a model folder for asl-app, and ONNX files.")
    parser.add_argument("--run-dir", type=Path, required=True, help="run folder")
    parser.add_argument("--output-dir", type=Path, required=True, help="model folder to make")
    parser.add_argument("--name", help="name of the model (that of the configuration)")
    parser.add_argument("--model-version", default="1", help="version of the model (1)")
    parser.add_argument("--onnx", type=Path, metavar="DIR", help="also write ONNX files there")


def _pipeline(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(
        commands, "pipeline", "Everything on this machine: phantoms, members, validation, model."
    )
    _add_config(parser)
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("production_model_v1"),
        help="run folder (production_model_v1)",
    )
    parser.add_argument("--dataset", type=Path, help="folder of phantoms (RUN/dataset)")
    parser.add_argument("--train-only", action="store_true", help="the phantoms are there already")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes at a time (the processors of the job)"
    )
    parser.add_argument("--max-hours", type=float, default=float("inf"), metavar="H")
    parser.add_argument("--no-onnx", dest="onnx", action="store_false", help="no ONNX files")
    _add_devices(parser)


def _benchmark(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(
        commands, "benchmark", "Measure phantoms and training slices a second on one core."
    )
    _add_config(parser)
    parser.add_argument("--seconds", type=float, default=10.0, help="a measurement takes (10)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(1)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the numbers there")


def _show(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(commands, "show", "Print a configuration in full, or list the presets.")
    parser.add_argument("--config", metavar="NAME|FILE", help="a preset, or a YAML file")
    parser.add_argument(
        "--query",
        choices=("members", "shards", "steps"),
        help="print one number of it, for scripts",
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="DIR", help="check that its phantoms are there too"
    )
    _add_changes(parser)


def _slurm_scripts(commands: argparse._SubParsersAction[Any]) -> None:
    parser = _command(
        commands, "slurm-scripts", "Write the scripts that submit everything to SLURM."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to put them")
