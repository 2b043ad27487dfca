// Pictures of tasks, with what is drawn on them and what is to be said of each.

import { answer, h, link, number, percent, s } from "./dom.js";

// Each class of boxes has a colour, the same on all pictures of a page; after six they come again.
const hues = new Map();
function hue(label) {
  if (!hues.has(label)) hues.set(label, `hue${hues.size % 6}`);
  return hues.get(label);
}

const isDoubted = (p) => p !== undefined && p < 0.5;

function boxesOf(regions) {
  return h("p", { class: "soft" }, "P(right) of each box: ",
    regions.map((r, n) => [n ? ", " : "", h("span", { class: "unbroken" },
      h("span", { class: `swatch ${hue(r.label)}`, "aria-hidden": "true" }), `${r.label} ${percent(r.p_right, 0)}`)]),
    regions.some((r) => isDoubted(r.p_right)) ? "; dashed: more probably wrong than right" : "");
}

// A small picture of a task with what is drawn on it; `lost` stands where it cannot be fetched.
function picture(task, alt, { regions = [], lost = "No picture: it cannot be fetched." } = {}) {
  const image = h("img", { src: task.image_url, alt, loading: "lazy" });
  const frame = h("div", { class: "picture" }, image);
  if (regions.length) {
    frame.append(s("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
      regions.map(({ label, box: [x0, y0, x1, y1], p_right: p }) =>
        s("rect", { class: `region ${hue(label)}${isDoubted(p) ? " doubted-box" : ""}`, x: x0, y: y0, width: x1 - x0, height: y1 - y0 },
          s("title", {}, p === undefined ? label : `${label} ${percent(p, 0)}`)))));
  }
  image.addEventListener("error", () => frame.replaceChildren(h("p", { class: "soft" }, lost)), { once: true });
  return frame;
}

export function doubtfulTask(task) {
  const said = answer(task.prediction);
  return h("li", {},
    picture(task, `Task ${task.task}, pre-annotated: ${said}`, { regions: task.regions }),
    h("div", { class: "beside" },
      h("h3", {}, link(task.label_studio_url, `Task ${task.task}`)),
      h("p", {}, h("strong", {}, said), `, P(right) ${percent(task.p_right)}`),
      task.regions.length ? boxesOf(task.regions) : null,
      h("p", { class: "soft" }, `Total ${number(task.total, 2)} nats: aleatoric ${number(task.aleatoric, 2)}, epistemic ${number(task.epistemic, 2)}`),
      h("p", { class: "soft" }, novelty(task.novelty))),
    h("p", { class: "soft" }, task.why, task.drawn_by_chance ? " Drawn by chance, so shown early." : ""),
    task.nearest.length ? nearestOf(task) : null);
}

function novelty(share) {
  if (share === null) return "Novelty: told after the next training";
  const words = share >= 0.95 ? "very new" : share >= 0.75 ? "rather new" : "not new";
  return `Novelty ${percent(share, 0)}: ${words}`;
}

function nearestOf(task) {
  return [
    h("p", { class: "soft", id: `nearest-${task.task}` }, "Labelled images most like it, and how similar:"),
    h("ul", { class: "nearest", "aria-labelledby": `nearest-${task.task}` }, task.nearest.map((item) => {
      const label = answer(item.label);
      return h("li", {},
        link(item.label_studio_url,
          picture(item, `Task ${item.task}, labelled: ${label}`, { regions: item.regions, lost: `Task ${item.task}` })),
        h("p", { class: "soft" }, label, h("br"), number(item.similarity, 2)));
    })),
  ];
}

export function doubtedLabel(item) {
  const said = answer(item.label);
  return h("li", {},
    picture(item, `Task ${item.task}, labelled: ${said}`, { regions: item.regions }),
    h("h3", {}, link(item.label_studio_url, `Task ${item.task}`)),
    h("p", {}, "Labelled ", h("strong", {}, said), `, right with ${percent(item.p_right)}`),
    h("p", { class: "soft" }, item.why));
}

export function askedAgain(item) {
  const said = answer(item.label);
  return h("li", {},
    picture(item, `Task ${item.task}, probably ${said}`, { regions: item.regions }),
    h("h4", {}, link(item.label_studio_url, `Task ${item.task}`)),
    h("p", {}, "Probably ", h("strong", {}, said), `, right with ${percent(item.p_right)}`),
    h("p", { class: "soft" }, `Labelled ${item.labels.map(answer).join(item.labels.every((l) => typeof l === "string") ? ", " : "; ")}. Ask ${item.ask === null ? "anyone else" : `user ${item.ask}`}.`));
}
