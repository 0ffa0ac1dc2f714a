"""Names and contents of a run folder, which is all that a training leaves behind.

::

    config.yaml             every setting, presets resolved
    research_config.json    where it came from: seeds, versions, hashes, machine
    norm_stats.json         standardisation of the targets (ATT in ms, by contract)
    trained_models/         ensemble_model_0.pt ... (load with weights_only=True)
    validation_results/     tables, figures
    checkpoints/member_0/   last.ckpt, to go on from
    logs/member_0/          metrics.csv, TensorBoard events
    slurm.out, slurm.err    on a cluster
"""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_bids_app.errors import InputError
from asl_bids_app.training.whole_files import locked, replacing_file, write_json, write_text

if TYPE_CHECKING:
    from asl_bids_app.training.config.run_config import RunConfig


@dataclass(frozen=True)
class NormStats:
    """Mean and standard deviation of the targets in the brains of the training phantoms.

    Attributes
    ----------
    y_mean_cbf, y_std_cbf : float
        mL/100 g/min.
    y_mean_att, y_std_att : float
        Milliseconds: the one documented file that keeps them.
    """

    y_mean_cbf: float
    y_std_cbf: float
    y_mean_att: float
    y_std_att: float


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    root: Path

    @property
    def config(self) -> Path:
        """Every setting."""
        return self.root / "config.yaml"

    @property
    def norm_stats(self) -> Path:
        """Standardisation of the targets."""
        return self.root / "norm_stats.json"

    @property
    def research_config(self) -> Path:
        """Provenance."""
        return self.root / "research_config.json"

    @property
    def validation(self) -> Path:
        """Tables and figures of the validation."""
        return self.root / "validation_results"

    def model(self, member: int) -> Path:
        """Weights of a member."""
        return self.root / "trained_models" / f"ensemble_model_{member}.pt"

    def checkpoint(self, member: int) -> Path:
        """All that is needed to go on with a member."""
        return self.root / "checkpoints" / f"member_{member}" / "last.ckpt"

    def logs(self, member: int) -> Path:
        """Folder of the curves of a member."""
        return self.root / "logs" / f"member_{member}"

    def read_config(self) -> RunConfig:
        """Read the settings of the run."""
        from asl_bids_app.training.config.run_config import load

        if not self.config.is_file():
            raise InputError(
                self.root, "", "no config.yaml", "the run folder of asl-train fit or pipeline"
            )
        return load(self.config, allow_noncritical=True)

    def read_norm_stats(self) -> NormStats:
        """Read the standardisation of the targets."""
        if not self.norm_stats.is_file():
            raise InputError(self.root, "", "no norm_stats.json", "a run folder with models")
        return NormStats(**json.loads(self.norm_stats.read_text()))

    def read_research_config(self) -> dict[str, Any]:
        """Read the provenance."""
        if not self.research_config.is_file():
            return {}
        return json.loads(self.research_config.read_text())


def check_same_config(folder: RunFolder, config: RunConfig) -> None:
    """Write ``config.yaml``, or refuse if the folder holds a run with other settings."""
    if folder.config.is_file():
        old, new = folder.read_config().to_dict(), config.to_dict()
        path = _first_difference(old, new)
        if path:
            raise InputError(
                folder.config,
                path,
                repr(_get(old, path)),
                f"{_get(new, path)!r}, as now asked for",
                "continue with the settings of the folder, or give another --output-dir",
            )
        return
    write_text(folder.config, config.to_yaml())


def _first_difference(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            found = _first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return ""
    return path if old != new else ""


def _get(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def environment() -> dict[str, Any]:
    """Describe the machine and the versions that a result depends on."""
    versions = {}
    for name in ("asl-bids-app", "torch", "lightning", "numpy", "scipy", "onnx"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "git_revision": git_revision(),
    }


def git_revision() -> str:
    """Return the revision of the checkout that this package runs from, empty if none.

    Ends in ``-dirty`` if files were changed since.
    """
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        shown = subprocess.run(
            ["git", "-C", str(here.parent), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return shown.stdout.strip()

    try:
        # An installed package may lie inside the checkout of another project.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def note(folder: RunFolder, key: str, content: Any) -> None:
    """Put one entry into ``research_config.json`` (members write at the same time)."""
    # The lock is a file of its own: the JSON file is replaced, which would drop a lock on it.
    with locked(folder.root / ".research_config.lock"):
        values = folder.read_research_config()
        entry: Any = content
        for part in reversed(key.split("/")):
            entry = {part: entry}
        write_json(folder.research_config, _merge(values, entry))


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    from asl_bids_app.training.config.reading import merge

    return merge(old, new)


def now() -> str:
    """Return the time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def save_member(path: Path, content: dict[str, Any]) -> None:
    """Write the weights of a member with what is needed to build the network."""
    import torch

    with replacing_file(path) as beside:
        torch.save(content, beside)


def load_member(path: Path) -> dict[str, Any]:
    """Read the weights of a member."""
    import torch

    if not path.is_file():
        raise InputError(path, "", "no such file", "the weights of a trained member")
    return torch.load(path, map_location="cpu", weights_only=True)


def trained_members(folder: RunFolder) -> list[int]:
    """Return the numbers of the members that have weights."""
    found = (folder.root / "trained_models").glob("ensemble_model_*.pt")
    return sorted(int(path.stem.rsplit("_", 1)[1]) for path in found)
