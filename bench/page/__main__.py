"""How long the page of a large cluster takes to appear and to react: `python -m bench.page`."""

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
from bench.results import publish
from rebalancer.control.heap import Heap
from rebalancer.present.picture import Picture

SHAPES = ((100, 20), (1_000, 20), (5_000, 20))
READERS, FIRSTS = 5, 5
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


def row(driver: Chrome, picture: Picture, gallery: Gallery, nodes: int, vmis: int) -> str:
    first, cpu = [], []
    for cycle in range(2, 2 + FIRSTS):
        assert picture.report is not None
        gallery.show(replace(picture, report=replace(picture.report, cycle=cycle)))
        begun = time.process_time()
        first.append(appears(driver, gallery.url))
        cpu.append(time.process_time() - begun)
    later = statistics.median(appears(driver, gallery.url) for _ in range(READERS))
    fetched = "return performance.getEntriesByType('resource').find((e) => e.name.endsWith('/cluster'))?.transferSize"
    kib = int(driver.execute_script(fetched) or 0) / 1024
    frame = driver.execute_async_script(FRAMES)
    found = f"{statistics.median(first):.2f} | {min(first):.2f} | {statistics.median(cpu):.2f} | {later:.2f}"
    return f"| {nodes:,} | {nodes * vmis:,} | {found} | {frame:.0f} | {kib:,.0f} |"


def main() -> None:
    if why := missing():
        raise SystemExit(why)
    before = os.getloadavg()[0]
    lines = [
        "| nodes | VMs | first reader (s) | at best | server's CPU (s) | later (s) | key to frame (ms) | data (KiB) |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for nodes, vmis in SHAPES:
        picture = large(nodes, vmis)
        with Heap() as heap, served(picture) as gallery, browser() as driver:
            heap.tidy(settled=True)  # as in the daemon
            screen(driver)
            appears(driver, gallery.url)  # a browser that has just started is slow at everything
            lines.append(row(driver, picture, gallery, nodes, vmis))
            print(lines[-1], flush=True)
    text = (
        "\n".join(lines)
        + f"""

From the click on a link to the painted map, in Chromium without a GPU, on the machine that serves. The documents are
made for the first reader of a report ({FIRSTS} times, median and best); "later" is the median of {READERS} who come
after. "key to frame" is what nine of ten key presses take on the map. The machine's load was {before:.1f} before and
{os.getloadavg()[0]:.1f} after on {os.cpu_count()} CPUs: apart from the server's CPU, others' time is in all of it. The
bar is 2 s for 5,000 nodes."""
    )
    publish("How long the page takes", "python -m bench.page", text)


if __name__ == "__main__":
    main()
