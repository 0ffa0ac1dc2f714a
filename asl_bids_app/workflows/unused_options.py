"""Options that no run of the data can use: a slip, most often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.notices import Notice
from asl_bids_app.options.table import AppOptions
from asl_bids_app.schemes import SCHEMES, Scheme

_BOLUS_SCHEMES = tuple(scheme for scheme, info in SCHEMES.items() if info.bolus_by_option)


def unused_options(
    options: AppOptions, runs: Sequence[Acquisition], faulty: Iterable[Scheme | None]
) -> Iterator[Notice]:
    """Warn of options that are for another kind of labelling than the data's, or switched off.

    Parameters
    ----------
    options
        Of the run.
    runs
        All that were understood.
    faulty
        Schemes of the others. Nothing is said while one of them isn't known.

    Yields
    ------
    Notice
        Of the option.
    """

    def warn(name: str, found: str, expected: str) -> Notice:
        origin = options.origin(name)
        return Notice(str(origin), origin.spell(name), found, expected, "no run uses it")

    if not options.anatomy:
        for name in ("output_spaces", "atlas"):
            if given := getattr(options, name):
                yield warn(name, f"{' '.join(given)} with --no-anatomy", "use of the T1w")
    schemes = {run.scheme for run in runs} | set(faulty)
    if not schemes or None in schemes:
        return
    there = ", ".join(sorted(scheme.value for scheme in schemes if scheme))
    for name, value in options.labeling_efficiency.items():
        if name and Scheme(name) not in schemes:
            yield warn(
                "labeling_efficiency", f"{name}={value:g}", f"a scheme of the data: {there}"
            )
    if options.bolus_duration is not None and schemes.isdisjoint(_BOLUS_SCHEMES):
        kinds = " or ".join(scheme.value for scheme in _BOLUS_SCHEMES)
        yield warn("bolus_duration", f"{options.bolus_duration:g} s", f"{kinds} data, not {there}")
    suppressed = any(run.metadata.get("BackgroundSuppression") for run in runs)
    if options.bs_efficiency is not None and runs and not suppressed:
        expected = "data with BackgroundSuppression true"
        yield warn("bs_efficiency", f"{options.bs_efficiency:g}", expected)
