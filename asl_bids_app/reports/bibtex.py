"""One work that a methods text cites: as text and as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A citable work.

    Attributes
    ----------
    key : str
        In texts and in BibTeX.
    short : str
        As it stands in a text.
    authors : str
        Family names with initials, separated by commas; "et al" for the others.
    title : str
    journal : str
        Abbreviated, or the proceedings.
    volume, pages : str
        Pages or article number; may be empty.
    year : int
    doi : str
        Without the resolver's address.
    """

    key: str
    short: str
    authors: str
    title: str
    journal: str
    volume: str
    pages: str
    year: int
    doi: str

    @property
    def full(self) -> str:
        """Authors, title, journal, year."""
        place = f"{self.journal} {self.volume}" + (f":{self.pages}" if self.pages else "")
        return f"{self.authors}. {self.title}. {place}, {self.year}."

    def bibtex(self) -> str:
        """Return the work as an entry of a BibTeX file."""
        authors = [name.strip() for name in self.authors.split(",")]
        people = ["others" if name == "et al" else _person(name) for name in authors]
        fields = {
            "author": " and ".join(people),
            # Braces keep the capitals of names and abbreviations.
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "year": str(self.year),
            "doi": self.doi,
        }
        rows = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@article{{{self.key},\n" + ",\n".join(rows) + "\n}\n"


def _person(name: str) -> str:
    family, _, initials = name.rpartition(" ")
    return f"{family}, {' '.join(f'{letter}.' for letter in initials)}"


def bibtex(works: Iterable[Reference]) -> str:
    """Return works as a BibTeX file, in UTF-8."""
    return "\n".join(work.bibtex() for work in works)


def cite_by_key(*works: Reference) -> dict[str, Reference]:
    """Return works by the keys that texts cite them by."""
    return {work.key: work for work in works}
