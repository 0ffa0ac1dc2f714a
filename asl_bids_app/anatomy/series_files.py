"""Files of one series that its anatomy gives: maps in spaces, and tables of regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_bids_app.anatomy.series_work import Work
from asl_bids_app.anatomy.spaces import Space
from asl_bids_app.wording import title_of

if TYPE_CHECKING:
    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.routes import Routes


def write_maps(work: Work, space: Space, routes: Routes, anatomy: Anatomy | None) -> None:
    """Write the maps in a space."""
    from asl_bids_app.anatomy.standard import write_space

    work.tell(f"maps in {space.name}")
    head, folder = anatomy.head if anatomy else None, work.request.template_dir
    unit = work.resting_on(routes.files(space.name))
    write_space(work.folder, unit, space, routes, head, folder, work.facts, work.outputs)


def write_regions(work: Work, routes: Routes, anatomy: Anatomy | None) -> None:
    """Write the tables of the tissues, and of each atlas that was asked for."""
    from asl_bids_app.anatomy.reach import Reach
    from asl_bids_app.anatomy.region_layout import Layout
    from asl_bids_app.anatomy.tables import write_tables

    work.tell("regions")
    unit = work.unit
    head = anatomy.head if anatomy else None
    layout = Layout(routes, unit.mask.shape, unit.affine, head)
    with work.collect_faults():
        regions = layout.tissues()
        mni = routes.mni_space()
        files = routes.files(mni, back=True) if mni else []
        _write_tables(work, write_tables, regions, "the T1w" if head else "the M0", files)
    reach = Reach.of(routes.hub, routes.to_space, routes.from_space, routes.template_dir)
    for spec in work.request.atlases:
        with work.collect_faults():
            from asl_bids_app.anatomy.atlases import read_atlas

            atlas = read_atlas(spec, work.request.atlas_places)
            if not reach.leads_to(atlas):
                continue
            regions = layout.of_atlas(atlas)
            work.warnings += atlas.warnings
            files = [*atlas.files, *routes.files(atlas.space, back=True)]
            _write_tables(work, write_tables, regions, atlas.source, files)
    work.warnings += reach.warnings(work.place)


def _write_tables(
    work: Work,
    write: Callable[..., list[Path]],
    regions: Any,
    source: str,
    files: Sequence[Path],
) -> None:
    work.outputs += write(work.folder, work.resting_on(files), regions, source, work.facts)
    work.facts.setdefault("atlases", []).append(
        {"atlas": regions.name, "regions": len(regions.names)}
    )


def remove_stale(
    output_dir: Path, entities: Mapping[str, str], outputs: Sequence[Path] = ()
) -> None:
    """Remove what an earlier run, with other options or another T1w, left of a series.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    entities
        Of the series.
    outputs
        What the newest run wrote.
    """
    from asl_bids_app.anatomy.view_files import views_file
    from asl_bids_app.bids.derivatives import perf_folder, sidecar_path

    new = {path.name for path in outputs} | {sidecar_path(path).name for path in outputs}
    title = title_of(entities)
    old = [views_file(output_dir, entities)]
    for kind in ("space", "atlas", "from"):
        old += perf_folder(output_dir, entities).glob(f"{title}_{kind}-*")
    for path in old:
        if path.name not in new:
            path.unlink(missing_ok=True)
