"""Images of a participant's anatomy: which of them serve a series, and which can't."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from asl_bids_app.bids.files import Name, parse_name
from asl_bids_app.bids.unfetched import unfetched
from asl_bids_app.notices import Notice

NO_SPACE: frozenset[str | None] = frozenset({None, "T1w", "orig"})
"""Values of the ``space`` entity that mean the T1w's own."""

IDENTIFYING: Final = ("sub", "ses", "acq", "ce", "rec", "run")
"""Entities that tell the T1w of a participant apart."""


def those_of(image: Path, files: Iterable[Path]) -> list[Path]:
    """Return the files that belong to an image, those that name it most closely first.

    A file that states another participant, session, acquisition, contrast, reconstruction or run
    is of another image. One that leaves such an entity out may serve.

    Examples
    --------
    >>> files = ["sub-01_dseg.nii.gz", "sub-01_run-2_dseg.nii.gz", "sub-01_run-1_dseg.nii.gz"]
    >>> [p.name for p in those_of(Path("sub-01_run-1_T1w.nii.gz"), map(Path, files))]
    ['sub-01_run-1_dseg.nii.gz', 'sub-01_dseg.nii.gz']
    """
    own = _identity(image)
    stated = {path: _identity(path) for path in files}
    fitting = [path for path, entities in stated.items() if entities.items() <= own.items()]
    return sorted(fitting, key=lambda path: (-len(stated[path]), path.name))


def _identity(path: Path) -> dict[str, str]:
    entities = parse_name(path.name).entities
    found = {key: entities[key] for key in IDENTIFYING if key in entities}
    if found.get("run", "").isdigit():  # By BIDS run-01 is run-1.
        found["run"] = str(int(found["run"]))
    return found


def has_content(path: Path, warnings: list[Notice], expected: str = "a T1w") -> bool:
    """Tell whether there is anything in a file; warn of one that is empty or not fetched."""
    if placeholder := unfetched(path):
        reason, cure = placeholder.found, f". Cure: {placeholder.cure}"
    elif path.stat().st_size == 0:
        reason, cure = "an empty file (0 bytes)", ""
    else:
        return True
    warnings.append(Notice(path.name, "", reason, expected, f"not used{cure}"))
    return False


def find_images(
    root: Path,
    entities: Mapping[str, str],
    suffix: str,
    warnings: list[Notice],
    *,
    native: bool = False,
) -> list[Path]:
    """Return images of a participant's anatomy that serve a series, of its session first.

    Those of the session come before those of no session (an average over sessions). A T1w of
    another session only is used with a warning, for a head keeps its shape.
    """
    subject, session = entities["sub"], entities.get("ses")
    folder = root / f"sub-{subject}"
    names: dict[Path, Name] = {}
    for path in sorted([*folder.glob("anat/*"), *folder.glob("ses-*/anat/*")]):
        name = parse_name(path.name)
        if name.suffix != suffix or name.extension not in {".nii", ".nii.gz"}:
            continue
        if native and name.entities.get("space") not in NO_SPACE:
            continue
        if name.entities.get("sub") != subject:
            warnings.append(
                Notice(
                    path,
                    "",
                    f"sub-{name.entities.get('sub')} in the folder of sub-{subject}",
                    f"sub-{subject}",
                    "not used",
                )
            )
            continue
        names[path] = name
    if not names or session is None:
        return list(names)
    for wanted in (session, None):
        chosen = [p for p, n in names.items() if n.entities.get("ses") == wanted]
        if chosen:
            return chosen
    sessions = sorted({str(n.entities.get("ses")) for n in names.values()})
    warnings.append(
        Notice(
            folder,
            "",
            f"{suffix} of ses-{', ses-'.join(sessions)} only",
            f"one of ses-{session}",
            f"that of ses-{sessions[0]} is used",
        )
    )
    return [p for p, n in names.items() if n.entities.get("ses") == sessions[0]]


def choose_image(images: Iterable[Path], what: str, warnings: list[Notice]) -> Path:
    """Return the first of several images, those with fewest entities first, and say so."""
    order = sorted(images, key=lambda p: (len(parse_name(p.name).entities), p.name))
    if len(order) > 1:
        warnings.append(
            Notice(
                order[0].parent,
                "",
                f"{len(order)} {what} ({', '.join(p.name for p in order)})",
                "one",
                f"{order[0].name} is used",
            )
        )
    return order[0]
