"""Checks of single arguments of functions for Python; errors name the argument."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from asl_bids_app.argument_constants import CALL, is_number
from asl_bids_app.errors import COMMAND_LINE, InputError

MOST: Final = 2**32
"""No seed, number of threads or of slices is as large."""
_OPTION: Final = re.compile(r"--(no-)?([a-z][a-z0-9-]*)")


@contextmanager
def naming_arguments(call: str) -> Iterator[None]:
    """Let errors about options name the arguments of a function that has the same.

    Parameters
    ----------
    call
        Name of the function.
    """

    def spell(text: str) -> str:
        return _OPTION.sub(
            lambda found: found[2].replace("-", "_") + ("=False" if found[1] else ""), text
        )

    try:
        yield
    except InputError as error:
        if error.file != COMMAND_LINE:
            raise
        words = (error.field, error.found, error.expected, error.cure)
        field, found, expected, cure = map(spell, words)
        raise InputError(call, field, found, expected, cure, error.cause) from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_arguments(
    *,
    estimator: Any,
    error_bars: Any,
    model: Any,
    protocol: Any,
    threads: Any,
    batch_size: Any,
    seed: Any,
    field_strength: Any,
    tta: Any,
    arterial: Any,
    device: Any,
    slice_axis: Any,
) -> None:
    """Refuse arguments that aren't arrays and can't be."""
    from asl_bids_app.options.groups import ERROR_BARS, ESTIMATORS
    from asl_bids_app.options.readers import device as read_device
    from asl_bids_app.protocol import Protocol

    for name, value, words in (
        ("estimator", estimator, ESTIMATORS),
        ("error_bars", error_bars, ERROR_BARS),
    ):
        if not isinstance(value, str) or value not in words:
            raise InputError(CALL, name, repr(value), f"one of {', '.join(words)}")
    if model is not None and not (isinstance(model, str | Path) and str(model)):
        raise InputError(CALL, "model", repr(model), "a name or folder, or None for the usual one")
    if not isinstance(protocol, Protocol):
        raise InputError(
            CALL, "protocol", type(protocol).__name__, "a Protocol, such as Protocol.pcasl(...)"
        )
    for name, value, least in (
        ("threads", threads, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if not _is_whole(value) or not least <= value < MOST:
            raise InputError(CALL, name, repr(value), f"a whole number, {least} to {MOST - 1}")
    if not is_number(field_strength):
        raise InputError(CALL, "field_strength", repr(field_strength), "a number, tesla")
    for name, value in (("tta", tta), ("arterial", arterial)):
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(CALL, name, repr(value), "True or False")
    if isinstance(slice_axis, bool) or not _is_whole(slice_axis) or slice_axis not in (0, 1, 2):
        raise InputError(CALL, "slice_axis", repr(slice_axis), "0, 1 or 2")
    try:
        read_device(str(device))
    except ArgumentTypeError:
        expected = "auto, cpu, cuda, cuda:N or mps"
        raise InputError(CALL, "device", repr(device), expected) from None


def as_array(
    name: str, values: Any, expected: str = "real numbers", kinds: str = "iuf"
) -> np.ndarray:
    """Return an argument as an array of real numbers (numpy's `kinds`).

    Raises
    ------
    InputError
        If it holds anything else, or rows of unequal length.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise InputError(CALL, name, "rows of unequal length", expected) from None
    if array.dtype.kind not in kinds:
        raise InputError(CALL, name, kind_of(values), expected)
    return array


def kind_of(value: Any) -> str:
    """Return in words what an argument is that is no array of numbers."""
    kind = np.asarray(value).dtype
    return type(value).__name__ if kind.kind in "OUS" else f"values of {kind}"
