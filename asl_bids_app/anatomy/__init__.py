"""Anatomy: T1w, registration, standard spaces and region tables.

`asl_bids_app.anatomy.run` is the rim, `series_work`, `series_laying` and `series_files` are its
parts; they and `find`, `head`, `atlases`, `spaces`, `routes`, `transforms`, `pose_files`,
`standard` and `tables` read or write files. The rest works on arrays.
"""
