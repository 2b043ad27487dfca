// Charts as inline SVG, drawn at the width they are shown at so that text stays readable.

import { h, percent, s } from "./dom.js";

const LEFT = 48, RIGHT = 22, TOP = 14, BOTTOM = 40;

// Draws now and whenever the width changes; `draw(width)` gives an SVG element.
export function responsive(draw) {
  const box = h("div", { class: "chart" });
  let drawn = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width < 40 || width === drawn) return;
    drawn = width;
    box.replaceChildren(draw(width));
  }).observe(box);
  return box;
}

export function ticks(low, high, most = 5) {
  const span = Math.max(high - low, 1e-9);
  const raw = span / most;
  const scale = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * scale).find((m) => m >= raw - 1e-12);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  const found = [];
  for (let k = first; k <= Math.max(last, first + 1); k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function frame(width, height, x, y, label) {
  const px = (v) => LEFT + ((v - x.low) / (x.high - x.low)) * (width - LEFT - RIGHT);
  const py = (v) => height - BOTTOM - ((v - y.low) / (y.high - y.low)) * (height - TOP - BOTTOM);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    y.ticks.map((t) => [
      s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: py(t), y2: py(t) }),
      s("text", { x: LEFT - 6, y: py(t) + 4, "text-anchor": "end" }, y.text(t)),
    ]),
    x.ticks.map((t) => [
      s("line", { class: "axis", x1: px(t), x2: px(t), y1: height - BOTTOM, y2: height - BOTTOM + 4 }),
      s("text", { x: px(t), y: height - BOTTOM + 18, "text-anchor": "middle" }, x.text(t)),
    ]),
    s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }),
    s("text", { x: (LEFT + width - RIGHT) / 2, y: height - 4, "text-anchor": "middle" }, x.title));
  return { svg, px, py };
}

const axis = (title, values, text) => ({ title, text, ticks: values, low: values[0], high: values[values.length - 1] });
const share = (title) => axis(title, [0, 0.2, 0.4, 0.6, 0.8, 1], (v) => percent(v, 0));

function whisker(px, x, py, low, high) {
  return [
    s("line", { class: "whisker", x1: px(x), x2: px(x), y1: py(low), y2: py(high) }),
    [low, high].map((v) => s("line", { class: "whisker", x1: px(x) - 4, x2: px(x) + 4, y1: py(v), y2: py(v) })),
  ];
}

// Versions that were trained: what was promoted is a dot on the line, what was kept back a cross.
export function learningCurve(versions, stopping) {
  const judged = versions.filter((v) => v.kind === "trained" && v.accuracy !== null);
  if (!judged.length) return null;
  const promoted = judged.filter((v) => v.status === "live" || v.status === "superseded");
  // After a roll back the live version has the model, and the figures, of an earlier one.
  const back = versions.find((v) => v.kind === "rollback" && v.status === "live" && v.accuracy !== null);
  const needed = stopping.labels_needed;
  const newest = Math.max(...judged.map((v) => v.labels));
  // The forecast counts from the newest version that was judged on the whole pool.
  const labels = Math.max(0, ...judged.filter((v) => v.pool_accuracy !== null).map((v) => v.labels));
  // A target far beyond what there is would press the curve against the edge.
  const ends = [needed.low, needed.value, needed.high].map((v) => (v === null ? null : labels + v));
  const reach = ends.filter((v) => v !== null && v <= 3 * newest);
  const x = axis("labels", ticks(0, Math.max(newest, ...reach)), (v) => String(v));
  const lows = judged.map((v) => (v.accuracy_interval ? v.accuracy_interval[0] : v.accuracy));
  const y = axis("accuracy", ticks(Math.min(...lows, stopping.target), 1), (v) => percent(v, 0));
  const last = judged[judged.length - 1];
  const label = `Learning curve: ${judged.length} trained versions; the newest, ${last.name}, has ` +
    `${percent(last.accuracy)} from ${last.labels} labels; the target is ${percent(stopping.target)}. ` +
    "The table below has all of them.";
  return responsive((width) => {
    const { svg, px, py } = frame(width, 290, x, y, label);
    const target = py(stopping.target);
    svg.append(
      s("line", { class: "target", x1: LEFT, x2: width - RIGHT, y1: target, y2: target }),
      s("text", { class: "note", x: LEFT + 6, y: target - 6 }, `target ${percent(stopping.target)}`));
    if (needed.value !== null && needed.value > 0 && ends[1] <= x.high) {
      const from = px(ends[0] ?? ends[1]), to = px(Math.min(ends[2] ?? x.high, x.high));
      svg.append(
        s("rect", { class: "forecast", x: from, y: target - 6, width: Math.max(to - from, 2), height: 12 }),
        s("circle", { class: "hollow", cx: px(ends[1]), cy: target, r: 5 }));
    }
    svg.append(s("polyline", { class: "line", points: promoted.map((v) => `${px(v.labels)},${py(v.accuracy)}`).join(" ") }));
    for (const v of judged) {
      const [cx, cy] = [px(v.labels), py(v.accuracy)];
      const kept = !promoted.includes(v);
      svg.append(s("g", {},
        s("title", {}, `${v.name} (${kept ? "kept back" : v.status}): ${percent(v.accuracy)} from ${v.labels} labels`),
        v.accuracy_interval ? whisker(px, v.labels, py, ...v.accuracy_interval) : null,
        kept
          ? s("path", { class: "cross", d: `M${cx - 5},${cy - 5}l10,10m0,-10l-10,10` })
          : s("circle", { class: v.status === "live" ? "dot live" : "dot", cx, cy, r: v.status === "live" ? 6 : 4 })));
    }
    if (back) {
      svg.append(s("circle", { class: "dot live", cx: px(back.labels), cy: py(back.accuracy), r: 6 },
        s("title", {}, `${back.name} (live, an earlier version again): ${percent(back.accuracy)} from ${back.labels} labels`)));
    }
    return svg;
  });
}

export function reliabilityDiagram(calibration) {
  const label = `Reliability diagram of ${calibration.version}: ${calibration.bins.length} groups of labels, ` +
    `calibration error ${percent(calibration.ece)}. The table below has them.`;
  return responsive((width) => {
    const { svg, px, py } = frame(width, Math.min(290, width), share("stated P(right)"), share("right"), label);
    svg.append(s("line", { class: "target", x1: px(0), y1: py(0), x2: px(1), y2: py(1) }));
    for (const bin of calibration.bins) {
      svg.append(s("g", {},
        s("title", {}, `stated ${percent(bin.stated)}, right ${percent(bin.observed)} of ${bin.count}`),
        whisker(px, bin.stated, py, bin.low, bin.high),
        s("circle", { class: "dot", cx: px(bin.stated), cy: py(bin.observed), r: 5 })));
    }
    return svg;
  });
}

// `from`: P(right) from which on an audit allows to accept unseen, or null.
export function histogram(found, from) {
  const most = Math.max(1, ...found.bins.map((b) => b.count));
  const y = axis("images", ticks(0, most, 4).filter((t) => Number.isInteger(t)), (v) => v.toLocaleString("en"));
  const sure = found.bins.filter((b) => b.low >= 0.9 - 1e-9).reduce((sum, b) => sum + b.count, 0);
  const label = `Histogram of P(right) of ${found.open_tasks} open images: ${sure} of them are at 90 % or more. ` +
    (from === null ? "" : `They may be accepted from ${percent(from)} on. `) +
    "The table below has all bars.";
  return responsive((width) => {
    const { svg, px, py } = frame(width, 240, share("P(right) of the pre-annotation"), y, label);
    for (const bin of found.bins) {
      svg.append(s("rect", {
        class: "bar", x: px(bin.low) + 1, width: Math.max(px(bin.high) - px(bin.low) - 2, 1),
        y: py(bin.count), height: py(0) - py(bin.count),
      }, s("title", {}, `${percent(bin.low, 0)} to ${percent(bin.high, 0)}: ${bin.count}`)));
    }
    if (from !== null) {
      const left = px(from) > width / 2;
      svg.append(
        s("line", { class: "target", x1: px(from), x2: px(from), y1: TOP, y2: py(0) }),
        s("text", { class: "note", x: px(from) + (left ? -6 : 6), y: TOP + 10, "text-anchor": left ? "end" : "start" }, "accept from here"));
    }
    return svg;
  });
}
