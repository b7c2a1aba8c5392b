"use strict";
// What the other scripts share: elements, words, moments. One name in the window, `rebalancer`, holds everything.
(() => {
  const number = new Intl.NumberFormat("en");

  /** An element with attributes and children; children that are strings become text, never markup. */
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }

  const SVG = "http://www.w3.org/2000/svg";

  /** One of the page's symbols, as decoration. */
  function icon(name) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#i-${name}`);
    svg.append(use);
    return svg;
  }

  const chip = (text, tone) => make("span", { class: `chip ${tone}` }, icon(tone), text);
  const count = (amount, thing) => `${amount ? number.format(amount) : "no"} ${thing}${amount === 1 ? "" : "s"}`;
  const percent = (value) => `${value.toFixed(1)} %`;
  const cores = (milli) => `${number.format(Math.round(milli / 100) / 10)} CPU`;

  /** Bytes in the unit that reads best. */
  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let value = bytes;
    let unit = 0;
    while (value >= 1024 && unit < units.length - 1) {
      value /= 1024;
      unit += 1;
    }
    return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
  }

  /** Seconds in the two largest units. */
  function duration(seconds) {
    let rest = Math.max(0, Math.round(seconds));
    const parts = [];
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
      if (rest >= length) {
        parts.push(`${Math.floor(rest / length)} ${unit}`);
        rest %= length;
      }
    }
    return parts.slice(0, 2).join(" ") || "0 s";
  }

  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  let skew = 0;

  /** The cluster's time in milliseconds: the daemon's clock, of which we last heard `at`. */
  const now = () => Date.now() + skew;
  const hear = (at) => {
    skew = Date.parse(at) - Date.now();
  };

  /** Every <time> in the reader's own zone, with the distance from now where that is asked for. */
  function localise(root = document) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      const far = Math.abs(at - now()) > 20 * 3600 * 1000;
      let text = far ? `${day.format(at)}, ${clock.format(at)}` : clock.format(at);
      if ("relative" in element.dataset) {
        const left = (at - now()) / 1000;
        text += left >= 0 ? ` (in ${duration(left)})` : ` (${duration(-left)} ago)`;
      }
      if (element.textContent !== text) element.textContent = text;
      element.title = element.dateTime;
    }
    for (const bar of root.querySelectorAll("progress[data-since]")) {
      bar.value = Math.min(bar.max, Math.max(0, (now() - Date.parse(bar.dataset.since)) / 1000));
    }
  }

  const embedded = document.getElementById("data");
  const documents = embedded ? JSON.parse(embedded.textContent) : null;

  /** A document of the API: from the file itself where it carries them, else from the server; null where none. */
  async function get(path) {
    if (documents) return documents[path] ?? null;
    const response = await fetch(`/api/v1/${path}`, { headers: { Accept: "application/json" } });
    if (response.status === 204) return null;
    const told = await response.json();
    return told;
  }

  window.rebalancer = {
    make, icon, chip, count, percent, cores, size, duration, number, now, hear, localise, get, documents,
    listeners: [],
  };
})();
