"""The learned part of each member as ONNX."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.models.spec import ModelSpec
from asl_bids_app.training.whole_files import write_json

if TYPE_CHECKING:
    from torch import nn


OPSET: Final = 18


def export_onnx(spec: ModelSpec, members: tuple[nn.Module, ...], folder: Path) -> list[Path]:
    """Write the learned part of each member as ONNX.

    Of `PosteriorASLNet` that is the trunk with its heads: maps of the voxelwise posterior in,
    corrections in units of the posterior sd out. The analytic layer holds no weights and
    works in double precision on as many measurements as there are; it stays in Python. Of
    a network of a fixed protocol it is the whole network.

    Parameters
    ----------
    spec
        Of the model.
    members
        Its networks.
    folder
        Where to.

    Returns
    -------
    list of Path
    """
    import torch

    from asl_bids_app.training.export.onnx_trunk import Trunk

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    made = []
    for number, member in enumerate(members):
        trunk = Trunk(member).eval()
        example = torch.zeros(2, count_channels(member), 40, 48)
        path = folder / f"member-{number}.onnx"
        torch.onnx.export(
            trunk,
            (example,),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["maps"],
            output_names=["corrections"],
            dynamic_shapes=({0: batch, 2: height, 3: width},),
            external_data=False,
            verbose=False,
        )
        made.append(path)
    write_json(folder / "onnx.json", _onnx_contract(spec, members[0]))
    return made


def count_channels(member: nn.Module) -> int:
    """Return the number of input maps of a member's learned part."""
    from asl_bids_app.training.fit.run_members import inner_network

    core: Any = inner_network(member)
    return int(core.in_channels if hasattr(core, "in_channels") else 2 * core.n_plds)


def _onnx_contract(spec: ModelSpec, member: Any) -> Mapping[str, Any]:
    whole = bool(spec.channels)
    return {
        "network": spec.network,
        "input": {
            "name": "maps",
            "shape": ["batch", count_channels(member), "height", "width"],
            "content": "ΔM/M0 in percent times the scale, PCASL before VSASL, zero outside brain"
            if whole
            else "PosteriorASLNet.prepare(observation)[1]",
        },
        "output": {
            "name": "corrections",
            "shape": ["batch", 4 if whole else 4 + member.grid.bins, "height", "width"],
            "content": "cbf_norm, att_norm, cbf_logvar, att_logvar"
            if whole
            else "corrections of CBF, ATT (in units of the correction scale), of the logarithms "
            "of their sds, and of the logarithm of p(ATT) in every bin, for "
            "PosteriorASLNet.correct",
        },
        "height_and_width": "multiples of 8",
        "standardisation": dict(spec.standardisation),
    }
