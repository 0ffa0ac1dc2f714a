"""The ways from an ASL image to the T1w and to standard spaces, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asl_bids_app.anatomy.spaces import NATIVE, PACKAGED, T1W
from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name


@dataclass(frozen=True, eq=False)
class Routes:
    """How points get from one space to another. Points are those of images' world.

    Attributes
    ----------
    matrix : array, shape (4, 4)
        Takes points of the ASL image to those of `hub` (mm, RAS).
    hub : str
        ``T1w``, or the packaged template where it was registered to the M0 alone.
    to_space, from_space : mapping of str to transform
        ``from-T1w_to-<space>`` and back, by space.
    template_dir : Path or None
        ``TEMPLATEFLOW_HOME``, whose transforms between templates serve.
    files_to, files_from : mapping of str to Path
        The files of `to_space` and `from_space`.
    """

    matrix: np.ndarray
    hub: str = T1W
    to_space: Mapping[str, sitk.Transform] = field(default_factory=dict)
    from_space: Mapping[str, sitk.Transform] = field(default_factory=dict)
    template_dir: Path | None = None
    files_to: Mapping[str, Path] = field(default_factory=dict)
    files_from: Mapping[str, Path] = field(default_factory=dict)

    def to_asl(self, space: str) -> sitk.Transform:
        """Return what takes points of a space to those of the ASL image.

        Raises
        ------
        InputError
            If no transform to the space is at hand.
        """
        from asl_bids_app.anatomy.transforms import affine_transform, chain

        last = affine_transform(np.linalg.inv(self.matrix))
        if space == self.hub:
            return last
        return chain([self.to_hub(space), last])

    def to_hub(self, space: str) -> sitk.Transform:
        """Return what takes points of another space than the hub's to the hub's; as `to_asl`."""
        from asl_bids_app.anatomy.transforms import chain

        return chain(self._read_legs(space, self.to_space))

    def from_asl(self, space: str) -> sitk.Transform:
        """Return what takes points of the ASL image to those of a space; as `to_asl`."""
        from asl_bids_app.anatomy.transforms import affine_transform, chain

        first = affine_transform(self.matrix)
        if space == self.hub:
            return first
        return chain([first, *self._read_legs(space, self.from_space, back=True)[::-1]])

    def files(self, space: str, *, back: bool = False) -> list[Path]:
        """Return the files of the transforms between the hub and a space; as `to_asl`.

        Parameters
        ----------
        space
        back
            From the series to the space, as `from_asl` takes points, not to it.
        """
        if space == self.hub or space in NATIVE:
            return []
        known = self.files_from if back else self.files_to
        legs = find_legs(space, self.hub, known, self.template_dir, back=back)
        return [path for path in (legs.bridge, known.get(legs.known)) if path is not None]

    def mni_space(self) -> str | None:
        """Return a space in MNI152 millimetres to which points of the ASL image can go."""
        return mni_space_of(self.hub, self.from_space)

    def _read_legs(
        self, space: str, known: Mapping[str, sitk.Transform], *, back: bool = False
    ) -> list[sitk.Transform]:
        """Return the transforms between a space and the hub, that of the space first."""
        from asl_bids_app.anatomy.transforms import read_transform

        legs = find_legs(space, self.hub, known, self.template_dir, back=back)
        first = [] if legs.bridge is None else [read_transform(legs.bridge)]
        return [*first, known[legs.known]]


def mni_space_of(hub: str, from_space: Iterable[str]) -> str | None:
    """Return a space in MNI152 millimetres among the hub and those with a way from it."""
    if hub == PACKAGED:
        return PACKAGED
    known = [space for space in from_space if space.startswith("MNI152")]
    return min(known, key=lambda space: space != PACKAGED) if known else None


class Legs(NamedTuple):
    """The way between a space and the hub: through a space whose transform to the hub is known."""

    known: str
    bridge: Path | None = None
    """TemplateFlow's transform between the two; None where the space is that one itself."""


def find_legs(
    space: str, hub: str, known: Iterable[str], template_dir: Path | None, *, back: bool = False
) -> Legs:
    """Find the way between the hub and a space other than that.

    Parameters
    ----------
    space, hub
    known
        Spaces that have a transform to the hub, or with `back` one from it.
    template_dir
        ``TEMPLATEFLOW_HOME``.
    back
        From the hub to the space.

    Raises
    ------
    InputError
        If there is none.
    """
    known = list(known)
    if space in known:
        return Legs(space)
    for other in known:
        onto, start = (other, space) if back else (space, other)
        if (path := _find_bridge(template_dir, onto, start)) is not None:
            return Legs(other, path)
    raise InputError(
        space,
        "space",
        "no transform to it",
        f"one of {', '.join([hub, *(s for s in known if s != hub)])}",
        f"give derivatives with from-T1w_to-{space}_mode-image_xfm.h5 and back (-d), or "
        "TEMPLATEFLOW_HOME with the transforms between templates",
    )


def _find_bridge(template_dir: Path | None, onto: str, start: str) -> Path | None:
    """Return TemplateFlow's transform that takes points of one template to another's."""
    if template_dir is None:
        return None
    path = template_dir / f"tpl-{onto}" / f"tpl-{onto}_from-{start}_mode-image_xfm.h5"
    return path if path.is_file() and path.stat().st_size > 0 else None
