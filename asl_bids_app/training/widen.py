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
