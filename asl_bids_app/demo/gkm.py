r"""The general kinetic model, integrated numerically.

.. math::

    \frac{\Delta M}{M_0} = \frac{2 \alpha f}{\lambda}
        \int_0^{t_r} c(t) \, m(t_r - t) \, dt

*c* is the label that reaches the tissue at time *t* after the start of the labelling, *m*
what is left of it at the readout. Only the window in which label arrives is given in closed
form; the integral is a Gauss-Legendre sum.

References
----------
Buxton 1998, doi:10.1002/mrm.1910400308.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


@dataclass(frozen=True)
class Physics:
    """Constants of the simulated world.

    Attributes
    ----------
    t1_blood, t1_tissue : float
        Seconds; the tissue's T1 is that which the label feels once it has arrived.
    partition_coefficient : float
        mL/g.
    """

    t1_blood: float = 1.65
    t1_tissue: float = 1.65
    partition_coefficient: float = 0.9


def delta_m(
    scheme: str,
    cbf: np.ndarray,
    att: np.ndarray,
    delay: np.ndarray | float,
    label_duration: float,
    efficiency: float,
    physics: Physics,
) -> np.ndarray:
    """Compute ΔM/M0 (control minus label, a fraction).

    Parameters
    ----------
    scheme
        ``"PCASL"``, ``"PASL"`` or ``"VSASL"``.
    cbf, att
        mL/100 g/min and seconds; they broadcast against `delay`.
    delay
        Seconds. PCASL: from the end of the label; PASL: from the inversion; VSASL: from the
        label module; to the excitation of the slice.
    label_duration
        Label duration (PCASL) or bolus duration in seconds; ``inf`` for an uncut bolus.
    efficiency
        Effective labelling efficiency (fraction).
    physics
        The other constants.
    """
    cbf, att, delay = np.broadcast_arrays(
        np.asarray(cbf, float), np.asarray(att, float), np.asarray(delay, float)
    )
    if scheme == "PCASL":
        readout = delay + label_duration
        first, last = att, att + label_duration
    elif scheme == "PASL":
        readout = delay
        first, last = att, att + label_duration
    elif scheme == "VSASL":
        # The label is made in every vessel: arrival starts at once and ends when the blood
        # comes that was upstream of the labelled vessels.
        readout = delay
        first, last = np.zeros_like(att), np.minimum(att, label_duration)
    else:
        raise ValueError(f"scheme {scheme!r}, expected PCASL, PASL or VSASL")

    first = np.minimum(first, readout)
    half = (np.minimum(last, readout) - first) / 2
    total = np.zeros_like(att)
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        t = first + half * (1 + node)
        age = att if scheme == "PCASL" else t
        arriving = np.exp(-age / physics.t1_blood)
        total += weight * arriving * np.exp(-(readout - t) / physics.t1_tissue)
    flow = cbf / 100 / 60  # mL/100 g/min to mL/g/s
    return 2 * efficiency * flow / physics.partition_coefficient * half * total
