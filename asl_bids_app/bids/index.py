"""The index of a dataset's perfusion files, made by pybids."""

from __future__ import annotations

import glob
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.atomic import PARTIAL
from asl_bids_app.bids.file_names import is_text, label_of_folder
from asl_bids_app.bids.files import shown
from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    from bids import BIDSLayout

FILE: Final = "[^/\ud800-\udfff]*(?:asl|m0scan|aslcontext)\\.(?:json|tsv|nii|nii\\.gz)"
"""Pattern of the names that are indexed. Bytes that are no text (lone surrogates) would end it."""
DATABASE: Final = "layout_index.sqlite"
"""What pybids calls an index on disk."""
FOLDER: Final = "participant_folder"
"""An entity of the index beside those of pybids: the folder counts, for a name may be wrong."""
NEEDED: Final = frozenset({"datatype", "suffix", "extension"})
"""Entities without which an index is none of BIDS."""
FEW: Final = 100
"""Participants up to which a query names them."""


class Index:
    """The files that matter, indexed by pybids.

    Parameters
    ----------
    root
        The dataset, an absolute path.
    known
        Participants of the dataset: those that an index on disk is made for.
    labels
        Participants that are asked for.
    database
        Folder of the index on disk; None keeps it in memory.
    every_entity
        Enter every entity of pybids, as a filter may name any. Without them an index in memory is
        made in a fifth of the time.

    Attributes
    ----------
    root : Path
        The dataset as the index spells it.

    Raises
    ------
    InputError
        If the folder can't be read, or the index on disk is not that of the dataset.
    """

    def __init__(
        self,
        root: Path,
        known: Sequence[str],
        labels: Sequence[str],
        database: Path | str | None,
        *,
        every_entity: bool = True,
    ) -> None:
        from bids import BIDSLayout, BIDSLayoutIndexer

        # One pattern for all that may be entered or indexed; pybids tests folders and files
        # as paths from the root on. Validation would hide misnamed files without a word.
        # A path with bytes that are no text (lone surrogates) would end the index.
        subjects = "|".join(re.escape(label) for label in (known if database else labels))
        folder = f"/sub-(?:{subjects})(?:/ses-[^/\ud800-\udfff]+)?(?:/(?:perf|fmap))?"
        keep = re.compile(rf"^(?!(?:{folder}|(?:{folder})?/{FILE})$)")
        database = None if database is None else Path(database).absolute()
        from sqlalchemy.exc import SQLAlchemyError

        def read(kept: Path | None) -> BIDSLayout:
            return BIDSLayout(
                root,
                validate=False,
                config=[_config(every_entity or kept is not None)],
                database_path=kept,
                indexer=BIDSLayoutIndexer(validate=False, ignore=[keep], index_metadata=False),
            )

        self._file = None if database is None else database / DATABASE
        kept = self._file is not None and self._file.exists()
        try:
            if database is not None and not kept:
                _make_whole(database, read)
            self._layout: BIDSLayout = read(database)
            entities = set(self._layout.get_entities())
        except PermissionError as error:
            raise InputError(str(error.filename), "", "no permission", "to read it") from error
        except (SQLAlchemyError, AttributeError, OSError, UnicodeError) as error:
            if kept and not isinstance(error, OSError | UnicodeError):
                raise self._damaged(error) from error
            place, found = str(database or root), str(getattr(error, "orig", None) or error)
            raise InputError(place, "", found, "a folder for the pybids index") from error
        if kept and NEEDED - entities:
            raise self._damaged()
        # An index on disk may hold thousands of participants beside the few that are asked for;
        # one of an earlier version can't be asked by folder.
        few = database is not None and len(labels) <= FEW and FOLDER in entities
        self._only: dict[str, Any] = {FOLDER: list(labels)} if few else {}
        # A kept index has its own spelling of the same folder, links and all.
        self.root = Path(self._layout.root)
        if not self.root.exists() or not self.root.samefile(root):
            raise InputError(
                str(database),
                "--bids-database-dir",
                f"the index of {self._layout.root}",
                f"that of {root}",
                "give another folder, or remove this one",
            )

    def _damaged(self, error: Exception | None = None) -> InputError:
        """Return the error that the index on disk is cut off or holds something else."""
        why = getattr(error, "orig", None) or "parts of it are missing"
        return InputError(
            str(self._file),
            "",
            f"an index that can't be read ({why})",
            "one that this program or pybids made",
            "remove the file; it is made anew",
        )

    def query(self, query: Mapping[str, Any]) -> list[Path]:
        """List files of the participants in natural order."""
        from sqlalchemy.exc import DatabaseError, OperationalError

        try:
            found = self._layout.get(return_type="file", **query, **self._only)
        except Exception as error:
            # Of a filter's odd values SQL complains, too, by errors of other kinds.
            if self._file and type(error) in (DatabaseError, OperationalError):
                raise self._damaged(error) from error
            # The library checks no filter: it raises whatever it meets.
            found = str(error).split(". If you")[0] or type(error).__name__
            raise InputError(
                "command line", "--bids-filter-file", found, "entities by their pybids names"
            ) from error
        return [Path(file) for file in found]

    def files(self) -> list[Path]:
        """List all indexed files of the participants."""
        return self.query({})

    def tables(self) -> list[Path]:
        """List the sidecars and tables of the participants, and those for all of them."""
        kinds = {
            "suffix": ["asl", "m0scan", "aslcontext"],
            "extension": [".json", ".tsv"],
            "return_type": "file",
        }
        found = self._layout.get(**kinds, **self._only)
        if self._only:
            from bids.layout import Query

            found += self._layout.get(**kinds, **{FOLDER: Query.NONE})
        return [Path(file) for file in found]


def _make_whole(database: Path, read: Callable[[Path], BIDSLayout]) -> None:
    """Make an index on disk that appears complete or not at all, whoever else makes it too."""
    database.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=database) as beside:
        read(Path(beside))
        (Path(beside) / DATABASE).replace(database / DATABASE)


def check_fresh(
    root: Path, labels: Sequence[str], indexed: Sequence[Path], database: Path | str
) -> None:
    """Refuse an index on disk that lacks a file of some participants, or has one that is gone.

    Raises
    ------
    InputError
        It names the first such file.
    """
    here: set[Path] = set()
    for label in filter(is_text, labels):
        for pattern in ("perf", "fmap", "ses-*/perf", "ses-*/fmap"):
            found = root.glob(f"sub-{glob.escape(label)}/{pattern}/*")
            here.update(path for path in found if re.fullmatch(FILE, path.name))
    kept = {path for path in indexed if path.parent.name in {"perf", "fmap"}}
    kept = {path for path in kept if label_of_folder(path, root, "sub-") in labels}
    lacking, gone = sorted(here - kept), sorted(kept - here)
    if lacking or gone:
        raise InputError(
            str(database),
            "--bids-database-dir",
            f"an index without {shown(lacking[0], root)}"
            if lacking
            else f"an index with {shown(gone[0], root)}, which is gone",
            "an index of the dataset as it is now",
            "remove the folder; it is made anew",
        )


def _config(every_entity: bool) -> dict[str, Any]:
    """Return the entities of pybids (or `NEEDED`), sought in a file's own name and folder alone.

    pybids searches the whole path, so that a dataset under ``/jobs/sub-07/`` would be that
    of one participant.
    """
    import bids.layout

    path = Path(bids.layout.__file__).with_name("config") / "bids.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if not every_entity:
        config["entities"] = [each for each in config["entities"] if each["name"] in NEEDED]
    for entity in config["entities"]:
        if entity["name"] == "datatype":
            entity["pattern"] += r"[^/\\]+$"
        elif not entity["pattern"].endswith("$") and entity["name"] not in {"fmap", "scans"}:
            entity["pattern"] += r"(?=[^/\\]*$)"
    config["entities"].append({"name": FOLDER, "pattern": r".*[/\\]sub-([^/\\]+)[/\\]"})
    return config
