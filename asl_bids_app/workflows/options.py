"""Everything a run was asked to do, as one value. No heavy import stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

ESTIMATORS: Final = ("ensemble", "bayes", "least-squares")
LEVELS: Final = ("participant", "group")
JOINT_MODES: Final = ("auto", "off", "both")
ERROR_BARS: Final = ("total", "noise")
"""The words of `asl_bids_app.estimators.uncertainty.ERROR_BARS`, which imports torch."""


@dataclass(frozen=True)
class AppOptions:
    """Options of a run; see the command line's help for their meaning.

    Attributes
    ----------
    bids_dir, output_dir, work_dir : Path
        Absolute.
    level : str
        One of `LEVELS`.
    labeling_efficiency : mapping of str to float
        By scheme name; the empty name is for every scheme.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    level: str = "participant"

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False

    estimator: str | None = None
    model: str | None = None
    baseline: bool = True
    tta: bool = True
    error_bars: str = "total"
    tissue_consistency: bool = True
    arterial: bool = True
    device: str = "auto"
    batch_size: int = 8
    joint: str = "auto"

    t1_blood: float | None = None
    t1_tissue: float | None = None
    partition_coefficient: float | None = None
    labeling_efficiency: Mapping[str, float] = field(default_factory=dict)
    bs_efficiency: float | None = None
    bolus_duration: float | None = None
    m0_scale: float | None = None
    m0_smooth_fwhm: float = 0.0

    hmc: bool = True
    tissue: bool = True
    brain_mask: Path | None = None
    anatomy: bool = True
    output_spaces: tuple[str, ...] = ()
    atlas: tuple[str, ...] = ()

    nprocs: int = 1
    omp_nthreads: int | None = None
    mem_gb: float | None = None
    use_plugin: Path | None = None
    random_seed: int = 0
    stop_on_first_crash: bool = False
    fail_on_implausible: bool = False
    clean_workdir: bool = False
    write_graph: bool = False
    debug: bool = False
    dry_run: bool = False
    propose_sidecars: Path | None = None
    reports_only: bool = False
    boilerplate_only: bool = False
    run_report: Path | None = None
    verbose: int = 0
    quiet: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the options for records: paths as text."""

        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return str(value)
            if isinstance(value, Mapping):
                return {key: plain(item) for key, item in value.items()}
            return list(value) if isinstance(value, tuple) else value

        return {key: plain(value) for key, value in asdict(self).items()}
