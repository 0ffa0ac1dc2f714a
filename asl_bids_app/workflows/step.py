"""The one nipype interface: it runs any step of `asl_bids_app.quantify` on files.

A step reads what earlier ones left, calls its function and keeps the value. It leaves a small
record (seconds, and the failure if any) in the work folder; crash files are nipype's own.
Threads and devices don't change results and so aren't hashed.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any, Final

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
from asl_bids_app.failures import facts_of
from asl_bids_app.processes import release_memory
from asl_bids_app.progress_callback import ProgressFile, no_progress
from asl_bids_app.remarks import collected, redirect
from asl_bids_app.settings import Settings
from asl_bids_app.workflows.full import FULL
from asl_bids_app.workflows.progress import progress_path
from asl_bids_app.workflows.step_table import STEPS
from asl_bids_app.workflows.step_values import load, save
from asl_bids_app.workflows.workers import QUIET

if os.environ.get(QUIET):
    # A worker's nipype starts with its own logging; the run's is not handed on to it.
    for name in ("nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


redirect()


class StepInput(BaseInterfaceInputSpec):
    """What a step is given: its name, settings, and the files that others left."""

    step = traits.Str(mandatory=True, desc="a key of `STEPS`")
    plan = File(exists=True, mandatory=True, desc="the planned unit")
    settings = traits.Dict(desc="the settings that the result depends on")
    index = traits.Int(desc="which run of the unit")
    output_dir = traits.Str(desc="folder of the derivatives")
    moved = File(exists=True)
    prepared = File(exists=True)
    all_moved = InputMultiObject(File(exists=True), desc="of all runs of the unit")
    all_prepared = InputMultiObject(File(exists=True), desc="of all runs of the unit")
    series = File(exists=True)
    maps = File(exists=True)
    baseline = File(exists=True)
    tissue = File(exists=True)
    placed = File(exists=True)
    sources = InputMultiObject(File(exists=True), desc="inputs, so that new ones are seen")
    record = traits.Str(mandatory=True, nohash=True, desc="where the step's record goes")
    machine = traits.Dict(nohash=True, desc="the settings that change no result")
    watched = traits.Bool(False, usedefault=True, nohash=True, desc="somebody looks at progress")


RESULTS: Final = {
    "moved": "moved",
    "prepared": "prepared",
    "all_moved": "moved",
    "all_prepared": "prepared",
    "series": "series",
    "maps": "maps",
    "baseline": "baseline",
    "tissue": "tissue",
    "placed": "placed",
}
"""Argument of a step's function that the value of each input file becomes."""


class FileOutput(TraitedSpec):
    """The one file that a step makes."""

    out_file = File(exists=True)


class Step(SimpleInterface):
    """Runs a step, times it and puts failures into words."""

    input_spec = StepInput
    output_spec = FileOutput

    def __init__(self, **inputs: Any) -> None:
        super().__init__(**inputs)
        # Outputs may have been removed since.
        self._always_run = inputs.get("step") == "write"

    def arguments(self) -> dict[str, Any]:
        """Return what the function is called with beside unit and settings."""
        found: dict[str, Any] = {}
        for name, argument in RESULTS.items():
            value = getattr(self.inputs, name)
            if isdefined(value) and value:
                several = not isinstance(value, str)
                found[argument] = [load(path) for path in value] if several else load(value)
        if isdefined(self.inputs.index):
            found["index"] = self.inputs.index
        if isdefined(self.inputs.output_dir):
            found["output_dir"] = Path(self.inputs.output_dir)
        return found

    def work(self, stack: ExitStack) -> Any:
        """Run the step and return its value."""
        function, _ = STEPS[self.inputs.step]
        values = dict(self.inputs.settings or {}) | dict(self.inputs.machine or {})
        for name in ("brain_mask", "found_mask"):
            if mask := values.get(name):
                values[name] = Path(mask)
        arguments = self.arguments()
        if "tell" in signature(function).parameters:
            path = progress_path(self.inputs.record)
            watched = self.inputs.watched
            arguments["tell"] = stack.enter_context(ProgressFile(path)) if watched else no_progress
        return function(load(self.inputs.plan), Settings(**values), **arguments)

    def _run_interface(self, runtime: Any) -> Any:
        start, used = time.perf_counter(), time.process_time()
        record = Path(self.inputs.record)
        remarks: list[str] = []
        try:
            with ExitStack() as stack:
                remarks = stack.enter_context(collected())
                value = self.work(stack)
            self._results["out_file"] = str(
                save(value, Path(runtime.cwd) / "result.pkl").absolute()
            )
            # While this worker waits, others compute.
            del value
            release_memory()
        except Exception as error:
            foreseen = isinstance(error, AslAppError)
            message = str(error) if foreseen else f"{type(error).__name__}: {error}"
            if isinstance(error, MemoryError):
                message = "not enough memory for this step; give the job more, or lower --nprocs"
            if words := disk_full(error):
                message, foreseen = FULL.format(words), True
            facts = facts_of(error)
            write_json(record, {"failure": message, "input": foreseen, "facts": facts})
            raise
        seconds = round(time.perf_counter() - start, 3)
        processor = round(time.process_time() - used, 3)
        write_json(
            record, {"seconds": seconds, "processor_seconds": processor, "remarks": remarks}
        )
        return runtime
