"""The pages in a real browser: nothing is loaded, nothing complains, the viewer answers."""

import json
import math
import re
from pathlib import Path

import browser as chromium
import fake_bids
import numpy as np
import pytest
import reports_example as example
import torch

from asl_bids_app.kinetics import tissue_response
from asl_bids_app.reports.group import write_group
from asl_bids_app.reports.participant import write_participant_report

pytestmark = pytest.mark.slow

READY = "return document.querySelectorAll('.viewer[data-ready]').length"
KINETICS = Path(example.__file__).parents[2] / "asl_bids_app/reports/templates/kinetics.js"


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    """A joint participant, a failed one, and a few more for the group."""
    chromium.skip_without_browser()
    folder = tmp_path_factory.mktemp("out")
    brain = example.Brain(step=4, lesion=True)
    example.write_participant(folder, "01", brain=brain, two_d=True, flip=True)
    message = "sub-02_asl.json: PostLabelingDelay: found 1800, expected seconds."
    example.write_record(folder, "02", status="failed", errors=[{"message": message}])
    for label in ("01", "02"):
        write_participant_report(folder, label)
    table = folder / "sub-01" / "perf" / "sub-01_desc-qualitycontrol_cbf.tsv"
    for i in range(10, 22):  # the rest of a cohort: its tables only
        place = folder / f"sub-{i}" / "perf"
        place.mkdir(parents=True)
        head, values = table.read_text().splitlines()
        cells = dict(zip(head.split("\t"), values.split("\t"), strict=True))
        cells["cbf_mean_gm"] = str(140.0 if i == 21 else 50.0 + i % 5)
        text = "\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n"
        (place / f"sub-{i}_desc-qualitycontrol_cbf.tsv").write_text(text)
    write_group(folder)
    return folder


@pytest.fixture(scope="module")
def driver():
    with chromium.browser() as started:
        yield started


def open_page(driver, path, ready=READY):
    driver.get(path.as_uri())
    chromium.wait_for(driver, ready)


def clean(driver, path):
    """Nothing was asked for but the page itself, and nothing complained."""
    assert chromium.console_errors(driver) == []
    assert set(chromium.requests(driver)) <= {path.as_uri()}


def voxel_of(driver):
    """World position and estimates that the viewer shows."""
    return driver.execute_script("return document.querySelector('.readout').innerText")


def test_the_report_loads_and_the_viewer_follows_clicks(driver, derivatives):
    page = derivatives / "sub-01.html"
    open_page(driver, page)
    before = voxel_of(driver)
    canvas = driver.find_element("css selector", ".viewer canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    box = canvas.rect
    chain = chromium.actions(driver)
    chain.move_to_element_with_offset(canvas, -box["width"] / 5, box["height"] / 8).click()
    chain.perform()
    after = voxel_of(driver)
    assert before != after
    assert "mm (right, front, up)" in after
    points = driver.execute_script("return document.querySelector('.viewer .chart').data.length")
    assert points >= 6  # two schemes: measured, two curves, fitted
    clean(driver, page)


def test_the_viewer_shows_the_numbers_of_the_files(driver, derivatives):
    """Chosen by its world position, a voxel has the values of the images on disk."""
    import nibabel as nib

    open_page(driver, derivatives / "sub-01.html")
    folder = derivatives / "sub-01" / "perf"

    def image(name):
        found = nib.load(folder / f"sub-01_{name}.nii.gz")
        return found.get_fdata(), found.affine

    cbf, affine = image("cbf")
    delta_m, noise = image("desc-preproc_asl")[0], image("desc-noise_asl")[0]
    mask = image("desc-brain_mask")[0] > 0
    shown = driver.execute_script(
        """
        const v = document.querySelector('.viewer').viewer;
        v.voxel = arguments[0]; v.draw();
        const row = v.rowAt(...v.voxel);
        const traces = v.chart.data;
        const xyz = [0, 1, 2].map((r) => v.data.affine[r].reduce(
            (sum, a, c) => sum + a * (c < 3 ? v.voxel[c] : 1), 0));
        return {xyz, cbf: v.get('cbf', row), lsq: v.get('lsq_cbf', row), att: v.get('att', row),
                x: Array.from(traces[0].x), y: Array.from(traces[0].y),
                error: Array.from(traces[0].error_y.array),
                curve: [Array.from(traces[1].x), Array.from(traces[1].y)]};
        """,
        [int(n) for n in np.array(mask.shape) // [3, 2, 2]],
    )
    index = tuple(np.round(np.linalg.inv(affine) @ [*shown["xyz"], 1])[:3].astype(int))
    assert mask[index]
    assert shown["cbf"] == pytest.approx(cbf[index], abs=0.03)
    assert shown["lsq"] == pytest.approx(image("desc-lsq_cbf")[0][index], abs=0.05)
    np.testing.assert_allclose(shown["y"], 100 * delta_m[index][:6], atol=5e-4)
    np.testing.assert_allclose(shown["error"], 100 * noise[index][:6], atol=5e-4)
    delays = np.array(example.DELAYS) + example.SLICE_STEP * index[2]
    np.testing.assert_allclose(shown["x"], delays, atol=1e-4)
    # The curve is that of the estimates, by equations apart from the package's.
    x, y = map(np.array, shown["curve"])
    expected = [
        100 * fake_bids.delta_m("PCASL", w, 1.8, cbf=shown["cbf"], att=shown["att"]) for w in x
    ]
    np.testing.assert_allclose(y, expected, atol=1e-5 + 1e-4 * max(expected))


def test_kinetics_of_the_page_are_those_of_the_program(driver):
    """Every scheme, T1 of tissue equal to that of blood and not, early and late delays."""
    cases = [
        (arrival, w, tau, t1_tissue, att)
        for arrival in (0, 1, 2)
        for w in (0.0, 0.3, 1.0, 2.5)
        for tau in ((0.7, 1.8) if arrival < 2 else (0.7, None))
        for t1_tissue in (1.65, 1.3, 1.65 + 1e-7)
        for att in (0.05, 0.7, 1.0, 1.9, 3.5)
    ]
    driver.get("about:blank")
    found = driver.execute_script(
        KINETICS.read_text().replace('"use strict";', "")
        + """
        return arguments[0].map(([arrival, w, tau, t1, att]) => Kinetics.response(
          arrival, w, tau, 0.8, {t1_blood: 1.65, t1_tissue: t1, partition_coefficient: 0.9}, att));
        """,
        cases,
    )

    def tensor(values):
        return torch.tensor(values, dtype=torch.float64)

    expected = [
        float(
            tissue_response(
                torch.tensor(arrival),
                tensor(w),
                tensor(math.inf if tau is None else tau),
                tensor(0.8),
                1.65,
                t1,
                0.9,
                tensor(att),
            )
        )
        for arrival, w, tau, t1, att in cases
    ]
    assert sum(value > 0 for value in expected) > 200
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_maps_planes_and_keys(driver, derivatives):
    page = derivatives / "sub-01.html"
    open_page(driver, page)
    seen = driver.execute_script(
        """
        const v = document.querySelector('.viewer').viewer;
        const canvas = v.panels[0].canvas;
        const picture = () => canvas.toDataURL();
        const seen = [picture()];
        const [map, plane] = v.root.querySelectorAll('select');
        for (const option of map.options) {
          map.value = option.value; map.dispatchEvent(new Event('change')); seen.push(picture());
        }
        map.value = 'cbf'; map.dispatchEvent(new Event('change'));
        for (const option of plane.options) {
          plane.value = option.value; plane.dispatchEvent(new Event('change'));
          seen.push(picture());
        }
        const before = [...v.voxel];
        canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'PageUp', bubbles: true}));
        canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
        return {maps: map.options.length, different: new Set(seen).size, before, after: v.voxel};
        """
    )
    assert seen["maps"] == 8
    assert seen["different"] == 8 + 2  # axial comes twice, and so does the first map
    assert seen["after"] == [seen["before"][0] + 1, seen["before"][1] + 1, seen["before"][2]]
    clean(driver, page)


def test_zoom_keeps_the_voxel_and_clicks_hit_what_is_seen(driver, derivatives):
    """The files are stored right to left: the indices told are theirs, at any zoom."""
    import nibabel as nib

    page = derivatives / "sub-01.html"
    open_page(driver, page)
    seen = driver.execute_script(
        """
        const v = document.querySelector('.viewer').viewer;
        const canvas = v.panels[0].canvas;
        const box = () => canvas.getBoundingClientRect();
        const told = () =>
          v.readout.textContent.match(/Voxel (\\d+), (\\d+), (\\d+)/).slice(1).map(Number);
        const voxel = v.data.shape.map((n) => Math.floor(n / 3));
        v.voxel = [...voxel]; v.draw();
        const before = canvas.toDataURL();
        for (let i = 0; i < 3; i++) {
          canvas.dispatchEvent(new KeyboardEvent('keydown', {key: '+', bubbles: true}));
        }
        const found = {voxel, kept: [...v.voxel], told: told(), zoom: v.zoom,
                       changed: canvas.toDataURL() !== before};
        // The middle of the voxel as it is drawn now, from the part that is shown.
        const view = v.view(), b = box();
        const target = [voxel[0] + 3, voxel[1] - 2];
        const x = b.left + ((target[0] + 0.5 - view.x) / view.w) * b.width;
        const y = b.top + ((v.shape[1] - target[1] - 0.5 - view.y) / view.h) * b.height;
        canvas.dispatchEvent(new PointerEvent('pointerdown', {clientX: x, clientY: y}));
        found.target = target; found.hit = [...v.voxel];
        found.view = [view.w / v.shape[0], v.view().x === view.x];
        found.cbf = v.get('cbf', v.rowAt(...v.voxel)); found.toldThen = told();
        return found;
        """
    )
    assert seen["kept"] == seen["voxel"]
    assert seen["zoom"] == 3
    assert seen["changed"]
    assert seen["hit"][:2] == seen["target"]
    assert seen["view"] == [pytest.approx(1 / 3), True]
    values = nib.load(derivatives / "sub-01" / "perf" / "sub-01_cbf.nii.gz").get_fdata()
    assert values[tuple(seen["toldThen"])] == pytest.approx(seen["cbf"], abs=0.03)
    assert seen["told"] != seen["voxel"]
    clean(driver, page)


def test_pictures_open_large(driver, derivatives):
    page = derivatives / "sub-01.html"
    open_page(driver, page)
    opened = driver.execute_script(
        """
        const dialog = document.querySelector('dialog.large');
        const picture = document.querySelector('.pair img');
        const before = [dialog.open, picture.getBoundingClientRect().width];
        picture.click();
        const large = dialog.querySelector('img').getBoundingClientRect().width;
        const open = dialog.open;
        dialog.querySelector('button').click();
        return [...before, open, large, dialog.open];
        """
    )
    assert [opened[0], opened[2], opened[4]] == [False, True, False]
    assert opened[3] > 1.8 * opened[1]
    clean(driver, page)


CUT_OFF = """
  const width = document.documentElement.clientWidth;
  return [...document.querySelectorAll('header *, nav *, main *, footer *')].filter((e) => {
    // What Plotly draws beyond its axes is clipped by it.
    if (e.closest('svg') && e.tagName.toLowerCase() !== 'svg') return false;
    const box = e.getBoundingClientRect();
    return box.width && box.height && (box.right > width + 1 || box.left < -1);
  }).map((e) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`);
"""


def test_a_failed_run_and_narrow_screens(driver, derivatives):
    page = derivatives / "sub-02.html"
    open_page(driver, page, "return document.readyState === 'complete'")
    assert "What to do" in driver.execute_script("return document.body.innerText")
    clean(driver, page)
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for name, ready in (
            ("sub-01.html", READY),
            ("sub-02.html", "return true"),
            ("group.html", "return document.getElementById('charts').dataset.ready"),
        ):
            open_page(driver, derivatives / name, ready)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
            assert driver.execute_script(CUT_OFF) == []
            assert chromium.console_errors(driver) == []
    finally:
        wide = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", wide)


def test_the_group_page_filters_sorts_and_links(driver, derivatives):
    page = derivatives / "group.html"
    ready = "return document.getElementById('charts').dataset.ready"
    open_page(driver, page, ready)
    driver.get_log("performance")
    count = "return document.getElementById('count').textContent"
    assert driver.execute_script(count) == "All 13 series are shown."
    kept = driver.execute_script(
        """
        const form = document.getElementById('filters');
        const cells = () => [...document.querySelectorAll('#table tbody th')];
        const titles = () => cells().map((cell) => cell.innerText);
        const found = {};
        const set = (name, value) => {
          form.elements[name].value = value;
          form.dispatchEvent(new Event('input'));
        };
        set('text', 'sub-1'); found.text = titles(); set('text', '');
        set('metric', 'cbf_mean_gm'); set('low', '100'); found.range = titles();
        set('metric', ''); set('low', '');
        set('outliers', 'only'); found.outliers = titles(); set('outliers', '');
        document.querySelectorAll('#table thead button')[1].click();
        document.querySelectorAll('#table thead button')[1].click();
        found.sorted = titles()[0];
        return found;
        """
    )
    assert kept["text"] == [f"sub-{i}" for i in range(10, 20)]
    assert [title.split()[0] for title in kept["range"]] == ["sub-21"]
    assert [title.split()[0] for title in kept["outliers"]] == ["sub-21"]
    assert kept["sorted"].startswith("sub-21")
    assert chromium.console_errors(driver) == []
    assert chromium.requests(driver) == []

    # A point of a chart leads to its participant's report.
    chart = '.metric[data-key="cbf_mean_gm"] .plot'
    driver.execute_script(
        "document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", chart
    )
    chromium.wait_for(driver, f"return document.querySelector('{chart}').dataset.ready")
    links = driver.execute_script(
        f"return document.querySelector('{chart}').data[1].customdata.filter((l) => l)"
    )
    assert links == ["sub-01.html#sub-01"]
    place = driver.execute_script(
        f"""
        const p = document.querySelector('{chart}'), t = p.data[1];
        const i = t.customdata.findIndex((l) => l), box = p.getBoundingClientRect();
        const l = p._fullLayout;
        return [box.left + l.xaxis._offset + l.xaxis.d2p(t.x[i]),
                box.top + l.yaxis._offset + l.yaxis.d2p(t.y[i])];
        """
    )
    chain = chromium.actions(driver)
    chain.w3c_actions.pointer_action.move_to_location(*map(round, place)).click()
    chain.perform()
    chromium.wait_for(driver, "return location.pathname.endsWith('sub-01.html')")


def test_medians_of_even_numbers_and_bands_without_an_end(driver, tmp_path):
    """Of four the median is the mean of the middle two; a range to infinity goes on."""
    for i, (flow, snr) in enumerate([(70, 4), (52, 9), (60, 5.5), (50, 7)]):
        place = tmp_path / f"sub-{i}" / "perf"
        place.mkdir(parents=True)
        cells = f"cbf_mean_gm\tsnr_delta_m_gm\n{flow}\t{snr}\n"
        (place / f"sub-{i}_desc-qualitycontrol_cbf.tsv").write_text(cells)
    write_group(tmp_path)
    ready = "return document.getElementById('charts').dataset.ready"
    open_page(driver, tmp_path / "group.html", ready)
    found = driver.execute_script(
        """
        window.dispatchEvent(new Event('beforeprint'));
        const found = {};
        for (const card of document.querySelectorAll('.metric')) {
          const plot = card.querySelector('.plot');
          found[card.dataset.key] = {
            caption: card.querySelector('figcaption').textContent,
            label: plot.getAttribute('aria-label'),
            box: plot.data[0].median[0],
            range: plot.layout.xaxis.range,
            bands: plot.layout.shapes.map((s) => [s.x0, s.x1]),
          };
        }
        return found;
        """
    )
    for key, median in (("cbf_mean_gm", 56), ("snr_delta_m_gm", 6.25)):
        assert found[key]["box"] == median
        assert f"median {median}" in found[key]["caption"]
        assert re.search(rf"median {median}(\.0)? ", found[key]["label"])
    low, high = found["snr_delta_m_gm"]["range"]
    for (start, end), expected in zip(found["snr_delta_m_gm"]["bands"], (1.5, 3.0), strict=True):
        assert start == expected
        assert end > high + 10 * (high - low)
    assert found["cbf_mean_gm"]["bands"] == [[10, 150], [40, 100]]
    assert chromium.console_errors(driver) == []


def test_the_data_of_the_page_are_json(derivatives):
    text = (derivatives / "group.html").read_text()
    start = text.index('id="group-data">') + len('id="group-data">')
    content = json.loads(text[start : text.index("</script>", start)])
    assert len(content["rows"]) == 13
