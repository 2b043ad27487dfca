// How the project measures doubt and chooses what to label: what is in force, and another choice.

import { h, keep, prose } from "./dom.js";

const WHAT = {
  estimator: { label: "Uncertainty estimator", start: "A new version is trained with it at once, unless an audit is under way." },
  acquisition: { label: "Acquisition rule", start: "The queue is put in its order at once, unless an audit is under way." },
};

export class Methods {
  // `act(button, path, body)` posts and says what came of it; `ask(title, text, yes)` asks.
  constructor({ mayAct, ask, act }) {
    Object.assign(this, { mayAct, ask, act, status: null, options: null });
    this.node = h("div", { class: "methods" });
  }

  show(status) {
    this.status = status;
    this.draw();
  }

  showOptions(options) {
    this.options = options;
    this.draw();
  }

  draw() {
    if (!this.status || !this.options) return;
    keep(this.node, [this.status, this.options], () => Object.keys(WHAT).map((what) => this.one(what)));
  }

  one(what) {
    const { chosen, live } = this.status[what];
    const known = this.options[what];
    const says = (name) => prose((known.find((option) => option.name === name) || { what: "" }).what);
    const line = h("p", { class: "why", id: `${what}-is` }, says(chosen));
    const stands = live && live !== chosen ? h("p", {}, `The live version has ${live}; ${chosen} comes with the next.`) : null;
    if (!this.mayAct) return h("div", {}, h("p", {}, `${WHAT[what].label}: ${chosen}`), line, stands);
    const select = h("select", { id: what, "aria-describedby": `${what}-is` },
      known.map(({ name }) => h("option", { value: name, selected: name === chosen ? "" : null }, name === this.status[what].default ? `${name} (default)` : name)));
    const button = h("button", { type: "button", disabled: true }, "Change…");
    select.addEventListener("change", () => {
      button.disabled = select.value === chosen;
      line.replaceChildren(...says(select.value));
    });
    button.addEventListener("click", async () => {
      const name = select.value;
      const yes = await this.ask(`Change to ${name}?`, `${WHAT[what].label}: ${name} instead of ${chosen}. ${WHAT[what].start}`, "Change");
      if (yes) await this.act(button, "methods", { [what]: name, now: true });
      button.disabled = select.value === this.status[what].chosen;
    });
    return h("div", {}, h("div", { class: "row" }, h("label", { for: what }, WHAT[what].label), select, button), line, stands);
  }
}
