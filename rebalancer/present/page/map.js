"use strict";
// The map of the cluster: what is shown, where, and how one gets about in it. Only what is in sight is drawn.
(() => {
  const { make, chip, count, percent, cores, size, number, paint, listeners } = window.rebalancer;
  const SIZES = [190, 168, 148, 128, 112, 96, 76, 60, 46, 36, 28, 22, 17, 13, 10];
  const ZOOMS = { small: 22, medium: 60, large: 148 };
  const VMS_LISTED = 60;

  const root = document.getElementById("map");
  const state = {
    cluster: null, plan: null, now: [], after: [], shown: [], resource: "cpu", when: "now", order: "", zoom: "fit",
    selected: "", hits: null, leaving: new Map(), flying: new Map(), broken: { now: new Set(), after: new Set() }, colours: null, layout: null, queued: false,
  };

  // Controls

  function choice(name, legend, options, chosen, change) {
    const boxes = options.map(([value, text]) =>
      make("label", {}, make("input", { type: "radio", name, value, checked: value === chosen }), text));
    const group = make("fieldset", {}, make("legend", {}, legend), make("div", { class: "choice" }, boxes));
    group.addEventListener("change", (event) => change(event.target.value));
    return group;
  }

  const find = make("input", { type: "search", id: "map-find", placeholder: "node or VM", autocomplete: "off", spellcheck: "false" });
  const zoom = make("select", { id: "map-zoom" }, [["fit", "as it fits"], ["small", "small"], ["medium", "medium"], ["large", "large"]]
    .map(([value, text]) => make("option", { value }, text)));
  const when = choice("map-when", "Show", [["now", "Now"], ["after", "After the plan"]], "now", (value) => set({ when: value }));
  const order = choice("map-order", "Order", [["name", "By name"], ["load", "Fullest first"]], "", (value) => set({ order: value }));
  const tools = make("div", { class: "tools" },
    choice("map-resource", "Reserved", [["cpu", "CPU"], ["memory", "Memory"]], "cpu", (value) => set({ resource: value })),
    when, order,
    make("div", { class: "field" }, make("label", { for: "map-zoom" }, "Nodes are drawn"), zoom),
    make("div", { class: "field" }, make("label", { for: "map-find" }, "Find"), find));
  const canvas = make("canvas", {
    tabindex: "0", role: "application", "aria-roledescription": "map of nodes", "aria-describedby": "map-help",
    "aria-label": "Cluster map",
  });
  const depth = make("div", { class: "depth" }, canvas);
  const sea = make("div", { class: "sea" }, depth);
  const card = make("section", { class: "card", "aria-label": "Chosen node" });
  const status = make("p", { class: "unseen", role: "status" });
  const help = make("p", { class: "unseen", id: "map-help" },
    "Arrow keys go from node to node, Home and End to the first and last. The chosen node's details follow the map; all nodes are in the table below it.");
  const legend = make("ul", { class: "legend" });
  const pen = canvas.getContext("2d");

  const swatch = (draw) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 15 15");
    svg.setAttribute("aria-hidden", "true");
    for (const [name, attributes] of draw) {
      const part = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
      svg.append(part);
    }
    return svg;
  };
  const square = (fill, more = {}) => ["rect", { x: 1, y: 1, width: 13, height: 13, fill, ...more }];
  legend.append(
    make("li", {}, swatch([square("var(--load)")]), "a VM, by its size"),
    make("li", {}, swatch([square("var(--other)")]), "other pods"),
    make("li", {}, swatch([square("var(--sheet)", { stroke: "var(--move)" }), ["path", { d: "M1 8 8 1M1 14 14 1M7 14 14 7", stroke: "var(--move)", "stroke-width": 1.8 }]]), "is to leave, or on its way here"),
    make("li", {}, swatch([square("var(--move)")]), "has come, after the plan"),
    make("li", {}, swatch([square("var(--load)"), ["path", { d: "M5 1h9v9z", fill: "var(--wait)" }]]), "breaks a rule"),
    make("li", {}, swatch([square("none", { stroke: "var(--hot)", "stroke-width": 2 }), ["path", { d: "M1 5h13", stroke: "var(--limit)", "stroke-dasharray": "3 2" }]]), "node above its threshold"),
    make("li", {}, swatch([square("var(--sunken)", { stroke: "var(--strong)" }), ["path", { d: "M1 8 8 1M1 14 14 1M7 14 14 7", stroke: "var(--strong)" }]]), "takes no VMs"));
  root.append(tools, make("div", { class: "stage" }, make("div", {}, sea, legend, help, status), card));

  // Data

  /** Takes over a cluster document and a plan document (or null). */
  function show(cluster, plan) {
    state.cluster = cluster;
    state.plan = plan;
    state.now = cluster.nodes;
    const broken = (violations) => new Set(violations.flatMap((violation) => violation.vmis));
    state.broken = { now: broken(cluster.violations), after: broken(plan?.after.violations ?? []) };
    const places = new Map();
    for (const node of cluster.nodes) for (const vmi of node.vmis) places.set(vmi.vmi, node.name);
    state.flying = new Map(cluster.running.map((entry) => [entry.vmi, entry]));
    state.leaving = new Map();
    for (const move of (plan?.waves ?? []).flatMap((wave) => wave.moves)) {
      if (places.has(move.vmi)) state.leaving.set(move.vmi, move.target);
    }
    for (const [vmi, target] of state.leaving) if (places.get(vmi) === target) state.leaving.delete(vmi);
    state.after = state.leaving.size ? afterwards(cluster.nodes, state.leaving) : null;
    if (!state.after) state.when = "now";
    when.hidden = !state.after;
    when.querySelector(`[value="${state.when}"]`).checked = true;
    if (!state.order) {
      state.order = cluster.nodes.length > 60 ? "load" : "name";
      order.querySelector(`[value="${state.order}"]`).checked = true;
    }
    root.hidden = !cluster.nodes.length;
    arrange();
    if (!state.shown.some((node) => node.name === state.selected)) state.selected = fullest()?.name ?? "";
    draw();
    describe();
    listeners.forEach((listen) => listen(state));
  }

  /** The nodes as they will be once these VMs have moved. */
  function afterwards(nodes, leaving) {
    const come = new Map();
    const moved = new Map();
    for (const node of nodes) {
      for (const vmi of node.vmis) {
        const target = leaving.get(vmi.vmi);
        if (target === undefined) continue;
        moved.set(node.name, true);
        moved.set(target, true);
        if (!come.has(target)) come.set(target, []);
        come.get(target).push(vmi);
      }
    }
    return nodes.map((node) => {
      if (!moved.has(node.name)) return node;
      const gone = node.vmis.filter((vmi) => leaving.has(vmi.vmi));
      const arrived = come.get(node.name) ?? [];
      const vmis = [...node.vmis.filter((vmi) => !leaving.has(vmi.vmi)), ...arrived].sort((a, b) => b.cpu - a.cpu);
      const sum = (vms, name) => vms.reduce((total, vmi) => total + vmi[name], 0);
      const load = (name) => ({ ...node[name], reserved: node[name].reserved + sum(arrived, name) - sum(gone, name) });
      return { ...node, vmis, cpu: load("cpu"), memory: load("memory") };
    });
  }

  const excess = (node) => paint.share(node[state.resource]) / (node[state.resource].high || 100);
  const fullest = () => state.now.reduce((top, node) => (!top || excess(node) > excess(top) ? node : top), null);

  function arrange() {
    const nodes = state.when === "after" ? state.after : state.now;
    const collator = new Intl.Collator("en", { numeric: true });
    state.shown = [...nodes].sort(state.order === "load" ? (a, b) => excess(b) - excess(a) || collator.compare(a.name, b.name) : (a, b) => collator.compare(a.name, b.name));
  }

  function set(change) {
    Object.assign(state, change);
    arrange();
    draw();
    describe();
  }

  // Drawing

  function layout() {
    const width = sea.clientWidth || 600;
    const most = Math.max(300, Math.min(620, window.innerHeight * 0.68));
    const options = state.zoom === "fit" ? SIZES : [ZOOMS[state.zoom]];
    let found = null;
    for (const side of options) {
      const named = side >= paint.NAMED;
      const gap = named ? 16 : side >= 46 ? 8 : side >= 22 ? 4 : 2;
      const pad = named ? 14 : 8;
      const columns = Math.max(1, Math.floor((width - 2 * pad + gap) / (side + gap)));
      const rows = Math.ceil(state.shown.length / columns);
      const stretch = columns <= state.shown.length ? (width - 2 * pad + gap) / columns - gap : side;
      const w = named ? Math.min(stretch, side * 1.25) : side;
      const height = named ? side * 0.84 : side;
      found = { columns, rows, gap, pad, w, h: height, total: 2 * pad + rows * (height + gap) - gap, width };
      if (found.total <= most) break;
    }
    found.height = Math.ceil(Math.min(found.total, most));
    return found;
  }

  const boxOf = (index) => {
    const { columns, gap, pad, w, h } = state.layout;
    return { x: pad + (index % columns) * (w + gap), y: pad + Math.floor(index / columns) * (h + gap), w, h };
  };

  function draw() {
    if (!state.cluster || state.queued) return;
    state.queued = true;
    requestAnimationFrame(() => {
      state.queued = false;
      drawNow();
    });
  }

  function drawNow() {
    const ratio = window.devicePixelRatio || 1;
    const at = (state.layout = layout());
    sea.style.height = `${at.height + 2}px`;
    depth.style.height = `${at.total}px`;
    if (canvas.width !== Math.round(at.width * ratio) || canvas.height !== Math.round(at.height * ratio)) {
      canvas.width = Math.round(at.width * ratio);
      canvas.height = Math.round(at.height * ratio);
      canvas.style.width = `${at.width}px`;
      canvas.style.height = `${at.height}px`;
    }
    state.colours ??= paint.palette(pen);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, at.width, at.height);
    pen.translate(0, -sea.scrollTop);
    const first = Math.max(0, Math.floor((sea.scrollTop - at.pad) / (at.h + at.gap))) * at.columns;
    const last = Math.min(state.shown.length, (Math.ceil((sea.scrollTop + at.height) / (at.h + at.gap)) + 1) * at.columns);
    for (let index = first; index < last; index += 1) {
      const node = state.shown[index];
      paint.tile(pen, node, boxOf(index), {
        colours: state.colours,
        resource: state.resource,
        role,
        broken: (vmi) => state.broken[state.when].has(vmi),
        selected: node.name === state.selected,
        faint: state.hits !== null && !state.hits.has(node.name),
      });
    }
    if (!performance.getEntriesByName("rebalancer:map").length) performance.mark("rebalancer:map");
    root.dataset.drawn = String(state.shown.length);
  }

  function role(vmi) {
    if (state.when === "now" && state.flying.has(vmi)) return "leaving";
    if (!state.leaving.has(vmi)) return "";
    return state.when === "after" ? "arriving" : "leaving";
  }

  // Getting about

  function nodeAt(event) {
    const { columns, gap, pad, w, h } = state.layout;
    const column = Math.floor((event.offsetX - pad) / (w + gap));
    const row = Math.floor((event.offsetY + sea.scrollTop - pad) / (h + gap));
    return column < 0 || column >= columns || row < 0 ? -1 : row * columns + column;
  }

  function vmiAt(index, event) {
    const box = boxOf(index);
    if (box.w < paint.DETAILED) return null;
    const y = event.offsetY + sea.scrollTop;
    let found = null;
    paint.contents(state.shown[index], paint.vesselOf(box), state.resource, (vmi, left, top, width, height) => {
      if (event.offsetX >= left && event.offsetX < left + width && y >= top && y < top + height) found = vmi;
    });
    return found;
  }

  function choose(index) {
    const at = Math.max(0, Math.min(state.shown.length - 1, index));
    state.selected = state.shown[at].name;
    const box = boxOf(at);
    if (box.y < sea.scrollTop) sea.scrollTop = box.y - state.layout.pad;
    else if (box.y + box.h > sea.scrollTop + state.layout.height) sea.scrollTop = box.y + box.h - state.layout.height + state.layout.pad;
    draw();
    describe();
    status.textContent = `${state.selected}: ${sentence(state.shown[at], "cpu")}; ${sentence(state.shown[at], "memory")}; ${count(state.shown[at].vmis.length, "VM")}`;
  }

  canvas.addEventListener("keydown", (event) => {
    const at = state.shown.findIndex((node) => node.name === state.selected);
    const { columns, height, h, gap } = state.layout;
    const page = Math.max(1, Math.floor(height / (h + gap))) * columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -at, End: state.shown.length };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    choose(at + steps[event.key]);
  });
  canvas.addEventListener("click", (event) => {
    const index = nodeAt(event);
    if (index >= 0 && index < state.shown.length) choose(index);
  });
  canvas.addEventListener("mousemove", (event) => {
    const index = nodeAt(event);
    const node = state.shown[index];
    const vmi = node ? vmiAt(index, event) : null;
    const goes = vmi && state.leaving.has(vmi.vmi) && state.when === "now" ? ` → ${state.leaving.get(vmi.vmi)}` : "";
    const title = vmi ? `${vmi.vmi}${goes}: ${cores(vmi.cpu)}, ${size(vmi.memory)}` : node ? `${node.name}: ${sentence(node, state.resource)}` : "";
    if (canvas.title !== title) canvas.title = title;
  });
  sea.addEventListener("scroll", draw, { passive: true });
  zoom.addEventListener("change", () => set({ zoom: zoom.value }));
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    state.hits = wanted ? new Set() : null;
    if (wanted) {
      for (const node of state.shown) {
        if (node.name.toLowerCase().includes(wanted) || node.vmis.some((vmi) => vmi.vmi.toLowerCase().includes(wanted))) state.hits.add(node.name);
      }
      const first = state.shown.findIndex((node) => state.hits.has(node.name));
      if (first >= 0) choose(first);
      status.textContent = `${count(state.hits.size, "node")} found`;
    }
    draw();
  });
  new ResizeObserver(draw).observe(sea);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    state.colours = null;
    draw();
  });

  // The chosen node

  const hundredths = (milli) => number.format(Math.round(milli / 10) / 100);

  /** How full a node is: in a table, or with the resource's name as a sentence. */
  function fullness(node, resource, of = "") {
    const load = node[resource];
    const share = paint.share(load) * 100;
    const [has, all] = resource === "cpu" ? [hundredths(load.reserved), hundredths(load.allocatable)] : [size(load.reserved), size(load.allocatable)];
    const unit = all.slice(all.search(/\D*$/));
    const amount = `${unit && has.endsWith(unit) ? has.slice(0, -unit.length) : has} of ${all}`;
    const above = load.counts && share > load.high ? `, above ${percent(load.high)}` : "";
    return `${percent(share)}${of} (${amount})${above}`;
  }

  const sentence = (node, resource) => fullness(node, resource, ` of ${resource === "cpu" ? "CPU" : "memory"}`);

  function describe() {
    const node = state.shown.find((one) => one.name === state.selected);
    if (!node) return;
    const other = state.when === "now" && state.after ? state.after.find((one) => one.name === node.name) : null;
    const hot = node.cpu.counts && paint.share(node.cpu) * 100 > node.cpu.high;
    const facts = make("dl", { class: "facts" });
    const fact = (name, value) => value && facts.append(make("dt", {}, name), make("dd", {}, value));
    fact("CPU", fullness(node, "cpu"));
    fact("Memory", fullness(node, "memory"));
    if (other && other !== node) fact("After the plan", `${percent(paint.share(other.cpu) * 100)} CPU, ${percent(paint.share(other.memory) * 100)} memory`);
    fact("Zone", node.zone);
    fact("VMs", number.format(node.vmis.length));
    const rows = node.vmis.slice(0, VMS_LISTED).map((vmi) => {
      const goes = state.leaving.get(vmi.vmi);
      const flight = state.when === "now" ? state.flying.get(vmi.vmi) : null;
      const note = flight && flight.source !== node.name ? ` (on its way from ${flight.source})` : goes && state.when === "now" ? ` → ${goes}` : goes ? " (new here)" : "";
      return make("tr", {},
        make("th", { scope: "row" }, vmi.vmi, state.broken[state.when].has(vmi.vmi) ? make("span", { class: "breaks", title: "breaks a rule" }, " ◆", make("span", { class: "unseen" }, " breaks a rule")) : "", note ? make("span", { class: "note" }, note.trim()) : ""),
        make("td", { class: "figure" }, number.format(Math.round(vmi.cpu / 100) / 10)),
        make("td", { class: "figure" }, size(vmi.memory)),
        make("td", {}, make("button", { type: "button", class: "quiet", "data-why": vmi.vmi, "aria-label": `Why not elsewhere: ${vmi.vmi}` }, "why?")));
    });
    const table = make("table", {},
      make("caption", {}, node.vmis.length > VMS_LISTED ? `The ${VMS_LISTED} largest of ${number.format(node.vmis.length)} VMs` : "VMs, largest first"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "VM"), make("th", { scope: "col", class: "figure" }, "CPU"), make("th", { scope: "col", class: "figure" }, "Memory"), make("th", { scope: "col" }, make("span", { class: "unseen" }, "Explain")))),
      make("tbody", {}, rows));
    card.replaceChildren(
      make("h3", {}, node.name, node.state === "Ready" ? "" : chip(node.state, "wait"), hot ? chip("Hotspot", "bad") : ""),
      facts, node.vmis.length ? table : make("p", { class: "empty" }, "No VM runs here."));
  }

  card.addEventListener("click", (event) => {
    const vmi = event.target.closest("[data-why]")?.dataset.why;
    if (vmi) window.rebalancer.explain(vmi);
  });

  window.rebalancer.map = { show, state };
})();
