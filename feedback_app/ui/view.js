// What is on the page: finds the parts of player.html and writes into them, text only.

import { TAG_KEYS } from "./keys.js";
import { showReveal } from "./reveal.js";
import { SIDES } from "./transport.js";
import { Waveform } from "./waveform.js";

export const SIDE_NAMES = { left: "A", right: "B", original: "the original" };
const CHOICES = {
  left: "A is better", right: "B is better", tie: "equally good", both_bad: "both bad",
  skip: "can't judge",
};
const STRENGTHS = ["", "slightly", "clearly", "by far"];

/** A vote in words. */
export function voteText({ choice, strength }) {
  return CHOICES[choice] + (strength ? `, ${STRENGTHS[strength]}` : "");
}

export class View {
  constructor(root, onseek) {
    this.root = root;
    this.parts = Object.fromEntries(
      [...root.querySelectorAll("[data-id]")].map((part) => [part.dataset.id, part]));
    this.waves = Object.fromEntries(SIDES.map((side) => [side, new Waveform(
      root.querySelector(`[data-wave=${side}]`), (seconds) => onseek(side, seconds))]));
    this.speaker = document.createElement("p");
    this.speaker.className = "unseen";
    this.speaker.setAttribute("role", "status");
    root.append(this.speaker);
    this.hintText = null;
  }

  /** phase: loading | ready | empty | trouble. */
  phase(name, title = "", text = "") {
    const { parts } = this;
    this.root.dataset.phase = name;
    parts.waiting.hidden = name === "ready";
    parts.deck.hidden = parts.ballot.hidden = name !== "ready";
    parts["waiting-title"].textContent = title;
    parts["waiting-text"].textContent = text;
  }

  say(text) {
    this.speaker.textContent = text;
  }

  /** A line across the page; null takes it away (`only`: if it still says this). */
  notice(text, signIn = false, only = null) {
    const { parts } = this;
    if (only !== null && parts["notice-text"].textContent !== only) return;
    parts.notice.hidden = text === null;
    parts["notice-text"].textContent = text ?? "";
    parts["notice-link"].hidden = !signIn;
  }

  progress({ done, goal, done_total: total }) {
    const { parts } = this;
    parts["progress-text"].textContent = done >= goal
      ? `${done} in this sitting: goal of ${goal} reached, thank you` : `${done} of ${goal} in this sitting`;
    parts["progress-text"].title = `${total} votes in all`;
    parts["progress-bar"].setAttribute("aria-valuemax", goal);
    parts["progress-bar"].setAttribute("aria-valuenow", Math.min(done, goal));
    parts["progress-fill"].style.width = `${Math.min(100, (done / goal) * 100)}%`;
  }

  pair({ assignment, peaks }, transport) {
    for (const side of SIDES) {
      this.waves[side].show({
        duration: transport.duration(side), peaks: peaks[side],
        marks: assignment[side].regions ?? [],
      });
    }
    this.parts.comment.value = "";
    this.parts.notes.open = false;
    for (const tag of this.parts.tags.children) tag.setAttribute("aria-pressed", "false");
    this.tellTags();
    this.hintText = null;
    this.strength(null);
  }

  transport(transport) {
    const { root, parts } = this;
    root.dataset.playing = transport.playing;
    parts.play.setAttribute("aria-label", transport.playing ? "Pause" : "Play");
    for (const side of SIDES) {
      const active = side === transport.side;
      root.querySelector(`[data-side=${side}]`).classList.toggle("active", active);
      root.querySelector(`[data-listen=${side}]`).setAttribute("aria-pressed", active);
    }
    const count = transport.pair?.differences.length ?? 0;
    parts.loop.setAttribute("aria-pressed", transport.loop !== null);
    parts["difference-text"].textContent = transport.loop === null
      ? "Next difference" : `Difference ${transport.loop + 1} of ${count}`;
  }

  /** Every frame: the playheads. */
  frame(transport) {
    const positions = transport.positions();
    for (const side of SIDES) this.waves[side].moveTo(positions[side]);
    const now = positions[transport.side];
    this.parts.time.textContent =
      `${Math.floor(now / 60)}:${String(Math.floor(now % 60)).padStart(2, "0")}`;
  }

  /** A few times a second: what has been heard, and what is missing. */
  heard(listening, transport) {
    for (const side of SIDES) {
      const loop = transport.loop === null || side === "original" ? null : transport.bounds(side);
      this.waves[side].update(listening.heard[side], loop);
    }
    this.waves[transport.side].announce(transport.position());
    const missing = ["left", "right"].map((side) => [side, Math.ceil(listening.missing(side))])
      .filter(([, seconds]) => seconds > 0);
    this.root.dataset.open = listening.open;
    const text = listening.open
      ? "Ready for your vote."
      : `To vote, hear the marked places: ${missing.map(
        ([side, seconds]) => `${seconds} s more of ${SIDE_NAMES[side]}`).join(", ")}.`;
    if (text === this.hintText) return;
    if (listening.open && this.hintText) this.say(text);
    this.hintText = this.parts.hint.textContent = text;
    for (const button of this.root.querySelectorAll("[data-vote]")) {
      const allowed = listening.open || button.dataset.vote === "skip";
      button.setAttribute("aria-disabled", !allowed);
    }
  }

  nudge() {
    this.parts.hint.classList.remove("nudge");
    void this.parts.hint.offsetWidth; // restart the transition
    this.parts.hint.classList.add("nudge");
    this.say(this.parts.hint.textContent);
  }

  strength(value) {
    for (const button of this.root.querySelectorAll("[data-strength]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.strength) === value);
    }
  }

  tags(names) {
    this.parts.tags.replaceChildren(...names.map((name, index) => {
      const tag = document.createElement("button");
      tag.type = "button";
      tag.dataset.tag = name;
      tag.setAttribute("aria-pressed", "false");
      tag.textContent = name;
      if (index < TAG_KEYS.length) {
        const cap = document.createElement("kbd");
        cap.textContent = TAG_KEYS[index];
        tag.append(" ", cap);
      }
      return tag;
    }));
    this.tellTags();
  }

  /** Take a tag or give it back: a button, or the place of one. */
  toggleTag(tag) {
    const button = typeof tag === "number" ? this.parts.tags.children[tag] : tag;
    if (!button) return;
    const chosen = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", chosen);
    this.say(`${button.dataset.tag}: ${chosen ? "chosen" : "taken back"}`);
    this.tellTags();
  }

  /** The chosen tags stand in the summary too, for when it is closed. */
  tellTags() {
    this.parts["notes-text"].textContent = this.chosenTags().join(", ") || "Tags and comment";
  }

  chosenTags() {
    return [...this.parts.tags.children]
      .filter((tag) => tag.getAttribute("aria-pressed") === "true")
      .map((tag) => tag.dataset.tag);
  }

  /** The strip of the last vote; text null hides it. */
  last(text) {
    this.parts.last.hidden = text === null;
    this.parts.reveal.hidden = true;
    this.parts["last-text"].textContent = text ?? "";
  }

  reveal(reveal, original) {
    const { parts } = this;
    parts.reveal.hidden = false;
    showReveal(reveal, original,
      { left: parts["reveal-left"], right: parts["reveal-right"] }, parts.legend);
  }

  /** One's own votes; those with an id among `undoable` can be taken back here. */
  votes(rows, undoable = []) {
    this.parts["votes-list"].replaceChildren(...rows.map((row) => {
      const item = document.createElement("li"), when = document.createElement("time");
      when.dateTime = row.created_at;
      when.textContent = new Date(row.created_at).toLocaleString([], {
        weekday: "short", hour: "2-digit", minute: "2-digit" });
      const words = document.createElement("span");
      words.textContent = voteText(row);
      item.append(when, words);
      if (undoable.includes(row.vote_id)) {
        const undo = document.createElement("button");
        undo.type = "button";
        undo.dataset.undo = row.vote_id;
        undo.textContent = "Undo";
        undo.setAttribute("aria-label", `Undo: ${voteText(row)}, ${when.textContent}`);
        item.append(undo);
      }
      return item;
    }));
    if (!rows.length) this.parts["votes-list"].append("No votes yet.");
  }
}
