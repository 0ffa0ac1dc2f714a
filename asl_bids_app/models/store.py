"""Model folders: written whole, read once a process, never used unverified.

::

    model.json              what the model is and was trained with; SHA-256 of every other file
    member-0.safetensors    weights in half precision
    MODEL_CARD.md           the same in words
    validation/             tables and figures, if any

A training run folder (``config.yaml``, ``trained_models/``) is read as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.models.build_member import build_member
from asl_bids_app.models.save import save_model
from asl_bids_app.models.spec import (
    SPEC_FILE,
    Channel,
    ModelSpec,
    SchemeDomain,
    TrainingDomain,
    read_spec,
)

if TYPE_CHECKING:
    from asl_bids_app.networks.network import Network

__all__ = [
    "DEFAULT_MODEL",
    "Channel",
    "Model",
    "ModelSpec",
    "SchemeDomain",
    "TrainingDomain",
    "bundled_models",
    "find_model",
    "load_model",
    "model_hash",
    "save_model",
]

DEFAULT_MODEL: Final = "any-protocol"
"""Name of the bundled model that is used unless another is asked for."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is ready to be used.

    Attributes
    ----------
    spec : ModelSpec
    members : tuple of Network, each an nn.Module
        On the CPU, in single precision, in evaluation mode. Each takes an `Observation`:
        `PosteriorASLNet`, or `ChannelNetwork` around a network of a fixed protocol.
    folder : Path
    sha256 : str
        Identifies the description and the weights.
    """

    spec: ModelSpec
    members: tuple[Network, ...]
    folder: Path
    sha256: str

    def facts(self) -> dict[str, Any]:
        """Return what sidecars and reports say of the model."""
        return {
            "Name": self.spec.name,
            "Version": self.spec.version,
            "SHA256": self.sha256,
            "Network": self.spec.network,
            "Members": len(self.members),
            "UncertaintyCalibrated": bool(self.spec.calibration),
        }


def bundled_models() -> tuple[str, ...]:
    """Return the names of the models that came with the package."""
    here = Path(__file__).parent
    return tuple(sorted(path.parent.name for path in here.glob(f"*/{SPEC_FILE}")))


def find_model(name: str | Path) -> Path | None:
    """Return the folder of a model by its name or path; None if there is none.

    A bundled name wins over a folder of the same name in the working directory; ``./name``
    means the latter.
    """
    if str(name) in bundled_models():
        return Path(__file__).parent / str(name)
    folder = Path(name)
    known = (folder / SPEC_FILE).is_file() or (folder / "config.yaml").is_file()
    return folder.resolve() if known else None


def _must_find(name: str | Path | None) -> Path:
    name = DEFAULT_MODEL if name is None else name
    folder = find_model(name)
    if folder is None:
        there = ", ".join(bundled_models()) or "none"
        raise InputError(
            "command line" if not Path(name).exists() else Path(name),
            "model",
            str(name) if not Path(name).exists() else f"neither {SPEC_FILE} nor config.yaml",
            f"a model folder, a run folder of asl-train, or a bundled name ({there})",
        )
    return folder


def model_hash(name: str | Path | None = None) -> str:
    """Return the SHA-256 that identifies a model's description and weights.

    Raises
    ------
    InputError
        If there is no such model.
    """
    folder = _must_find(name)
    if (folder / SPEC_FILE).is_file():
        # It holds the hashes of all other files.
        return hashlib.sha256(_read(folder / SPEC_FILE)).hexdigest()
    from asl_bids_app.models.run_folder import run_folder_hash

    return run_folder_hash(folder)


def load_model(name: str | Path | None = None) -> Model:
    """Load a model; a second call in the same process returns the same weights.

    Parameters
    ----------
    name
        Name of a bundled model, path of a model folder or of a training run folder; None for
        the default model.

    Raises
    ------
    InputError
        If it isn't there, a file is missing or isn't the one that was saved, or the weights
        are of another network.
    """
    return _load(_must_find(name), model_hash(name))


@lru_cache(maxsize=4)
def _load(folder: Path, sha256: str) -> Model:
    if not (folder / SPEC_FILE).is_file():
        from asl_bids_app.models.run_folder import load_run_folder

        spec, members = load_run_folder(folder)
        return Model(spec, members, folder, sha256)
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = _read(folder / SPEC_FILE)
    spec = read_spec(content, folder / SPEC_FILE)
    names = sorted(
        (name for name in spec.files if name.endswith(".safetensors")),
        key=lambda name: (len(name), name),
    )
    if not names:
        raise InputError(folder / SPEC_FILE, "files", "no weights", "member-0.safetensors, …")
    loaded: list[Network] = []
    for file in names:
        try:
            weights = load(_verified(folder, file, spec.files[file]))
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(folder / file, "", str(error), "weights as safetensors") from error
        loaded.append(build_member(spec, weights, folder / file))
    return Model(spec, tuple(loaded), folder, sha256)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reported = error.strerror or str(error)
        raise InputError(path, "", reported, "a file of a model that can be read") from error


def _verified(folder: Path, file: str, wanted: str) -> bytes:
    """Read a file once and give it out only if it is the one that was saved."""
    path = folder / file
    if not path.is_file():
        raise InputError(path, "", "no such file", "the weights that model.json names")
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise InputError(
            path,
            "sha256",
            f"{found[:16]}…",
            f"{wanted[:16]}…, as model.json says",
            "the file is damaged or was replaced: get the model again",
        )
    return content
