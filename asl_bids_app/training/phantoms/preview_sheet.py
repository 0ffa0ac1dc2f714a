"""A sheet of phantoms to look at before a night of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.drawing import (
    ANATOMIES,
    CONDITIONS,
    TISSUES,
    Phantoms,
    concatenate,
    draw,
)
from asl_bids_app.training.simulate.physics import draw_physics
from asl_bids_app.training.simulate.simulation import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("blue", "orange", "green", "red", "purple", "brown", "pink", "cyan", "olive")
_LESIONS = (*(f"tab:{name}" for name in _COLOURS), "gold")
_BLOCKS = 2
"""Phantoms side by side."""
_COLUMNS = ("tissue", "CBF (mL/100 g/min)", "ATT (s)", "early ΔM (%)", "late ΔM (%)")


def _one_of_each(config: PhantomConfig, each: int, seed: int) -> tuple[Phantoms, list[str]]:
    """Draw `each` phantoms of every condition in the atlas, and as many abstract ones."""
    config = replace(config, slices=1)
    parts, titles = [], []
    for code, name in enumerate(CONDITIONS):
        weights: dict[str, Any] = {f"{other}_weight": float(other == name) for other in CONDITIONS}
        settings = replace(config, abstract_fraction=0.0, **weights)
        parts.append(draw(settings, each, seed + code))
        titles += [name] * each
    parts.append(draw(replace(config, abstract_fraction=1.0), each, seed + len(CONDITIONS)))
    titles += [ANATOMIES[1]] * each
    return concatenate(parts), titles


def _show(axes: Axes, image: np.ndarray, **options: Any) -> None:
    axes.imshow(image, origin="lower", interpolation="nearest", **options)


def preview_sheet(
    config: PhantomConfig,
    path: Path,
    each: int = 4,
    seed: int = 0,
    domain: DomainConfig | None = None,
    noise: NoiseConfig | None = None,
) -> Path:
    """Draw a figure with phantoms of every condition and anatomy, and noisy ΔM of them.

    Parameters
    ----------
    config
        Settings of the phantoms.
    path
        Image to write (png, pdf, svg).
    each
        Phantoms of each condition.
    seed
        Any integer.
    domain, noise
        Settings of the acquisition; the joint protocol by default.

    Returns
    -------
    Path
        `path`.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    phantoms, titles = _one_of_each(config, each, seed)
    generator = torch.Generator().manual_seed(seed)
    physics = draw_physics(domain or DomainConfig("joint 6+6"), phantoms.count, generator)
    batch = simulate(phantoms, physics, noise or NoiseConfig(), generator)
    signal = 100 * batch.observation.delta_m
    last = physics.valid.sum(1) - 1
    early, late = signal[:, 0], signal[torch.arange(len(signal)), last]

    # Air, then grey, white and fluid in greys, then the lesions in colours.
    palette = np.array([[0.0, 0.0, 0.0], [0.55, 0.55, 0.55], [0.85, 0.85, 0.85], [0.2, 0.3, 0.45]])
    colours = ListedColormap([*palette, *_LESIONS][: len(TISSUES)])
    rows, wide = -(-len(titles) // _BLOCKS), len(_COLUMNS) * _BLOCKS
    figure = Figure(figsize=(1.3 * wide, 1.45 * rows), layout="constrained")
    axes = figure.subplots(rows, wide, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, title in enumerate(titles):
        row, block = divmod(i, _BLOCKS)
        place = axes[row, len(_COLUMNS) * block : len(_COLUMNS) * (block + 1)]
        top = float(max(abs(early[i]).quantile(0.995), abs(late[i]).quantile(0.995)))
        _show(
            place[0], phantoms.tissue[i].numpy(), cmap=colours, vmin=-0.5, vmax=len(TISSUES) - 0.5
        )
        _show(place[1], phantoms.cbf[i].numpy(), cmap="inferno", vmin=0, vmax=110)
        _show(place[2], phantoms.att[i].numpy(), cmap="viridis", vmin=0, vmax=3.5)
        _show(place[3], early[i].numpy(), cmap="gray", vmin=-top / 4, vmax=top)
        _show(place[4], late[i].numpy(), cmap="gray", vmin=-top / 4, vmax=top)
        place[0].set_title(f"{title}, SNR {batch.snr[i]:.0f}", fontsize=7, loc="left")
        if row == 0:
            for axis, words in zip(place[1:], _COLUMNS[1:], strict=True):
                axis.set_title(words, fontsize=6)
    patches = [
        Patch(facecolor=colours(code), edgecolor="0.5", label=name)
        for code, name in TISSUES.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=5, fontsize=7)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
