"""The anatomy in a real browser: blending, flickering, sorting; nothing is loaded."""

import anatomy_example as anatomy
import browser as chromium
import pytest
import reports_example as example
from group_example import add

from asl_bids_app.reports.group import write_group
from asl_bids_app.reports.participant import write_participant_report

pytestmark = pytest.mark.slow

ROWS = (
    ("Left-A", 1.0, 40.0, 1.0, 0.0, 3.2),
    ("Right-A", 1.0, 42.0, 1.0, 0.0, 3.4),
    ("B", 1.0, 70.0, 1.0, 0.0, 5.0),
    ("C", 0.2, *[anatomy.NONE] * 4),
    ("D", 0.9, 10.0, 1.0, 0.0, 0.8),
)


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    chromium.skip_without_browser()
    folder = tmp_path_factory.mktemp("out")
    entities = {"sub": "01"}
    unit = example.write_series(folder, entities, brain=example.Brain(step=6))
    unit["anatomy"] = anatomy.FACTS
    example.write_record(folder, "01", [unit])
    anatomy.add_views(folder, entities)
    anatomy.add_regions(folder, entities, ROWS)
    write_participant_report(folder, "01")
    for k in range(2, 12):
        add(folder, {"sub": f"{k:02d}"}, {"cbf_mean_gm": 50.0 + k})
        rows = [(name, share, cbf + k, *rest) for name, share, cbf, *rest in ROWS]
        anatomy.add_regions(folder, {"sub": f"{k:02d}"}, rows)
    write_group(folder)
    return folder


@pytest.fixture(params=[1200, 390], ids=["wide", "phone"])
def driver(request):
    with chromium.browser(width=request.param) as started:
        yield started


def names(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('table.regions tbody th')].map(c => c.textContent)"
    )


def click(driver, selector):
    driver.execute_script(f'document.querySelector("{selector}").click()')


def test_the_report_blends_flickers_and_sorts(driver, derivatives):
    page = derivatives / "sub-01.html"
    driver.get(page.as_uri())
    chromium.wait_for(driver, "return document.querySelector('.viewer[data-ready]') !== null")

    def over(what):
        return driver.execute_script(
            f"return getComputedStyle(document.querySelector('.blend .over')).{what}"
        )

    assert float(over("opacity")) == 1
    driver.execute_script(
        "const r = document.querySelector('.blend input'); r.value = 25;"
        "r.dispatchEvent(new Event('input'))"
    )
    assert float(over("opacity")) == 0.25
    assert over("animationName") == "none"
    click(driver, ".blend [data-does=flicker]")
    assert over("animationName") == "flicker"
    # The second figure shows the same lines and T1w, by reference: it must not be empty.
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('.blend use')].map(u => u.getBBox().width)"
    )
    assert min(sizes) > 30
    click(driver, ".blend [data-does=lines]")
    assert over("visibility") == "visible"
    hidden = "getComputedStyle(document.querySelector('.blend .lines')).visibility"
    assert driver.execute_script(f"return {hidden}") == "hidden"

    assert names(driver) == ["A", "B", "C", "D"]
    click(driver, "table.regions [data-by=cbf]")
    assert names(driver) == ["B", "A", "D", "C"]  # without a value last, both ways
    click(driver, "table.regions [data-by=cbf]")
    assert names(driver) == ["D", "A", "B", "C"]
    click(driver, "table.regions [data-by=name]")
    assert names(driver) == ["A", "B", "C", "D"]
    width = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    assert chromium.console_errors(driver) == []
    assert set(chromium.requests(driver)) <= {page.as_uri()}


def test_the_group_page_draws_regions_sorted_and_filtered(driver, derivatives):
    page = derivatives / "group.html"
    driver.get(page.as_uri())
    place = "document.getElementById('region-chart')"
    chromium.wait_for(driver, f"return {place}.dataset.ready === 'yes'")

    def order():
        return driver.execute_script(f"return {place}.dataset.order")

    def choose(name, value):
        driver.execute_script(
            f"const s = document.querySelector('#region-controls [name={name}]');"
            f"s.value = '{value}'; s.dispatchEvent(new Event('input', {{bubbles: true}}))"
        )

    assert order() == "Left-A|Right-A|B|C|D"
    choose("order", "median")
    chromium.wait_for(driver, f"return {place}.dataset.order === 'B|Right-A|Left-A|D|C'")
    points = f"{place}.data[1].x.length"
    everyone = driver.execute_script(f"return {points}")
    assert everyone == 4 * 11
    # Filters of the page count here too.
    driver.execute_script(
        "const t = document.querySelector('#filters [name=text]'); t.value = 'sub-07';"
        "t.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    chromium.wait_for(driver, f"return {points} === 4")
    found = driver.execute_script(f"return {place}.data[1].x")
    assert sorted(found) == [17, 47, 49, 77]
    assert chromium.console_errors(driver) == []
    assert set(chromium.requests(driver)) <= {page.as_uri()}
