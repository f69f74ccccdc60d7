"""A real browser without a screen, and without a network.

::

    with browser.chromium(tmp_path / "profile") as driver:
        browser = Browser(driver, tmp_path)
        browser.emulate("dark", width=360)
        browser.open("<h1>...", "#view")
        browser.find("h1").text, browser("document.title")
        assert browser.logged() == browser.asked_for() == []
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from support import need

_SECONDS = 60
# Root has no sandbox of Chromium's; the rest keeps it from looking for anything on the network.
_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start a Chromium with a profile of its own, and its driver."""
    options = Options()
    options.binary_location = need.program("chromium")
    for word in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # A driver that is named is not looked for on the network.
    with webdriver.Chrome(options, Service(need.program("chromedriver"))) as driver:
        yield driver


class Browser:
    """A headless Chromium that shows pages, and knows what they logged and asked for."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self._file = folder / "page.html"

    def open(self, text: str, view: str = "") -> None:
        """Open a page anew."""
        self._file.write_text(text, encoding="utf-8")
        self.driver.get("about:blank")
        self.asked_for()
        self.driver.get(f"{self._file.as_uri()}{view}")

    def asked_for(self) -> list[str]:
        """Return the addresses that were asked for since the last time, the page's own aside."""
        events = [json.loads(each)["message"] for each in self._log("performance")]
        urls = [
            each["params"]["request"]["url"]
            for each in events
            if each["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if url.split("#")[0] != self._file.as_uri()]

    def logged(self) -> list[str]:
        """Return what was logged since the last time: errors, and what the policy forbade."""
        return self._log("browser")

    def _log(self, kind: str) -> list[str]:
        # selenium has no types for this one
        lines = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return [each["message"] for each in lines]

    def emulate(self, scheme: str = "light", media: str = "screen", width: int = 1200) -> None:
        """Be a device."""
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": features}
        )

    def scripts(self, run: bool) -> None:
        """Run pages' scripts, or do not."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not run})

    def __call__(self, script: str) -> Any:
        """Evaluate JavaScript."""
        return self.driver.execute_script(f"return {script}")

    def wait(self, script: str) -> None:
        """Wait until JavaScript gives something that is true."""
        WebDriverWait(self.driver, _SECONDS).until(lambda _: self(script))

    def find(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def named(self, text: str) -> WebElement:
        """Return the first link, button or choice of a name."""
        path = "//*[self::a or self::button or self::label][contains(normalize-space(), '%s')]"
        return self.driver.find_element(By.XPATH, path % text)
