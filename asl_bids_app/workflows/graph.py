"""The nipype workflow of one participant, and of a whole run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.bids.sessions import PlannedRun, Unit
from asl_bids_app.finish.unit_anatomy import find_sources, make_request, memory_gb
from asl_bids_app.options.table import AppOptions
from asl_bids_app.settings import Settings, unit_settings
from asl_bids_app.workflows.plan import ParticipantPlan
from asl_bids_app.workflows.progress import wanted
from asl_bids_app.workflows.stored_plan import store_plan

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node, Workflow


def record_folder(work_dir: Path, participant: str) -> Path:
    """Return where the steps of a participant leave their records."""
    return work_dir / "records" / f"sub-{participant}"


def participant_folders(work_dir: Path, participant: str) -> tuple[Path, Path]:
    """Return the folders with all that a participant leaves in the work folder."""
    return (
        record_folder(work_dir, participant),
        work_dir / "asl_app" / f"sub_{safe(participant)}",
    )


def safe(name: str) -> str:
    """Return a name that nipype takes for a step or a workflow."""
    return re.sub(r"[^A-Za-z0-9]", "_", name)


MEMORY_GB: Final = {
    "assemble": 1.0,
    "register": 2.0,
    "tissue": 1.0,
    "fit": 1.5,
    "baseline": 1.5,
    "write": 0.7,
}
"""What a step is taken to need; those that hold a run's volumes need more the larger it is."""
MANY_THREADS: Final = frozenset({"motion", "register", "fit"})
"""Steps that make use of several processors."""
MACHINE: Final = ("device", "batch_size", "threads")
"""Settings that change no result."""


class _UnitGraph:
    """Adds the steps of one unit to a workflow, as `asl_bids_app.quantify` has them in a row."""

    def __init__(
        self,
        flow: Workflow,
        unit: Unit,
        settings: Settings,
        *,
        output_dir: Path,
        work_dir: Path,
        watched: bool,
    ) -> None:
        self.flow, self.unit, self.settings = flow, unit, settings
        self.output_dir, self.watched = output_dir, watched
        self.records = record_folder(work_dir, unit.entities["sub"])
        self.plan = str(store_plan(unit, self.records))

    def build(self) -> None:
        """Add and connect all steps."""
        settings = self.settings
        all_moved, all_prepared = [], []
        for index, run in enumerate(self.unit.runs):
            size = run.acquisition.path.stat().st_size / 1e9
            memory = 0.5 + 12 * size
            moved = self.step(
                "motion", index, memory_gb=memory, sources=[str(run.acquisition.path)]
            )
            prepared = self.step("prepare", index, memory_gb=memory, sources=_m0_file(run))
            self.connect(moved, prepared, "moved")
            all_moved.append(moved)
            all_prepared.append(prepared)
        output_dir = str(self.output_dir)
        request = make_request(settings, self.output_dir)
        placed = None
        if sources := find_sources(request, self.unit):
            placed = self.step("register", output_dir=output_dir, sources=sources)
            self.connect(all_prepared[0], placed, "prepared")
            if settings.mask_of_t1w:
                all_prepared = self.lay_masks(all_moved, all_prepared[0].mem_gb, placed)
        assemble = self.step("assemble")
        self.gather("gather", all_prepared, assemble, "all_prepared")
        more = memory_gb(request, self.unit)
        write = self.step(
            "write",
            memory_gb=MEMORY_GB["write"] + more,
            many_threads=more > 0,
            output_dir=output_dir,
        )
        self.connect(assemble, write, "series")
        self.gather("moves", all_moved, write, "all_moved")
        fit = self.step("fit")
        self.connect(assemble, fit, "series")
        self.connect(fit, write, "maps")
        if placed is not None:
            self.connect(placed, write, "placed")
        if settings.tissue:
            tissue = self.step("tissue")
            if placed is not None:
                self.connect(placed, tissue, "placed")
            self.connect(all_prepared[0], tissue, "prepared")
            self.connect(tissue, write, "tissue")
            if settings.calibrates_by_fluid:
                self.connect(tissue, assemble, "tissue")
            if settings.corrects_by_tissue:
                self.connect(tissue, fit, "tissue")
        if settings.wants_baseline:
            baseline = self.step("baseline")
            self.connect(assemble, baseline, "series")
            self.connect(baseline, write, "baseline")

    def lay_masks(self, all_moved: list[Node], memory_gb: float, placed: Node) -> list[Node]:
        """Let each run be prepared again in the brain of the T1w, where it lies by `placed`."""
        laid = []
        for index, (run, moved) in enumerate(zip(self.unit.runs, all_moved, strict=True)):
            mask = self.step("mask", index, memory_gb=memory_gb, sources=_m0_file(run))
            self.connect(moved, mask, "moved")
            self.connect(placed, mask, "placed")
            laid.append(mask)
        return laid

    def step(
        self,
        name: str,
        index: int | None = None,
        memory_gb: float = 0.0,
        many_threads: bool = False,
        **inputs: Any,
    ) -> Node:
        """Add a step; several runs have one each, told apart by a number."""
        from nipype.pipeline.engine import Node

        from asl_bids_app.workflows.step import Step
        from asl_bids_app.workflows.step_table import STEPS

        title = name if index is None else f"{name}{index}"
        many = many_threads or name in MANY_THREADS
        threads = self.settings.threads if many else 1
        interface = Step(
            step=name,
            plan=self.plan,
            settings=_plain(self.settings, STEPS[name][1]),
            machine=_plain(self.settings, MACHINE) | {"threads": threads},
            record=str(self.records / f"{self.unit.name}.{title}.json"),
            watched=self.watched,
            **{key: value for key, value in inputs.items() if value is not None},
            **({} if index is None else {"index": index}),
        )
        node = Node(
            interface,
            name=f"{safe(self.unit.name)}__{title}",
            n_procs=threads,
            mem_gb=memory_gb or MEMORY_GB[name],
        )
        self.flow.add_nodes([node])
        return node

    def connect(self, source: Node, target: Node, field: str) -> None:
        """Let a step take what another one made."""
        self.flow.connect(source, "out_file", target, field)

    def gather(self, name: str, sources: list[Node], target: Node, field: str) -> None:
        """Let a step take what the same step of all runs made."""
        from nipype.interfaces.utility import Merge
        from nipype.pipeline.engine import Node

        merge = Node(
            Merge(len(sources)),
            name=f"{safe(self.unit.name)}__{name}",
            run_without_submitting=True,
        )
        for index, source in enumerate(sources):
            self.connect(source, merge, f"in{index + 1}")
        self.flow.connect(merge, "out", target, field)


def _m0_file(run: PlannedRun) -> list[str] | None:
    """Return the M0 of a run where it is a file of its own, as a step's sources."""
    path = run.acquisition.m0.path
    return [str(path)] if path else None


def _plain(settings: Settings, names: Iterable[str]) -> dict[str, Any]:
    """Return some of the settings as nipype can hash them."""
    values = {name: getattr(settings, name) for name in names}
    return {
        key: str(v) if isinstance(v, Path) else v for key, v in values.items() if v is not None
    }


def participant_workflow(
    plan: ParticipantPlan,
    options: AppOptions,
    estimator: str,
    model: tuple[str, str] = ("", ""),
) -> Workflow:
    """Build the workflow of one participant.

    Parameters
    ----------
    plan
        Its units.
    options
        Of the run.
    estimator
        Of the main maps.
    model
        Name or folder, and hash, of the ensemble's model.

    Returns
    -------
    Workflow
    """
    from nipype.pipeline.engine import Workflow

    flow = Workflow(name=f"sub_{safe(plan.participant)}")
    for unit in plan.units:
        settings = unit_settings(options, unit, estimator, model)
        graph = _UnitGraph(
            flow,
            unit,
            settings,
            output_dir=options.output_dir,
            work_dir=options.work_dir,
            watched=wanted(options.quiet),
        )
        graph.build()
    return flow
