"""Which participants and sessions of a dataset are meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from asl_bids_app.errors import InputError


def participants_of(root: Path) -> list[str]:
    """Return the labels of all participants of a dataset, sorted."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise InputError("command line", "bids_dir", f"{found} at {root}", "a folder")
    known = sorted(f.name[4:] for f in root.glob("sub-*") if f.is_dir())
    if not known:
        inside = sorted({f.parent.name for f in root.glob("*/sub-*") if f.is_dir()})
        cure = f"give {root.name}/{inside[0]}" if inside else ""
        raise InputError(str(root), "", "no folder sub-*", "a BIDS dataset", cure)
    return known


def choose_labels(
    known: list[str], asked: Sequence[str] | None, prefix: str, option: str
) -> list[str]:
    """Return the known labels that were asked for; all known ones if none was asked for."""
    if not asked:
        return known
    labels = list(dict.fromkeys(label.removeprefix(prefix) for label in asked))
    for label in labels:
        if label not in known:
            # 1 for 001 is the usual slip; after that, spelling.
            near = [k for k in known if k.lstrip("0") == label.lstrip("0")]
            near = near or difflib.get_close_matches(label, known, n=3, cutoff=0.5)
            cure = f"did you mean {' or '.join(near)}" if near else ""
            listed = ", ".join(known[:20]) + (f" … ({len(known)})" if len(known) > 20 else "")
            expected = f"one of {listed}" if known else f"a dataset with {prefix}* folders"
            raise InputError("command line", option, repr(label), expected, cure)
    return labels
