"""Running nipype workflows: plugins, progress, and one line for each failure."""

from __future__ import annotations

import gc
import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_bids_app.allocation import allocation
from asl_bids_app.errors import InputError, disk_full
from asl_bids_app.options.table import AppOptions
from asl_bids_app.processes import end_children, remembered
from asl_bids_app.workflows.full import FULL
from asl_bids_app.workflows.progress import Progress
from asl_bids_app.workflows.work_folder import tidy

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

LOG = logging.getLogger("asl-app")


def read_plugin(
    path: Path | None, nprocs: int, mem_gb: float | None
) -> tuple[str, dict[str, Any]]:
    """Choose the nipype plugin and its arguments.

    Parameters
    ----------
    path
        YAML with ``plugin`` and ``plugin_args``, or None for the default: one process for
        one processor, else as many as are given.
    nprocs, mem_gb
        Processors and memory of the run.

    Raises
    ------
    InputError
        If the file doesn't hold a plugin.
    """
    if path is not None:
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(path, "", f"no YAML ({error})", "a nipype plugin") from error
        if not isinstance(content, dict) or not isinstance(content.get("plugin"), str):
            raise InputError(path, "plugin", repr(content), "the name of a nipype plugin")
        from nipype.pipeline import plugins

        if not hasattr(plugins, f"{content['plugin']}Plugin"):
            known = sorted(n.removesuffix("Plugin") for n in dir(plugins) if n.endswith("Plugin"))
            raise InputError(path, "plugin", content["plugin"], f"one of {', '.join(known)}")
        return content["plugin"], dict(content.get("plugin_args") or {})
    if nprocs == 1:
        return "Linear", {}
    # Fresh processes: a fork of one in which torch has run threads can hang.
    arguments: dict[str, Any] = {"n_procs": nprocs, "mp_context": "forkserver"}
    if mem_gb:
        arguments["memory_gb"] = mem_gb
    elif memory := allocation().memory_gb:
        # What a step will need is a guess: where nobody gave a limit, a step that seems too
        # large for this one runs alone.
        arguments |= {"memory_gb": 0.9 * memory, "raise_insufficient": False}
    return "MultiProc", arguments


def configure(crash_folder: Path, *, stop_on_first_crash: bool, verbose: bool) -> None:
    """Set nipype up: where crash files go, what is kept, and that it is quiet."""
    from nipype import config
    from nipype import logging as nipype_logging

    config.update_config(
        {
            "execution": {
                "crashdump_dir": str(crash_folder),
                "crashfile_format": "txt",
                "stop_on_first_crash": str(stop_on_first_crash).lower(),
                "remove_unnecessary_outputs": "false",
                "hash_method": "timestamp",
                "check_version": "false",
                "poll_sleep_duration": "0.05",
            },
            "logging": {"log_to_file": "false"},
            "monitoring": {"enabled": "false"},
        }
    )
    nipype_logging.update_logging(config)
    # This program reports a failure in one line; its traceback is in the crash file.
    level = logging.INFO if verbose else logging.CRITICAL
    for name in ("nipype", "nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(level)


def run_workflow(flow: Workflow, options: AppOptions, shown: Progress | None = None) -> str:
    """Run a workflow to its end, whatever fails in it.

    `configure` comes before the workflow is built: it keeps the settings of that moment.

    Parameters
    ----------
    flow
        The workflow.
    options
        Of the run.
    shown
        Where its progress is shown.

    Returns
    -------
    str
        Why it ended before its end; empty if it didn't, or the reason isn't known.

    Raises
    ------
    InputError
        If the plugin is unknown or can't start, or a step needs more memory than it may have.
    """
    plugin, arguments = read_plugin(options.use_plugin, options.nprocs, options.mem_gb)
    flow.base_dir = str(options.work_dir)
    if options.write_graph:
        try:
            flow.write_graph(graph2use="colored", format="svg", simple_form=True)
        except OSError as error:
            LOG.warning("--write-graph: no drawing (%s)", error)
    shown = shown or Progress(options.quiet)
    shown.expect(flow.get_node(name) for name in flow.list_node_names())
    others = frozenset(child.pid for child in multiprocessing.active_children() if child.pid)
    with remembered() as again, _few_objects():

        def tell(node: Any, status: str) -> None:
            shown.note(node, status)
            again()

        arguments.setdefault("status_callback", tell)
        try:
            ended = _run_flow(flow, plugin, arguments, (options.nprocs, options.mem_gb))
            again()
        except KeyboardInterrupt:
            end_children(spared=others)
            raise
    return ended


@contextmanager
def _few_objects() -> Iterator[None]:
    """Let the garbage collector pass over what is there: nipype calls it over and over."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run_flow(
    flow: Workflow, plugin: str, arguments: dict[str, Any], limits: tuple[int, float | None]
) -> str:
    from asl_bids_app.workflows.plugin import NAME, WorkersPlugin

    try:
        runner = WorkersPlugin(plugin_args=arguments) if plugin == NAME else plugin
        flow.run(plugin=runner, plugin_args=arguments)
    except Exception as error:
        if "Insufficient resources" in str(error):
            raise _too_little(flow, *limits) from error
        # Failed steps have left records; whatever left none is found by its missing output.
        LOG.debug("workflow: %s", error)
        return FULL.format(disk_full(error)) if disk_full(error) else ""
    return ""


def _too_little(flow: Workflow, nprocs: int, mem_gb: float | None) -> InputError:
    """Return the error that one step alone needs more than all steps together may have."""
    nodes = [flow.get_node(name) for name in flow.list_node_names()]
    memory = max(node.mem_gb for node in nodes)
    threads = max(node.n_procs for node in nodes)
    found = f"{mem_gb:g} GB" if mem_gb else "less than that in this machine"
    return InputError(
        "command line",
        "--mem-gb, --nprocs",
        f"{found}, {nprocs} processors",
        f"at least {memory:.2g} GB and {threads} processors, which one step alone needs",
        "raise it (a plugin file outranks both)",
    )


def clean(work_dir: Path, participants: Sequence[str]) -> None:
    """Remove what earlier runs left of some participants in the work folder.

    Raises
    ------
    LockedError
        If another run works on one of them there.
    """
    from asl_bids_app.workflows.lock import check_free

    check_free(work_dir, participants)
    tidy(work_dir, participants)


def machine() -> Mapping[str, Any]:
    """Return the `machine` and the `software` that compute, for records."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for name in ("torch", "numpy", "scipy", "nibabel", "nipype", "pybids", "simpleitk"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "software": {"python": platform.python_version(), **versions},
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            **asdict(allocation()),
        },
    }
