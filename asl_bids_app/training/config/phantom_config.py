"""Every setting of the phantoms, with unit, limits and meaning."""

from __future__ import annotations

from asl_bids_app.training.config.declaration import section, setting


@section
class PhantomConfig:
    """What the phantoms look like; ranges are (low, high) and drawn from.

    Raises
    ------
    ValueError
        Names the setting that is out of its limits.
    """

    size: int = setting(64, "pixels", 16, 256, "height and width")
    slices: int = setting(
        1, "", 1, 9, "neighbouring slices of a phantom; the inner ones are estimated, if any"
    )
    held_out: bool = setting(
        False, "", 0, 1, "anatomy never used in training: other tilts, warps and shapes"
    )
    # Anatomy
    abstract_fraction: float = setting(0.2, "", 0, 1, "share of abstract shapes")
    axial_weight: float = setting(0.6, "", 0, 1, "share of axial slices")
    coronal_weight: float = setting(0.2, "", 0, 1, "share of coronal slices")
    sagittal_weight: float = setting(0.2, "", 0, 1, "share of sagittal slices")
    tilt: tuple[float, float] = setting(
        (0.0, 20.0), "degrees", 0, 90, "rotation about each axis away from the view"
    )
    held_out_tilt: tuple[float, float] = setting(
        (25.0, 45.0), "degrees", 0, 90, "the same, for held-out anatomy"
    )
    voxel_size: tuple[float, float] = setting((2.0, 8.0), "mm", 1, 12, "pixel height and width")
    thickness: tuple[float, float] = setting((2.0, 8.0), "mm", 0, 20, "slice thickness")
    slice_gap: tuple[float, float] = setting(
        (0.0, 0.3), "", 0, 2, "between slices of a phantom, part of their thickness"
    )
    shape_warp: tuple[float, float] = setting(
        (0.0, 5.0), "mm", 0, 15, "displacement at the scale of lobes, standard deviation"
    )
    fold_warp: tuple[float, float] = setting(
        (0.0, 2.0), "mm", 0, 6, "displacement at the scale of folds, standard deviation"
    )
    held_out_warp_factor: float = setting(1.6, "", 0.1, 3, "times the warps in held-out anatomy")
    sharpness: tuple[float, float] = setting(
        (1.0, 5.0), "", 0.5, 20, "power that sharpens the atlas's probabilities"
    )
    cortex_thinning: tuple[float, float] = setting(
        (0.0, 0.0),
        "",
        0,
        4,
        "logarithm by which grey matter's odds are lowered: thins the cortex",
    )
    white_flow: tuple[float, float] = setting(
        (0.22, 0.5), "", 0.05, 1, "CBF of white over that of grey matter"
    )
    # Arteries
    artery_chance: float = setting(0.0, "", 0, 1, "chance of arteries in a phantom")
    speckle_chance: float = setting(0.0, "", 0, 1, "chance of pial arteries as speckle in a slice")
    artery_radius: tuple[float, float] = setting((0.25, 1.8), "mm", 0.05, 5, "of a vessel")
    artery_filling: tuple[float, float] = setting(
        (0.05, 0.5), "", 0, 1, "share of a vessel that holds label: pulsation, slow rims"
    )
    artery_volume: float = setting(0.06, "mL/mL", 0, 0.076, "highest arterial volume")
    smallest_brain: int = setting(150, "pixels", 1, 10000, "slices with less brain are redrawn")
    # Conditions
    healthy_weight: float = setting(0.3, "", 0, 1, "share of healthy adults")
    elderly_weight: float = setting(0.2, "", 0, 1, "share of elderly people")
    stroke_weight: float = setting(0.2, "", 0, 1, "share of strokes")
    tumour_weight: float = setting(0.15, "", 0, 1, "share of tumours")
    stenosis_weight: float = setting(0.15, "", 0, 1, "share of carotid stenoses")
    small_lesions: float = setting(0.4, "", 0, 1, "chance of small lesions, in any condition")
    white_lesions: float = setting(
        0.4, "", 0, 1, "chance of white-matter lesions in elderly people, stroke and stenosis"
    )
    wide_physiology: float = setting(0.15, "", 0, 1, "chance of CBF and ATT far from the usual")
    # Physiology
    cbf_limit: float = setting(150.0, "mL/100 g/min", 50, 300, "highest CBF outside tumours")
    tumour_cbf_limit: float = setting(200.0, "mL/100 g/min", 50, 300, "highest CBF of tumours")
    att: tuple[float, float] = setting((0.3, 3.8), "s", 0.05, 5, "lowest and highest ATT")
    cbf_texture: tuple[float, float] = setting(
        (0.03, 0.22), "", 0, 1, "smooth variation of CBF, relative standard deviation"
    )
    cbf_fine_texture: tuple[float, float] = setting(
        (0.0, 0.1), "", 0, 1, "variation of CBF between neighbours, relative standard deviation"
    )
    att_texture: tuple[float, float] = setting(
        (0.02, 0.18), "s", 0, 1, "smooth variation of ATT, standard deviation"
    )
    att_fine_texture: tuple[float, float] = setting(
        (0.0, 0.06), "s", 0, 0.5, "variation of ATT between neighbours, standard deviation"
    )
    territory_delay: tuple[float, float] = setting(
        (0.02, 0.2), "s", 0, 1, "difference of ATT between territories, standard deviation"
    )
    watershed_delay: tuple[float, float] = setting(
        (0.0, 0.5), "s", 0, 2, "extra ATT where territories meet"
    )
    distal_delay: tuple[float, float] = setting(
        (0.0, 0.006), "s/mm", 0, 0.05, "extra ATT by distance from the circle of Willis"
    )
    mosaic: float = setting(0.15, "", 0, 1, "chance of regions with edges without blur")
