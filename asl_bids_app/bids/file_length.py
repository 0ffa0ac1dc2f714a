"""Whether a NIfTI file is as long as its header says, and its data begin behind the header.

A wrong offset shifts every voxel without any other sign, and so does a wrong number of
dimensions or of bytes a voxel: the file is then longer than what is read of it.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice

if TYPE_CHECKING:
    from asl_bids_app.bids.headers import Header

_KINDS: Final = {348: (108, "f", 352), 540: (168, "q", 544)}
"""By size of the header (NIfTI-1, NIfTI-2): where `vox_offset` stands, its type, and its least
value: the header and four bytes that tell of extensions."""
_SLOPES: Final = {348: (112, "f"), 540: (176, "d")}
"""By size of the header: where `scl_slope` stands, and its type."""
_CHUNK: Final = 1 << 20
_CURE: Final = "copy or convert it again"


def check_start(start: bytes, name: str) -> tuple[Notice, ...]:
    """Check where a header says that the data begin, and by what they are multiplied.

    The library takes a factor that is no number for none; the format has 0 for that.

    Parameters
    ----------
    start
        First bytes of the file, decompressed.
    name
        What messages call the file.

    Returns
    -------
    tuple of Notice
        A warning of a factor that is NaN, which some programs write for none.

    Raises
    ------
    InputError
        If the data would begin inside the header, or nowhere; or of an infinite factor.
    """
    found: list[Notice] = []
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size in _KINDS and len(start) >= 348:
            place, kind, least = _KINDS[size]
            offset = struct.unpack_from(order + kind, start, place)[0]
            if not (math.isfinite(offset) and offset >= least and offset == int(offset)):
                expected = f"{least} or more, behind the header"
                raise InputError(name, "vox_offset", f"{offset:g}", expected, _CURE)
            place, kind = _SLOPES[size]
            slope = struct.unpack_from(order + kind, start, place)[0]
            if math.isinf(slope):
                raise InputError(name, "scl_slope", f"{slope:g}", "a finite number", _CURE)
            if math.isnan(slope):
                outcome = "the values are taken as they are stored"
                found.append(Notice(name, "scl_slope", "nan", "a number", outcome))
    return tuple(found)


def needed_bytes(image: Any) -> int:
    """Return how long the (decompressed) file of a nibabel image has to be."""
    data = image.dataobj
    return int(data.offset) + math.prod(data.shape) * int(data.dtype.itemsize)


def check_length(header: Header, have: int, need: int) -> None:
    """Compare the length of a (decompressed) file with that of its header.

    Raises
    ------
    InputError
        If they differ.
    """
    if have < need:
        found = f"image data that end early or are damaged ({have} of {need} bytes)"
        raise InputError(header.name, "", found, str(header), _CURE)
    if have > need:
        found = f"{have} bytes, {have - need} more than the header says"
        expected = f"{need} bytes, for {header} from vox_offset on"
        raise InputError(header.name, "file length", found, expected, _CURE)


def check_file_length(path: Path, header: Header, need: int) -> None:
    """Check the length of a file without reading its data, if that can be.

    The last four bytes of gzip data tell the length; only where they contradict the header
    the file is decompressed to be sure.

    Raises
    ------
    InputError
        If the length isn't that of the header.
    """
    size = path.stat().st_size
    if not path.name.endswith(".gz"):
        check_length(header, size, need)
        return
    with path.open("rb") as stream:
        stream.seek(max(size - 4, 0))
        reported = int.from_bytes(stream.read(4), "little")
    if reported == need % 2**32:
        return
    have = 0
    try:
        with gzip.open(path) as stream:
            # What was decompressed before the damage counts.
            while have <= need and (chunk := stream.read1(_CHUNK)):
                have += len(chunk)
    except (OSError, EOFError, zlib.error):
        pass  # What could be read is what there is.
    check_length(header, have, need)
