"""Quantify arrays from Python: a simulated slab, two estimators, and how far each is off.

    python examples/quantify_arrays.py

Cells are marked by ``# %%``, so that editors run them one by one. All takes a few seconds.
"""

# %% What was measured: PCASL of 1.8 s, seen after five delays, 2D slices 45 ms apart.
import numpy as np

import asl_bids_app
from asl_bids_app import Protocol

DELAYS = np.array([0.5, 1.0, 1.5, 2.0, 2.5])
LABEL, T1_BLOOD, EFFICIENCY, PARTITION = 1.8, 1.65, 0.85, 0.9
SLICE_TIME = 0.045 * np.arange(6)
protocol = Protocol.pcasl(post_labeling_delay=DELAYS, label_duration=LABEL, slice_time=SLICE_TIME)

# %% The truth: stripes of grey (60 mL/100 g/min, 1.0 s) and white matter (22, 1.4 s).
rng = np.random.default_rng(0)
shape = (32, 32, 6)
grey = np.broadcast_to((np.arange(32)[:, None, None] // 4) % 2 == 0, shape)
cbf, att = np.where(grey, 60.0, 22.0), np.where(grey, 1.0, 1.4)

# %% The signal of the general kinetic model (Buxton 1998), written out, and its noise.
delay = DELAYS + SLICE_TIME[:, None]  # (slices, delays)
start = np.maximum(delay, att[..., None])
arrived = np.exp(-start / T1_BLOOD) - np.exp(-(delay + LABEL) / T1_BLOOD)
signal = 2 * EFFICIENCY / PARTITION * cbf[..., None] / 6000 * T1_BLOOD * arrived
m0 = np.full(shape, 1000.0)
pairs = 8
images = m0[..., None, None] * (signal[..., None] + rng.normal(0, 2e-3, (*signal.shape, pairs)))
delta_m = images.mean(axis=-1)
standard_error = images.std(axis=-1, ddof=1) / np.sqrt(pairs)

# %% Quantify. The affine tells voxel sizes; without M0 in the unit of delta_m there is an error.
for estimator in ("least-squares", "ensemble"):
    maps = asl_bids_app.quantify(
        delta_m,
        m0,
        protocol,
        estimator=estimator,
        affine=np.diag([3.0, 3.0, 5.0, 1.0]),
        repeats=pairs,
        standard_error=standard_error,
        tissue={"gm": grey.astype(float), "wm": 1.0 - grey},
    )
    inside = np.abs(maps.cbf - cbf) < 1.96 * maps.cbf_sd
    print(
        f"{estimator}: grey matter {maps.cbf[grey].mean():.1f} mL/100 g/min (truth 60), "
        f"{maps.att[grey].mean():.2f} s (truth 1.00); mean error of a voxel "
        f"{np.abs(maps.cbf - cbf).mean():.1f}; 95 % bars hold {inside.mean():.0%}"
    )
    for warning in maps.warnings:
        print(f"  note: {warning}")
