"""Thin nipype shells: each step reads files, calls pure functions and writes files.

A step leaves a small record (seconds, and the failure if any) in the work folder; crash
files are nipype's own. Threads and devices don't change results and so aren't hashed.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from asl_bids_app.bids.derivatives import write_json
from asl_bids_app.errors import AslAppError, disk_full
from asl_bids_app.remarks import collected, redirect
from asl_bids_app.tell import Tell, TellFile, nobody
from asl_bids_app.workflows.full import FULL
from asl_bids_app.workflows.progress import progress_path
from asl_bids_app.workflows.store import load, save

QUIET = "ASL_APP_QUIET_NIPYPE"
"""Set in the environment of the processes in which nipype is to be silent."""

if os.environ.get(QUIET):
    # A worker's nipype starts with its own logging; the run's is not handed on to it.
    for name in ("nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


redirect()


class StepInput(BaseInterfaceInputSpec):
    """What every step is given."""

    plan = File(exists=True, mandatory=True, desc="the planned unit")
    record = traits.Str(mandatory=True, nohash=True, desc="where the step's record goes")
    threads = traits.Int(1, usedefault=True, nohash=True)
    watched = traits.Bool(False, usedefault=True, nohash=True, desc="somebody looks at progress")


class FileOutput(TraitedSpec):
    """The one file that a step makes."""

    out_file = File(exists=True)


class Step(SimpleInterface):
    """A step that times itself and puts failures into words."""

    input_spec = StepInput
    output_spec = FileOutput
    tell: Tell = staticmethod(nobody)

    def work(self) -> Any:
        """Do the step and return what is to be kept."""
        raise NotImplementedError

    def _run_interface(self, runtime: Any) -> Any:
        start, used = time.perf_counter(), time.process_time()
        record = Path(self.inputs.record)
        told: list[str] = []
        try:
            with ExitStack() as stack:
                told = stack.enter_context(collected())
                if self.inputs.watched:
                    self.tell = stack.enter_context(TellFile(progress_path(record)))
                value = self.work()
            self._results["out_file"] = str(
                save(value, Path(runtime.cwd) / "result.pkl").absolute()
            )
        except Exception as error:
            foreseen = isinstance(error, AslAppError)
            message = str(error) if foreseen else f"{type(error).__name__}: {error}"
            if isinstance(error, MemoryError):
                message = "not enough memory for this step; give the job more, or lower --nprocs"
            if words := disk_full(error):
                message, foreseen = FULL.format(words), True
            write_json(record, {"failure": message, "input": foreseen})
            raise
        seconds = round(time.perf_counter() - start, 3)
        processor = round(time.process_time() - used, 3)
        write_json(record, {"seconds": seconds, "processor_seconds": processor, "remarks": told})
        return runtime


class MotionInput(StepInput):
    """Input of `CorrectMotion`."""

    in_file = File(exists=True, mandatory=True, desc="the ASL image, so that a new one is seen")
    index = traits.Int(mandatory=True, desc="which run of the unit")
    hmc = traits.Bool(True, usedefault=True)


class CorrectMotion(Step):
    """Load a run and correct its head motion."""

    input_spec = MotionInput

    def work(self) -> Any:
        """Return a `MovedRun`."""
        from asl_bids_app.workflows.prepare import correct_motion

        run = load(self.inputs.plan).runs[self.inputs.index]
        return correct_motion(
            run.acquisition, hmc=self.inputs.hmc, threads=self.inputs.threads, tell=self.tell
        )


class PrepareInput(StepInput):
    """Input of `PrepareRun`."""

    moved = File(exists=True, mandatory=True)
    index = traits.Int(mandatory=True)
    hmc = traits.Bool(True, usedefault=True)
    m0_file = File(exists=True, desc="the M0 image, if it is a file of its own")
    m0_smooth_fwhm = traits.Float(0.0, usedefault=True)
    brain_mask = File(exists=True)


class PrepareRun(Step):
    """Average and calibrate a run."""

    input_spec = PrepareInput

    def work(self) -> Any:
        """Return a `PreparedRun`."""
        from asl_bids_app.workflows.prepare import prepare_run

        mask = self.inputs.brain_mask
        return prepare_run(
            load(self.inputs.plan).runs[self.inputs.index],
            load(self.inputs.moved),
            align_m0=self.inputs.hmc,
            m0_smooth_fwhm=self.inputs.m0_smooth_fwhm,
            brain_mask=Path(mask) if isinstance(mask, str) and mask else None,
        )


class AssembleInput(StepInput):
    """Input of `Assemble`."""

    prepared = InputMultiObject(File(exists=True), mandatory=True)
    move = traits.Bool(True, usedefault=True)


class Assemble(Step):
    """Make the series of a unit."""

    input_spec = AssembleInput

    def work(self) -> Any:
        """Return an `Assembled`."""
        from asl_bids_app.workflows.unit import assemble

        prepared = [load(path) for path in self.inputs.prepared]
        return assemble(load(self.inputs.plan), prepared, move=self.inputs.move)


class TissueInput(StepInput):
    """Input of `Tissue`."""

    prepared = File(exists=True, mandatory=True)
    given = traits.Dict(desc="tissue maps of derivatives by key (gm, wm, csf)")


class Tissue(Step):
    """Bring tissue priors into the space of a run."""

    input_spec = TissueInput

    def work(self) -> Any:
        """Return `TissueMaps`."""
        from asl_bids_app.workflows.fractions import sharpen
        from asl_bids_app.workflows.tissue import find_tissue

        given = {key: Path(path) for key, path in (self.inputs.given or {}).items()}
        prepared = load(self.inputs.prepared)
        return sharpen(prepared, find_tissue(prepared, given), given=bool(given))


class FitInput(StepInput):
    """Input of `Fit`."""

    assembled = File(exists=True, mandatory=True)
    estimator = traits.Str(mandatory=True)
    model = traits.Str("", usedefault=True)
    model_hash = traits.Str("", usedefault=True, desc="so that another model is another result")
    tta = traits.Bool(True, usedefault=True)
    error_bars = traits.Str("total", usedefault=True)
    device = traits.Str("auto", usedefault=True, nohash=True)
    batch_size = traits.Int(8, usedefault=True, nohash=True)
    seed = traits.Int(0, usedefault=True)
    tissue = File(exists=True, desc="tissue fractions, by which means are corrected")
    consistent = traits.Bool(True, usedefault=True)
    arterial = traits.Bool(True, usedefault=True)


class Fit(Step):
    """Estimate the maps of a series."""

    input_spec = FitInput

    def work(self) -> Any:
        """Return maps, seconds and what the estimator says of itself."""
        from asl_bids_app.workflows.estimation import estimate

        values = self.inputs
        tissue = load(values.tissue).maps if isinstance(values.tissue, str) else None
        return estimate(
            load(values.assembled),
            values.estimator,
            model=values.model or None,
            tta=values.tta,
            error_bars=values.error_bars,
            device=values.device,
            batch_size=values.batch_size,
            threads=values.threads,
            seed=values.seed,
            tell=self.tell,
            tissue=tissue,
            consistent=values.consistent,
            arterial=values.arterial,
        )


class WriteInput(StepInput):
    """Input of `WriteUnit`."""

    output_dir = traits.Str(mandatory=True)
    assembled = File(exists=True, mandatory=True)
    moved = InputMultiObject(File(exists=True), mandatory=True, desc="of all runs of the unit")
    fit = File(exists=True, mandatory=True)
    baseline = File(exists=True)
    tissue = File(exists=True)
    anatomy = traits.Any(desc="what is asked for of the anatomy")


class WriteUnit(Step):
    """Write the derivatives of a series; always run, for outputs may have been removed."""

    input_spec = WriteInput
    _always_run: ClassVar[bool] = True

    def work(self) -> Any:
        """Return the facts for the participant's record."""
        from asl_bids_app.workflows.finish import finish_unit, joined_tables

        values = self.inputs

        def maybe(path: Any) -> Any:
            return load(path) if isinstance(path, str) and path else None

        return finish_unit(
            Path(values.output_dir),
            load(values.plan),
            load(values.assembled),
            load(values.fit),
            baseline=maybe(values.baseline),
            tissue=maybe(values.tissue),
            confounds=joined_tables([load(path).confounds for path in values.moved]),
            anatomy=values.anatomy if isdefined(values.anatomy) else None,
        )
