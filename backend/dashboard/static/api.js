// Requests, and the status as it changes: pushed by the server, or asked for where that fails.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused("Doubtless does not answer; is `doubtless up` still running?", 0);
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(found.error || `${path} answered ${response.status}`, response.status);
  return found;
}

export const get = (path) => request("GET", path);
export const post = (path, body) => request("POST", path, body);
export const remove = (path) => request("DELETE", path);

const ASK_EVERY_MS = 3000;
const TRY_AGAIN_MS = 15000;

// Calls `show(status)` with each new status, `say(state, text)` with how it comes, and
// `refused(error)` once when the login has ended.
export class Live {
  constructor({ show, say, refused }) {
    Object.assign(this, { show, say, refused, timer: null, again: null, source: null, stopped: false });
    this.listen();
  }

  listen() {
    if (this.stopped) return;
    if (!("EventSource" in window)) return this.ask();
    this.source = new EventSource("/api/stream");
    this.source.addEventListener("status", (event) => {
      this.askNoMore();
      this.say("live", "Live");
      this.show(JSON.parse(event.data));
    });
    this.source.addEventListener("error", () => {
      this.ask();
      if (this.source.readyState === EventSource.CLOSED) {
        clearTimeout(this.again);
        this.again = setTimeout(() => this.listen(), TRY_AGAIN_MS);
      }
    });
  }

  ask() {
    if (this.timer !== null || this.stopped) return;
    const look = async () => {
      try {
        const status = await get("/api/status");
        if (this.timer === null || this.stopped) return;
        this.say("asking", `Asked every ${ASK_EVERY_MS / 1000} s`);
        this.show(status);
      } catch (error) {
        if (this.stopped) return;
        if (error.status === 401) {
          this.stop();
          this.refused(error);
          return;
        }
        this.say("lost", "No answer");
      }
      if (this.timer !== null) this.timer = setTimeout(look, ASK_EVERY_MS);
    };
    this.timer = setTimeout(look, 0);
  }

  askNoMore() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  stop() {
    this.stopped = true;
    this.askNoMore();
    clearTimeout(this.again);
    if (this.source) this.source.close();
  }
}
