"""Model folders are written whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asl_bids_app.errors import InputError
from asl_bids_app.models.spec import (
    SPEC_FILE,
    ModelSpec,
)

if TYPE_CHECKING:
    from torch import nn


def save_model(
    folder: Path,
    spec: ModelSpec,
    members: Sequence[nn.Module],
    extras: Mapping[str, Path] | None = None,
) -> Path:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    folder
        Where to; an earlier model folder there is replaced, anything else is refused.
    spec
        Its `files` are filled in here.
    members
        Networks that `spec` describes (of `ChannelNetwork` the network inside).
    extras
        Further files to copy in, by their path in the folder, such as
        ``validation/table.md``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder holds something else than a model.
    ValueError
        If there are no members, or a weight is not finite in half precision.
    """
    from asl_bids_app.models.card import model_card

    if not members:
        raise ValueError("a model needs at least one member")
    folder = Path(folder)
    if folder.exists() and not (folder / SPEC_FILE).is_file() and any(folder.iterdir()):
        raise InputError(folder, "", "other files", "an empty or new folder, or a model folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        contents = {
            f"member-{number}.safetensors": _weights(member)
            for number, member in enumerate(members)
        }
        contents |= {name: Path(path).read_bytes() for name, path in (extras or {}).items()}
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        described = replace(spec, files=dict(sorted(files.items())))
        contents["MODEL_CARD.md"] = model_card(described, len(members)).encode()
        card = hashlib.sha256(contents["MODEL_CARD.md"]).hexdigest()
        described = replace(described, files={**described.files, "MODEL_CARD.md": card})
        contents[SPEC_FILE] = described.to_json().encode()
        for name, data in contents.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        beside.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.rename(old / folder.name)
            beside.rename(folder)
            shutil.rmtree(old)
        else:
            beside.replace(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return folder


def _weights(member: nn.Module) -> bytes:
    """Return a network's weights in half precision as safetensors."""
    import torch
    from safetensors.torch import save

    from asl_bids_app.networks.spatial import ChannelNetwork

    network = member.network if isinstance(member, ChannelNetwork) else member
    halves = {}
    for name, value in network.state_dict().items():
        half = value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()
        if not bool(torch.isfinite(half).all()):
            raise ValueError(f"{name}: not finite in half precision")
        halves[name] = half.contiguous()
    return save(halves)
