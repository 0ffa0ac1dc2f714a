"""Outputs of a cohort as a group report reads them, for tests."""

import csv
import math

import reports_example as example

from asl_bids_app.bids.derivatives import perf_folder, write_json, write_table
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.quality.definitions import columns


def add(output_dir, entities, values, *, estimator="ensemble", status="complete"):
    folder = perf_folder(output_dir, entities)
    metrics = {name: math.nan for name, _, lsq in columns() if not lsq} | values
    write_table(folder / OUTPUTS["quality"].name(entities), {k: [v] for k, v in metrics.items()})
    write_json(
        folder / (OUTPUTS["cbf"].name(entities).removesuffix(".nii.gz") + ".json"),
        {
            "EstimationMethod": estimator,
            "Measurements": [{"Scheme": "PCASL"}, {"Scheme": "VSASL"}],
        },
    )
    unit = {"entities": entities, "warnings": [], "plausibility": []}
    example.write_record(output_dir, entities["sub"], [unit], status=status)
    (output_dir / f"sub-{entities['sub']}.html").write_text("<title>report</title>")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
