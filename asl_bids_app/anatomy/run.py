"""Anatomy of one series: files in, files out. The science is in the modules beside it.

Whatever fails here is one line, and the maps in the space of the run are complete without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app.anatomy.request import FaultsAsWarnings, Outcome, Request, UnitMaps
from asl_bids_app.anatomy.spaces import NATIVE, PACKAGED, T1W, Space
from asl_bids_app.errors import AslAppError, InputError
from asl_bids_app.notices import Notice
from asl_bids_app.origins import AnatomyKind

if TYPE_CHECKING:
    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.place import Placed
    from asl_bids_app.anatomy.records import Registration
    from asl_bids_app.anatomy.routes import Routes
    from asl_bids_app.anatomy.views import Views

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
    work = _Work(request, unit, tell, placed)
    try:
        work.run_all()
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


def remove_stale(
    output_dir: Path, entities: Mapping[str, str], outputs: Sequence[Path] = ()
) -> None:
    """Remove what an earlier run, with other options or another T1w, left of a series.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    entities
        Of the series.
    outputs
        What the newest run wrote.
    """
    from asl_bids_app.anatomy.view_files import views_file
    from asl_bids_app.bids.derivatives import perf_folder, sidecar_path

    new = {path.name for path in outputs} | {sidecar_path(path).name for path in outputs}
    title = "_".join(f"{key}-{value}" for key, value in entities.items())
    old = [views_file(output_dir, entities)]
    for kind in ("space", "atlas", "from"):
        old += perf_folder(output_dir, entities).glob(f"{title}_{kind}-*")
    for path in old:
        if path.name not in new:
            path.unlink(missing_ok=True)


class _Work:
    """The steps for one series, and what they have brought so far."""

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

    def run_all(self) -> None:
        """Run all steps; each that fails leaves a warning."""
        from asl_bids_app.anatomy.find import find_anatomy

        request, placed = self.request, self.placed
        found = find_anatomy(request.bids_dir, request.derivatives, self.unit.entities)
        self.warnings += found.warnings
        if found.t1w is None and not (request.spaces or request.atlases):
            self._warn_without_flows()
            return
        anatomy, fault = None, None
        if placed is not None and placed.registration is None:
            fault = Notice((), "T1w", f"no anatomy by the T1w: {placed.reason}")
        elif found.t1w is not None:
            try:
                anatomy = self._make_head(found)
            except InputError as error:
                fault = Notice.from_error(error, "no anatomy by the T1w")
        if fault is not None:
            self.warnings.append(fault)
            if not (request.spaces or request.atlases):
                self._warn_without_flows()
                return
        if anatomy is not None:
            self.warnings += anatomy.head.warnings
            self.facts |= dict(anatomy.head.facts)
            routes = self._register(anatomy)
        else:
            routes = self._register_by_m0()
        self._correct_flows()
        if routes is None:
            return
        if anatomy is not None:
            self._keep_template_slices(routes, anatomy)
        for space in request.spaces:
            # That there is no T1w has been said.
            if space.name in NATIVE or (space.name == T1W and anatomy is None):
                continue
            with self._collect_faults():
                self._write_maps(space, routes, anatomy)
        self._write_regions(routes, anatomy)

    def _collect_faults(self) -> FaultsAsWarnings:
        return FaultsAsWarnings(self.warnings)

    def _make_head(self, found: Any) -> Anatomy:
        from asl_bids_app.anatomy.find import program_of
        from asl_bids_app.anatomy.place import read_head
        from asl_bids_app.anatomy.routes import without_foreign

        head = read_head(self.request, found, self.tell)
        kind = AnatomyKind.DERIVATIVES if found.prepared else AnatomyKind.OWN
        self.facts |= {"kind": kind.value, "t1w": found.t1w.name}
        if found.prepared and (program := program_of(found.t1w)):
            self.facts["program"] = program
        if not found.prepared:
            self.outputs += head.outputs
            return head
        given, fits = without_foreign(head, found.to_space)
        if fits:
            self.facts["template_dice"] = fits
        return given

    def _register(self, anatomy: Anatomy) -> Routes | None:
        from asl_bids_app.anatomy.agreement import agreement
        from asl_bids_app.anatomy.pose_files import fractions, write_pose
        from asl_bids_app.anatomy.register import register_asl
        from asl_bids_app.anatomy.routes import Routes
        from asl_bids_app.anatomy.views import REGISTRATION, registration_views

        unit, head = self.unit, anatomy.head
        if self.placed is not None and self.placed.registration is not None:
            found = self.placed.registration
        else:
            self.tell("ASL to T1w")
            found = register_asl(unit.images, unit.mask, unit.affine, head)
        self.registration = found
        # Of a doubtful pose the fit has kept away, see `place`.
        doubt = "the tissue of the T1w is not used by the fit" if self.placed else ""
        place = "".join(self.place)
        self.warnings += [warning.about(place).with_outcome(doubt) for warning in found.warnings]
        self.facts["registration"] = {
            **found.facts,
            **agreement(unit, head, found.matrix),
            "registered": found.registered,
        }
        if unit.mask.any() and head.brain.any():
            self._keep_slices(REGISTRATION, lambda: registration_views(unit, head, found.matrix))
        if not found.registered:
            self.facts["registration"]["reason"] = found.reason
            words = f"not registered to the T1w, and only in the space of the run: {found.reason}"
            self.warnings.append(Notice(self.place, found=words))
            return None
        self.outputs += write_pose(self.folder, unit, found.matrix, head)
        self.tissue = fractions(head, found.matrix, unit.mask.shape, unit.affine)
        return Routes(
            found.matrix, T1W, anatomy.to_space, anatomy.from_space, self.request.template_dir
        )

    def _register_by_m0(self) -> Routes | None:
        """Register the packaged template to the M0 by an affine, for want of a T1w."""
        from asl_bids_app.anatomy.routes import Routes
        from asl_bids_app.anatomy.views import (
            REGISTRATION,
            TEMPLATE,
            registration_views,
            template_head,
        )
        from asl_bids_app.preprocess.registration import RegistrationError
        from asl_bids_app.preprocess.tissue import LEAST_LIKENESS, tissue_priors

        unit = self.unit
        try:
            laid = tissue_priors(unit.images["M0"], unit.affine, unit.mask)
        except (RegistrationError, ValueError, KeyError) as error:
            words = f"no T1w, and no anatomy by the M0: {error}"
            self.warnings.append(Notice(self.place, found=words))
            return None
        registered = laid.likeness >= LEAST_LIKENESS
        self.facts |= {
            "kind": AnatomyKind.TEMPLATE.value,
            "source": f"{PACKAGED}, registered affinely to the M0 (no T1w)",
            "likeness": round(laid.likeness, 3),
            "registration": {"registered": registered, "image": "M0"},
        }
        self._keep_slices(
            REGISTRATION,
            lambda: registration_views(unit, template_head(), laid.matrix, base=TEMPLATE),
        )
        if not registered:
            words = (
                f"not registered to {PACKAGED}: found a correlation of {laid.likeness:.2f} with "
                f"the M0, expected {LEAST_LIKENESS:g} or more"
            )
            self.warnings.append(Notice(self.place, found=words))
            return None
        asked = any(space.name == T1W for space in self.request.spaces)
        none_in_t1w = "; there are no maps in the space T1w" if asked else ""
        self.warnings.append(
            Notice(
                self.place,
                "",
                "no T1w that can be used",
                "one for standard spaces and regions",
                f"{PACKAGED} is registered to the M0 by an affine, right within about a "
                f"centimetre{none_in_t1w}",
            )
        )
        self.tissue = {key: getattr(laid, key) for key in ("gm", "wm", "csf")}
        return Routes(laid.matrix, PACKAGED, template_dir=self.request.template_dir)

    def _keep_template_slices(self, routes: Routes, anatomy: Anatomy) -> None:
        """Keep slices of the template with the T1w on it, in the first MNI152 space there is."""
        from asl_bids_app.anatomy.views import TEMPLATE, template_views

        asked = [space.name for space in self.request.spaces]
        known = [space for space in anatomy.to_space if space.startswith("MNI152")]
        known.sort(key=lambda space: (space not in asked, space != PACKAGED))
        for space in known[:1]:
            make = partial(template_views, self.unit, anatomy.head, space, routes)
            self._keep_slices(TEMPLATE, make)

    def _keep_slices(self, name: str, make: Callable[[], Views]) -> None:
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
        with self._collect_faults():
            if self.views:
                write_views(path, self.views, self.facts)
                self.outputs.append(path)

    def _correct_flows(self) -> None:
        """Estimate the flows of grey and white matter, where that is asked for."""
        from asl_bids_app.anatomy.tissue_flows import correct, write_flows
        from asl_bids_app.estimators.partial_volume import PartialVolumeError

        if not self.request.pvc:
            return
        if self.registration is None or not self.registration.sure or self.unit.data is None:
            self._warn_without_flows()
            return
        self.tell("partial volume")
        try:
            flows = correct(self.unit, self.tissue, self.request.pvc)
        except PartialVolumeError as error:
            outcome = "no partial volume correction (--pvc)"
            self.warnings.append(Notice(self.place, "--pvc", error.found, error.expected, outcome))
            return
        self.unit = replace(self.unit, flows=flows)
        self.facts["partial_volume"] = dict(flows.facts)
        self.outputs += write_flows(self.folder, self.unit, flows, self.facts)

    def _warn_without_flows(self) -> None:
        """Say that there is no partial volume correction, and why."""
        if not self.request.pvc:
            return
        found = self.registration
        reason = "no T1w that can be used"
        if found is not None:
            reason = "a doubtful registration" if found.registered else "no registration"
        expected = "a registered T1w, by which grey and white matter of a voxel are known"
        outcome = "no partial volume correction (--pvc)"
        self.warnings.append(Notice(self.place, "--pvc", reason, expected, outcome))

    def _write_maps(self, space: Space, routes: Routes, anatomy: Anatomy | None) -> None:
        from asl_bids_app.anatomy.standard import write_space

        self.tell(f"maps in {space.name}")
        head, folder = anatomy.head if anatomy else None, self.request.template_dir
        write_space(self.folder, self.unit, space, routes, head, folder, self.facts, self.outputs)

    def _write_regions(self, routes: Routes, anatomy: Anatomy | None) -> None:
        """Write the tables of the tissues, and of each atlas that was asked for."""
        from asl_bids_app.anatomy.region_layout import Layout
        from asl_bids_app.anatomy.tables import write_tables

        self.tell("regions")
        unit = self.unit
        head = anatomy.head if anatomy else None
        layout = Layout(routes, unit.mask.shape, unit.affine, head)
        with self._collect_faults():
            regions = layout.tissues()
            self._write_tables(write_tables, regions, "the T1w" if head else "the M0", ())
        places = [*self.request.derivatives.values()]
        places += [self.request.template_dir] if self.request.template_dir else []
        for spec in self.request.atlases:
            with self._collect_faults():
                from asl_bids_app.anatomy.atlases import read_atlas

                atlas = read_atlas(spec, places)
                self._write_tables(
                    write_tables, layout.of_atlas(atlas), atlas.source, atlas.warnings
                )

    def _write_tables(
        self,
        write: Callable[..., list[Path]],
        regions: Any,
        source: str,
        warnings: tuple[Notice, ...],
    ) -> None:
        self.warnings += warnings
        self.outputs += write(self.folder, self.unit, regions, source, self.facts)
        self.facts.setdefault("atlases", []).append(
            {"atlas": regions.name, "regions": len(regions.names)}
        )
