"use strict";
// "Why not?": asks /api/v1/explain and shows every node's verdict, the best places first.
(() => {
  const { make, icon, chip, percent, count, number, get, documents, listeners } = window.rebalancer;
  const SHOWN = 200;
  const SUGGESTED = 20;
  const form = document.getElementById("why-form");
  const answer = document.getElementById("answer");
  const vmi = document.getElementById("why-vmi");
  const node = document.getElementById("why-node");
  let names = [];
  let nodes = [];

  listeners.push((state) => {
    nodes = state.now.map((one) => one.name);
    names = state.now.flatMap((one) => one.vmis.map((each) => each.vmi));
  });

  function suggest(input, list, all) {
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      const found = [];
      for (const name of all()) {
        if (found.length === SUGGESTED) break;
        if (name.toLowerCase().includes(wanted)) found.push(make("option", { value: name }));
      }
      document.getElementById(list).replaceChildren(...found);
    });
  }
  suggest(vmi, "why-vmis", () => names);
  suggest(node, "why-nodes", () => nodes);

  async function ask(key, only) {
    answer.replaceChildren(make("p", { class: "empty" }, "Asking every node …"));
    try {
      const told = documents ? documents.explanations[key] : await get(`explain?${new URLSearchParams({ vmi: key })}`);
      if (told && told.nodes) show(told, only);
      else if (told) say(told.what, told.todo);
      else say(`This file does not carry the verdicts on ${key}.`, `With access to the cluster: rebalancer explain ${key}`);
    } catch {
      say("The daemon does not answer.", "Try again once the page says that it is live.");
    }
  }

  function say(what, todo) {
    answer.replaceChildren(make("p", { class: "left" }, what), make("p", {}, todo));
  }

  function verdict(name, told, here) {
    if (here) return { rank: -1, name, chip: ["is here", "plain"], why: "", cpu: null };
    if (told.fits) return { rank: 0, name, chip: ["fits", "good"], why: "", cpu: told.cpuWithIt };
    if (told.threshold) return { rank: 1, name, chip: ["too full", "wait"], why: told.threshold, cpu: told.cpuWithIt };
    return { rank: 2, name, chip: ["refused", "bad"], why: `${told.plugin}: ${told.reasons.join("; ")}`, cpu: told.cpuWithIt };
  }

  function show(told, only) {
    const where = told.node ? `runs on ${told.node}` : "runs on no node";
    const parts = [
      make("p", { class: "verdict" }, make("b", {}, told.vmi), ` ${where} and ${told.movable ? "may move" : `has to stay: ${told.why}`}.`),
      ...told.violations.map((broken) => make("p", {}, icon("rule"), `It breaks ${broken.type} there: ${broken.message || broken.rule}.`)),
      ...told.conflicts.map((conflict) => make("p", { class: "left" }, conflict)),
    ];
    const all = Object.entries(told.nodes).map(([name, one]) => verdict(name, one, name === told.node));
    const rows = all.filter((one) => !only || one.name === only).sort((a, b) => a.rank - b.rank || a.cpu - b.cpu);
    if (only && !rows.length) parts.push(make("p", { class: "left" }, `There is no node ${only} in this cluster.`));
    else if (!only && all.length) {
      const fitting = all.filter((one) => one.rank === 0).length;
      parts.push(make("p", {}, `${number.format(fitting)} of ${count(all.length, "node")} could take it. `, make("span", { class: "muted" }, told.message)));
    }
    if (rows.length) parts.push(table(rows));
    if (rows.length > SHOWN) parts.push(make("p", { class: "note" }, `${SHOWN} of ${number.format(rows.length)} nodes are shown; name one above to see it alone.`));
    answer.replaceChildren(...parts);
  }

  function table(rows) {
    const head = ["Node", "Verdict", "CPU with it", "Why"];
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Verdicts by node" },
      make("table", {},
        make("caption", {}, "Every node's verdict"),
        make("thead", {}, make("tr", {}, head.map((text, at) => make("th", { scope: "col", class: at === 2 ? "figure" : null }, text)))),
        make("tbody", {}, rows.slice(0, SHOWN).map((row) => make("tr", {},
          make("th", { scope: "row" }, row.name), make("td", {}, chip(...row.chip)),
          make("td", { class: "figure" }, row.cpu === null ? "" : percent(row.cpu)), make("td", {}, row.why))))));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = vmi.value.trim();
    if (key) ask(key, node.value.trim());
  });

  window.rebalancer.explain = (key) => {
    vmi.value = key;
    node.value = "";
    document.getElementById("why").scrollIntoView();
    vmi.focus({ preventScroll: true });
    ask(key, "");
  };
})();
