"""Where the anatomy of a series is: derivatives of NiPreps, else a raw T1w."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asl_bids_app.anatomy.find_images import (
    NO_SPACE,
    choose_image,
    find_images,
    has_content,
    those_of,
)
from asl_bids_app.bids.files import parse_name
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice


@dataclass(frozen=True)
class Found:
    """Files of the anatomy of one series.

    Attributes
    ----------
    t1w : Path or None
        Prepared (derivatives) or raw.
    prepared : bool
        Whether it is of derivatives.
    mask : Path or None
    tissue : mapping of str to Path
        Tissue maps by ``gm``, ``wm`` and ``csf``; all three or none.
    dseg : Path or None
        Labels of tissue, where there are no maps.
    to_space, from_space : mapping of str to Path
        Transforms ``from-T1w_to-<space>`` and back, by space.
    source : str
        In words.
    warnings : tuple of Notice
        One line each.
    """

    t1w: Path | None = None
    prepared: bool = False
    mask: Path | None = None
    tissue: Mapping[str, Path] = field(default_factory=dict)
    dseg: Path | None = None
    to_space: Mapping[str, Path] = field(default_factory=dict)
    from_space: Mapping[str, Path] = field(default_factory=dict)
    source: str = "none"
    warnings: tuple[Notice, ...] = ()

    @property
    def has_tissue(self) -> bool:
        """Whether derivatives have the tissue of the T1w, without which nothing is laid on it."""
        return bool(self.tissue or self.dseg)

    @property
    def files(self) -> tuple[Path, ...]:
        """The T1w and what belongs to it, transforms left out."""
        tissue = self.tissue.values() or (self.dseg,)
        return tuple(path for path in (self.t1w, self.mask, *tissue) if path is not None)


def find_anatomy(
    bids_dir: Path, derivatives: Mapping[str, Path], entities: Mapping[str, str]
) -> Found:
    """Find the T1w of a series and what derivatives know of it.

    Parameters
    ----------
    bids_dir
        Root of the dataset.
    derivatives
        Folders by name, in the order of preference.
    entities
        Of the series; its participant and session count.

    Returns
    -------
    Found
        With `Found.t1w` None where there is none.
    """
    warnings: list[Notice] = []
    for name, folder in derivatives.items():
        found = _find_prepared(name, folder, entities, warnings)
        if found is not None:
            return found
    images = find_images(bids_dir, entities, "T1w", warnings)
    images = [path for path in images if has_content(path, warnings)]
    if not images:
        return Found(warnings=tuple(warnings))
    chosen = choose_image(images, "T1w", warnings)
    return Found(t1w=chosen, source=f"raw T1w {chosen.name}", warnings=tuple(warnings))


def check_tissue(found: Found) -> None:
    """Check that a T1w of derivatives has its tissue maps beside it.

    Raises
    ------
    InputError
        If it has none.
    """
    if found.t1w is not None and found.prepared and not found.has_tissue:
        raise InputError(
            found.t1w.name,
            "tissue",
            "no label-GM, -WM and -CSF_probseg and no dseg beside it",
            "tissue maps of the T1w",
        )


def program_of(t1w: Path) -> str:
    """Return name and version of the program that made a derivative; empty if nothing says."""
    import json

    place = next((p.parent for p in t1w.parents if p.name.startswith("sub-")), t1w.parent)
    try:
        content = json.loads((place / "dataset_description.json").read_text(encoding="utf-8"))
        first = content["GeneratedBy"][0]
        words = [first["Name"], first.get("Version", "")]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return " ".join(str(word) for word in words if word)


def _find_prepared(
    name: str, folder: Path, entities: Mapping[str, str], warnings: list[Notice]
) -> Found | None:
    """Return what one folder of derivatives holds of a participant's T1w, or None."""
    own_warnings: list[Notice] = []
    images = find_images(folder, entities, "T1w", own_warnings, native=True)
    images = [path for path in images if has_content(path, own_warnings)]
    if not images:
        warnings += own_warnings
        return None
    images = [p for p in images if parse_name(p.name).entities.get("desc") == "preproc"] or images
    t1w = choose_image(images, "T1w", own_warnings)
    anat = t1w.parent

    def files_of_t1w(suffix: str, **wanted: str | None) -> list[Path]:
        """Return files of the same T1w, without a standard space."""
        return [
            path
            for path in those_of(t1w, anat.glob(f"*_{suffix}.nii*"))
            if (e := parse_name(path.name).entities).get("space") in NO_SPACE
            and all(e.get(key) == value for key, value in wanted.items())
            and has_content(path, own_warnings, "an image")
        ]

    tissue = {
        label.lower(): paths[0]
        for label in ("GM", "WM", "CSF")
        if (paths := files_of_t1w("probseg", label=label))
    }
    masks = files_of_t1w("mask", desc="brain")
    # Without a desc it is tissue; desc-aseg and desc-aparcaseg are FreeSurfer's regions.
    dsegs = [p for p in files_of_t1w("dseg") if "desc" not in parse_name(p.name).entities]
    if 0 < len(tissue) < 3:
        own_warnings.append(
            Notice(
                anat,
                "",
                f"tissue maps of {', '.join(sorted(tissue))} only",
                "GM, WM and CSF",
                "not used",
            )
        )
    to_space: dict[str, Path] = {}
    from_space: dict[str, Path] = {}
    for path in those_of(t1w, anat.glob("*_mode-image_xfm.*")):
        parts = parse_name(path.name)
        if path.suffix not in {".h5", ".txt"}:
            continue
        start, end = parts.entities.get("from"), parts.entities.get("to")
        if not has_content(path, own_warnings, "a transform"):
            continue
        # The first of a space names the T1w most closely.
        if start == "T1w" and end and end not in {"fsnative", "T1w"}:
            to_space.setdefault(end, path)
        elif end == "T1w" and start and start not in {"fsnative", "T1w", "orig"}:
            from_space.setdefault(start, path)
    return Found(
        t1w,
        True,
        masks[0] if masks else None,
        tissue if len(tissue) == 3 else {},
        dsegs[0] if dsegs else None,
        to_space,
        from_space,
        f"{name} ({t1w.name})",
        tuple(own_warnings),
    )
