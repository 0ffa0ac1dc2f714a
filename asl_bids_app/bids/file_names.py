"""What the names of files and their folders say, and what is wrong with them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from asl_bids_app.bids.files import Name, parse_name, shown
from asl_bids_app.errors import InputError

FILE_NAME: Final = "file name"
"""Field of a fault of a file's name."""
IMAGE_ENDINGS: Final = ("_asl.nii", "_asl.nii.gz")
DERIVED_ENTITIES: Final = frozenset({"desc", "space", "res", "den", "label"})


def is_text(name: str) -> bool:
    """Tell whether a file name is text in UTF-8; other bytes come as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def unnamed_images(root: Path, label: str) -> list[Path]:
    """List the ASL images of a participant whose path is no text."""
    found = [f for p in ("perf", "*/perf") for f in root.glob(f"sub-{glob.escape(label)}/{p}/*")]
    return sorted(
        path
        for path in found
        if not is_text(str(path.relative_to(root))) and path.name.endswith(IMAGE_ENDINGS)
    )


def label_of_folder(path: Path, root: Path, prefix: str) -> str | None:
    """Return the label of the sub- or ses- folder in which a file lies."""
    for part in path.relative_to(root).parts[:-1]:
        if part.startswith(prefix):
            return part.removeprefix(prefix)
    return None


def is_magnitude(path: Path) -> bool:
    """Say whether an image shows magnitudes, by its ``part`` entity."""
    return parse_name(path.name).entities.get("part", "mag") == "mag"


def name_problems(path: Path, name: Name, root: Path, twins: Counter[str]) -> Iterable[InputError]:
    """Yield what is wrong with the name of an ASL image."""
    shown_name = shown(path, root)
    if name.malformed:
        parts = ", ".join(name.malformed)
        yield InputError(shown_name, FILE_NAME, parts, "entities like sub-01_acq-pcasl")
    for prefix in ("sub", "ses"):
        folder = label_of_folder(path, root, f"{prefix}-")
        entity = name.entities.get(prefix)
        if folder != entity:
            found = f"{prefix}-{entity}" if entity else f"no {prefix}-"
            expected = f"{prefix}-{folder}, as its folder" if folder else f"no {prefix}-"
            yield InputError(shown_name, FILE_NAME, found, expected)
    derived = [f"{k}-{v}" for k, v in name.entities.items() if k in DERIVED_ENTITIES]
    if derived:
        cure = "move derivatives out of the raw dataset"
        yield InputError(shown_name, FILE_NAME, ", ".join(derived), "a raw ASL image", cure)
    if twins[path.name.partition(".")[0]] > 1:
        yield InputError(
            shown_name, "", "both .nii and .nii.gz", "one image of that name", "remove one"
        )


RAW_ENTITIES: Final = frozenset({"sub", "ses", "acq", "rec", "dir", "run", "echo", "part", "mod"})
