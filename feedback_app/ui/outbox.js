// Votes and undos on their way to the server, kept in this browser until it has said that they are
// stored. Every item has its own localStorage key, so two tabs cannot overwrite each other; the
// server knows an item by its UUID, so sending one twice does no harm. Items go out in order.

const PREFIX = "outbox/";
const OWNER = "account";
const LONGEST_WAIT = 10_000; // ms between tries

export class Outbox {
  /** Callbacks: onstored(item, answer), onrefused(item, message), onstate(). */
  constructor({ onstored, onrefused, onstate }) {
    this.onstored = onstored;
    this.onrefused = onrefused;
    this.onstate = onstate;
    this.state = "idle"; // idle | sending | waiting (will retry) | signed-out
    this.sending = false;
    this.tries = 0;
    this.timer = 0;
    this.unkept = new Map(); // items that this browser would not store
    this.owner = localStorage.getItem(OWNER) ?? ""; // the account that casts and sends
    window.addEventListener("online", () => this.flush());
  }

  /** What this account has not yet had acknowledged, oldest first. */
  items() {
    const found = [...this.unkept.values()];
    for (let i = 0; i < localStorage.length; i++) {
      const key = localStorage.key(i);
      if (key.startsWith(PREFIX)) found.push(JSON.parse(localStorage.getItem(key)));
    }
    return found.filter((item) => item.owner === this.owner).sort((a, b) => a.order - b.order);
  }

  /** Say who is signed in: what another account left on this device waits until it is back. */
  own(name) {
    this.owner = name;
    localStorage.setItem(OWNER, name);
  }

  /** Keep an item and start sending. Resolves when the outbox has done what it can for now. */
  add(kind, body) {
    const order = Date.now() + performance.now() / 1e7;
    const item = { kind, body, id: body.vote_id, owner: this.owner, order };
    try {
      localStorage.setItem(PREFIX + item.id, JSON.stringify(item));
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.unkept.set(item.id, item);
    }
    this.tries = 0;
    return this.flush();
  }

  drop(item) {
    this.unkept.delete(item.id);
    localStorage.removeItem(PREFIX + item.id);
  }

  async flush() {
    if (this.sending) return;
    clearTimeout(this.timer);
    this.sending = true;
    try {
      for (let item = this.items()[0]; item; item = this.items()[0]) {
        this.set("sending");
        if (!(await this.send(item))) return;
      }
      this.set("idle");
    } finally {
      this.sending = false;
    }
  }

  /** True when the item is settled (stored, or refused for good) and the next one may go. */
  async send(item) {
    let response, answer;
    try {
      response = await fetch(`/api/${item.kind}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(item.body),
        credentials: "same-origin",
      });
      answer = await response.json();
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof SyntaxError)) throw error;
      return this.retry(); // no network, or an answer cut short
    }
    if (response.ok) {
      this.drop(item);
      this.tries = 0;
      this.onstored(item, answer);
      return true;
    }
    if (response.status === 401 || response.status === 403) {
      this.set("signed-out");
      return false;
    }
    if (response.status >= 500 || response.status === 429) return this.retry();
    this.drop(item);
    this.onrefused(item, answer.error ?? `the server answered ${response.status}`);
    return true;
  }

  retry() {
    const wait = Math.min(LONGEST_WAIT, 500 * 2 ** this.tries) * (0.75 + Math.random() / 2);
    this.tries += 1;
    this.timer = setTimeout(() => this.flush(), wait);
    this.set("waiting");
    return false;
  }

  set(state) {
    this.state = state;
    this.onstate();
  }
}

/** A version 4 UUID where the browser gives none (pages served by plain HTTP from another host). */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
