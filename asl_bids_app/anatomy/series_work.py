"""What the anatomy of one series works on, and what its steps have brought so far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app.anatomy.request import FaultsAsWarnings, Request, UnitMaps
from asl_bids_app.bids.uris import add_sources
from asl_bids_app.notices import Notice

if TYPE_CHECKING:
    from asl_bids_app.anatomy.place import Placed
    from asl_bids_app.anatomy.records import Registration
    from asl_bids_app.anatomy.views import Views

LOG = logging.getLogger("asl-app")


class Work:
    """What the steps for one series share.

    Parameters
    ----------
    request
    unit
    tell
        Takes the name of each step as it begins.
    placed
        The series on its T1w as the fit had it; None to register it here.

    Attributes
    ----------
    outputs : list of Path
        Files that are written, sidecars left out.
    warnings : list of Notice
    facts : dict
        For the record and the report.
    tissue : dict of str to array, shape (X, Y, Z)
        Fractions of the tissues (gm, wm, csf) in the voxels of the series.
    registration : Registration or None
        On the T1w.
    views : dict of str to Views
        Slices for the report.
    place : tuple of str
        What a warning is about; empty where the participant has no other series.
    """

    def __init__(
        self,
        request: Request,
        unit: UnitMaps,
        tell: Callable[[str], None],
        placed: Placed | None,
    ) -> None:
        from asl_bids_app.bids.derivatives import perf_folder

        self.request, self.unit, self.tell, self.placed = request, unit, tell, placed
        self.folder = perf_folder(request.output_dir, unit.entities)
        self.outputs: list[Path] = []
        self.warnings: list[Notice] = []
        self.facts: dict[str, Any] = {}
        self.tissue: dict[str, np.ndarray] = {}
        self.registration: Registration | None = None
        self.views: dict[str, Views] = {}
        # Whoever shows a warning names the participant.
        several = set(unit.entities) != {"sub"}
        self.place = (unit.title,) if several else ()

    def resting_on(self, paths: Iterable[Path]) -> UnitMaps:
        """Return the series with further files among the `Sources` of its sidecars."""
        sidecar = self.unit.sidecar
        sources = add_sources(sidecar.get("Sources", ()), paths, self.request.datasets)
        return replace(self.unit, sidecar={**sidecar, "Sources": sources})

    def collect_faults(self) -> FaultsAsWarnings:
        """Return a block in which an error of the data becomes a warning."""
        return FaultsAsWarnings(self.warnings)

    def keep_slices(self, name: str, make: Callable[[], Views]) -> None:
        """Cut slices for the report, which does without them if need be."""
        try:
            self.views[name] = make()
        except Exception as error:
            LOG.debug("%s: slices of the %s", self.unit.title, name, exc_info=True)
            words = f"no picture of the {name} in the report ({error})"
            self.warnings.append(Notice(self.place, found=words))

    def keep_views(self) -> None:
        """Write the slices for the report."""
        from asl_bids_app.anatomy.view_files import views_file, write_views

        path = views_file(self.request.output_dir, self.unit.entities)
        with self.collect_faults():
            if self.views:
                write_views(path, self.views, self.facts)
                self.outputs.append(path)
