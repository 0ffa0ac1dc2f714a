"""The nipype workflow of one participant, and of a whole run."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app import __version__
from asl_bids_app.workflows.anatomy import memory_of, request_of
from asl_bids_app.workflows.options import AppOptions
from asl_bids_app.workflows.plan import ParticipantPlan, PlannedUnit
from asl_bids_app.workflows.progress import wanted
from asl_bids_app.workflows.store import readable, save
from asl_bids_app.workflows.tissue import given_mask, given_tissue

if TYPE_CHECKING:
    from nipype.pipeline.engine import Node, Workflow


def record_folder(options: AppOptions, participant: str) -> Path:
    """Return where the steps of a participant leave their records."""
    return options.work_dir / "records" / f"sub-{participant}"


def _fingerprint(unit: PlannedUnit) -> str:
    """Digest of all that a unit was understood to be; equal input resumes, another doesn't."""

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else str(value)

    content = [
        [
            str(run.acquisition.path),
            dict(run.acquisition.metadata),
            run.acquisition.volume_types,
            run.acquisition.post_labeling_delay,
            run.acquisition.label_duration,
            run.acquisition.slice_time,
            str(run.acquisition.m0),
            run.calibration.to_json(),
            run.warnings,
        ]
        for run in unit.runs
    ]
    text = json.dumps([__version__, unit.title, content], default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _store_plan(unit: PlannedUnit, folder: Path) -> Path:
    path = folder / f"plan-{unit.title}-{_fingerprint(unit)}.pkl"
    # A plan that is already there keeps its time stamp, by which nipype knows it.
    return path if readable(path) else save(unit, path)


def safe(name: str) -> str:
    """Return a name that nipype takes for a step or a workflow."""
    return re.sub(r"[^A-Za-z0-9]", "_", name)


class _UnitBuilder:
    """Adds the steps of one unit to a workflow."""

    def __init__(self, flow: Workflow, options: AppOptions, unit: PlannedUnit) -> None:
        self.flow, self.options, self.unit = flow, options, unit
        self.records = record_folder(options, unit.entities["sub"])
        self.plan = str(_store_plan(unit, self.records))
        self.threads = min(options.omp_nthreads or options.nprocs, options.nprocs)

    def node(
        self, step: type, name: str, memory_gb: float, threads: int = 1, **inputs: Any
    ) -> Node:
        from nipype.pipeline.engine import Node

        interface = step(
            plan=self.plan,
            record=str(self.records / f"{self.unit.title}.{name}.json"),
            threads=threads,
            watched=wanted(self.options.quiet),
            **{key: value for key, value in inputs.items() if value is not None},
        )
        node = Node(
            interface, name=f"{safe(self.unit.title)}__{name}", n_procs=threads, mem_gb=memory_gb
        )
        self.flow.add_nodes([node])
        return node

    def build(self, estimator: str, model: tuple[str, str]) -> None:
        from asl_bids_app.workflows import interfaces as steps

        options = self.options
        given = options.brain_mask or given_mask(options.derivatives, self.unit.entities)
        mask = str(given) if given else None
        prepared, all_moved = [], []
        for index, run in enumerate(self.unit.runs):
            size = run.acquisition.path.stat().st_size / 1e9
            memory = 0.5 + 12 * size
            moved = self.node(
                steps.CorrectMotion,
                f"motion{index}",
                memory,
                self.threads,
                in_file=str(run.acquisition.path),
                index=index,
                hmc=options.hmc,
            )
            m0_path = run.acquisition.m0.path
            prepare = self.node(
                steps.PrepareRun,
                f"prepare{index}",
                memory,
                index=index,
                hmc=options.hmc,
                m0_file=str(m0_path) if m0_path else None,
                m0_smooth_fwhm=options.m0_smooth_fwhm,
                brain_mask=mask,
            )
            self.flow.connect(moved, "out_file", prepare, "moved")
            prepared.append(prepare)
            all_moved.append(moved)
        assemble = self.node(steps.Assemble, "assemble", 1.0, move=options.hmc)
        self._gather("gather", prepared, assemble, "prepared")
        request = request_of(options)
        more = memory_of(request, self.unit)
        write = self.node(
            steps.WriteUnit,
            "write",
            0.7 + more,
            self.threads if more else 1,
            output_dir=str(options.output_dir),
            anatomy=request,
        )
        self.flow.connect(assemble, "out_file", write, "assembled")
        self._gather("moves", all_moved, write, "moved")
        node = None
        if options.tissue:
            tissue = given_tissue(options.derivatives, self.unit.entities)
            node = self.node(steps.Tissue, "tissue", 1.0, self.threads, given=tissue)
            self.flow.connect(prepared[0], "out_file", node, "prepared")
            self.flow.connect(node, "out_file", write, "tissue")
        fit = self._fit(assemble, write, "fit", estimator, model)
        # Least squares and the voxelwise posterior lean on no neighbours.
        if node is not None and estimator == "ensemble" and options.tissue_consistency:
            self.flow.connect(node, "out_file", fit, "tissue")
        if options.baseline and estimator != "least-squares":
            self._fit(assemble, write, "baseline", "least-squares", ("", ""))

    def _gather(self, name: str, sources: list[Node], target: Node, field: str) -> None:
        from nipype.interfaces.utility import Merge
        from nipype.pipeline.engine import Node

        merge = Node(
            Merge(len(sources)),
            name=f"{safe(self.unit.title)}__{name}",
            run_without_submitting=True,
        )
        for index, source in enumerate(sources):
            self.flow.connect(source, "out_file", merge, f"in{index + 1}")
        self.flow.connect(merge, "out", target, field)

    def _fit(
        self, assemble: Node, write: Node, name: str, estimator: str, model: tuple[str, str]
    ) -> Node:
        from asl_bids_app.workflows.interfaces import Fit

        options = self.options
        node = self.node(
            Fit,
            name,
            1.5,
            self.threads,
            estimator=estimator,
            model=model[0],
            model_hash=model[1],
            tta=options.tta,
            error_bars=options.error_bars,
            device=options.device,
            batch_size=options.batch_size,
            seed=options.random_seed,
            consistent=options.tissue_consistency,
            arterial=options.arterial,
        )
        self.flow.connect(assemble, "out_file", node, "assembled")
        self.flow.connect(node, "out_file", write, name)
        return node


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
        _UnitBuilder(flow, options, unit).build(estimator, model)
    return flow
