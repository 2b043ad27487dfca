// One project: what it is about to do, how good it is, and where it doubts.

import { get, post } from "./api.js";
import { histogram, learningCurve, reliabilityDiagram } from "./charts.js";
import { Acceptance } from "./acceptance.js";
import { Methods } from "./methods.js";
import { askedAgain, doubtedLabel, doubtfulTask } from "./pictures.js";
import { count, duration, h, interval, keep, link, moment, number, percent, prose, table, whole } from "./dom.js";

// What workers do, by the kind of run that the API tells.
const WORK = {
  sync: "Reading labels", features: "Reading images", cold: "First order of the queue",
  train: "Training", republish: "Publishing again", extend: "Tagging more of the queue",
  prune: "Clearing superseded predictions", audit: "Drawing an audit", accept: "Accepting",
  undo: "Taking accepted labels back",
};
const STATUS = { live: "live", superseded: "promoted", kept: "kept back", abandoned: "broke off" };

const section = (id, title, ...children) =>
  h("section", { "aria-labelledby": id, class: `card ${id}` }, h("h2", { id }, title), children);
const why = (text) => h("p", { class: "why" }, prose(text));
const asTable = (name, heads, rows) =>
  h("details", {}, h("summary", {}, "As a table"), table(name, heads, rows));

export class ProjectView {
  constructor(key, { mayAct, say, ask }) {
    Object.assign(this, { key, mayAct, say, ask, signature: null, details: null, closed: false });
    this.path = `/api/projects/${encodeURIComponent(key)}`;
    this.title = h("h1", { tabindex: -1 });
    this.links = h("p", { class: "links" });
    this.numbers = h("dl", { class: "numbers" });
    this.forecast = h("div");
    this.runs = new Runs();
    this.work = h("div");
    this.problems = h("div");
    this.acceptance = new Acceptance({ mayAct, ask, act: (...given) => this.act(...given) });
    this.methods = new Methods({ mayAct, ask, act: (...given) => this.act(...given) });
    this.curve = h("div");
    this.reliability = h("div");
    this.pool = h("div");
    this.classes = h("div");
    this.doubtful = h("div");
    this.doubted = h("div");
    this.annotators = h("div");
    this.people = section("annotators", "Annotators", this.annotators);
    this.people.hidden = true;
    this.events = h("div");
    this.findings = h("div", { role: "status" });
    this.node = h("div", { class: "project" },
      h("nav", { "aria-label": "Way back" }, h("a", { href: "#projects" }, "All projects")),
      this.title, this.links, this.problems,
      h("div", { class: "cards" },
        section("state", "State", this.numbers, this.forecast),
        section("work", "Work", this.runs.node, this.work, mayAct ? this.buttons() : null),
        section("accept", "Accept unseen", this.acceptance.node),
        section("methods", "How it doubts and chooses", this.methods.node),
        section("curve", "Learning curve", this.curve),
        section("pool", "How sure it is of open images", this.pool),
        section("reliability", "Is it as sure as it should be?", this.reliability),
        section("classes", "Classes", this.classes),
        section("doubtful", "Most doubtful images", this.doubtful),
        section("doubted", "Labels to check", this.doubted),
        this.people,
        mayAct ? section("doctor", "Doctor",
          h("p", {}, "Looks for what is wrong in Label Studio and here; it takes some seconds."),
          this.doctorButton(), this.findings) : null,
        section("events", "What happened", this.events)));
  }

  close() {
    this.closed = true;
    clearTimeout(this.later);
  }

  show(p) {
    this.last = p;
    document.title = `${p.title || p.key} – Doubtless`;
    keep(this.title, p.title || p.key, (title) => title);
    keep(this.numbers, numbersOf(p), (rows) => rows.map(([name, value, more]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, more) : null))));
    // One reason may stand for all three.
    keep(this.forecast, [...new Set([p.stopping.accuracy, p.stopping.gain, p.stopping.labels_needed].map((e) => e.sentence))],
      (sentences) => sentences.map((text) => h("p", {}, text)));
    this.showWork(p);
    keep(this.problems, [p.problems, p.advice, p.unreadable, p.tasks.broken, p.last_error && [p.last_error.kind, p.last_error.error], p.drift && p.drift.sentence], notices);
    this.acceptance.show(p);
    this.methods.show(p.methods);
    this.showButtons(p);
    const signature = JSON.stringify([p.live_version, p.acceptance && p.acceptance.status, p.labels, p.tasks, p.running.map((r) => [r.id, r.status]), p.last_error && p.last_error.id]);
    if (signature !== this.signature) {
      this.signature = signature;
      clearTimeout(this.later);
      this.later = setTimeout(() => this.read(), this.details ? 700 : 0);
    }
  }

  showWork(p) {
    this.runs.show(p.running);
    keep(this.work, [p.next_training.due, p.next_training.reason, p.paused], () => [
      p.paused ? h("p", { class: "badge warn" }, "Paused: no training starts by itself.") : null,
      h("p", {}, "Next training: ", p.next_training.due ? "now, " : "waits, ", prose(p.next_training.reason), "."),
    ]);
  }

  async read() {
    try {
      const [found, happened] = await Promise.all([get(this.path), get(`${this.path}/events`)]);
      if (this.closed) return;
      this.details = found;
      this.showDetails(found);
      keep(this.events, happened.events, (events) => events.length
        ? table("What happened, newest first", ["When", "What", "State", "Why"],
          events.map((e) => [moment(e.at), `${e.kind} ${e.what}`, (e.kind === "version" && STATUS[e.status]) || e.status || "–",
            [e.times > 1 ? `${whole(e.times)} since ${moment(e.since)}` : "", e.detail].filter(Boolean).join("; ") || "–"]))
        : why("Nothing yet."));
    } catch (error) {
      if (!this.closed) this.say(error.message, true);
      this.signature = null;
    }
  }

  showDetails(d) {
    this.methods.showOptions(d.methods);
    keep(this.links, d.label_studio_url, (address) => link(address, "Open in Label Studio"));
    keep(this.curve, [d.versions, this.last.stopping], ([versions, stopping]) => [
      learningCurve(versions, stopping) || why("No trained version has been judged on labels drawn by chance yet."),
      h("p", { class: "legend" }, "Dot: promoted (ringed: live). Cross: kept back, not better. Bars: 95 % interval on labels drawn by chance. Dashed: the target; on it the labels that the whole pool is forecast to need, and how sure that is."),
      asTable("Versions", ["Version", "Status", "Labels", "Accuracy", "95 % interval", "Whole pool", "ECE", "Made", "Why"],
        versions.map((v) => [v.name, STATUS[v.status] || v.status, whole(v.labels), percent(v.accuracy), interval(v.accuracy_interval),
          percent(v.pool_accuracy), percent(v.ece), moment(v.created_at), v.reason || "–"])),
    ]);
    keep(this.pool, [d.histogram, this.last.piles && this.last.piles.accept_from], ([found, from]) => found.why ? why(found.why) : [
      h("p", {}, `${whole(found.open_tasks)} open images under ${found.version}.`,
        from === null ? "" : ` From ${percent(from)} on, an audit has proved them good enough to accept unseen.`),
      histogram(found, from),
      asTable("P(right) of the open images", ["P(right)", "Images"],
        found.bins.map((b) => [`${percent(b.low, 0)} to ${percent(b.high, 0)}`, whole(b.count)])),
    ]);
    keep(this.reliability, d.calibration, (found) => found.why ? why(found.why) : [
      h("p", {}, `Expected calibration error of ${found.version}: ${percent(found.ece)}, on labels it was not fitted to. On the dashed line it is right as often as it says.`),
      reliabilityDiagram(found),
      asTable("Reliability", ["Stated", "Right", "95 % interval", "Labels"],
        found.bins.map((b) => [percent(b.stated), percent(b.observed), interval([b.low, b.high]), whole(b.count)])),
    ]);
    keep(this.classes, d.classes, (found) => found.why ? why(found.why) : classTable(found));
    keep(this.doubtful, d.doubtful, (found) => found.why ? why(found.why) : [
      h("p", {}, "Novelty: the share of labelled images that are nearer to another labelled image than this one is to any. Similarity: 1 for a copy, around 0 for what has nothing in common."),
      h("ul", { class: "doubtful-list" }, found.tasks.map(doubtfulTask))]);
    keep(this.doubted, d.doubted_labels, (found) => found.length
      ? [h("p", {}, "The model, not fitted on these labels, or other people contradict them: each is more probably wrong than right."),
        h("ul", { class: "doubtful-list" }, found.map(doubtedLabel))]
      : why("No label is more probably wrong than right."));
    this.people.hidden = d.annotators.length < 2;
    keep(this.annotators, [d.annotators, d.ask_again, d.annotators_meaning], annotatorsOf);
    if (this.version) this.showVersions(d.versions);
  }

  buttons() {
    const act = (button, path, body) => this.act(button, path, body);
    this.train = h("button", { type: "button", class: "main", on: { click: () => this.askTrain() } }, "Train now");
    this.pause = h("button", { type: "button", on: { click: () => act(this.pause, this.last.paused ? "resume" : "pause") } }, "Pause");
    this.version = h("select", { id: "version" });
    this.rollback = h("button", { type: "button", on: { click: () => this.askRollback() } }, "Roll back…");
    this.rollbackRow = h("div", { class: "row", hidden: true },
      h("label", { for: "version" }, "Earlier version"), this.version, this.rollback);
    return h("div", { class: "actions" }, h("div", { class: "row" }, this.train, this.pause), this.rollbackRow);
  }

  showButtons(p) {
    if (this.pause) keep(this.pause, p.paused, (paused) => (paused ? "Go on" : "Pause"));
  }

  showVersions(versions) {
    const usable = versions.filter((v) => v.can_be_published && v.name !== this.last.live_version);
    this.rollbackRow.hidden = usable.length === 0;
    const chosen = this.version.value;
    keep(this.version, usable.map((v) => [v.name, v.labels, v.accuracy]).reverse(), (rows) =>
      rows.map(([name, labels, accuracy]) => h("option", { value: name }, `${name}: ${count(labels, "label")}, ${percent(accuracy)}`)));
    if (usable.some((v) => v.name === chosen)) this.version.value = chosen;
  }

  // What a new version would undo; empty when no audit is under way.
  audited() {
    const audit = this.last.acceptance;
    if (!audit || !["open", "certified", "accepting"].includes(audit.status)) return "";
    return `The audit of ${audit.version} would end: ${audit.audit_labels_done} of ${audit.audit_labels} checked labels are there, and they prove nothing of another version.`;
  }

  async askTrain() {
    const cost = this.audited();
    if (!cost || await this.ask("Train during an audit?", cost, "Train all the same")) await this.act(this.train, "train");
  }

  async askRollback() {
    const name = this.version.value;
    const yes = await this.ask(`Publish ${name} again?`,
      `All open images get the predictions of ${name} under a new version number. Labels stay as they are, and the next training may replace it. ${this.audited()}`,
      `Roll back to ${name}`);
    if (yes) await this.act(this.rollback, "rollback", { version: name });
  }

  async act(button, path, body) {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");  // `disabled` would drop the focus
    try {
      this.say((await post(`${this.path}/${path}`, body)).said);
    } catch (error) {
      this.say(error.message, true);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  doctorButton() {
    const button = h("button", {
      type: "button",
      on: {
        click: async () => {
          if (button.getAttribute("aria-disabled") === "true") return;
          button.setAttribute("aria-disabled", "true");
          this.findings.replaceChildren(h("p", {}, "Looking…"));
          try {
            this.findings.replaceChildren(...findings(await get(`${this.path}/doctor`)));
          } catch (error) {
            this.findings.replaceChildren(h("p", { class: "badge bad" }, prose(error.message)));
          } finally {
            button.removeAttribute("aria-disabled");
          }
        },
      },
    }, "Examine now");
    return button;
  }
}

export function numbersOf(p) {
  const tasks = Object.values(p.tasks).reduce((sum, n) => sum + n, 0);
  const rest = [p.tasks.new ? `${whole(p.tasks.new)} to be read` : "", p.tasks.broken ? `${whole(p.tasks.broken)} unreadable` : ""];
  return [
    ["Live version", p.live_version || "none yet", ""],
    [p.metric[0].toUpperCase() + p.metric.slice(1), percent(p.accuracy),
      p.accuracy_interval ? `95 %: ${interval(p.accuracy_interval)}, on labels drawn by chance` : "on labels drawn by chance"],
    ["Labels", whole(p.labels), `${whole(p.random_labels)} drawn by chance${p.announced ? `, ${whole(p.announced)} announced` : ""}`],
    ["Images", whole(tasks), rest.filter(Boolean).join(", ")],
    ["Calibration error", percent(p.ece), ""],
  ];
}

// Bars of what runs; they move in place, so that whoever reads them with a cursor is not thrown out.
export class Runs {
  constructor() {
    this.node = h("div");
    this.items = new Map();
  }

  show(runs) {
    for (const r of runs) {
      if (!this.items.has(r.id)) this.items.set(r.id, this.make(r.id));
      const item = this.items.get(r.id);
      const isRunning = r.status === "running";
      const left = r.seconds_left === null ? "" : `, about ${duration(r.seconds_left)} left`;
      keep(item.name, r.kind, (kind) => WORK[kind] || kind);
      keep(item.far, [r.progress, r.status, r.attempt], () =>
        ` ${isRunning ? percent(r.progress, 0) : r.status}${r.attempt > 1 ? `, attempt ${r.attempt}` : ""}`);
      item.bar.hidden = !isRunning;
      item.bar.value = r.progress;
      keep(item.stage, [r.stage, r.seconds, left], () =>
        `${r.stage || (isRunning ? "starting" : "waits for a worker")} (${duration(r.seconds)}${left})`);
    }
    const known = new Set(runs.map((r) => r.id));
    for (const [id, item] of this.items) {
      if (!known.has(id)) { item.node.remove(); this.items.delete(id); }
    }
  }

  make(id) {
    const item = { name: h("strong"), far: h("span"), stage: h("p", { class: "soft" }) };
    // Not by id: the list of projects and a project may both be there for a moment.
    const head = h("p", {}, item.name, item.far);
    item.bar = h("progress", { max: 1, value: 0, "aria-label": "Progress of what runs" });
    item.node = h("div", { class: "run" }, head, item.bar, item.stage);
    this.node.append(item.node);
    return item;
  }
}

function notices([problems, advice, unreadable, broken, failure, drift]) {
  return [
    drift ? h("p", { class: "badge warn" }, prose(drift)) : null,
    problems.map((text) => h("p", { class: "badge warn" }, prose(text))),
    failure ? h("p", { class: "badge bad" }, prose(`Last failure, ${failure[0]}: ${failure[1]}`)) : null,
    advice.map((text) => h("p", { class: "badge" }, prose(text))),
    unreadable.length ? h("details", {}, h("summary", {}, `${count(broken, "image")} cannot be read`),
      h("ul", {}, unreadable.map((item) => h("li", {}, `Task ${item.task}: ${item.why}`)),
        broken > unreadable.length ? h("li", {}, `and ${whole(broken - unreadable.length)} more`) : null)) : null,
  ];
}

function classTable(found) {
  const boxes = found.rows.some((row) => row.ap50 !== null);
  const mixedUp = found.confusions.length ? h("div", {},
    h("h3", {}, "Mixed up most"),
    table("Classes that are mixed up most", ["Labelled", "Predicted", "Labels"],
      found.confusions.map((pair) => [pair.label, pair.said, whole(pair.count)]))) : null;
  return h("div", { class: "side-by-side" }, table(`Classes under ${found.version}`,
    boxes ? ["Class", "Objects drawn", "AP50"] : ["Class", "Labels", "Predicted, open images", "Mean P(right)"],
    found.rows.map((row) => boxes
      ? [row.name, whole(row.labels), number(row.ap50)]
      : [row.name, whole(row.labels), whole(row.predicted), percent(row.mean_p_right)])), mixedUp);
}

function annotatorsOf([people, again, meaning]) {
  return [annotatorTable(people, meaning), h("h3", {}, "Worth another label"), again.length
    ? [h("p", {}, "Labelled images whose most probable label, by people and model together, is least sure to be right; and whom to ask: the best of those who have not labelled the image."),
      h("ul", { class: "doubtful-list again" }, again.map(askedAgain))]
    : why("No labelled image: each is right with 95 % or more.")];
}

function annotatorTable(found, meaning) {
  // Where a task asks for several things somebody may miss some and add others.
  const several = found.some((a) => a.recall !== null || a.precision !== null);
  return [h("p", {}, "How people agree on tasks that several labelled, and how good their labels are; worst first."),
    table("Annotators", ["Annotator", "Labels", "Shared", "Agreement", "Kappa", "Quality", "95 % interval",
      ...(several ? ["Recall", "Precision"] : [])],
      found.map((a) => [`user ${a.id}`, whole(a.labels), whole(a.shared), percent(a.agreement), number(a.kappa, 2),
        percent(a.quality), interval(a.low === null ? null : [a.low, a.high]),
        ...(several ? [percent(a.recall), percent(a.precision)] : [])])),
    h("p", { class: "soft" }, meaning)];
}

function findings(found) {
  const finding = (f) => h("li", { class: f.ok ? "fine" : f.severity },
    f.ok ? null : h("strong", {}, f.severity === "warning" ? "Weak: " : "Wrong: "), prose(f.message),
    !f.ok && f.fix ? h("p", {}, h("strong", {}, "Fix: "), prose(f.fix)) : null);
  const [fine, wrong] = [found.findings.filter((f) => f.ok), found.findings.filter((f) => !f.ok)];
  return [
    h("p", {}, `${fine.length} of ${found.findings.length} checks are fine.`),
    h("ul", { class: "findings" }, wrong.map(finding)),
    h("details", {}, h("summary", {}, "What is fine"), h("ul", { class: "findings" }, fine.map(finding))),
  ];
}
