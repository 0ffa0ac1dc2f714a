"""Records of version 0.1.0, which hold some facts in sentences only: the facts are added.

Nothing else reads a sentence, and no newer record comes by here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from asl_bids_app.bids.outputs import OUTPUTS, Output
from asl_bids_app.errors import Cause
from asl_bids_app.failures import Failure
from asl_bids_app.origins import MaskKind, TissueKind
from asl_bids_app.run_records import UnitRecord

_CAUSES: Final = (
    (r"found no ASL run", Cause.NO_ASL),
    (r"out of memory|OutOfMemory|MemoryError|Cannot allocate memory|killed", Cause.MEMORY),
    (r"No space left|Disk quota", Cause.DISK_FULL),
    (r"Permission denied|Read-only file system|no way to write", Cause.NOT_WRITABLE),
    (r"CUDA|cuDNN|no kernel image|HIP error", Cause.GRAPHICS),
    (r"not a NIfTI|ImageFileError|CRC check|unexpected end|EOFError|not a gzip", Cause.IMAGE),
)
_LINE: Final = re.compile(
    r"(?P<file>.*?): (?:(?P<field>[^:]*?): )?found (?P<found>.*?), expected (?P<expected>.*?)\."
    r"(?: Cure: (?P<cure>.*)\.)?",
    re.DOTALL,
)


def complete_failure(failure: Failure) -> Failure:
    """Return a failure with cause and fields, if it is an old one that has only its line."""
    if failure.cause:
        return failure
    for pattern, cause in _CAUSES:
        if re.search(pattern, failure.message, re.IGNORECASE):
            return replace(failure, cause=cause)
    if line := _LINE.fullmatch(failure.message):
        return replace(
            failure, cause=Cause.INPUT, **{k: v or "" for k, v in line.groupdict().items()}
        )
    return replace(failure, cause=Cause.UNFORESEEN)


def output_keys(unit: UnitRecord) -> tuple[str, ...]:
    """Return the keys in the table of outputs of the files that a record lists by path."""
    names = {PurePosixPath(path).name for path in unit.outputs}

    def listed(output: Output) -> bool:
        if unit.entities:
            return output.name(unit.entities) in names
        ending = f"{output.label}_{output.suffix}{output.extension}"
        return any(name.endswith(ending) for name in names)

    return tuple(key for key, output in OUTPUTS.items() if listed(output))


def mask_kind(mask: Mapping[str, Any]) -> str:
    """Return what a brain mask was made from; empty if its record doesn't say."""
    if mask.get("kind") or not mask.get("source"):
        return str(mask.get("kind") or "")
    made = {"made from the M0": MaskKind.M0, "made from the ASL volumes": MaskKind.ASL}
    return made.get(str(mask["source"]), MaskKind.GIVEN).value


def tissue_kind(tissue: Mapping[str, Any]) -> str:
    """Return where tissue maps come from; empty if their record doesn't say."""
    source = str(tissue.get("source") or "")
    if tissue.get("kind") or not source:
        return str(tissue.get("kind") or "")
    if source.startswith("MNI152 atlas"):
        return TissueKind.ATLAS.value
    given = source.endswith("by the scanner's coordinates")
    return (TissueKind.DERIVATIVES if given else TissueKind.NONE).value
