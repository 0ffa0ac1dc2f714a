"""What the process that workers are forked from imports once for all of them.

Imported for its effect, and there alone. Python's garbage collector writes to every object that
it looks at, and a page that is written to is no longer shared: so it is off meanwhile, and what
is there at the end it never looks at again. That saves each worker some 30 MB and the start a
tenth of its time.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Final

SHARED: Final = (
    "asl_bids_app.workflows.step",
    "asl_bids_app.preprocess.prepare",
    "asl_bids_app.preprocess.motion",
    "asl_bids_app.finish.record",
    "asl_bids_app.estimators.ensemble",
    "SimpleITK",
)
"""None of these starts threads."""

gc.disable()
try:
    for _name in SHARED:
        import_module(_name)
finally:
    gc.freeze()
    gc.enable()
