"use strict";
// Keeps the page as the daemon sees the cluster: server-sent events say that there is news, and the page is fetched
// again and laid over what is there, so that focus, open folds and scrolling stay.
(() => {
  const { localise, get, documents, hear, map } = window.rebalancer;
  const live = document.getElementById("live");
  const text = document.getElementById("live-text");
  const announce = document.getElementById("announce");
  const LEAST_PAUSE = 1000; // milliseconds between two looks at the whole picture
  const RESTS = 4; // and at least so many times as long as the last one took
  let wanted = false;
  let busy = false;

  /** Makes `old` equal to `fresh` by as few changes as it takes. What the reader has opened stays open. */
  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id ?? "") !== (fresh.id ?? "")) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const kept = [...old.childNodes];
    const come = [...fresh.childNodes];
    come.forEach((child, at) => (at < kept.length ? morph(kept[at], child) : old.append(child)));
    kept.slice(come.length).forEach((child) => child.remove());
  }

  function lay(fresh) {
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (other) morph(part, document.importNode(other, true));
    }
    localise();
  }

  /** Looks again; the first time the page itself has just been made, and only the map's data is missing. */
  async function refresh({ page = true } = {}) {
    if (busy) {
      wanted = true;
      return;
    }
    busy = true;
    const began = performance.now();
    try {
      const answer = page ? fetch("/", { headers: { Accept: "text/html" } }) : null;
      const [html, cluster, plan] = await Promise.all([answer?.then((found) => found.text()), get("cluster"), get("plan")]);
      if (html) lay(new DOMParser().parseFromString(html, "text/html"));
      map.show(cluster, plan);
    } catch {
      // The stream notices by itself that nobody answers, and asks for a new look once somebody does.
    }
    const pause = Math.max(LEAST_PAUSE, RESTS * (performance.now() - began));
    setTimeout(() => {
      busy = false;
      if (wanted) {
        wanted = false;
        refresh();
      }
    }, pause);
  }

  function follow() {
    const stream = new EventSource("/api/v1/stream");
    let said = "";
    let seen = live.dataset.report;
    stream.addEventListener("report", (event) => {
      const told = JSON.parse(event.data);
      if (told.time) hear(told.time);
      live.dataset.state = "live";
      text.replaceChildren("Live, as of ", Object.assign(document.createElement("time"), { dateTime: told.time ?? "", textContent: told.time ?? "now" }));
      localise(live);
      if (told.sentence.text !== said && said) announce.textContent = told.sentence.text;
      said = told.sentence.text;
      if (`${told.cycle} ${told.time}` !== seen) refresh();
      seen = "";
    });
    stream.addEventListener("error", () => {
      live.dataset.state = "lost";
      const seen = live.querySelector("time");
      text.replaceChildren("Connection lost, trying again", ...(seen ? ["; as of ", seen] : []));
    });
  }

  document.getElementById("nodes-fold").open = false;
  localise();
  if (documents) {
    map.show(documents.cluster, documents.plan);
  } else {
    follow();
    refresh({ page: false });
    setInterval(() => localise(), 1000);
  }
})();
