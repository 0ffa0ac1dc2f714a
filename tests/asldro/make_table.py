"""Write `table.csv`: ΔM/M0 by ASLDRO, the digital reference object of Gold Standard Phantoms.

ASLDRO (on PyPI, MIT licence) implements the general kinetic model independently of this package.
The tests need its table only. Its filter needs three packages, in any recent version:

    python -m venv asldro && asldro/bin/pip install numpy nibabel jsonschema
    asldro/bin/pip install --no-deps asldro==2.2.0
    asldro/bin/python tests/asldro/make_table.py > tests/asldro/table.csv

Columns: label_type; post_labeling_delay (s; for PASL the inversion time), label_duration (s),
transit_time (s), perfusion_rate (mL/100 g/min), label_efficiency, lambda_blood_brain (mL/g),
t1_arterial_blood (s), t1_tissue (s), and delta_m, a fraction of the tissue's M0. ASLDRO's tissue
relaxes by 1/T1' = 1/t1_tissue + perfusion_rate/lambda (Buxton 1998, doi:10.1002/mrm.1910400308).
"""

import itertools
import sys
from importlib.metadata import version

import numpy as np
from asldro.containers.image import NumpyImageContainer
from asldro.filters.gkm_filter import GkmFilter

COLUMNS = (
    "label_type",
    "post_labeling_delay",
    "label_duration",
    "transit_time",
    "perfusion_rate",
    "label_efficiency",
    "lambda_blood_brain",
    "t1_arterial_blood",
    "t1_tissue",
)


def rows():
    """Yield the parameters of each row: before, during and after the bolus passes."""
    tissues = [(60.0, 1.33), (24.0, 0.83), (110.0, 2.0)]
    for delay, duration, att, (cbf, t1) in itertools.product(
        (0.0, 0.25, 1.0, 1.8, 3.0), (0.5, 1.8), (0.0, 0.7, 1.3, 2.2), tissues
    ):
        yield ("pcasl", delay, duration, att, cbf, 0.85, 0.9, 1.65, t1)
    for delay, duration, att, (cbf, t1) in itertools.product(
        (0.4, 0.9, 1.8, 2.8), (0.7, 1.0), (0.0, 0.5, 0.95, 1.6), tissues
    ):
        yield ("pasl", delay, duration, att, cbf, 0.98, 0.9, 1.65, t1)
    # Other constants: 1.5 T, another efficiency and partition coefficient.
    yield ("pcasl", 1.5, 1.5, 1.1, 45.0, 0.68, 0.98, 1.35, 1.0)
    yield ("pasl", 1.5, 0.8, 0.6, 45.0, 0.9, 0.98, 1.35, 1.0)


def main() -> None:
    """Write the table to the standard output."""
    print(f"# general kinetic model by ASLDRO {version('asldro')}; see make_table.py")
    print(",".join((*COLUMNS, "delta_m")))
    for row in rows():
        kind, delay, duration, att, cbf, efficiency, partition, t1_blood, t1_tissue = row
        model = GkmFilter()
        for key, value in (
            (GkmFilter.KEY_PERFUSION_RATE, cbf),
            (GkmFilter.KEY_TRANSIT_TIME, att),
            (GkmFilter.KEY_T1_TISSUE, t1_tissue),
        ):
            model.add_input(key, NumpyImageContainer(image=np.full((1, 1, 1), value)))
        model.add_input(GkmFilter.KEY_M0, 1.0)
        model.add_input(GkmFilter.KEY_LABEL_TYPE, kind)
        model.add_input(GkmFilter.KEY_LABEL_DURATION, duration)
        # From the start of the labelling: after a continuous label, but after a pulse's TI.
        start = delay + duration if kind == "pcasl" else delay
        model.add_input(GkmFilter.KEY_SIGNAL_TIME, start)
        model.add_input(GkmFilter.KEY_LABEL_EFFICIENCY, efficiency)
        model.add_input(GkmFilter.KEY_LAMBDA_BLOOD_BRAIN, partition)
        model.add_input(GkmFilter.KEY_T1_ARTERIAL_BLOOD, t1_blood)
        model.run()
        found = float(model.outputs[GkmFilter.KEY_DELTA_M].image.ravel()[0])
        print(",".join([*(f"{v:g}" if i else v for i, v in enumerate(row)), f"{found:.12e}"]))


if __name__ == "__main__":
    sys.exit(main())
