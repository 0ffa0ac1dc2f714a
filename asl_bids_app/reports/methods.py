"""The methods text of a run, with citations, ready to be pasted into a paper.

The text is ``templates/methods.jinja``; here are the facts that it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.reports import methods_data
from asl_bids_app.reports.bibtex import Reference, bibtex
from asl_bids_app.reports.references import REFERENCES
from asl_bids_app.run_records import ParticipantRecord

if TYPE_CHECKING:
    from jinja2 import Template

_CITE: Final = re.compile(r"\[@([a-z; @]+)\]")


@dataclass(frozen=True)
class Methods:
    """A methods text in parts.

    Attributes
    ----------
    paragraphs : tuple of str
        With the citations in their short form.
    references : tuple of Reference
        The works cited, in the order of the alphabet.
    """

    paragraphs: tuple[str, ...]
    references: tuple[Reference, ...]

    def markdown(self) -> str:
        """Return the text as Markdown."""
        lines = [
            "### Methods",
            "",
            *(f"{text}\n" for text in self.paragraphs),
            "### References",
            "",
        ]
        lines += [f"- {r.full} doi:{r.doi}" for r in self.references]
        return "\n".join(lines) + "\n"

    def bibtex(self) -> str:
        """Return the references as a BibTeX file."""
        return bibtex(self.references)


def methods_text(record: Mapping[str, Any]) -> str:
    """Write the methods text of a participant's record.

    Parameters
    ----------
    record
        A `ParticipantRecord`, or what a file holds of one; every key may be missing.

    Returns
    -------
    str
        Markdown, with the works it cites.
    """
    return methods(record).markdown()


def methods(record: Mapping[str, Any]) -> Methods:
    """Write the methods text of a participant's record in parts.

    Parameters
    ----------
    record
        A `ParticipantRecord`, or what a file holds of one; every key may be missing.
    """
    known = ParticipantRecord.from_json(record)
    text = _template().render(record=known, options=known.options)
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    cited: list[str] = []

    def shorten(match: re.Match[str]) -> str:
        keys = [key.strip().lstrip("@") for key in match[1].split(";")]
        cited.extend(keys)
        return "(" + "; ".join(REFERENCES[key].short for key in keys) + ")"

    # Runs and series that were treated alike are described once.
    texts = tuple(_CITE.sub(shorten, part) for part in dict.fromkeys(filter(None, paragraphs)))
    references = sorted((REFERENCES[key] for key in dict.fromkeys(cited)), key=lambda r: r.full)
    return Methods(texts, tuple(references))


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("asl_bids_app.reports", "templates"),
        autoescape=False,
    )
    environment.globals |= methods_data.NAMES
    return environment.get_template("methods.jinja")
