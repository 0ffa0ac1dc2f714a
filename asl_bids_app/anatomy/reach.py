"""Which regions the transforms at hand lead to, and what is said of those they don't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asl_bids_app.anatomy.atlases import UserAtlas
from asl_bids_app.anatomy.routes import find_legs, mni_space_of
from asl_bids_app.anatomy.spaces import NATIVE
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice

OF_SIDES = ("the hemispheres with their asymmetry", "deep grey matter")
"""What the tables of the tissues lack without a way to MNI152."""


@dataclass(frozen=True)
class Reach:
    """The spaces that regions can come from; regions need the inverse transforms.

    Attributes
    ----------
    hub : str
        As `Routes.hub`.
    to_space, from_space : tuple of str
        Spaces with a transform ``from-T1w_to-<space>``, and with its inverse.
    template_dir : Path or None
        ``TEMPLATEFLOW_HOME``.
    left_out : dict of str to list of str
        What is left out for want of an inverse, by its space.
    """

    hub: str
    to_space: tuple[str, ...]
    from_space: tuple[str, ...]
    template_dir: Path | None
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        hub: str,
        to_space: Mapping[str, object] | Sequence[str],
        from_space: Mapping[str, object] | Sequence[str],
        template_dir: Path | None,
    ) -> Reach:
        """Return that of some transforms, with what the tissues lack among `left_out`."""
        reach = cls(hub, tuple(to_space), tuple(from_space), template_dir)
        one_way = [space for space in reach.to_space if space.startswith("MNI152")]
        if mni_space_of(hub, reach.from_space) is None and one_way:
            reach.left_out[one_way[0]] = [*OF_SIDES]
        return reach

    def leads_to(self, atlas: UserAtlas) -> bool:
        """Tell whether an atlas can be laid on a series; add it to `left_out` otherwise.

        Raises
        ------
        InputError
            If there is no transform to its space at all.
        """
        space = atlas.space
        if space in NATIVE or space == self.hub:
            return True
        try:
            find_legs(space, self.hub, self.from_space, self.template_dir, back=True)
        except InputError as error:
            if space in self.to_space:
                self.left_out.setdefault(space, []).append(f"the atlas {atlas.name} (--atlas)")
                return False
            raise InputError(
                atlas.source,
                f"--atlas {atlas.name}",
                f"no transform to its space {space}",
                error.expected,
                f"{error.cure}; or give the atlas in one of these spaces",
            ) from error
        return True

    def warnings(self, place: Sequence[str] = ()) -> list[Notice]:
        """Return one line on each inverse that is missing, with all that is left out for it."""
        return [
            Notice(
                place,
                "",
                f"no inverse transform from-{space}_to-T1w that can be used",
                f"from-{space}_to-T1w_mode-image_xfm.h5 beside that from-T1w_to-{space}, by "
                "which regions are laid on a run",
                f"left out: {', '.join(parts)}",
            )
            for space, parts in self.left_out.items()
        ]
