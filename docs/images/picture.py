"""Photograph a trace with one of its cards open: ``python docs/images/picture.py trace.html trace.png``."""

import argparse
import base64
import shutil
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
BOX = """
const boxes = [...document.querySelectorAll("h1, .cosd, .card")].map(each => each.getBoundingClientRect());
const seen = boxes.filter(box => box.width);
const edge = (name, pick) => pick(...seen.map(box => box[name]));
const [x, y] = [edge("left", Math.min) - 16, edge("top", Math.min) - 16];
return [x, y, edge("right", Math.max) + 16 - x, edge("bottom", Math.max) + 16 - y];
"""


def main() -> None:
    """Read the arguments and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--focus", default="mark.t", help="CSS selector of the token whose card is open")
    parser.add_argument("--size", default="720x800", help="window in CSS pixels")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile:
        driver = start_chromium(profile)
        try:
            options.picture.write_bytes(photograph(driver, options))
        finally:
            driver.quit()


def start_chromium(profile: str) -> webdriver.Chrome:
    """A headless Chromium that stays off the network."""
    browser, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and chromedriver):
        raise SystemExit("needs chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(chromedriver))


def photograph(driver: webdriver.Chrome, options: argparse.Namespace) -> bytes:
    """The page as PNG at twice its size, cropped to the trace and the open card."""
    width, height = map(int, options.size.split("x"))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
    scheme = [{"name": "prefers-color-scheme", "value": options.scheme}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    driver.get(options.page.resolve().as_uri())
    if options.focus:
        driver.execute_script("document.querySelector(arguments[0]).focus()", options.focus)
    x, y, wide, high = driver.execute_script(BOX)
    clip = {"x": max(x, 0), "y": max(y, 0), "width": min(wide, width), "height": high, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": False})
    return base64.b64decode(shot["data"])


if __name__ == "__main__":
    main()
