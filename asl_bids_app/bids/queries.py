"""What is asked of the index of a dataset: files of ASL and M0, and a filter file worked in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice

IMAGES: Final = (".nii", ".nii.gz")
QUERIES: Final = ("asl", "m0scan")
"""Keys of a filter file that mean something here, as in NiPreps."""


def build_queries(
    filters: Mapping[str, Mapping[str, Any]] | None,
) -> tuple[dict[str, dict[str, Any]], list[Notice]]:
    """Return the pybids queries with a filter file worked in, and warnings.

    Raises
    ------
    InputError
        If the filters are no objects in an object.
    """
    from bids.layout import Query

    queries: dict[str, dict[str, Any]] = {
        "asl": {"datatype": "perf", "suffix": "asl", "extension": list(IMAGES)},
        "m0scan": {"datatype": ["perf", "fmap"], "suffix": "m0scan", "extension": list(IMAGES)},
    }
    option = "--bids-filter-file"
    if filters is not None and not isinstance(filters, Mapping):
        raise InputError("command line", option, type(filters).__name__, "a JSON object {...}")

    def value(item: Any, place: str) -> Any:
        if isinstance(item, list):
            return [value(each, place) for each in item]
        if isinstance(item, dict):
            raise InputError("command line", option, json.dumps(item)[:60], f"{place}: text")
        return {None: Query.NONE, "*": Query.ANY}.get(item, item)

    unused = []
    for key, wanted in (filters or {}).items():
        if not isinstance(wanted, Mapping):
            raise InputError("command line", option, json.dumps(wanted), f"{key}: {{...}}")
        if key in QUERIES:
            queries[key] |= {
                entity: value(item, f"{key}: {entity}") for entity, item in wanted.items()
            }
        else:
            outcome = f"this app reads {' and '.join(QUERIES)}"
            unused.append(Notice(option, found=f"{key} is not used", outcome=outcome))
    return queries, unused
