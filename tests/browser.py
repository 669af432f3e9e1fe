"""A real browser for tests: Debian's chromium, driven by selenium, without a network.

The fixture `browser` is one browser for all tests of a worker. Where chromium, its driver or
selenium is missing, tests that ask for it are skipped with the reason; with
TREEGRPO_REQUIRE_BROWSER=1 that is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

IS_REQUIRED = os.environ.get("TREEGRPO_REQUIRE_BROWSER") == "1"
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, which chromium's sandbox refuses
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def missing() -> str:
    """Return why there is no browser, or "" where there is one."""
    if find_spec("selenium") is None:
        return "needs selenium: pip install treegrpo[dev]"
    wanted = ("chromium", "chromedriver")
    absent = [name for name in wanted if shutil.which(name) is None]
    return (
        f"needs {' and '.join(absent)}: apt-get install chromium chromium-driver" if absent else ""
    )


def start_browser() -> Any:
    """Return a browser; its caller calls quit()."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in _SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser in a window of 1280 x 800, light; tests that change that use `look`."""
    reason = missing()
    if reason and not IS_REQUIRED:
        pytest.skip(reason)
    driver = start_browser()
    try:
        look(driver)
        yield driver
    finally:
        driver.quit()


def look(driver: Any, *, width: int = 1280, height: int = 800, is_dark: bool = False) -> None:
    """Give the window a size and a colour scheme."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def complaints(driver: Any) -> list[str]:
    """Return what the console said since it was last asked: errors, refusals of a policy."""
    return [entry["message"] for entry in driver.get_log("browser")]
