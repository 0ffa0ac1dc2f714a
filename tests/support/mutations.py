"""Seeded damage to sidecars and headers, and an account of its own of what a legal value is.

Nothing of the package is used here: what BIDS and NIfTI allow is written out again, so that a
check that the package lacks shows as a change that nobody told.
"""

from __future__ import annotations

import json
import math
import random
import struct

HUGE = int("9" * 400)
ODD = (
    *(True, False, "", "x", "1.8", "true", [], {}, [None], [[1.0]], {"a": 1}, [True], ["1.8"]),
    *(0, -0.0, -1, -1e-308, 5e-324, 1e-308, 1e-9, 1e9, 1e308, HUGE, -HUGE),
    *(math.nan, math.inf, -math.inf, [math.nan], [1e-308], [1.8, None]),
)
"""Values that stand where they mostly shouldn't."""


def time(low, high, *, zero=False, lists=True):
    """Tell a legal time, or list of them, in seconds."""

    def legal(value):
        values = value if lists and isinstance(value, list) else [value]
        return bool(values) and all(
            type(v) in {int, float} and ((zero and v == 0) or low <= v <= high) for v in values
        )

    return legal


def word(*words):
    return lambda value: isinstance(value, str) and value in words


def flag(value):
    return isinstance(value, bool)


def is_small_count(value):
    return type(value) in {int, float} and 0 <= value <= 20 and value == int(value)


LEGAL = {
    "ArterialSpinLabelingType": word("PCASL", "CASL", "PASL"),
    "PostLabelingDelay": time(0.01, 10, zero=True),
    "LabelingDuration": time(0.01, 10, zero=True),
    "BackgroundSuppression": flag,
    "BackgroundSuppressionNumberPulses": is_small_count,
    "BackgroundSuppressionPulseTime": time(0, 10),
    "M0Type": word("Separate", "Included", "Absent", "Estimate"),
    "M0Estimate": time(1e-6, 1e12, lists=False),
    "RepetitionTimePreparation": time(0.01, 100),
    "MagneticFieldStrength": time(0.01, 25, lists=False),
    "MRAcquisitionType": word("2D", "3D"),
    "SliceTiming": time(0, 10),
    "SliceEncodingDirection": word("i", "j", "k", "i-", "j-", "k-"),
    "BolusCutOffFlag": flag,
    "BolusCutOffDelayTime": time(0.01, 10, zero=True),
    "BolusCutOffTechnique": lambda value: isinstance(value, str) and value != "",
    "PASLType": lambda value: isinstance(value, str) and value != "",
    "LabelingEfficiency": time(0.01, 1, lists=False),
    "LookLocker": flag,
    "IntendedFor": lambda value: isinstance(value, str),
}
"""What a key that matters to the quantification may hold."""

OPTIONAL = {
    "BackgroundSuppressionNumberPulses",
    "BackgroundSuppressionPulseTime",
    "SliceEncodingDirection",
    "LabelingEfficiency",
    "LookLocker",
    "IntendedFor",
    "PASLType",
    "BolusCutOffTechnique",
}
"""Keys of `LEGAL` that a sidecar may lack, by BIDS or where the technique has none."""


def legal_change(before, after):
    """Tell whether one sidecar became another one that says something else, and may."""
    changed = [key for key in {**before, **after} if not same(before.get(key), after.get(key))]
    lost = [key for key in changed if after.get(key) is None]
    new = [key for key in after if key not in before]
    # A key under another name is a slip of the pen, not another statement.
    if lost and new:
        return False
    return all(
        key in OPTIONAL if key in lost else LEGAL.get(key, lambda _: True)(after[key])
        for key in changed
    )


def same(first, second):
    return json.dumps(first) == json.dumps(second)


def mutate_value(value, rng):
    """Return something else in place of a value."""
    kinds = [lambda: rng.choice(ODD)] * 3
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        kinds += [
            lambda: [*value[:place], rng.choice(ODD), *value[place + 1 :]],
            lambda: value[:place],
            lambda: [*value, value[place]],
            lambda: [mutate_value(v, random.Random(0)) if v else v for v in value],
        ]
    elif type(value) in {int, float}:
        kinds += [
            lambda: value * 1000,
            lambda: value / 1000,
            lambda: -value,
            lambda: str(value),
            lambda: [value] * rng.randrange(1, 5),
        ]
    elif isinstance(value, str):
        kinds += [
            value.lower,
            value.title,
            lambda: value[1:],
            lambda: [value],
            lambda: value + " ",
        ]
    elif isinstance(value, bool):
        kinds += [lambda: str(value).lower(), lambda: int(value)]
    return rng.choice(kinds)()


def mutate_text(text, rng):
    """Damage the bytes of a JSON file."""
    raw = bytearray(text.encode())
    place = rng.randrange(len(raw))
    kind = rng.randrange(6)
    if kind == 0:
        raw[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del raw[place:]
    elif kind == 2:
        del raw[place : place + rng.randrange(1, 4)]
    elif kind == 3:
        raw[place:place] = rng.choice([b"\xff", b"\0", b"[" * 2000, b",", b'"', b"9" * 400, b"e"])
    elif kind == 4:
        raw = bytearray(text.encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"])))
    else:
        raw[place : place + 1] = bytes([rng.randrange(256)])
    return bytes(raw)


def mutate_sidecar(content, rng):
    """Return the bytes of a damaged sidecar, and in a few words what was done."""
    text = json.dumps(content, indent=1)
    keys = sorted(content)
    # Keys that matter come more often than the rest.
    key = rng.choice([k for k in keys if k in LEGAL] * 3 + keys)
    kind = rng.randrange(10)
    if kind < 5:
        value = mutate_value(content[key], rng)
        return json.dumps({**content, key: value}).encode(), f"{key} = {json.dumps(value)[:60]}"
    if kind == 5:
        slips = [key.lower(), key[1:], key[:-1], key + "s", key.replace("e", "", 1)]
        slips += [key[:2] + key[3] + key[2] + key[4:]]
        slip = rng.choice([s for s in slips if s != key])
        renamed = {slip if k == key else k: v for k, v in content.items()}
        return json.dumps(renamed).encode(), f"{key} as {slip}"
    if kind == 6:
        return json.dumps({k: v for k, v in content.items() if k != key}).encode(), f"no {key}"
    if kind == 7:
        value = json.dumps(mutate_value(content[key], rng))
        return f'{text[:-2]}, "{key}": {value}}}'.encode(), f"{key} again, as {value[:60]}"
    return mutate_text(text, rng), "bytes"


FIELDS = {
    "sizeof_hdr": (0, "<i"),
    "dim0": (40, "<h"),
    "dim1": (42, "<h"),
    "dim2": (44, "<h"),
    "dim3": (46, "<h"),
    "dim4": (48, "<h"),
    "dim5": (50, "<h"),
    "datatype": (70, "<h"),
    "bitpix": (72, "<h"),
    "pixdim0": (76, "<f"),
    "pixdim1": (80, "<f"),
    "pixdim3": (88, "<f"),
    "pixdim4": (92, "<f"),
    "vox_offset": (108, "<f"),
    "scl_slope": (112, "<f"),
    "scl_inter": (116, "<f"),
    "xyzt_units": (123, "<b"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    "quatern_b": (256, "<f"),
    "qoffset_x": (268, "<f"),
    "srow_x0": (280, "<f"),
    "srow_x3": (292, "<f"),
    "srow_z2": (320, "<f"),
    "magic": (344, "<i"),
}
"""Offset and form of the fields of a NIfTI-1 header that tell how an image is to be read."""

NUMBERS = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 64, 100, 255, 256, 511, 512, 1024, 2048, 32767, -32768)
REALS = (*(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 352.0, 351.0, 368.0, 1e-8, 1e8, 1e38, -1e38, 1e-42),)
REALS += (math.nan, math.inf, -math.inf)


def mutate_header(raw, rng):
    """Return the bytes of a damaged image, what was done, and the field (or ``bytes``)."""
    raw = bytearray(raw)
    kind = rng.randrange(10)
    if kind < 7:
        name = rng.choice(sorted(FIELDS))
        offset, form = FIELDS[name]
        value = rng.choice(REALS if form == "<f" else NUMBERS)
        if form == "<b":
            value = value % 128
        struct.pack_into(form, raw, offset, value)
        return bytes(raw), f"{name} = {value}", name
    if kind == 7:
        place, bit = rng.randrange(348), rng.randrange(8)
        raw[place] ^= 1 << bit
        names = {n for n, (o, f) in FIELDS.items() if o <= place < o + struct.calcsize(f)}
        # Rotations, offsets and rows of the matrix, which say where the voxels lie.
        names = names if not 256 <= place < 328 else {"place"}
        return bytes(raw), f"bit {bit} of byte {place}", (names or {"bytes"}).pop()
    if kind == 8:
        place = rng.randrange(len(raw))
        return bytes(raw[:place]), f"cut at {place}", "bytes"
    place = rng.randrange(len(raw))
    raw[place:place] = b"\0" * rng.randrange(1, 40)
    return bytes(raw), f"bytes put in at {place}", "bytes"


def legal_header(raw, field):
    """Tell whether a header that was changed in one field says something else, and may.

    Legal are another scaling by finite numbers, and another place and shape of the voxels.
    """
    values = {name: struct.unpack_from(f, raw, place)[0] for name, (place, f) in FIELDS.items()}
    if field == "place":
        return all(abs(value) < 1e6 for value in struct.unpack_from("<18f", raw, 256))
    if field in {"scl_slope", "scl_inter"}:
        return all(abs(values[name]) < 1e30 for name in ("scl_slope", "scl_inter"))
    if field in {"qform_code", "sform_code"}:
        return 0 <= values[field] <= 5
    places = ("srow_x0", "srow_x3", "srow_z2", "quatern_b", "qoffset_x")
    return field in places and abs(values[field]) < 1e6
