"""What processes import: the parent nothing that computes, workers all at once."""

import gc
import subprocess
import sys

PARENT = """
import sys
from asl_bids_app.workflows import execute, graph, plan, plugin, participant_level
from asl_bids_app.workflows.checks import choose_estimator
print(choose_estimator(None, None)[0])
print(sorted({"torch", "scipy.ndimage", "SimpleITK"} & set(sys.modules)))
"""


def test_the_parent_imports_none_of_the_libraries_that_compute():
    command = [sys.executable, "-c", PARENT]
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
