"""Which acquisitions the protocols of a training cover."""

from __future__ import annotations

from asl_bids_app.schemes import Scheme
from asl_bids_app.training.simulate.schedules import _HABITS, _KINDS, MOST_SLICE_TIME, PROTOCOLS


def combinations(name: str) -> list[tuple[str, ...]]:
    """Return which schemes training puts into one series, each tuple sorted.

    Parameters
    ----------
    name
        ``random`` or the name of a fixed protocol.
    """
    kinds = [k for k, _ in _KINDS] if name == "random" else [PROTOCOLS[name].schemes]
    return [tuple(sorted({scheme.value for scheme in kind})) for kind in kinds]


def reach(name: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Return, by scheme, the ranges of delay and duration in seconds that training covers.

    Parameters
    ----------
    name
        ``random`` or the name of a fixed protocol.

    Returns
    -------
    dict
        ``{"PCASL": {"delay": (low, high), "label_duration": (low, high)}, …}``; the delay
        contains the slice's time; ``inf`` stands for a bolus that nothing cuts.
    """
    if name != "random":
        protocol = PROTOCOLS[name]
        ranges = {}
        for scheme in dict.fromkeys(protocol.schemes):
            part = protocol.select([i for i, s in enumerate(protocol.schemes) if s is scheme])
            ranges[scheme.value] = {
                "delay": (float(part.delay.min()), float(part.delay.max())),
                "label_duration": (
                    float(part.label_duration.min()),
                    float(part.label_duration.max()),
                ),
            }
        return ranges
    ranges = {
        scheme.value: {
            "delay": (habits.first[0], habits.last[1] + MOST_SLICE_TIME),
            "label_duration": habits.duration,
        }
        for scheme, habits in _HABITS.items()
    }
    # Time-encoded labels have short pieces.
    ranges["PCASL"]["label_duration"] = (0.1, _HABITS[Scheme.PCASL].duration[1])
    ranges["VSASL"]["label_duration"] = (_HABITS[Scheme.VSASL].duration[0], float("inf"))
    return ranges
