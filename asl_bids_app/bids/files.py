"""Data files with their sidecars: names, the inheritance principle, and which file said what."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asl_bids_app.bids.jsonfile import read_json
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice


@dataclass(frozen=True)
class Name:
    """The parts of a BIDS file name.

    Attributes
    ----------
    entities : mapping
        In file-name order, e.g. ``{"sub": "01", "acq": "pcasl"}``.
    suffix, extension : str
        Such as ``asl`` and ``.nii.gz``.
    malformed : tuple of str
        Parts that are no ``key-value`` pair.
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str
    malformed: tuple[str, ...] = ()


LABEL: Final = re.compile(r"[0-9A-Za-z+]+")
"""Labels of entities, as the schema of BIDS has them."""


def parse_name(name: str) -> Name:
    """Take a file name apart.

    Examples
    --------
    >>> parse_name("sub-01_acq-pcasl_asl.nii.gz").entities
    {'sub': '01', 'acq': 'pcasl'}
    """
    stem, dot, extension = name.partition(".")
    *parts, suffix = stem.split("_")
    entities: dict[str, str] = {}
    malformed = []
    for part in parts:
        key, _, value = part.partition("-")
        if key and LABEL.fullmatch(value) and key not in entities:
            entities[key] = value
        else:
            malformed.append(part)
    return Name(entities, suffix, dot + extension, tuple(malformed))


def shown(path: Path, root: Path) -> str:
    """Return a path as messages show it: relative to the dataset where it lies inside."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)


@dataclass(frozen=True, kw_only=True, eq=False)
class DataFile:
    """An image with the sidecars that apply to it.

    Attributes
    ----------
    root : Path
        The dataset.
    path : Path
        The image.
    entities : mapping
        In file-name order.
    sidecars : tuple of Path
        All JSON files that took part by inheritance, the nearest last.
    metadata : mapping
        Their content merged, nearer files winning; keys set to null are left out.
    origin : mapping of str to Path
        The file from which the value of each key came.
    problems : tuple of InputError
        What is wrong with names and sidecars; reported when the run is understood, so that it
        fails this run and no other.
    remarks : tuple of Notice
        What is odd about the sidecars but harms nothing.
    """

    root: Path
    path: Path
    entities: Mapping[str, str]
    sidecars: tuple[Path, ...]
    metadata: Mapping[str, Any]
    origin: Mapping[str, Path]
    problems: tuple[InputError, ...] = ()
    remarks: tuple[Notice, ...] = ()

    @property
    def name(self) -> str:
        """The image as messages show it."""
        return shown(self.path, self.root)

    @property
    def sidecar(self) -> str:
        """The nearest sidecar as messages show it, or where it is expected."""
        stem = self.path.name.partition(".")[0]
        nearest = self.sidecars[-1] if self.sidecars else self.path.with_name(f"{stem}.json")
        return shown(nearest, self.root)

    @property
    def readable(self) -> bool:
        """Whether all sidecars could be read; of what is missing nothing is known otherwise."""
        names = {shown(path, self.root) for path in self.sidecars}
        return not any(problem.file in names for problem in self.problems)

    def cite(self, key: str) -> str:
        """Return the file that holds a key, or the nearest sidecar if none does."""
        return shown(self.origin[key], self.root) if key in self.origin else self.sidecar


class Tree:
    """The sidecars and tables of a dataset, found by the inheritance principle."""

    def __init__(self, root: Path, paths: Iterable[Path]) -> None:
        self.root = root
        self._files: dict[tuple[Path, str, str], list[tuple[Path, Name]]] = defaultdict(list)
        self._content: dict[Path, dict[str, Any] | InputError] = {}
        self._remarks: dict[Path, tuple[Notice, ...]] = {}
        for path in sorted(paths):
            name = parse_name(path.name)
            if not name.malformed:
                self._files[path.parent, name.suffix, name.extension].append((path, name))

    def applicable(self, image: Path, suffix: str, extension: str) -> list[Path]:
        """List the files that apply to an image, from the dataset's root to its own folder.

        A file applies if it lies in the image's folder or above it and all its entities are
        those of the image. In one folder the file with more entities counts as nearer.
        """
        entities = parse_name(image.name).entities.items()
        folders = [f for f in image.parents if f == self.root or self.root in f.parents]
        return [
            path
            for folder in reversed(folders)
            for path, name in sorted(
                self._files.get((folder, suffix, extension), ()),
                key=lambda item: len(item[1].entities),
            )
            if name.entities.items() <= entities
        ]

    def content(self, path: Path) -> dict[str, Any] | InputError:
        """Return the content of a JSON file, or what is wrong with it; read once."""
        if path not in self._content:
            remarks: list[Notice] = []
            try:
                self._content[path] = read_json(path, shown(path, self.root), remarks)
            except InputError as error:
                self._content[path] = error
            self._remarks[path] = tuple(remarks)
        return self._content[path]

    def describe(self, image: Path) -> dict[str, Any]:
        """Collect the fields of `DataFile` for an image."""
        name = parse_name(image.name)
        sidecars = self.applicable(image, name.suffix, ".json")
        metadata: dict[str, Any] = {}
        origin: dict[str, Path] = {}
        problems = []
        for sidecar in sidecars:
            content = self.content(sidecar)
            if isinstance(content, InputError):
                problems.append(content)
                continue
            metadata |= content
            origin |= dict.fromkeys(content, sidecar)
        return {
            "root": self.root,
            "path": image,
            "entities": dict(name.entities),
            "sidecars": tuple(sidecars),
            "metadata": {key: value for key, value in metadata.items() if value is not None},
            "origin": origin,
            "problems": tuple(problems),
            "remarks": tuple(text for path in sidecars for text in self._remarks[path]),
        }
