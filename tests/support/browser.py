"""A real browser for tests: Debian's Chromium without a window, told to load nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
WAIT_S = 600
"""Seconds until a wait counts as endless: no outcome hangs on a loaded machine."""


def skip_without_browser():
    pytest.importorskip("selenium", reason="needs selenium (pip install -e '.[test]')")
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (apt-get install chromium chromium-driver)")


@contextmanager
def browser(width=1280, height=900):
    """Start Chromium with an empty profile; logs of console and network are kept."""
    skip_without_browser()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            driver.set_page_load_timeout(WAIT_S)
            driver.set_script_timeout(WAIT_S)
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            # The browser's own start page isn't what is tested.
            driver.get("about:blank")
            driver.get_log("performance")
            driver.get_log("browser")
            yield driver
        finally:
            driver.quit()


def console_errors(driver):
    """Return what the page complained of since the last call."""
    return [
        entry for entry in driver.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}
    ]


def requests(driver):
    """Return the addresses that were asked for since the last call, other than embedded data."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                found.append(address)
    return found


def wait_for(driver, script, seconds=WAIT_S):
    """Wait until a script returns something true, and return it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds).until(lambda d: d.execute_script(script))


def screenshot(driver, path, *, whole=True):
    """Save a picture of the page."""
    import base64

    size = driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    options = {"format": "png", "captureBeyondViewport": whole}
    if whole:
        options["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", options)
    path.write_bytes(base64.b64decode(picture["data"]))


def actions(driver):
    """Return a chain of mouse and keyboard actions."""
    from selenium.webdriver.common.action_chains import ActionChains

    return ActionChains(driver)
