"""Anatomy: T1w, registration, standard spaces and region tables.

Every module works on arrays; `asl_bids_app.anatomy.run` is the rim that reads and writes files.
"""
