"""Atlases of the user: NiPreps' and ASLPrep's layout, or a plain NIfTI with its table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from asl_bids_app.bids.files import parse_name
from asl_bids_app.errors import COMMAND_LINE, InputError
from asl_bids_app.notices import Notice

MOST_LABELS: Final = 5000
"""More values than any parcellation has: another kind of image."""


@dataclass(frozen=True)
class AtlasSpec:
    """An atlas as the command line names it.

    Attributes
    ----------
    name : str
    space : str
        Its template as stated; empty if the file's name is to tell.
    path : Path or None
        File or folder; None: TemplateFlow and the given derivatives are searched.
    """

    name: str
    space: str = ""
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class UserAtlas:
    """Labels with their names.

    Attributes
    ----------
    name, space : str
    labels : array of int32, shape (X, Y, Z)
    affine : array, shape (4, 4)
    names : mapping of int to str
        By label, in the order of the table.
    source : str
        The file.
    warnings : tuple of Notice
    files : tuple of Path
        Image and table.
    """

    name: str
    space: str
    labels: np.ndarray
    affine: np.ndarray
    names: Mapping[int, str]
    source: str
    warnings: tuple[Notice, ...] = ()
    files: tuple[Path, ...] = ()


def read_spec(text: str) -> AtlasSpec:
    """Read ``NAME[:SPACE][=PATH]``.

    Examples
    --------
    >>> read_spec("Tian:MNI152NLin6Asym=/atlases/tian.nii.gz").space
    'MNI152NLin6Asym'

    Raises
    ------
    InputError
        If it isn't written so.
    """
    head, equals, place = text.partition("=")
    name, colon, space = head.partition(":")
    fine = re.fullmatch(r"[A-Za-z0-9]+", name) and (
        re.fullmatch(r"[A-Za-z0-9]+", space) if colon else True
    )
    if not fine or (equals and not place):
        written = (
            "NAME, NAME=PATH or NAME:SPACE=PATH, with a name and a space of letters and digits"
        )
        raise InputError(COMMAND_LINE, "--atlas", repr(text), written)
    return AtlasSpec(name, space, Path(place).expanduser().absolute() if place else None)


def find_atlas(spec: AtlasSpec, folders: Iterable[Path]) -> Path:
    """Return the image of an atlas: its finest, in the stated space if there is one.

    Parameters
    ----------
    spec
    folders
        Where an atlas without a path is searched.

    Raises
    ------
    InputError
        If there is none.
    """
    if spec.path is not None and spec.path.is_file():
        return spec.path
    if spec.path is not None and not spec.path.is_dir():
        raise InputError(spec.path, "--atlas", "no file or folder", f"the atlas {spec.name}")
    places = [spec.path] if spec.path is not None else list(folders)
    found = [
        path
        for place in places
        for path in sorted(place.glob(f"**/*atlas-{spec.name}_*dseg.nii*"))
        if not spec.space or _space(path) == spec.space
    ]
    # A broken link is a file that was not fetched: reading it says how to get it.
    found = [path for path in found if not path.exists() or path.stat().st_size > 0]
    if not found:
        where = ", ".join(map(str, places))
        nowhere = "no folder to search (no TEMPLATEFLOW_HOME and no derivatives)"
        raise InputError(
            COMMAND_LINE,
            f"--atlas {spec.name}",
            f"nothing in {where}" if places else nowhere,
            f"tpl-*_atlas-{spec.name}_*dseg.nii.gz",
            f"give its file or folder: --atlas {spec.name}=PATH",
        )
    return min(
        found, key=lambda path: (parse_name(path.name).entities.get("res", "99"), path.name)
    )


def _space(path: Path) -> str:
    entities = parse_name(path.name).entities
    return entities.get("tpl") or entities.get("space") or ""


def read_atlas(spec: AtlasSpec, folders: Iterable[Path] = ()) -> UserAtlas:
    """Read an atlas and its table.

    Raises
    ------
    InputError
        If a file is missing or broken, the space isn't stated, or the image holds no labels.
    """
    from asl_bids_app.bids.images import load

    path = find_atlas(spec, folders)
    space = spec.space or _space(path)
    if not space:
        raise InputError(
            path,
            "space",
            "no template in the file's name",
            "the space that the atlas is in",
            f"--atlas {spec.name}:SPACE={path}",
        )
    image = load(path, ndim=3, name=str(path))
    labels = np.rint(image.data).astype(np.int32)
    if np.abs(image.data - labels).max() > 1e-3 or np.unique(labels).size > MOST_LABELS:
        raise InputError(path, "", "values that are no labels", "whole numbers, one a region")
    names, table = _names(path)
    there = {int(v) for v in np.unique(labels)} - {0}
    if not there & set(names):
        raise InputError(
            path,
            "labels",
            f"none of the labels in {table.name}",
            "labels of the table's index column",
        )
    warnings = []
    if unnamed := sorted(there - set(names)):
        warnings.append(
            Notice(
                path.name,
                "",
                f"labels {_list_few(unnamed)} that {table.name} doesn't name",
                "a name for every label",
                "left out of the tables",
            )
        )
    if absent := sorted(set(names) - there):
        warnings.append(
            Notice(
                table.name,
                found=f"found labels {_list_few(absent)} that {path.name} doesn't hold",
                outcome="n/a in the tables",
            )
        )
    return UserAtlas(
        spec.name,
        space,
        labels,
        image.affine,
        names,
        str(path),
        (*image.warnings, *warnings),
        (path, table),
    )


def _list_few(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return shown + (f" and {len(values) - 8} more" if len(values) > 8 else "")


def _names(path: Path) -> tuple[dict[int, str], Path]:
    """Return the names by label, and the table that they stand in."""
    table = _table(path)
    if table is None:
        stem = path.name.split(".")[0]
        expected = f"{stem}.tsv with the columns index and name"
        raise InputError(path, "", "no table beside it", expected)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(table, "", f"no table ({error})", "tab-separated text") from error
    columns = list(rows[0]) if rows else []
    if not {"index", "name"} <= set(columns):
        found = ", ".join(str(c) for c in columns) or "no rows"
        raise InputError(table, "", f"the columns {found}", "index and name, tab-separated")
    names: dict[int, str] = {}
    for number, row in enumerate(rows, 2):
        where = f"index, line {number}"
        try:
            index = int(float(row["index"]))
        except (TypeError, ValueError):
            raise InputError(table, where, repr(row["index"]), "a whole number") from None
        if index in names:
            raise InputError(table, where, f"{index} again", "each label once")
        if index:
            names[index] = (row["name"] or "").strip() or f"label{index}"
    return names, table


def _table(path: Path) -> Path | None:
    """Return the table of an atlas: beside the image, or one of fewer entities above it."""
    stem = path.name.split(".")[0]
    if (beside := path.with_name(f"{stem}.tsv")).is_file():
        return beside
    own = set(parse_name(path.name).entities.items())
    for folder in (path.parent, path.parent.parent):
        for other in sorted(folder.glob("*dseg.tsv")):
            if set(parse_name(other.name).entities.items()) <= own:
                return other
    return None
