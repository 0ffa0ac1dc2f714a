"""The options of a run, see `asl_bids_app.options.table`."""

from asl_bids_app.options.groups import ERROR_BARS, ESTIMATORS, JOINT_MODES, LEVELS
from asl_bids_app.options.table import AppOptions

__all__ = ["ERROR_BARS", "ESTIMATORS", "JOINT_MODES", "LEVELS", "AppOptions"]
