"""Make the learned part of a network fast where the device has the means: compiled, bfloat16.

Only the trunk is touched: physics, the analytic layer and the loss stay in single precision.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def wants_bfloat16(wanted: str, device: str) -> bool:
    """Decide whether the trunk runs in bfloat16; ``auto`` where the hardware multiplies it."""
    if wanted != "auto":
        return wanted == "bfloat16"
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return False


def wants_compile(wanted: str, device: str) -> bool:
    """Decide whether the trunk is compiled; ``auto`` where a compiler is likely to be found."""
    if wanted != "auto":
        return wanted == "always"
    if device == "cpu":
        return any(shutil.which(c) for c in (os.environ.get("CXX", ""), "g++", "clang++") if c)
    return device == "cuda"


def speed_up(network: Any, device: str, precision: str, compiled: str) -> None:
    """Replace the trunk's function of a network by a faster one, in place.

    Parameters
    ----------
    network
        Of `asl_bids_app.training.fit.run_members.build_member`.
    device
        ``cpu``, ``cuda`` or ``mps``.
    precision
        ``auto``, ``float32`` or ``bfloat16``.
    compiled
        ``auto``, ``always`` or ``never``.
    """
    plain: Callable[[Tensor], Tensor] = network.corrections
    half = wants_bfloat16(precision, device)
    use = plain
    if wants_compile(compiled, device):
        use = _guarded(torch.compile(plain, dynamic=False), plain, must=compiled == "always")
    how = "compiled" if use is not plain else "not compiled"
    log.info("trunk: %s, %s", how, "bfloat16" if half else "float32")

    def trunk(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            answer = use(x)
        # What follows turns it into units, for which bfloat16 is too coarse.
        return answer.float()

    # An attribute of the instance hides the method of the class.
    network.__dict__["corrections"] = trunk


def _guarded(
    fast: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], must: bool
) -> Callable[[Tensor], Tensor]:
    """Fall back to a plain function if the fast one can't be compiled on this machine."""
    state = {"use": fast}

    def call(x: Tensor) -> Tensor:
        if state["use"] is plain:
            return plain(x)
        try:
            return fast(x)
        except Exception as error:
            compiling = type(error).__module__.startswith(("torch._inductor", "torch._dynamo"))
            if must or not compiling:
                raise
            log.warning("the network can't be compiled here (%s); it trains uncompiled", error)
            state["use"] = plain
            return plain(x)

    return call
