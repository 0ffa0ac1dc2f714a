"""Simulated example datasets in BIDS with known truth, for the demo, tests and reports.

The physics is integrated numerically here and shares no code with `asl_bids_app.kinetics`,
so that an error on either side shows as a difference between maps and truth.

``python -m asl_bids_app.demo OUT_DIR`` writes a dataset,
``python -m asl_bids_app.demo.compare DERIVATIVES TRUTH`` tells how near maps came to it.
"""
