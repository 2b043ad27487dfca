// Login, the list of projects, and which page is shown.

import { get, Live, post, remove } from "./api.js";
import { count, h, keep, percent, prose } from "./dom.js";
import { ProjectView, Runs } from "./project.js";

const $ = (id) => document.getElementById(id);
const main = $("main");
let live = null, view = null, status = null, mayAct = false;

const SAID_MS = 12000;
let silence = null;

// What went wrong stays until something else is said; what went well makes room again.
function say(text, bad = false) {
  $("said").classList.toggle("bad", bad);
  clearTimeout(silence);
  if (!bad) silence = setTimeout(() => { $("said").textContent = ""; }, SAID_MS);
  // The same text again has to be heard again.
  $("said").textContent = "";
  setTimeout(() => $("said").replaceChildren(...prose(text)), 30);
}

function connection(state, text) {
  $("connection").dataset.state = state;
  if ($("connection-text").textContent !== text) $("connection-text").textContent = text;
}

function ask(title, text, yes) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  const dialog = $("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

class ProjectList {
  constructor() {
    this.title = h("h1", { tabindex: -1 }, "Projects");
    this.queue = h("p");
    this.list = h("ul", { class: "projects" });
    this.empty = h("div");
    this.node = h("div", {}, this.title, this.queue, this.empty, this.list);
    this.items = new Map();
  }

  close() {}

  show(found) {
    document.title = "Projects – Doubtless";
    const waiting = Object.values(found.queue.waiting).reduce((sum, n) => sum + n, 0);
    keep(this.queue, [found.queue.state, found.queue.workers, waiting], ([state, workers, jobs]) =>
      `Queue: ${state}, ${count(workers, "worker")}, ${count(jobs, "job")} waiting.`);
    keep(this.empty, found.projects.length === 0, (none) => none
      ? h("p", {}, "No project is connected yet: ", h("code", {}, "doubtless connect --url URL --token TOKEN --project ID"))
      : null);
    for (const p of found.projects) {
      if (!this.items.has(p.key)) {
        const item = { title: h("a", { href: `#project/${encodeURIComponent(p.key)}` }), facts: h("p"), runs: new Runs() };
        item.node = h("li", { class: "card" }, h("h2", {}, item.title), item.facts, item.runs.node);
        this.items.set(p.key, item);
        this.list.append(item.node);
      }
      const item = this.items.get(p.key);
      keep(item.title, p.title || p.key, (title) => title);
      keep(item.facts, [p.live_version, p.accuracy, p.labels, p.paused], () =>
        `${p.live_version || "No version yet"}, accuracy ${percent(p.accuracy)}, ${count(p.labels, "label")}${p.paused ? ", paused" : ""}.`);
      item.runs.show(p.running);
    }
    const known = new Set(found.projects.map((p) => p.key));
    for (const [key, item] of this.items) {
      if (!known.has(key)) { item.node.remove(); this.items.delete(key); }
    }
  }
}

function wanted() {
  const [page, key] = location.hash.slice(1).split("/");
  try {
    return page === "project" && key ? decodeURIComponent(key) : null;
  } catch {
    return null;  // half a %-sequence
  }
}

function open(focus) {
  if (view) view.close();
  const key = wanted();
  view = key === null ? new ProjectList() : new ProjectView(key, { mayAct, say, ask });
  main.replaceChildren(view.node);
  if (status) show(status);
  if (focus) view.title.focus();
}

function show(found) {
  status = found;
  if (!(view instanceof ProjectView)) return view && view.show(found);
  const project = found.projects.find((p) => p.key === view.key);
  if (project) return view.show(project);
  say(`No project ${view.key} is connected (any more).`, true);
  location.hash = "#projects";
}

function logIn(reason) {
  if (live) live.stop();
  if (view) view.close();
  live = view = status = null;
  $("log-out").hidden = true;
  connection("lost", "Logged out");
  document.title = "Log in – Doubtless";
  const token = h("input", { id: "token", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const form = h("form", { class: "card log-in", on: { submit: (event) => { event.preventDefault(); enter(token.value); } } },
    h("h1", { tabindex: -1 }, "Log in"),
    h("p", {}, h("code", {}, "doubtless dashboard"), " prints an address that opens this page; its last part is the token."),
    h("label", { for: "token" }, "Token"), token,
    h("button", { class: "main" }, "Log in"));
  main.replaceChildren(form);
  if (reason) say(reason, true);
  token.focus();
}

async function enter(token) {
  try {
    begin(await post("/api/session", { token }));
    say(mayAct ? "Logged in." : "Logged in, to look only.");
  } catch (error) {
    logIn(error.message);
  }
}

function begin(session) {
  mayAct = session.may_act;
  $("log-out").hidden = false;
  if (live) live.stop();
  open(false);
  live = new Live({ show, say: connection, refused: (error) => logIn(error.message) });
}

// A token in the address is used at once and leaves the address bar and the history.
function tokenFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", "/dashboard#projects");
  return found[1];
}

$("log-out").addEventListener("click", async () => {
  try {
    await remove("/api/session");
    logIn("");
    say("Logged out.");
  } catch (error) {
    say(error.message, true);
  }
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();  // the address says which page is shown
  main.focus();
});

window.addEventListener("hashchange", () => {
  const token = tokenFromAddress();
  if (token) return enter(token);
  if (live) open(true);
});

const token = tokenFromAddress();
if (token) {
  await enter(token);
} else {
  // Not an error: whoever comes without a login is asked for the token.
  const session = await get("/api/session").catch((error) => error);
  if (session instanceof Error) logIn(session.status === 401 ? "" : session.message);
  else begin(session);
}
