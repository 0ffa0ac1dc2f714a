"""What processes import: the parent nothing that computes, workers all at once."""

import gc
import subprocess
import sys

PARENT = """
import sys
from asl_bids_app.workflows import execute, graph, plan, plugin, participant_level
from asl_bids_app.cli.parser import parse
from asl_bids_app.workflows.checks import choose_estimator
options = parse([*sys.argv[1:], "participant"])
print(choose_estimator(options.estimator, options.model)[0])
print(sorted({"torch", "scipy.ndimage", "SimpleITK"} & set(sys.modules)))
"""


def test_the_parent_imports_none_of_the_libraries_that_compute(tmp_path):
    folders = [tmp_path / "data", tmp_path / "derivatives"]
    folders[0].mkdir()
    command = [sys.executable, "-c", PARENT, *map(str, folders)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["ensemble", "[]"]


def test_what_is_preloaded_is_there_and_out_of_the_garbage_collectors_sight():
    before = gc.get_freeze_count()
    try:
        from asl_bids_app.workflows.preload import SHARED

        assert set(SHARED) <= set(sys.modules)
        assert gc.get_freeze_count() > before
        assert gc.isenabled()
    finally:
        gc.unfreeze()
