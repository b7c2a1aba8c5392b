"use strict";
// How one node looks on the map, from a labelled vessel with every VM in it down to a cell of ten pixels.
(() => {
  const NAMED = 88; // from this width on a node carries its name and its figure
  const DETAILED = 34; // from this width on its VMs are told apart
  const LINED = 16; // from this width on its outline and its threshold are drawn
  const LABEL = 19;

  /** The page's colours, as its style sheet has them in the reader's scheme, and hatches made of them. */
  function palette(context) {
    const style = getComputedStyle(document.documentElement);
    const colours = {};
    for (const name of ["sheet", "sunken", "ink", "soft", "line", "strong", "load", "load-deep", "other", "move", "hot", "limit", "accent", "wait"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    colours.leaving = hatch(context, colours.move, colours.sheet, 6, 2.2);
    colours.closed = hatch(context, colours.strong, colours.sunken, 7, 1.2);
    colours.font = getComputedStyle(document.body).fontFamily;
    return colours;
  }

  function hatch(context, ink, ground, step, width) {
    const ratio = window.devicePixelRatio || 1;
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(step * ratio);
    const side = tile.width;
    const pen = tile.getContext("2d");
    pen.fillStyle = ground;
    pen.fillRect(0, 0, side, side);
    pen.strokeStyle = ink;
    pen.lineWidth = width * ratio * 0.7;
    for (const shift of [-side, 0, side]) {
      pen.beginPath();
      pen.moveTo(shift, side);
      pen.lineTo(shift + side, 0);
      pen.stroke();
    }
    const pattern = context.createPattern(tile, "repeat");
    pattern.setTransform(new DOMMatrix().scale(1 / ratio));
    return pattern;
  }

  /** Squarified treemap (Bruls, Huizing, van Wijk 2000): calls place(item, x, y, w, h); items come largest first. */
  function treemap(items, weigh, box, place) {
    let { x, y, w, h } = box;
    let rest = items.reduce((sum, item) => sum + weigh(item), 0);
    let from = 0;
    while (from < items.length && rest > 0 && w > 0.5 && h > 0.5) {
      const side = Math.min(w, h);
      const scale = (w * h) / rest;
      let to = from;
      let sum = 0;
      let worst = Infinity;
      while (to < items.length) {
        const next = sum + weigh(items[to]);
        const thick = (next * scale) / side;
        const last = (weigh(items[to]) * scale) / thick;
        const first = (weigh(items[from]) * scale) / thick;
        const shape = Math.max(first / thick, thick / Math.max(last, 1e-6));
        if (shape > worst) break;
        worst = shape;
        sum = next;
        to += 1;
      }
      if (!sum) return;
      const thick = (sum * scale) / side;
      let at = 0;
      for (let index = from; index < to; index += 1) {
        const length = (weigh(items[index]) * scale) / thick;
        if (w >= h) place(items[index], x, y + at, thick, length);
        else place(items[index], x + at, y, length, thick);
        at += length;
      }
      if (w >= h) {
        x += thick;
        w -= thick;
      } else {
        y += thick;
        h -= thick;
      }
      rest -= sum;
      from = to;
    }
  }

  const share = (load) => (load.allocatable > 0 ? load.reserved / load.allocatable : 0);

  /** The rectangle of a node's vessel within its tile. */
  function vesselOf(box) {
    if (box.w < NAMED) return { ...box, gauge: 0 };
    return { x: box.x, y: box.y + LABEL, w: box.w - 9, h: box.h - LABEL, gauge: 5 };
  }

  /** Calls place(vmi, x, y, w, h) for every VM of a node, and (null, ...) for what other pods reserve. */
  function contents(node, box, resource, place) {
    const load = node[resource];
    if (!load.allocatable) return;
    const scale = box.h / Math.max(load.allocatable, load.reserved);
    const vms = node.vmis.reduce((sum, vmi) => sum + vmi[resource], 0);
    const others = Math.max(0, load.reserved - vms) * scale;
    if (others > 0.5) place(null, box.x, box.y + box.h - others, box.w, others);
    const height = vms * scale;
    const items = resource === "cpu" ? node.vmis : [...node.vmis].sort((a, b) => b.memory - a.memory);
    treemap(items, (vmi) => vmi[resource], { x: box.x, y: box.y + box.h - others - height, w: box.w, h: height }, place);
  }

  /** Draws one node. `look`: resource, colours, role(vmi) "" | "leaving" | "arriving", broken(vmi), selected, faint. */
  function tile(pen, node, box, look) {
    const { colours, resource } = look;
    const load = node[resource];
    const vessel = vesselOf(box);
    const hot = load.counts && share(load) * 100 > load.high;
    const detailed = box.w >= DETAILED;
    pen.globalAlpha = look.faint ? 0.28 : 1;
    pen.fillStyle = node.state === "Ready" ? colours.sheet : colours.closed;
    pen.fillRect(vessel.x, vessel.y, vessel.w, vessel.h);
    if (detailed) fillDetailed(pen, node, vessel, look);
    else fillPlain(pen, load, vessel, hot ? colours.hot : share(load) * 100 > load.low ? colours["load-deep"] : colours.load);
    if (box.w >= LINED) limit(pen, load, vessel, look, detailed);
    if (box.w >= LINED || hot) {
      pen.lineWidth = hot ? (detailed ? 2 : 1.2) : 1;
      pen.strokeStyle = hot ? colours.hot : colours.strong;
      pen.strokeRect(vessel.x, vessel.y, vessel.w, vessel.h);
    }
    if (vessel.gauge) {
      gauge(pen, node[resource === "cpu" ? "memory" : "cpu"], { x: box.x + box.w - 5, y: vessel.y, w: 5, h: vessel.h }, colours);
      label(pen, node, box, load, hot, look);
    }
    if (look.selected) {
      pen.lineWidth = 2;
      pen.strokeStyle = colours.accent;
      pen.strokeRect(box.x - 3, box.y - 3, box.w + 6, box.h + 6);
    }
    pen.globalAlpha = 1;
  }

  function fillPlain(pen, load, box, colour) {
    const height = Math.min(1, share(load)) * box.h;
    pen.fillStyle = colour;
    pen.fillRect(box.x, box.y + box.h - height, box.w, height);
  }

  function fillDetailed(pen, node, box, look) {
    const { colours } = look;
    const gap = box.w > 70 ? 0.8 : 0.4;
    contents(node, box, look.resource, (vmi, x, y, w, h) => {
      const role = vmi ? look.role(vmi.vmi, node.name) : "";
      pen.fillStyle = !vmi ? colours.other : role === "leaving" ? colours.leaving : role === "arriving" ? colours.move : colours.load;
      pen.fillRect(x + gap, y + gap, Math.max(w - 2 * gap, 0.5), Math.max(h - 2 * gap, 0.5));
      if (vmi && look.broken(vmi.vmi) && w > 5 && h > 5) corner(pen, x + w - gap, y + gap, Math.min(9, w * 0.6, h * 0.6), colours.wait);
    });
  }

  /** The mark of a VM that breaks a rule: a cut corner. */
  function corner(pen, x, y, side, colour) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(x - side, y);
    pen.lineTo(x, y + side);
    pen.fill();
  }

  function limit(pen, load, box, look, detailed) {
    if (!load.counts || !load.high) return;
    const at = box.y + box.h * (1 - load.high / 100);
    pen.strokeStyle = look.colours.limit;
    pen.lineWidth = detailed ? 1.4 : 0.6;
    pen.setLineDash(detailed ? [4, 3] : []);
    pen.beginPath();
    pen.moveTo(box.x, at);
    pen.lineTo(box.x + box.w, at);
    pen.stroke();
    pen.setLineDash([]);
  }

  /** The other resource, beside the vessel. */
  function gauge(pen, load, box, colours) {
    pen.fillStyle = colours.line;
    pen.fillRect(box.x, box.y, box.w, box.h);
    fillPlain(pen, load, box, colours["load-deep"]);
    pen.fillStyle = colours.limit;
    pen.fillRect(box.x - 1, box.y + box.h * (1 - load.high / 100) - 0.7, box.w + 2, 1.4);
  }

  function label(pen, node, box, load, hot, look) {
    const { colours } = look;
    pen.textBaseline = "alphabetic";
    pen.font = `600 12px ${colours.font}`;
    const figure = `${hot ? "▲ " : ""}${Math.round(share(load) * 100)} %`;
    const width = pen.measureText(figure).width;
    pen.fillStyle = hot ? colours.hot : colours.soft;
    pen.fillText(figure, box.x + box.w - width, box.y + 12);
    pen.fillStyle = colours.ink;
    pen.fillText(shortened(pen, node.name, box.w - width - 8), box.x, box.y + 12);
  }

  function shortened(pen, text, room) {
    if (pen.measureText(text).width <= room) return text;
    let kept = text;
    while (kept.length > 1 && pen.measureText(`…${kept}`).width > room) kept = kept.slice(1);
    return `…${kept}`;
  }

  window.rebalancer.paint = { palette, tile, contents, vesselOf, share, DETAILED, NAMED };
})();
