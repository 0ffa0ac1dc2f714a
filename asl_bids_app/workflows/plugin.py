"""nipype's pool of worker processes, made to outlive a worker that is killed."""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer

from asl_bids_app.processes import begin_worker

NAME: Final = "MultiProc"
"""Of nipype's own plugin, which `WorkersPlugin` stands in for."""


class WorkersPlugin(MultiProcPlugin):
    """`MultiProcPlugin` for which a lost worker is a failed step.

    Nipype's own waits for ever for the step of a worker that was killed (for want of memory,
    most often), and for every other one that the broken pool held. Here these steps fail, and
    those that come after them get a new pool. Workers end when this process does.
    """

    pool: ProcessPoolExecutor
    _turn: dict[Any, int]
    """The place of each step's series."""

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args)
        # Nipype's pool has no worker yet.
        self.pool.shutdown(wait=False)
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=_begin,
            initargs=(self._cwd,),
            mp_context=multiprocessing.get_context(self.plugin_args.get("mp_context")),
        )

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run the steps of a graph, those of the first series first."""
        import networkx as nx  # type: ignore[import-untyped]

        series = enumerate(nx.weakly_connected_components(graph))
        self._turn = {node: number for number, nodes in series for node in nodes}
        # Nipype collects garbage before each step, and would look through the whole graph.
        gc.freeze()
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            gc.unfreeze()

    def _sort_jobs(self, jobids: Any, scheduler: str | None = "tsort") -> Any:
        # Nipype's own order has the first step of every series before the second of any, so
        # that all would end at the end.
        ready = super()._sort_jobs(jobids, scheduler=scheduler)
        return sorted(ready, key=lambda job: self._turn.get(self.procs[job], 0))

    def _async_callback(self, args: Future[Any]) -> None:
        if not args.cancelled() and args.exception() is None:
            super()._async_callback(args)

    def _get_result(self, taskid: int) -> Any:
        future = self._task_obj[taskid]
        if future.done() and (future.cancelled() or future.exception() is not None):
            lost = "cancelled" if future.cancelled() else str(future.exception())
            return {"result": None, "traceback": [lost], "taskid": taskid}
        return super()._get_result(taskid)

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        try:
            return super()._submit_job(node, updatehash)
        except BrokenProcessPool:
            self.pool = self._new_pool()
            return super()._submit_job(node, updatehash)


def _begin(folder: str) -> None:
    process_initializer(folder)
    begin_worker()
