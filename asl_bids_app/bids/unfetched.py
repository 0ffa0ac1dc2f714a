"""Files of DataLad, git-annex and Git LFS whose content has not been fetched."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POINTER_BYTES: Final = 1024
"""A pointer is shorter than this; content rarely is."""
_ANNEX: Final = re.compile(r"(^|/)annex/objects/")
_ANNEX_TEXT: Final = re.compile(rb"(?:/annex/objects/|(?:\.\./)*\.git/annex/objects/)\S+\s*")
"""An unlocked file of git-annex, and a link that git wrote as text (no links on that disk)."""
_LFS_TEXT: Final = b"version https://git-lfs"


@dataclass(frozen=True)
class Unfetched:
    """A file that stands for content that is elsewhere.

    Attributes
    ----------
    found, cure : str
        In the words of an `InputError`.
    """

    found: str
    cure: str


def unfetched(path: Path, name: str = "") -> Unfetched | None:
    """Tell whether a file is a placeholder, and how to get its content.

    Parameters
    ----------
    path
        The file.
    name
        What messages call it; a path within the dataset is what the cure names.

    Returns
    -------
    Unfetched or None
        None for a file with content, and for one that isn't there at all.
    """
    place = shlex.quote(name if name and str(path).endswith(name) and "/" in name else str(path))
    # In quotes: pages write a sentence of it, and a command must stay as it is.
    get = f'run "datalad get {place}"'
    if path.is_symlink() and not path.exists():
        target = path.readlink()
        annexed = _ANNEX.search(target.as_posix())
        cure = f"{get}, or mount the place it points to"
        return Unfetched(
            f"a broken link to {target}",
            cure if annexed else "put the file there, or mount the place it points to",
        )
    try:
        if path.stat().st_size >= POINTER_BYTES:
            return None
        with path.open("rb") as stream:
            start = stream.read(POINTER_BYTES)
    except OSError:
        return None
    if _ANNEX_TEXT.fullmatch(start):
        return Unfetched("a git-annex pointer", get)
    if start.startswith(_LFS_TEXT):
        return Unfetched("a Git LFS pointer", f'run "git lfs pull --include {place}"')
    return None
