"""Readers of the values of options; each error says what was found and expected."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from asl_bids_app.schemes import Scheme

LEAST_GB, MOST_GB = 0.5, 1e6
"""Memory below which no step of the app can run, and more than any machine has."""
MOST = 4096
"""Of anything that is counted: more processors or slices at a time are a slip."""


def between(low: float, high: float) -> Any:
    """Return a reader of numbers in a range."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"found {text}, expected {low:g} to {high:g}")
        return value

    return number


def count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text) or int(text) > MOST:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number from 1 to {MOST}"
        )
    return int(text)


def seed(text: str) -> int:
    """Read a seed: a whole number that every generator takes."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number from 0 to {2**32 - 1}"
        )
    return int(text)


def path(text: str) -> Path:
    """Read a path and make it absolute."""
    return Path(text).expanduser().absolute()


def device(text: str) -> str:
    """Read the name of a device; whether this machine has it shows later."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected auto, cpu, cuda, cuda:N or mps"
        )
    return text


def _size(text: str, bare: float) -> float:
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as 8G or 8000M")
    size = float(found[1]) * {"K": 1e-6, "M": 1e-3, "": bare, "G": 1, "T": 1e3}[found[2].upper()]
    if not LEAST_GB <= size <= MOST_GB:
        unit = "a bare number is in MB" if bare < 1 else "a bare number is in GB"
        raise argparse.ArgumentTypeError(
            f"found {text!r} ({size:g} GB), expected {LEAST_GB:g} to {MOST_GB:g} GB; {unit}"
        )
    return size


def megabytes(text: str) -> float:
    """Read ``8000``, ``8000M``, ``8G`` or ``0.5T`` as gigabytes; a bare number is in MB."""
    return _size(text, bare=1e-3)


def gigabytes(text: str) -> float:
    """Read ``8``, ``8000M``, ``8G`` or ``0.5T`` as gigabytes; so is a bare number."""
    return _size(text, bare=1)


def pair(text: str) -> tuple[str, Path]:
    """Read NAME=PATH."""
    name, separator, place = text.partition("=")
    if not separator or not name or not place:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME=PATH")
    return name, path(place)


def efficiency(text: str) -> tuple[str, float]:
    """Read [SCHEME=]VALUE."""
    name, separator, value = text.rpartition("=")
    if separator and name.upper() not in set(Scheme):
        *first, last = (f"{scheme.value}=" for scheme in Scheme)
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected VALUE or {', '.join(first)} or {last}VALUE"
        )
    return name.upper(), between(0.01, 1.0)(value)


def label(prefix: str) -> Any:
    """Return a reader of labels that may carry the entity's prefix."""
    return lambda text: text.removeprefix(prefix)


def space(text: str) -> str:
    """Check a space of ``--output-spaces``."""
    from asl_bids_app.anatomy.spaces import read_space

    return _checked(text, read_space)


def atlas(text: str) -> str:
    """Check an atlas of ``--atlas``."""
    from asl_bids_app.anatomy.atlases import read_spec

    return _checked(text, read_spec)


def _checked(text: str, read: Any) -> str:
    from asl_bids_app.errors import InputError

    try:
        read(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(
            f"found {error.found}, expected {error.expected}"
        ) from None
    return text
