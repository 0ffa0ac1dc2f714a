"""Anatomy of one series: files in, files out. The science is in the modules beside it.

Whatever fails here is one line, and the maps in the space of the run are complete without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asl_bids_app.anatomy.request import Outcome, Request, UnitMaps
from asl_bids_app.anatomy.series_files import remove_stale, write_maps, write_regions
from asl_bids_app.anatomy.series_laying import keep_template_slices, lay_by_m0, lay_on_t1w
from asl_bids_app.anatomy.series_work import Work
from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.notices import Notice
from asl_bids_app.origins import AnatomyKind

if TYPE_CHECKING:
    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.place import Placed

LOG = logging.getLogger("asl-app")


def run(
    request: Request,
    unit: UnitMaps,
    tell: Callable[[str], None] = lambda _: None,
    placed: Placed | None = None,
) -> Outcome:
    """Register a series to its anatomy, and write maps in spaces and tables of regions.

    Parameters
    ----------
    request
    unit
    tell
        Takes the name of each step as it begins.
    placed
        The series on its T1w as the fit had it; None to register it here.

    Returns
    -------
    Outcome
        Never an error: what fails is among its warnings.
    """
    work = Work(request, unit, tell, placed)
    try:
        _run_all(work)
    except AslAppError as error:
        work.warnings.append(Notice.from_error(error))
    except Exception as error:
        LOG.debug("%s: anatomy", unit.title, exc_info=True)
        work.warnings.append(
            Notice(
                work.place,
                "",
                f"{type(error).__name__} ({error}) in the anatomy",
                "none",
                "the maps in the space of the run are complete",
            )
        )
    work.keep_views()
    remove_stale(request.output_dir, unit.entities, work.outputs)
    return Outcome(
        tuple(work.outputs),
        tuple(dict.fromkeys(work.warnings)),
        work.facts,
        work.tissue,
        work.registration,
    )


def _run_all(work: Work) -> None:
    """Run all steps; each that fails leaves a warning."""
    from asl_bids_app.anatomy.find import find_anatomy
    from asl_bids_app.anatomy.outlook import wanted_spaces

    request, placed = work.request, work.placed
    found = find_anatomy(request.bids_dir, request.derivatives, work.unit.entities)
    work.warnings += found.warnings
    if found.t1w is None and not (request.spaces or request.atlases):
        _warn_without_flows(work)
        return
    anatomy, fault = None, None
    if placed is not None and placed.registration is None:
        fault = Notice((), "T1w", f"no anatomy by the T1w: {placed.reason}")
    elif found.t1w is not None:
        try:
            anatomy = _make_head(work, found)
        except InputError as error:
            fault = Notice.from_error(error, "no anatomy by the T1w")
    if fault is not None:
        work.warnings.append(fault)
        if not (request.spaces or request.atlases):
            _warn_without_flows(work)
            return
    if anatomy is not None:
        work.warnings += anatomy.head.warnings
        work.facts |= dict(anatomy.head.facts)
        routes = lay_on_t1w(work, anatomy)
    else:
        routes = lay_by_m0(work)
    _correct_flows(work)
    if routes is None:
        return
    if anatomy is not None:
        keep_template_slices(work, routes, anatomy)
    for space in wanted_spaces(request, with_t1w=anatomy is not None):
        with work.collect_faults():
            write_maps(work, space, routes, anatomy)
    write_regions(work, routes, anatomy)


def _make_head(work: Work, found: Any) -> Anatomy:
    from asl_bids_app.anatomy.find import program_of
    from asl_bids_app.anatomy.foreign import without_foreign
    from asl_bids_app.anatomy.place import read_head

    head = read_head(work.request, found, work.tell)
    kind = AnatomyKind.DERIVATIVES if found.prepared else AnatomyKind.OWN
    work.facts |= {"kind": kind.value, "t1w": found.t1w.name}
    if found.prepared and (program := program_of(found.t1w)):
        work.facts["program"] = program
    if not found.prepared:
        work.outputs += head.outputs
        return head
    given, fits = without_foreign(head)
    if fits:
        work.facts["template_dice"] = fits
    return given


def _correct_flows(work: Work) -> None:
    """Estimate the flows of grey and white matter, where that is asked for."""
    from asl_bids_app.anatomy.outlook import warn_without_flows
    from asl_bids_app.anatomy.tissue_flows import correct, write_flows
    from asl_bids_app.estimators.partial_volume import PartialVolumeError

    if not work.request.pvc:
        return
    if work.registration is None or not work.registration.sure or work.unit.data is None:
        _warn_without_flows(work)
        return
    work.tell("partial volume")
    try:
        flows = correct(work.unit, work.tissue, work.request.pvc)
    except PartialVolumeError as error:
        notice = warn_without_flows(error.found, work.place, error.expected)
        work.warnings.append(notice)
        return
    work.unit = replace(work.unit, flows=flows)
    work.facts["partial_volume"] = dict(flows.facts)
    work.outputs += write_flows(work.folder, work.unit, flows, work.facts)


def _warn_without_flows(work: Work) -> None:
    """Say that there is no partial volume correction, and why."""
    from asl_bids_app.anatomy.outlook import NO_T1W, warn_without_flows

    if not work.request.pvc:
        return
    found, reason = work.registration, NO_T1W
    if found is not None:
        reason = "a doubtful registration" if found.registered else "no registration"
    work.warnings.append(warn_without_flows(reason, work.place))
