"""Anatomy of one series: files in, files out. The science is in the modules beside it.

Whatever fails here is one line, and the maps in the space of the run are complete without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.anatomy.atlases import AtlasSpec
from asl_bids_app.anatomy.spaces import NATIVE, PACKAGED, T1W, Space
from asl_bids_app.errors import AslAppError, InputError

if TYPE_CHECKING:
    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.records import Registration
    from asl_bids_app.anatomy.regions import Signals
    from asl_bids_app.anatomy.routes import Routes

LOG = logging.getLogger("asl-app")

SHARED: Final = MappingProxyType({"ensemble": {"cbf_sd": 0.15, "att_sd": 0.45, "abv_sd": 0.15}})
"""Share of the variance by noise that neighbouring voxels of a map have in common, by estimator;
measured in `benchmarks/anatomy.py`. Voxelwise fits share none."""


@dataclass(frozen=True)
class Request:
    """What is asked for of the anatomy.

    Attributes
    ----------
    bids_dir, output_dir : Path
    derivatives : mapping of str to Path
    spaces : tuple of Space
    atlases : tuple of AtlasSpec
    template_dir : Path or None
        ``TEMPLATEFLOW_HOME``.
    threads : int
        Of the processor.
    """

    bids_dir: Path
    output_dir: Path
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    atlases: tuple[AtlasSpec, ...] = ()
    template_dir: Path | None = None
    threads: int = 1


@dataclass(frozen=True, eq=False)
class UnitMaps:
    """What a series hands to the anatomy; volumes are (X, Y, Z).

    Attributes
    ----------
    entities : mapping
    images : mapping of str to array
        Contrasts by which it is registered, such as ``M0`` and ``ΔM``.
    mask, failed : array of bool
        Brain, and voxels without an estimate.
    affine : array, shape (4, 4)
    maps, sds : mapping of str to array
        Maps by keys of the output table, and their standard deviations.
    signals : Signals or None
        What regions are fitted from.
    estimator : str
    calibration_sd : float
        Relative doubt about the calibration that the standard deviations of CBF hold.
    sidecar : mapping
        What all sidecars of the series say.
    """

    entities: Mapping[str, str]
    images: Mapping[str, np.ndarray]
    mask: np.ndarray
    failed: np.ndarray
    affine: np.ndarray
    maps: Mapping[str, np.ndarray]
    sds: Mapping[str, np.ndarray]
    signals: Signals | None = None
    estimator: str = ""
    calibration_sd: float = 0.0
    sidecar: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The entities as in file names."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it.

    Attributes
    ----------
    outputs : tuple of Path
        Files, sidecars left out.
    warnings : tuple of str
        One line each.
    facts : mapping
        For the record and the report; empty where nothing was asked and there is no T1w.
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions of the T1w's tissues in the voxels of the series, where it is registered.
    registration : Registration or None
    """

    outputs: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    tissue: Mapping[str, np.ndarray] = field(default_factory=dict)
    registration: Registration | None = None


def run(request: Request, unit: UnitMaps, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Register a series to its anatomy, and write maps in spaces and tables of regions.

    Parameters
    ----------
    request
    unit
    tell
        Takes the name of each step as it begins.

    Returns
    -------
    Outcome
        Never an error: what fails is among its warnings.
    """
    work = _Work(request, unit, tell)
    try:
        work.do()
    except AslAppError as error:
        work.warnings.append(str(error))
    except Exception as error:
        LOG.debug("%s: anatomy", unit.title, exc_info=True)
        work.warnings.append(
            f"{unit.title}: found {type(error).__name__} ({error}) in the anatomy, expected none; "
            "the maps in the space of the run are complete"
        )
    work.remove_stale()
    return Outcome(
        tuple(work.outputs),
        tuple(dict.fromkeys(work.warnings)),
        work.facts,
        work.tissue,
        work.registration,
    )


class _Work:
    """The steps for one series, and what they have brought so far."""

    def __init__(self, request: Request, unit: UnitMaps, tell: Callable[[str], None]) -> None:
        from asl_bids_app.bids.derivatives import perf_folder

        self.request, self.unit, self.tell = request, unit, tell
        self.folder = perf_folder(request.output_dir, unit.entities)
        self.outputs: list[Path] = []
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self.tissue: dict[str, np.ndarray] = {}
        self.registration: Registration | None = None

    def do(self) -> None:
        """Do all steps; each that fails leaves a line."""
        from asl_bids_app.anatomy.find import find_anatomy

        request = self.request
        found = find_anatomy(request.bids_dir, request.derivatives, self.unit.entities)
        self.warnings += found.warnings
        if found.t1w is None and not (request.spaces or request.atlases):
            return
        anatomy = None
        if found.t1w is not None:
            try:
                anatomy = self._head(found)
            except InputError as error:
                self.warnings.append(f"no anatomy by the T1w: {error}")
        if anatomy is not None:
            self.warnings += anatomy.head.warnings
            self.facts |= dict(anatomy.head.facts)
            routes = self._register(anatomy)
        else:
            routes = self._by_m0()
        if routes is None:
            return
        for space in request.spaces:
            if space.name in NATIVE:
                continue
            with self._told():
                self._write_space(space, routes, anatomy)
        self._regions(routes, anatomy)

    def _told(self) -> _Told:
        return _Told(self.warnings)

    def _head(self, found: Any) -> Anatomy:
        from asl_bids_app.anatomy.head import make_own, read_given
        from asl_bids_app.anatomy.routes import LEAST_FIT, check_template
        from asl_bids_app.bids.files import parse_name

        if not found.prepared:
            name = parse_name(found.t1w.name)
            keep = {k: v for k, v in name.entities.items() if k in {"sub", "ses"}}
            stem = "_".join(f"{k}-{v}" for k, v in keep.items())
            folder = self.request.output_dir / f"sub-{keep['sub']}"
            folder = folder / f"ses-{keep['ses']}" if "ses" in keep else folder
            source = {"Sources": [f"bids:raw:{_relative(found.t1w, self.request.bids_dir)}"]}
            made = make_own(found.t1w, folder / "anat", stem, source, self.tell)
            self.outputs += made.outputs
            return made
        from dataclasses import replace

        given = read_given(found)
        to_space, from_space, told = dict(given.to_space), dict(given.from_space), []
        for space, transform in given.to_space.items():
            fit = check_template(given.head, space, transform)
            self.facts.setdefault("template_dice", {})[space] = round(fit, 3)
            if fit < LEAST_FIT:
                told.append(
                    f"{found.to_space[space].name}: found tissue laid beside that of MNI152 (Dice "
                    f"{fit:.2f}), expected {LEAST_FIT:g} or more: of another head or another "
                    "space; not used"
                )
                del to_space[space]
                from_space.pop(space, None)
        head = replace(given.head, warnings=(*given.head.warnings, *told))
        return replace(given, head=head, to_space=to_space, from_space=from_space)

    def _register(self, anatomy: Anatomy) -> Routes | None:
        from asl_bids_app.anatomy.register import register_asl
        from asl_bids_app.anatomy.routes import Routes
        from asl_bids_app.anatomy.transforms import affine_transform, write_transform

        self.tell("ASL to T1w")
        unit, head = self.unit, anatomy.head
        found = register_asl(unit.images, unit.mask, unit.affine, head)
        self.registration = found
        self.warnings += [f"{unit.title}: {told}" for told in found.warnings]
        self.facts["registration"] = {**found.facts, "registered": found.registered}
        if not found.registered:
            self.facts["registration"]["reason"] = found.reason
            self.warnings.append(
                f"{unit.title}: not registered to the T1w, and only in the space of the run: "
                f"{found.reason}"
            )
            return None
        stem = self.folder / unit.title
        ways = {
            ("aslref", T1W): np.linalg.inv(found.matrix),
            (T1W, "aslref"): found.matrix,
        }
        for (start, end), matrix in ways.items():
            path = Path(f"{stem}_from-{start}_to-{end}_mode-image_xfm.txt")
            write_transform(path, affine_transform(matrix))
            self.outputs.append(path)
        self._write_flirt(found.matrix, anatomy)
        self.tissue = _fractions(head, found.matrix, unit.mask.shape, unit.affine)
        return Routes(
            found.matrix, T1W, anatomy.to_space, anatomy.from_space, self.request.template_dir
        )

    def _write_flirt(self, matrix: np.ndarray, anatomy: Anatomy) -> None:
        """Write the transform as FSL's flirt has it, from the M0 to the T1w."""
        from asl_bids_app.bids.derivatives import write_text

        asl = _fsl(self.unit.mask.shape, self.unit.affine)
        t1w = _fsl(anatomy.head.t1w.shape, anatomy.head.affine)
        flirt = t1w @ matrix @ np.linalg.inv(asl)
        path = self.folder / f"{self.unit.title}_from-aslref_to-T1w_mode-image_desc-flirt_xfm.mat"
        write_text(path, "\n".join("  ".join(f"{v:.10g}" for v in row) for row in flirt) + "\n")
        self.outputs.append(path)

    def _by_m0(self) -> Routes | None:
        """Lay the packaged template on the M0 by an affine: all that there is without a T1w."""
        from asl_bids_app.anatomy.routes import Routes
        from asl_bids_app.preprocess.registration import RegistrationError
        from asl_bids_app.preprocess.tissue import LEAST_LIKENESS, tissue_priors

        unit = self.unit
        try:
            laid = tissue_priors(unit.images["M0"], unit.affine, unit.mask)
        except (RegistrationError, ValueError, KeyError) as error:
            self.warnings.append(f"{unit.title}: no T1w, and no anatomy by the M0: {error}")
            return None
        self.facts |= {
            "source": f"{PACKAGED}, registered affinely to the M0 (no T1w)",
            "likeness": round(laid.likeness, 3),
        }
        if laid.likeness < LEAST_LIKENESS:
            self.warnings.append(
                f"{unit.title}: not registered to {PACKAGED}: found a correlation of "
                f"{laid.likeness:.2f} with the M0, expected {LEAST_LIKENESS:g} or more"
            )
            return None
        self.warnings.append(
            f"{unit.title}: found no T1w that can be used, expected one for standard spaces and "
            f"regions; {PACKAGED} is laid on the M0 by an affine, within about a centimetre"
        )
        self.tissue = {key: getattr(laid, key) for key in ("gm", "wm", "csf")}
        return Routes(laid.matrix, PACKAGED, template_dir=self.request.template_dir)

    def _write_space(self, space: Space, routes: Routes, anatomy: Anatomy | None) -> None:
        """Write the maps of a series on the grid of a space, in one resampling."""
        from asl_bids_app.anatomy.spaces import Grid, grid_of, lay
        from asl_bids_app.anatomy.transforms import field_grid, move_points
        from asl_bids_app.bids.derivatives import write_image
        from asl_bids_app.bids.outputs import OUTPUTS
        from asl_bids_app.preprocess.geometry import voxel_sizes

        self.tell(f"maps in {space.name}")
        unit = self.unit
        transform = routes.to_asl(space.name)
        t1w = Grid(anatomy.head.t1w.shape, anatomy.head.affine) if anatomy else None
        of_field = None
        if space.name in routes.to_space and (g := field_grid(routes.to_space[space.name])):
            of_field = Grid(*g)
        grid = grid_of(space, voxel_sizes(unit.affine), t1w, self.request.template_dir, of_field)
        points = move_points(transform, grid.shape, grid.affine)
        usable = unit.mask & ~unit.failed
        # What the calibration adds is common to all voxels: it is laid like a map.
        by_calibration = unit.calibration_sd * np.abs(unit.maps["cbf"])
        sds = {
            key: _less(sd, by_calibration) if key == "cbf_sd" else sd
            for key, sd in unit.sds.items()
        }
        laid = lay(unit.maps, sds, usable, unit.affine, points, SHARED.get(unit.estimator, {}))
        if not laid.inside.any():
            raise InputError(
                space.name, "space", f"no voxel of {unit.title} inside its grid", "an overlap"
            )
        maps = dict(laid.maps)
        if "cbf_sd" in maps:
            maps["cbf_sd"] = np.hypot(
                maps["cbf_sd"], unit.calibration_sd * np.abs(maps["cbf"])
            ).astype(np.float32)
        maps["mask"] = laid.inside
        sidecar = {
            **unit.sidecar,
            "SpatialReference": "T1w" if space.name == T1W else space.name,
            "Resolution": f"{' x '.join(f'{s:.4g}' for s in voxel_sizes(grid.affine))} mm",
            "Interpolation": "linear, once; standard deviations by the variance of the "
            "interpolated value",
            "Anatomy": self.facts,
        }
        entities = {**unit.entities, **space.entities}
        for key in [*(k for k in maps if k != "cbf"), "cbf"]:
            self.outputs.append(
                write_image(self.folder, entities, OUTPUTS[key], maps[key], grid.affine, sidecar)
            )
        self.facts.setdefault("spaces", []).append(
            {"space": space.name, "res": space.res, "voxels": int(laid.inside.sum())}
        )

    def _regions(self, routes: Routes, anatomy: Anatomy | None) -> None:
        """Write the tables of the tissues, and of each atlas that was asked for."""
        from asl_bids_app.anatomy.layout import Layout
        from asl_bids_app.anatomy.tables import write_tables

        self.tell("regions")
        unit = self.unit
        head = anatomy.head if anatomy else None
        layout = Layout(routes, unit.mask.shape, unit.affine, head)
        with self._told():
            regions = layout.tissues()
            self._tables(write_tables, regions, "the T1w" if head else "the M0", ())
        places = [*self.request.derivatives.values()]
        places += [self.request.template_dir] if self.request.template_dir else []
        for spec in self.request.atlases:
            with self._told():
                from asl_bids_app.anatomy.atlases import read_atlas

                atlas = read_atlas(spec, places)
                self._tables(write_tables, layout.of_atlas(atlas), atlas.source, atlas.warnings)

    def _tables(
        self, write: Callable[..., list[Path]], regions: Any, source: str, told: tuple[str, ...]
    ) -> None:
        self.warnings += told
        self.outputs += write(self.folder, self.unit, regions, source, self.facts)
        self.facts.setdefault("atlases", []).append(
            {"atlas": regions.name, "regions": len(regions.names)}
        )

    def remove_stale(self) -> None:
        """Remove what an earlier run, with other options or another T1w, left of the series."""
        from asl_bids_app.bids.derivatives import sidecar_path

        new = {path.name for path in self.outputs}
        new |= {sidecar_path(path).name for path in self.outputs}
        for kind in ("space", "atlas", "from"):
            for path in self.folder.glob(f"{self.unit.title}_{kind}-*"):
                if path.name not in new:
                    path.unlink(missing_ok=True)


class _Told:
    """Turns an error of the data inside a block into a warning, so that the rest goes on."""

    def __init__(self, warnings: list[str]) -> None:
        self.warnings = warnings

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        """Take an error of the data."""
        if isinstance(error, AslAppError):
            self.warnings.append(str(error))
            return True
        return False


def _relative(path: Path, root: Path) -> str:
    from asl_bids_app.bids.files import shown

    return shown(path, root)


def _less(sd: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return what is left of a standard deviation without a part; at least half of it."""
    return np.sqrt(np.maximum(sd**2 - part**2, 0.25 * sd**2))


def _fractions(
    head: Any, matrix: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> dict[str, np.ndarray]:
    """Return a head's tissues in the voxels of a series, averaged over them."""
    from asl_bids_app.anatomy.records import TISSUES
    from asl_bids_app.preprocess.tissue import resample_to

    placed = np.linalg.inv(matrix) @ head.affine
    return {
        key: np.nan_to_num(resample_to(getattr(head, key), placed, shape, affine))
        for key in TISSUES
    }


def _fsl(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return what takes world points to FSL's: scaled voxels, the first axis running left."""
    from asl_bids_app.preprocess.geometry import voxel_sizes

    sizes = voxel_sizes(affine)
    scale = np.diag([*sizes, 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        scale[0, 0], scale[0, 3] = -sizes[0], (shape[0] - 1) * sizes[0]
    return scale @ np.linalg.inv(affine)
