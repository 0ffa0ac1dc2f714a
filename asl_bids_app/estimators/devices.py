"""Where an estimator runs, and how to tell that memory ran out there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from asl_bids_app.errors import InputError


def find_device(wanted: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    InputError
        If this machine doesn't have it.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise InputError(
            "command line", "--device", wanted, "auto, cpu, cuda, cuda:N or mps"
        ) from error
    there = {
        "cpu": True,
        "mps": has_mps,
        "cuda": has_cuda and (device.index or 0) < torch.cuda.device_count(),
    }
    if not there.get(device.type, False):
        raise InputError(
            "command line", "--device", wanted, "a device of this machine", "give --device auto"
        )
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 products on a GPU exact to float32 meanwhile, convolutions included.

    TF32 rounds to ten bits, and cuDNN uses it unless it is switched off. Settings are those of the
    process: they are as before afterwards.
    """
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


def side_by_side(work: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
    """Call a function of each part, each in a thread with its share of torch's threads.

    The operators of a network on a few slices are too short for several threads each.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    threads, graded = torch.get_num_threads(), torch.is_grad_enabled()

    def one(part: Tensor) -> Tensor:
        with torch.set_grad_enabled(graded):  # which new threads don't know
            return work(part)

    try:
        share = max(1, threads // len(parts))
        with ThreadPoolExecutor(
            len(parts), initializer=torch.set_num_threads, initargs=(share,)
        ) as pool:
            return list(pool.map(one, parts))
    finally:
        torch.set_num_threads(threads)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)
