"""Make the pictures of the page on the reports from those of the demo.

``python docs/pictures.py DERIVATIVES`` needs the derivatives of ``make demo`` and what the
browser tests need: Chromium, its driver and selenium. With ``--anatomy REPORT``, the report of a
participant with a T1w, it makes the picture of the anatomy, and no other.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from PIL import Image

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

WIDTH: Final = 900
"""Pixels of a picture."""
LARGEST: Final = 150_000
"""Bytes of a picture."""

PICTURES: Final = (
    # name, page, first element, element before which it ends (None: end of the first)
    ("glance", "sub-02.html", "#glance", None),
    ("data", "sub-02.html", "figure.drawing", None),
    ("time-course", "sub-02.html", "[id$=-motion]", "[id$=-input]"),
    ("input", "sub-02.html", "[id$=-input]", "[id$=-maps]"),
    ("maps", "sub-02.html", "[id$=-maps]", "[id$=-maps] ~ .pair ~ .pair ~ .pair"),
    ("flags", "sub-02.html", "[id$=-flags]", "[id$=-distributions]"),
    ("viewer", "sub-02.html", ".viewer", None),
    ("quality", "sub-02.html", "[id$=-quality]", "tr.group ~ tr.group ~ tr.group"),
    ("group", "group.html", "#distributions", "#charts h3:nth-of-type(3)"),
)


def anatomy(page: Path) -> None:
    """Write the picture of the anatomy of a participant's report."""
    import browser as chromium

    with chromium.browser(width=1000, height=1800) as driver:
        driver.get(page.resolve().as_uri())
        chromium.wait_for(driver, "return document.readyState === 'complete'")
        content = _clip(driver, "[id$=-anatomy]", "[id$=-anatomy] ~ [id$=-template]")
        (ROOT / "docs" / "images" / "report-anatomy.png").write_bytes(
            # Greys must stay grey, and few of them show as steps.
            _small(content, 3 * LARGEST, Image.Quantize.MEDIANCUT)
        )


def main(folder: Path) -> None:
    """Write ``docs/images/report-*.png``."""
    import browser as chromium

    with (
        tempfile.TemporaryDirectory() as name,
        chromium.browser(width=1000, height=1800) as driver,
    ):
        place = _cohort(folder, Path(name))
        for title, page, first, last in PICTURES:
            driver.get((place / page).as_uri())
            chromium.wait_for(driver, "return document.readyState === 'complete'")
            ready = ".viewer[data-ready], #charts[data-ready]"
            chromium.wait_for(driver, f"return document.querySelector('{ready}') !== null", 120)
            path = ROOT / "docs" / "images" / f"report-{title}.png"
            path.write_bytes(_small(_clip(driver, first, last)))


def _cohort(folder: Path, place: Path) -> Path:
    """Copy the demo's reports; tables of more participants make a group to look at."""
    from asl_bids_app.reports.group import write_group

    for path in folder.glob("sub-*.html"):
        shutil.copy(path, place)
    table = next(folder.glob("sub-02/perf/*_desc-qualitycontrol_cbf.tsv"))
    head, values = table.read_text().splitlines()
    for number in range(1, 25):
        # Spread evenly by a few percent; one participant stands out.
        factor = 1 + 0.012 * ((7 * number) % 25 - 12)
        cells = []
        for key, cell in zip(head.split("\t"), values.split("\t"), strict=True):
            times = 2 * factor if number == 17 and key.startswith("cbf_mean") else factor
            is_number = cell.replace(".", "").replace("-", "").replace("e", "").isdigit()
            cells.append(f"{float(cell) * times:.5g}" if is_number else cell)
        perf = place / f"sub-{number:02d}" / "perf"
        perf.mkdir(parents=True)
        name = f"sub-{number:02d}_desc-qualitycontrol_cbf.tsv"
        (perf / name).write_text(head + "\n" + "\t".join(cells) + "\n")
    write_group(place)
    return place


def _clip(driver: Any, first: str, last: str | None) -> bytes:
    import base64
    import time

    box = driver.execute_script(
        """
        document.querySelector("nav").style.display = "none";
        const first = document.querySelector(arguments[0]).getBoundingClientRect();
        const last = arguments[1] && document.querySelector(arguments[1]).getBoundingClientRect();
        const end = last ? last.top : first.bottom;
        return [first.top + scrollY - 8, end - first.top + 8];
        """,
        first,
        last,
    )
    driver.execute_script(f"window.scrollTo(0, {box[0]})")
    time.sleep(1.5)  # charts are drawn when they come into view
    clip = {"x": 0, "y": box[0], "width": 1000, "height": box[1], "scale": 1}
    options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"])


def _small(
    content: bytes,
    largest: int = LARGEST,
    # Not by the median cut: it gives up colours of few pixels, such as orange diamonds.
    method: Image.Quantize = Image.Quantize.MAXCOVERAGE,
) -> bytes:
    """Shrink a picture to few enough bytes."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    for colours in (256, 128, 64, 32, 16):
        stream = io.BytesIO()
        reduced = picture.quantize(colours, method, dither=Image.Dither.NONE)
        reduced.save(stream, "png", optimize=True)
        if stream.tell() < largest:
            break
    return stream.getvalue()


if __name__ == "__main__":
    if sys.argv[1] == "--anatomy":
        anatomy(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
