"""The group level: sums up the derivatives of a cohort."""

from __future__ import annotations

import logging

from asl_bids_app.errors import InputError
from asl_bids_app.options.table import AppOptions
from asl_bids_app.workflows.checks import check_writable

LOG = logging.getLogger("asl-app")


def run_group(options: AppOptions) -> int:
    """Write tables, maps and report of the group from the derivatives in the output folder.

    Returns
    -------
    int
        0.

    Raises
    ------
    AslAppError
        If there is nothing to sum up, or no way to write.
    """
    from asl_bids_app.reports.group import write_group

    if not options.output_dir.is_dir():
        raise InputError(
            options.output_dir, "output_dir", "no folder", "derivatives of the participant level"
        )
    check_writable(options.output_dir, "output_dir")
    for path in write_group(options.output_dir):
        LOG.info("group: %s", path)
    return 0
