// What may be accepted unseen: the three piles, the audit and what it proved, and the way back.

import { count, h, keep, percent, prose, table, whole } from "./dom.js";

const WAYS = { tasks: "images", classes: "images of each class", regions: "regions" };

export class Acceptance {
  // `act(button, path, body)` posts and says what came of it; `ask(title, text, yes)` asks.
  constructor({ mayAct, ask, act }) {
    Object.assign(this, { mayAct, ask, act });
    this.piles = h("dl", { class: "numbers" });
    this.said = h("div");
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "Audit labels that are there", hidden: true });
    this.steps = h("div", { class: "actions" });
    this.node = h("div", {}, this.piles, this.said, this.bar, this.steps);
  }

  show(p) {
    const found = p.acceptance;
    keep(this.piles, [p.piles, found && found.status], ([piles, status]) => (piles ? pilesOf(piles, status) : []));
    const shown = found && [found.status, found.version, found.sentence, found.checked, found.accepted, found.classes, found.earlier];
    keep(this.said, [shown, Boolean(p.piles)], ([, asked]) =>
      found ? sentences(found) : h("p", { class: "why" }, asked
        ? "Ask for an audit: people label some of the surest images, and what they find proves how many others may become labels unseen."
        : "Nothing can be accepted before there is a version."));
    this.bar.hidden = !found || found.status !== "open";
    if (found) {
      this.bar.max = found.audit_labels;
      this.bar.value = found.audit_labels_done;
    }
    if (this.mayAct && p.piles) keep(this.steps, found && [found.status, found.version === p.live_version, found.may_be_accepted, found.accepted, found.earlier], () => this.buttons(found, p));
  }

  buttons(found, p) {
    const status = found ? found.status : "none";
    if (status === "open") return this.row(this.button("Give up the audit", "audit/cancel"));
    if (status === "certified") {
      return this.row(
        this.button(`Accept ${whole(p.piles.accept)}…`, "accept", { main: true, question: [
          `Accept ${count(p.piles.accept, "image")} unseen?`,
          `${found.sentence} Label Studio makes annotations of these predictions, all but some that are checked. They can be taken back.`,
          "Accept"] }),
        this.button("Do not accept", "audit/cancel"));
    }
    const stands = found ? found.earlier.reduce((sum, one) => sum + one.accepted, found.accepted) : 0;
    const undo = stands > 0 && status !== "undoing"
      ? this.row(this.button("Take accepted labels back…", "accept/undo", { question: [
        "Take accepted labels back?",
        `${count(stands, "annotation")} made of predictions will be deleted in Label Studio. Those that people changed stay.`,
        "Take back"] }))
      : null;
    const busy = ["accepting", "undoing"].includes(status);
    const done = status === "accepted" && found.version === p.live_version;
    return [undo, busy || done ? null : this.form(p.accept_by)];
  }

  form(ways) {
    const most = h("input", { id: "max-error", type: "number", min: 0.1, max: 50, step: 0.1, value: 5, required: true });
    const of = h("select", { id: "share-of" },
      h("option", { value: "accepted" }, "of accepted"), h("option", { value: "all" }, "of all"),
      h("option", { value: "expected" }, "of all, on average"));
    const by = h("select", { id: "count-by" }, ways.map((way) => h("option", { value: way }, WAYS[way])));
    const button = h("button", { type: "submit" }, "Ask for an audit");
    return h("form", {
      class: "row",
      on: {
        submit: (event) => {
          event.preventDefault();
          this.act(button, "audit", { max_error: Number(most.value) / 100, confidence: 0.95, of: of.value, by: by.value });
        },
      },
    },
    h("label", { for: "max-error" }, "At most"), most,
    h("label", { for: "share-of" }, "% wrong"), of,
    ways.length > 1 ? [h("label", { for: "count-by" }, "counting"), by] : null, button);
  }

  row(...children) {
    return h("div", { class: "row" }, ...children);
  }

  button(name, path, { main = false, question = null } = {}) {
    const button = h("button", {
      type: "button",
      class: main ? "main" : null,
      on: { click: async () => { if (!question || await this.ask(...question)) await this.act(button, path); } },
    }, name);
    return button;
  }
}

function pilesOf(piles, status) {
  const time = (minutes) => (minutes < 1 ? "less than a minute" : count(Math.round(minutes), "minute"));
  const pace = (minutes) => (minutes === null ? "" : `${time(minutes)} at the present pace`);
  return [
    ["May be accepted", piles.accept, fromOn(piles, status)],
    ["To review", piles.review, pace(piles.minutes.review)],
    ["To label", piles.label, pace(piles.minutes.label)],
  ].map(([name, value, more]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, whole(value), more ? h("small", {}, more) : null)));
}

function fromOn(piles, status) {
  if (piles.accept_from !== null) return `from P(right) ${percent(piles.accept_from)} on`;
  if (piles.accept) return "not from one P(right) on";
  return status === "accepted" ? "what was proved is accepted" : "nothing is proved";
}

function sentences(found) {
  const tone = { withdrawn: "badge bad", refused: "badge warn", certified: "badge" }[found.status] || "";
  const checked = found.checked;
  return [
    h("p", { class: tone }, prose(found.sentence)),
    checked ? h("p", {}, `${count(found.accepted, "label")} of ${found.version} accepted unseen. Of others that might have been, ${whole(checked.checked)} of ${whole(checked.asked)} were looked at since: ${whole(checked.wrong)} wrong.`) : null,
    found.classes ? byClass(found.classes) : null,
    found.earlier.map((one) => h("p", { class: one.status === "withdrawn" ? "badge bad" : null },
      `${count(one.accepted, "label")} of ${one.version} accepted before: `, prose(one.sentence))),
  ];
}

function byClass(classes) {
  return table("Accepting by class", ["Class", "Open", "Audit labels", "May be accepted"],
    classes.map((c) => [c.name, whole(c.pool), whole(c.audit_labels), whole(c.may_be_accepted)]));
}
