"""How long the page of a large cluster takes to appear and to react: `python -m bench.page`, a table on stdout.

Server and browser share the machine. "first" is the first reader of a report, who waits for the documents to be made,
"later" the median of those who come after. Responsiveness is the time from a key to the next frame, nine times of ten.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace

from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from bench.page.browser import browser, missing, screen
from bench.page.instance import large
from bench.page.serving import Gallery, served

SHAPES = ((100, 20), (1_000, 20), (5_000, 20))
READERS = 5
DRAWN = "return performance.getEntriesByName('rebalancer:map').map((entry) => entry.startTime)[0] ?? 0"
FRAMES = """
const done = arguments[0], canvas = document.querySelector("canvas"), times = [];
let last = performance.now(), left = 60;
const step = () => {
  times.push(performance.now() - last);
  last = performance.now();
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  if (left--) requestAnimationFrame(step);
  else done(times.sort((a, b) => a - b)[Math.floor(times.length * 0.9)]);
};
requestAnimationFrame(step);
"""


def appears(driver: Chrome, url: str) -> float:
    """Seconds from the click on a link to the painted map."""
    driver.get(url)
    shown: float = WebDriverWait(driver, 60, poll_frequency=0.05).until(lambda _: driver.execute_script(DRAWN))
    return shown / 1000


def row(driver: Chrome, gallery: Gallery, nodes: int, vmis: int) -> str:
    first = appears(driver, gallery.url)
    later = statistics.median(appears(driver, gallery.url) for _ in range(READERS))
    fetched = "return performance.getEntriesByType('resource').find((e) => e.name.endsWith('/cluster'))?.transferSize"
    kib = int(driver.execute_script(fetched) or 0) / 1024
    frame = driver.execute_async_script(FRAMES)
    return f"| {nodes:,} | {nodes * vmis:,} | {first:.2f} | {later:.2f} | {frame:.0f} | {kib:,.0f} |"


def main() -> None:
    if why := missing():
        raise SystemExit(why)
    print(f"Chromium, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before, {time.strftime('%Y-%m-%d')}\n")
    print("| nodes | VMs | first (s) | later (s) | key to frame (ms) | map's data (KiB) |")
    print("|---:|---:|---:|---:|---:|---:|")
    for nodes, vmis in SHAPES:
        picture = large(nodes, vmis)
        assert picture.report is not None
        with served(picture) as gallery, browser() as driver:
            screen(driver)
            appears(driver, gallery.url)  # a browser that has just started is slow at everything
            gallery.show(replace(picture, report=replace(picture.report, cycle=2)))
            print(row(driver, gallery, nodes, vmis), flush=True)


main()
