"""Quantifying a BIDS dataset from Python, one unit after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asl_bids_app.failures import Failure
    from asl_bids_app.notices import Notice
    from asl_bids_app.run_records import UnitRecord


CALL: Final = "quantify_bids"
"""What an error calls the function."""


@dataclass(frozen=True, eq=False)
class BidsResult:
    """What became of a dataset.

    Attributes
    ----------
    units : tuple of UnitRecord
        The record of each unit: entities, metrics, warnings, and the paths of its files below
        the output folder. It reads as a mapping, too.
    failures : tuple of Failure
        What could not be done, each in one line; empty if all went well.
    warnings : tuple of Notice
        Of the dataset as a whole and of the options; those of a unit are in its record.
    """

    units: tuple[UnitRecord, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[Notice, ...] = ()


def quantify_bids(
    bids_dir: str | Path,
    output_dir: str | Path,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    estimator: str | None = None,
    **options: Any,
) -> BidsResult:
    """Quantify the ASL runs of a BIDS dataset and write derivatives.

    The same maps, tables and sidecars as of the command line, in this process and without its
    work folder, logs and reports. Nothing is taken from earlier runs.

    Parameters
    ----------
    bids_dir, output_dir
        The dataset, and where the derivatives go.
    participants, sessions
        Labels; all by default.
    estimator
        ``ensemble``, ``bayes`` or ``least-squares``; by default the ensemble.
    **options
        Any other field of `asl_bids_app.options.table.AppOptions`, such as ``hmc``,
        ``t1_blood`` or ``tissue``.

    Returns
    -------
    BidsResult
        A run that fails is in its failures, and the others go on.

    Raises
    ------
    InputError
        If the dataset as a whole or an option is at fault.

    Examples
    --------
    >>> from asl_bids_app import quantify_bids
    >>> result = quantify_bids("my_dataset", "derivatives", hmc=False)  # doctest: +SKIP
    >>> result.units[0].metrics["cbf_mean_gm"]  # doctest: +SKIP
    52.3
    """
    from asl_bids_app.argument_checks import naming_arguments

    chosen = {} if estimator is None else {"estimator": estimator}
    with naming_arguments(CALL):
        return _quantify(bids_dir, output_dir, participants, sessions, options | chosen)


def _quantify(
    bids_dir: str | Path,
    output_dir: str | Path,
    participants: Sequence[str],
    sessions: Sequence[str],
    options: dict[str, Any],
) -> BidsResult:
    from asl_bids_app.bids.dataset_description import describe_dataset
    from asl_bids_app.constants import Origin, Source
    from asl_bids_app.errors import InputError
    from asl_bids_app.finish.unit_anatomy import other_datasets
    from asl_bids_app.options.from_python import read_labels, read_values
    from asl_bids_app.options.table import AppOptions
    from asl_bids_app.quantify import quantify_unit
    from asl_bids_app.settings import unit_settings
    from asl_bids_app.workflows.checks import (
        check_calibration,
        check_machine,
        check_mask,
        check_output_place,
        check_pvc,
        choose_estimator,
    )
    from asl_bids_app.workflows.crash import failure_of
    from asl_bids_app.workflows.plan import make_plan

    read = read_values(options, CALL)
    labels = (
        read_labels(participants, "sub-", "participants", CALL),
        read_labels(sessions, "ses-", "sessions", CALL),
    )
    for name, place in (("bids_dir", bids_dir), ("output_dir", output_dir)):
        if not isinstance(place, str | Path):
            raise InputError(CALL, name, repr(place), "a folder")
    source, target = Path(bids_dir).expanduser().absolute(), Path(output_dir).expanduser()
    target = target.absolute()
    check_output_place(source, target, CALL)
    asked = AppOptions(
        source,
        target,
        target,
        participant_label=labels[0],
        session_label=labels[1],
        origins=dict.fromkeys(read, Origin(Source.ARGUMENT)),
        **read,
    )
    check_mask(asked.brain_mask)
    check_calibration(asked.calibration, asked.tissue, asked.m0_smooth_fwhm)
    check_pvc(asked.pvc, asked.anatomy)
    plan = make_plan(asked)
    name, model = choose_estimator(asked.estimator, asked.model)
    check_machine(asked.device, asked.model)
    describe_dataset(target, source, plan.dataset.description, other_datasets(asked))
    units: list[UnitRecord] = []
    failures: list[Failure] = []
    for participant in plan.participants:
        failures += participant.failures
        for unit in participant.units:
            try:
                units.append(quantify_unit(unit, target, unit_settings(asked, unit, name, model)))
            except Exception as error:  # whatever it is, it is this unit's and no other's
                failures.append(failure_of(unit.name, "quantify", error))
    return BidsResult(tuple(units), tuple(failures), plan.dataset.warnings)
