"""Weights of a trained network for a wider one that answers the same.

Net2Net (Chen, Goodfellow and Shlens 2016, arXiv:1511.05641): every channel is there several
times, and what reads it shares its weight out among its copies. Shared unevenly, the copies are
told apart by the first step of the training. The norm of `asl_bids_app.networks.blocks` is a mean
over channels, which copies don't change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Generator, Tensor

_FIRST: Final = "encoder.levels.0."
"""Names of the kernels that see the input maps begin so."""
_LAST: Final = "head."
"""Names of the kernel and bias that answer begin so."""
_LEAST: Final = 0.2
"""Least share of a copy before all shares of a channel are made to sum to 1; the greatest is 1."""


def widened(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], generator: Generator
) -> dict[str, Tensor] | None:
    """Return the weights of a network of the given shapes that answers as a narrower one.

    Parameters
    ----------
    state
        Weights of the narrower one by name: kernels (out, in, ...), biases (out,), scalars.
    shapes
        Of the wider one's, by the same names.
    generator
        Draws how copies of a channel share its weight.

    Returns
    -------
    dict of Tensor or None
        None unless the names are the same, and every number of channels is the old one or one
        multiple of it for all of the network, sizes of kernels alike.
    """
    if state.keys() != shapes.keys():
        return None
    copies = {}
    for name, value in state.items():
        shape = shapes[name]
        if value.ndim != len(shape) or value.shape[2:] != shape[2:]:
            return None
        channels = list(zip(value.shape[:2], shape[:2], strict=True))
        if any(new % old for old, new in channels):
            return None
        copies[name] = [new // old for old, new in channels]
    if len({number for numbers in copies.values() for number in numbers} - {1}) != 1:
        return None
    found = {}
    for name, value in state.items():
        outputs, inputs, *_ = *copies[name], 1, 1
        wide = value.repeat_interleave(outputs, 0) if outputs > 1 else value
        if inputs > 1:
            part = torch.empty(inputs, *wide.shape).uniform_(_LEAST, 1.0, generator=generator)
            # Beside each other, as the copies of a channel are.
            wide = (wide * part / part.sum(0)).movedim(0, 2).flatten(1, 2)
        found[name] = wide
    return found


def grown(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], last: int
) -> dict[str, Tensor] | None:
    """Return the weights of a network with more input maps and answers that answers the same.

    New input maps stand before the last ones, and new answers at the end; their weights are 0.

    Parameters
    ----------
    state
        Weights of the one with fewer, by name.
    shapes
        Of the other's, by the same names.
    last
        Number of input maps that stay the last ones.

    Returns
    -------
    dict of Tensor or None
        None if the names differ, a kernel has fewer channels than before, or one between the
        first and the last has more.
    """
    if state.keys() != shapes.keys():
        return None
    found = {}
    for name, value in state.items():
        shape = shapes[name]
        if tuple(value.shape) == shape:
            found[name] = value
            continue
        if value.ndim != len(shape) or value.shape[2:] != shape[2:]:
            return None
        if any(old > new for old, new in zip(value.shape, shape, strict=True)):
            return None
        # More channels anywhere else would change what the norms make of the old ones.
        if value.shape[0] != shape[0] and not name.startswith(_LAST):
            return None
        if value.ndim > 1 and value.shape[1] != shape[1] and not name.startswith(_FIRST):
            return None
        new = value.new_zeros(shape)
        outputs = value.shape[0]
        if value.ndim == 1 or value.shape[1] == shape[1]:
            new[:outputs] = value
        else:
            kept = value.shape[1] - last
            new[:outputs, :kept] = value[:, :kept]
            new[:outputs, shape[1] - last :] = value[:, kept:]
        found[name] = new
    return found
