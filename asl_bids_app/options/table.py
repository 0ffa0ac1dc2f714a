"""Every option of a run, declared once: the whole table.

The parser and its help, configuration files, the container wrapper and the documentation read
this table. No heavy import stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from asl_bids_app.allocation import processors
from asl_bids_app.constants import Origin
from asl_bids_app.errors import COMMAND_LINE, AslAppError, InputError
from asl_bids_app.options import defaults, readers
from asl_bids_app.options.constant_options import CALIBRATION, ConstantOptions
from asl_bids_app.options.declare import Access, Option, option, required
from asl_bids_app.options.groups import (
    ANATOMY,
    DATA,
    ESTIMATION,
    GENERAL,
    LEVELS,
    RESOURCES,
    RUNNING,
    AnatomyOptions,
    DataOptions,
    EstimationOptions,
)

GROUPS: Final = (DATA, ESTIMATION, ANATOMY, CALIBRATION, RESOURCES, RUNNING)
"""In the order of the help."""

KEEP_WORK: Final = ("auto", "all", "failed")

CONFIG_FILE: Final = Option(
    RUNNING,
    "YAML with options, e.g. 't1-blood: 1.6'; the command line outranks it",
    ("--config-file",),
    readers.path,
    "FILE",
    access=Access.READ_FILE,
)
"""The one option that isn't handed on: its file's values are."""


@dataclass(frozen=True)
class PlaceOptions:
    """Folders, level, and how much is said."""

    bids_dir: Path = required("root of the BIDS dataset", reader=readers.path, access=Access.READ)
    output_dir: Path = required(
        "folder for the derivatives", reader=readers.path, access=Access.WRITE
    )
    work_dir: Path = required(
        "folder for intermediate results; a second run with the same folder resumes",
        group=RESOURCES,
        names=("-w", "--work-dir"),
        reader=readers.path,
        metavar="DIR",
        machine_default=lambda: readers.path("work"),
        access=Access.WRITE,
    )
    level: str = option("participant", GENERAL, "level of the analysis", choices=LEVELS)

    verbose: int = option(
        0, GENERAL, "say more; -vv for debugging", names=("-v", "--verbose"), counted=True
    )
    quiet: bool = option(False, GENERAL, "say only warnings and errors", names=("-q", "--quiet"))


@dataclass(frozen=True)
class ResourceOptions:
    """What of the machine may be used."""

    nprocs: int = option(
        1,
        RESOURCES,
        "processors of the whole run",
        names=("--nthreads", "--n-cpus", "--nprocs"),
        reader=readers.count,
        metavar="N",
        machine_default=processors,
    )
    omp_nthreads: int | None = option(
        None, RESOURCES, "most threads of one step", reader=readers.count, metavar="N"
    )
    mem_gb: float | None = option(
        None,
        RESOURCES,
        "most memory to use, e.g. 8, 8G or 8000M; a bare number is in GB",
        reader=readers.gigabytes,
        metavar="SIZE",
        second=Option(
            RESOURCES,
            "the same; a bare number is in MB",
            ("--mem", "--mem-mb"),
            readers.megabytes,
            "SIZE",
        ),
    )
    keep_work: str = option(
        "auto",
        RESOURCES,
        "whose intermediate results stay in the work folder: those of everybody (all), of "
        "participants who are not complete (failed), or of everybody if the disk has room for "
        "them, else of those who are not complete (auto)",
        choices=KEEP_WORK,
    )
    use_plugin: Path | None = option(
        None,
        RESOURCES,
        "YAML with a nipype plugin and its arguments",
        reader=readers.path,
        metavar="FILE",
        access=Access.READ_FILE,
    )
    clean_workdir: bool = option(
        False,
        RESOURCES,
        "first remove the results of earlier runs of these participants from the work folder; "
        "refused while another run works on one of them there",
    )


@dataclass(frozen=True)
class RunningOptions:
    """What is done beside or instead of maps."""

    dry_run: bool = option(False, RUNNING, "show what would be done")
    propose_sidecars: Path | None = option(
        None,
        RUNNING,
        "folder for completed sidecars and aslcontext.tsv of runs that have faults, for review: "
        "guessed values are marked, and no run uses them before you remove the marks and copy "
        "the files into the dataset",
        reader=readers.path,
        metavar="DIR",
        access=Access.WRITE_ALWAYS,
    )
    reports_only: bool = option(False, RUNNING, "only rebuild the reports from the maps")
    boilerplate_only: bool = option(False, RUNNING, "only write the methods text")
    fail_on_implausible: bool = option(
        False, RUNNING, "implausible maps count as a failure in the exit code"
    )
    stop_on_first_crash: bool = option(False, RUNNING, "end at the first failure")
    run_report: Path | None = option(
        None,
        RUNNING,
        "file for the JSON record of the whole run",
        reader=readers.path,
        metavar="FILE",
        access=Access.WRITE_FILE,
    )
    random_seed: int = option(
        defaults.SEED, RUNNING, "seed of random numbers", reader=readers.seed, metavar="N"
    )
    write_graph: bool = option(False, RUNNING, "draw the workflow")
    debug: bool = option(False, RUNNING, "keep all intermediate files and show tracebacks")


@dataclass(frozen=True)
class AppOptions(
    # The fields of the last class come first.
    RunningOptions,
    ResourceOptions,
    ConstantOptions,
    AnatomyOptions,
    EstimationOptions,
    DataOptions,
    PlaceOptions,
):
    """Options of a run. Paths are absolute; the help of each field says what it does."""

    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)
    """Where options were given that the command line didn't give, by the names of fields."""

    def origin(self, name: str) -> Origin:
        """Return where an option was given."""
        return self.origins.get(name, Origin())

    def locate(self, error: AslAppError) -> AslAppError:
        """Return an error that names the place where its option was given.

        Parameters
        ----------
        error
            Of the command line for want of better knowledge, or any other one.
        """
        if not isinstance(error, InputError):
            return error
        name = error.field.removeprefix("--").replace("-", "_")
        if error.file != COMMAND_LINE or name not in self.origins:
            return error
        origin = self.origins[name]
        rest = (error.found, error.expected, error.cure, error.cause)
        return InputError(str(origin), origin.spell(name), *rest)

    def to_json(self) -> dict[str, Any]:
        """Return the options for records: paths as text."""

        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return str(value)
            if isinstance(value, Mapping):
                return {key: plain(item) for key, item in value.items()}
            return list(value) if isinstance(value, tuple) else value

        content = {key: plain(value) for key, value in asdict(self).items()}
        content["origins"] = {name: str(origin) for name, origin in self.origins.items()}
        return content if self.origins else {k: v for k, v in content.items() if k != "origins"}
