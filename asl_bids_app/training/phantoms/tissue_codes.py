"""Names of tissues, and the maps of a batch while lesions are put in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.training.random_draws import Random, spread, uniform

BACKGROUND, GREY, WHITE, FLUID, CORE, PENUMBRA, DELAYED = range(7)
TUMOUR_CORE, TUMOUR_RIM, OEDEMA, BRIGHT_SPOT, DARK_SPOT, LATE_SPOT, WHITE_LESION = range(7, 14)

TISSUES: Final = MappingProxyType(
    {
        BACKGROUND: "background",
        GREY: "grey matter",
        WHITE: "white matter",
        FLUID: "cerebrospinal fluid",
        CORE: "ischaemic core",
        PENUMBRA: "penumbra",
        DELAYED: "delayed territory",
        TUMOUR_CORE: "tumour core",
        TUMOUR_RIM: "tumour rim",
        OEDEMA: "oedema",
        BRIGHT_SPOT: "small hyperperfused lesion",
        DARK_SPOT: "small hypoperfused lesion",
        LATE_SPOT: "small late lesion",
        WHITE_LESION: "white-matter lesion",
    }
)
"""Names of the codes of a tissue map."""


@dataclass
class Maps:
    """Maps of a batch while lesions are put in.

    Attributes
    ----------
    cbf, att : Tensor, shape (n, H, W)
        mL/100 g/min and s.
    tissue : Tensor of uint8, shape (n, H, W)
        Codes of `TISSUES`.
    fractions : Tensor, shape (n, 3, H, W)
        Grey matter, white matter, CSF.
    place : Tensor, shape (n, 3, H, W)
        Millimetres in the atlas.
    voxel : Tensor, shape (n, 2)
        Pixel height and width in mm.
    """

    cbf: Tensor
    att: Tensor
    tissue: Tensor
    fractions: Tensor
    place: Tensor
    voxel: Tensor

    @property
    def parenchyma(self) -> Tensor:
        """Share of grey and white matter, (n, H, W)."""
        return self.fractions[:, :2].sum(1)

    def part(self, index: Tensor) -> Maps:
        """Copy some of the samples."""
        return Maps(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def put(self, index: Tensor, part: Maps) -> None:
        """Take changed samples back."""
        self.cbf[index], self.att[index] = part.cbf, part.att
        self.tissue[index] = part.tissue

    def drawn(self, generator: Random, span: tuple[float, float]) -> Tensor:
        """Draw a number for each sample, (n, 1, 1)."""
        return spread(uniform(generator, (len(self.cbf),), span), 2)

    def mark(
        self, weight: Tensor, code: int, active: Tensor | None = None, *, fluid: bool = False
    ) -> None:
        """Name the tissue where a weight is over one half, in samples that are active.

        Background stays; CSF does unless `fluid`.
        """
        inside = (weight > 0.5) & (self.tissue != BACKGROUND)
        if not fluid:
            inside &= self.tissue != FLUID
        if active is not None:
            inside &= spread(active, 2)
        self.tissue = torch.where(inside, code, self.tissue).to(torch.uint8)


def tissue_codes(fractions: Tensor) -> Tensor:
    """Name the tissue that fills most of each pixel; background where brain is under half."""
    grey, white, fluid = fractions.unbind(1)
    code = torch.where(grey >= white, GREY, WHITE)
    code = torch.where(fluid > torch.maximum(grey, white), FLUID, code)
    return torch.where(grey + white + fluid > 0.5, code, BACKGROUND).to(torch.uint8)
