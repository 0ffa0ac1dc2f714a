"""The command line of `asl-app`: every option, and the checks that need no data."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from asl_bids_app import __version__
from asl_bids_app.allocation import processors
from asl_bids_app.cli.checks import apply_config, check_places
from asl_bids_app.cli.elsewhere import ELSEWHERE
from asl_bids_app.cli.types import (
    atlas,
    between,
    count,
    efficiency,
    gigabytes,
    label,
    megabytes,
    pair,
    path,
    seed,
    space,
)
from asl_bids_app.usage import OneLineParser
from asl_bids_app.workflows.options import ERROR_BARS, ESTIMATORS, JOINT_MODES, LEVELS, AppOptions

EPILOG = """\
Every constant can be given here, or comes from the sidecars, or is a stated default; the
log, the sidecars and the report say which. --dry-run shows what would be done.
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, but not of switches: that of ``--no-hmc`` would read as its opposite."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"{action.help} (default: {'yes' if default else 'no'})"
        if action.nargs == 0 or default in (None, []):
            return action.help
        return super()._get_help_string(action)


class _Parser(OneLineParser):
    """Accepts underscores for hyphens in option names, as BIDS apps do."""

    elsewhere = ELSEWHERE

    def add_option(self, group: Any, *names: str, **settings: Any) -> None:
        """Add an option under its hyphen and underscore spellings."""
        spellings = list(names)
        for name in names:
            if name.startswith("--") and "-" in name[2:]:
                spellings.append("--" + name[2:].replace("-", "_"))
        settings.setdefault("dest", names[-1].lstrip("-").replace("-", "_"))
        group.add_argument(*spellings, **settings)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `asl-app`."""
    parser = _Parser(
        prog="asl-app",
        description="CBF and ATT maps with error bars from multi-delay ASL in BIDS "
        "(PCASL, CASL, PASL, velocity-selective ASL, alone or jointly).",
        epilog=EPILOG,
        formatter_class=_Help,
    )
    parser.add_argument("bids_dir", type=path, help="root of the BIDS dataset")
    parser.add_argument("output_dir", type=path, help="folder for the derivatives")
    parser.add_argument(
        "level", choices=LEVELS, metavar="{participant,group}", help="level of the analysis"
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; -vv for debugging"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say only warnings and errors")
    parser.add_argument("--version", action="version", version=f"asl-app {__version__}")
    _add_data(parser)
    _add_estimation(parser)
    _add_anatomy(parser)
    _add_calibration(parser)
    _add_resources(parser)
    _add_running(parser)
    return parser


def _add_data(parser: _Parser) -> None:
    group = parser.add_argument_group("which data")
    parser.add_option(
        group,
        "--participant-label",
        nargs="+",
        default=[],
        type=label("sub-"),
        metavar="LABEL",
        help="participants to process, with or without 'sub-'",
    )
    parser.add_option(
        group,
        "--session-label",
        nargs="+",
        default=[],
        type=label("ses-"),
        metavar="LABEL",
        help="sessions to process, with or without 'ses-'",
    )
    parser.add_option(
        group, "--bids-filter-file", type=path, metavar="FILE", help="JSON with pybids filters"
    )
    parser.add_option(
        group,
        "-d",
        "--derivatives",
        nargs="+",
        default=[],
        type=pair,
        metavar="NAME=PATH",
        help="derivatives to use: the T1w with its tissue maps and transforms, and brain masks "
        "(of fMRIPrep, sMRIPrep, ASLPrep)",
    )
    parser.add_option(
        group,
        "--bids-database-dir",
        type=path,
        metavar="DIR",
        help="where the index of the dataset is kept for the next run",
    )
    parser.add_option(
        group,
        "--skip-bids-validation",
        action="store_true",
        help="a missing field that BIDS requires but this program doesn't need is a warning",
    )
    parser.add_option(
        group,
        "--joint",
        choices=JOINT_MODES,
        default="auto",
        help="quantify PCASL and VSASL runs of a session together: where possible (auto), "
        "never (off), or together and alone (both)",
    )


def _add_estimation(parser: _Parser) -> None:
    group = parser.add_argument_group("estimation")
    parser.add_option(
        group,
        "--estimator",
        choices=ESTIMATORS,
        default=None,
        help="the main maps; by default the ensemble of networks where a model is installed, "
        "else least squares",
    )
    parser.add_option(
        group, "--model", metavar="NAME|DIR", default=None, help="trained model of the ensemble"
    )
    parser.add_option(
        group,
        "--no-baseline",
        dest="baseline",
        action="store_false",
        help="no least-squares maps beside another estimator",
    )
    parser.add_option(
        group,
        "--tta",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average the networks over flips of the slices",
    )
    parser.add_option(
        group,
        "--no-tissue-consistency",
        dest="tissue_consistency",
        action="store_false",
        help="leave the ensemble's CBF and ATT as the networks give them: no correction by the "
        "mean residuals of grey and of white matter",
    )
    parser.add_option(
        group,
        "--no-arterial",
        dest="arterial",
        action="store_false",
        help="look for no arteries: the ensemble takes all signal of early delays for tissue",
    )
    parser.add_option(
        group,
        "--error-bars",
        choices=ERROR_BARS,
        default="total",
        help="what the ensemble's standard deviations hold: noise and the doubt about T1 of "
        "blood, efficiency and M0 (total), or noise alone, for comparisons within a person and "
        "scanner",
    )
    parser.add_option(
        group, "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps"
    )
    parser.add_option(
        group, "--batch-size", type=count, default=8, metavar="N", help="slices at a time"
    )
    parser.add_option(
        group,
        "--no-hmc",
        dest="hmc",
        action="store_false",
        help="no head-motion correction",
    )
    parser.add_option(
        group,
        "--no-tissue",
        dest="tissue",
        action="store_false",
        help="no tissue maps: no metrics by tissue, and of the ensemble only the mean of the "
        "brain is corrected",
    )
    parser.add_option(
        group,
        "--brain-mask",
        type=path,
        metavar="FILE",
        help="brain mask to use, resampled to each run",
    )


def _add_anatomy(parser: _Parser) -> None:
    group = parser.add_argument_group("anatomy")
    parser.add_option(
        group,
        "--output-spaces",
        nargs="+",
        default=[],
        type=space,
        metavar="SPACE[:res-N]",
        help="spaces beside that of the run in which maps are written, such as T1w or "
        "MNI152NLin2009cAsym:res-2",
    )
    parser.add_option(
        group,
        "--atlas",
        nargs="+",
        default=[],
        type=atlas,
        metavar="NAME[:SPACE][=PATH]",
        help="atlases whose regions get tables: folders in the layout of NiPreps, or a NIfTI "
        "with a table (index, name) beside it",
    )
    parser.add_option(
        group,
        "--no-anatomy",
        dest="anatomy",
        action="store_false",
        help="leave the T1w alone: no registration, no other spaces, no regions",
    )


def _add_calibration(parser: _Parser) -> None:
    group = parser.add_argument_group("calibration (outranks the sidecars)")
    parser.add_option(
        group, "--t1-blood", type=between(0.5, 4.0), metavar="S", help="T1 of arterial blood"
    )
    parser.add_option(
        group,
        "--t1-tissue",
        type=between(0.3, 4.0),
        metavar="S",
        help="T1 of tissue in the kinetics; equal to that of blood by default",
    )
    parser.add_option(
        group,
        "--labeling-efficiency",
        nargs="+",
        default=[],
        type=efficiency,
        metavar="[SCHEME=]VALUE",
        help="e.g. 0.8, or PCASL=0.8 VSASL=0.5; without background suppression",
    )
    parser.add_option(
        group,
        "--bs-efficiency",
        type=between(0.5, 1.0),
        metavar="VALUE",
        help="what one background-suppression pulse leaves of the label; given, a "
        "LabelingEfficiency of the sidecar is taken not to contain it",
    )
    parser.add_option(
        group,
        "--partition-coefficient",
        type=between(0.3, 1.5),
        metavar="ML/G",
        help="blood-brain partition coefficient of water",
    )
    parser.add_option(
        group,
        "--bolus-duration",
        type=between(0.05, 5.0),
        metavar="S",
        help="bolus of a PASL run without cut-off",
    )
    parser.add_option(
        group,
        "--m0-scale",
        type=between(1e-9, 1e9),
        metavar="VALUE",
        help="the M0 image is multiplied by it",
    )
    parser.add_option(
        group,
        "--m0-smooth-fwhm",
        type=between(0.0, 50.0),
        default=0.0,
        metavar="MM",
        help="smoothing of the M0 image inside the brain",
    )


def _add_resources(parser: _Parser) -> None:
    group = parser.add_argument_group("resources")
    parser.add_option(
        group,
        "--nthreads",
        "--n-cpus",
        "--nprocs",
        type=count,
        default=processors(),
        metavar="N",
        help="processors to use in all",
    )
    parser.add_option(
        group, "--omp-nthreads", type=count, metavar="N", help="threads of one step at most"
    )
    parser.add_option(
        group,
        "--mem-gb",
        type=gigabytes,
        metavar="SIZE",
        help="memory to use at most, e.g. 8, 8G or 8000M; a bare number is in GB",
    )
    parser.add_option(
        group,
        "--mem",
        "--mem-mb",
        type=megabytes,
        dest="mem_gb",
        metavar="SIZE",
        help="the same; a bare number is in MB",
    )
    parser.add_option(
        group,
        "--use-plugin",
        type=path,
        metavar="FILE",
        help="YAML with a nipype plugin and its arguments",
    )
    parser.add_option(
        group,
        "-w",
        "--work-dir",
        type=path,
        default=path("work"),
        metavar="DIR",
        help="intermediate results; a second run with the same folder resumes",
    )
    parser.add_option(
        group,
        "--clean-workdir",
        action="store_true",
        help="first remove what earlier runs left of these participants in the work folder; "
        "refused while another run works on one of them there",
    )


def _add_running(parser: _Parser) -> None:
    group = parser.add_argument_group("running")
    parser.add_option(
        group,
        "--config-file",
        type=path,
        metavar="FILE",
        help="YAML with options, e.g. 't1-blood: 1.6'; the command line outranks it",
    )
    parser.add_option(group, "--dry-run", action="store_true", help="show what would be done")
    parser.add_option(
        group,
        "--propose-sidecars",
        type=path,
        metavar="DIR",
        help="for runs whose sidecar or aslcontext.tsv has faults, write completed ones to this "
        "folder, for review: guessed values are marked, and no run uses them before the marks "
        "are removed and the files copied into the dataset",
    )
    parser.add_option(
        group, "--reports-only", action="store_true", help="rebuild the reports from the maps"
    )
    parser.add_option(
        group, "--boilerplate-only", action="store_true", help="write the methods text only"
    )
    parser.add_option(
        group,
        "--fail-on-implausible",
        action="store_true",
        help="implausible maps count as a failure in the exit code",
    )
    parser.add_option(
        group, "--stop-on-first-crash", action="store_true", help="end at the first failure"
    )
    parser.add_option(
        group, "--run-report", type=path, metavar="FILE", help="JSON record of the whole run"
    )
    parser.add_option(
        group, "--random-seed", type=seed, default=0, metavar="N", help="seed of what is drawn"
    )
    parser.add_option(group, "--write-graph", action="store_true", help="draw the workflow")
    parser.add_option(
        group, "--debug", action="store_true", help="keep everything and show tracebacks"
    )


def parse(argv: Sequence[str] | None = None) -> AppOptions:
    """Read the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    AppOptions

    Raises
    ------
    SystemExit
        With code 2 and one line on standard error if an argument is wrong.
    """
    parser = build_parser()
    first = parser.parse_args(argv)
    if first.config_file:
        apply_config(parser, first.config_file)
    values = vars(parser.parse_args(argv))
    values.pop("config_file")
    check_places(parser, values)
    for key in ("participant_label", "session_label", "output_spaces", "atlas"):
        values[key] = tuple(values[key])
    values["derivatives"] = dict(values["derivatives"])
    values["labeling_efficiency"] = dict(values["labeling_efficiency"])
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", values["device"]):
        parser.error(
            f"--device: found {values['device']!r}, expected auto, cpu, cuda, cuda:N or mps"
        )
    names = {item.name for item in fields(AppOptions)}
    return AppOptions(**{key: value for key, value in values.items() if key in names})
