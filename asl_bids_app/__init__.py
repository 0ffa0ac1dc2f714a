"""CBF and ATT maps with error bars from multi-delay ASL in BIDS.

From Python: `quantify` for arrays, `quantify_bids` for a dataset, `Protocol` for what was
measured. They are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asl_bids_app.arrays import quantify
    from asl_bids_app.batch import quantify_bids
    from asl_bids_app.estimators.base import ParameterMaps
    from asl_bids_app.protocol import Protocol

__version__ = "0.1.0"
__all__ = ["ParameterMaps", "Protocol", "__version__", "quantify", "quantify_bids"]

_PLACES = {
    "ParameterMaps": "asl_bids_app.estimators.base",
    "Protocol": "asl_bids_app.protocol",
    "quantify_bids": "asl_bids_app.batch",
}


def __getattr__(name: str) -> Any:
    if name == "quantify":
        return import_module("asl_bids_app.quantify")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
