"""Finding the ASL runs of a BIDS dataset."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asl_bids_app.bids.file_names import (
    is_magnitude,
    is_text,
    label_of_folder,
    name_problems,
    unnamed_images,
)
from asl_bids_app.bids.files import DataFile, Tree, parse_name, shown
from asl_bids_app.bids.index import Index, check_fresh
from asl_bids_app.bids.jsonfile import read_json
from asl_bids_app.bids.participants import choose_labels, participants_of
from asl_bids_app.bids.queries import QUERIES, build_queries
from asl_bids_app.bids.spans import show
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFiles(DataFile):
    """The files of one ASL run, not yet understood.

    Attributes
    ----------
    aslcontext : Path or None
        The `aslcontext.tsv` that applies.
    m0scans : tuple of DataFile
        M0 scans of the participant, of all sessions, field maps (``fmap/``) included: which
        of them belongs to this run is settled by `m0_match.find_m0scan`.
    """

    aslcontext: Path | None
    m0scans: tuple[DataFile, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A BIDS dataset as far as its ASL goes.

    Attributes
    ----------
    root : Path
    description : mapping
        `dataset_description.json`; empty if it is missing or unreadable.
    participants : mapping of str to tuple of RunFiles
        By label without ``sub-``; an empty tuple for one without ASL.
    warnings : tuple of str
    """

    root: Path
    description: Mapping[str, Any]
    participants: Mapping[str, tuple[RunFiles, ...]]
    warnings: tuple[Notice, ...] = ()


def find_runs(
    bids_dir: Path | str,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    database_dir: Path | str | None = None,
) -> Dataset:
    """Find the ASL runs of a dataset.

    Only the perfusion and field-map folders of the participants asked for are looked at.
    `.bidsignore` is the validator's and hides nothing here.

    Parameters
    ----------
    bids_dir
        Root of the dataset.
    participants
        Labels, with or without ``sub-``; all if None or empty.
    sessions
        Labels, with or without ``ses-``; all if None or empty.
    filters
        Content of a NiPreps filter file: ``{"asl": {"acquisition": "pcasl"}}``; null means
        that the entity must not be there, ``"*"`` that it must.
    database_dir
        Folder of a pybids database: used if it exists, made (for all participants) if not.

    Raises
    ------
    InputError
        If the folder is no dataset, a label is unknown, a filter is invalid or the database
        is that of another dataset. Faults of a single run are kept in its `problems`.
    """
    root = Path(os.path.abspath(bids_dir))  # noqa: PTH100 (takes "..", but no links, out)
    known = participants_of(root)
    asked = choose_labels(known, participants, "sub-", "--participant-label")
    description, warnings = _description(root)

    # The index can't hold a name that is no text; what has one is found and reported here.
    readable, wanted = ([k for k in each if is_text(k)] for each in (known, asked))
    files = Index(root, readable, wanted, database_dir, every_entity=filters is not None)
    root = files.root
    unnamed = [path for label in asked for path in unnamed_images(root, label)]
    queries, unused = build_queries(filters)
    warnings += unused
    # The index may hold more than was asked for, and a filter may name any entity.
    asl, m0scans = (
        [
            path
            for path in files.query(queries[key])
            if label_of_folder(path, root, "sub-") in asked
        ]
        for key in QUERIES
    )
    if sessions:
        here = {label_of_folder(path, root, "ses-") for path in asl}
        present = {f.name[4:] for label in asked for f in root.glob(f"sub-{label}/ses-*")}
        if not present.issuperset(sessions):
            # A session that others have is no typing mistake: these participants lack it.
            present = {f.name[4:] for f in root.glob("sub-*/ses-*")}
        chosen = choose_labels(sorted(present), sessions, "ses-", "--session-label")
        asl = [path for path in asl if label_of_folder(path, root, "ses-") in chosen]
        warnings += [
            Notice(f"ses-{label}", found="no ASL run was found in this session")
            for label in chosen
            if label not in here
        ]
    for path in asl:
        if not is_magnitude(path):
            part = parse_name(path.name).entities["part"]
            warnings.append(Notice(shown(path, root), found=f"part-{part} is left out"))
    runs = dict.fromkeys(asked, ()) | assemble(root, [*asl, *unnamed], m0scans, files.tables())
    if database_dir:
        check_fresh(root, asked, files.files(), database_dir)
    for label in asked:
        if not runs[label]:
            where = f"sub-{label}/**/perf/*_asl.nii*"
            warnings.append(Notice(f"sub-{label}", found=f"no ASL run was found ({where})"))
    return Dataset(root, description, runs, tuple(warnings))


def assemble(
    root: Path, asl: Iterable[Path], m0scans: Iterable[Path], tables: Iterable[Path]
) -> dict[str, tuple[RunFiles, ...]]:
    """Put files together to runs; phase images are left out.

    Parameters
    ----------
    root
        The dataset.
    asl, m0scans
        Images.
    tables
        Sidecars and `aslcontext.tsv` files, of all levels.

    Returns
    -------
    dict of str to tuple of RunFiles
        By participant, for those that have a run.
    """
    tree = Tree(root, tables)
    scans: dict[str | None, list[DataFile]] = defaultdict(list)
    for path in filter(is_magnitude, m0scans):
        scans[label_of_folder(path, root, "sub-")].append(DataFile(**tree.describe(path)))
    images = [path for path in asl if is_magnitude(path)]
    twins = Counter(path.name.partition(".")[0] for path in images)
    runs: dict[str, list[RunFiles]] = defaultdict(list)
    for path in images:
        label = label_of_folder(path, root, "sub-") or ""
        fields = tree.describe(path)
        fields["problems"] += tuple(name_problems(path, parse_name(path.name), root, twins))
        contexts = tree.applicable(path, "aslcontext", ".tsv")
        context = contexts[-1] if contexts else None
        runs[label].append(RunFiles(**fields, aslcontext=context, m0scans=tuple(scans[label])))
    return {label: tuple(found) for label, found in runs.items()}


def _description(root: Path) -> tuple[dict[str, Any], list[Notice]]:
    name = "dataset_description.json"
    remarks: list[Notice] = []
    try:
        description = read_json(root / name, name, remarks)
    except InputError as error:
        outcome = "the dataset is read all the same"
        return {}, [Notice(error.file, error.field, error.found, error.expected, outcome)]
    warnings = list(remarks)
    if description.get("DatasetType", "raw") not in ("raw", "study"):
        kind = json.dumps(description["DatasetType"])
        warnings.append(Notice(name, "DatasetType", kind, "raw data"))
    for key in ("Name", "License", "DatasetDOI"):
        if not isinstance(description.get(key, ""), str):
            warnings.append(_left_out(name, key, description.pop(key), "text"))
    authors = description.get("Authors", [])
    if not isinstance(authors, list) or not all(isinstance(each, str) for each in authors):
        warnings.append(_left_out(name, "Authors", description.pop("Authors"), "a list of names"))
    return description, warnings


def _left_out(name: str, key: str, value: Any, expected: str) -> Notice:
    return Notice(name, key, show(value), expected, "left out")
