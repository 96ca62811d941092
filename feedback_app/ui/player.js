// Entry point of the annotation page: joins the parts and obeys keys, clicks and the clock.

import { Sitting } from "./annotate.js";
import { HeadphoneCheck } from "./headphones.js";
import { TAG_KEYS, actionOf, listKeys } from "./keys.js";
import { getJson } from "./pairs.js";
import { Tour } from "./tour.js";
import { Transport } from "./transport.js";
import { View } from "./view.js";

const VOLUME = "volume";
const HEARD_EVERY = 120; // ms between reports of what was heard

/** Bring the player in `element` (player.html) to life. `options`: {tags: [text]}. */
export function mount(element, options) {
  const root = element.querySelector(".studio");
  if (!root || root.dataset.mounted) return;
  root.dataset.mounted = "yes";
  const transport = new Transport();
  const view = new View(root, (side, seconds) => {
    transport.switchTo(side);
    transport.seek(seconds);
  });
  const sitting = new Sitting(view, transport);
  const begin = () => {
    if (tour.running || headphones.running) return;
    sitting.autoplay = true;
    if (sitting.current && !transport.playing) void transport.play();
  };
  const headphones = new HeadphoneCheck(view.parts, transport, begin);
  const tour = new Tour(view.parts, () => {
    if (headphones.state.wanted) headphones.open();
    else begin();
  });
  sitting.mayPlay = () =>
    !tour.running && !headphones.running && (sitting.autoplay || transport.unlocked);
  sitting.mayBegin = () => checkHeadphones(headphones, tour, view);
  transport.onchange = () => view.transport(transport);
  view.tags(options.tags ?? []);
  listKeys(view.parts.keys);
  restoreVolume(transport, view);

  const actions = actionsOf({ transport, view, sitting, tour, headphones });
  listen(root, actions);
  clock(root, { transport, view, sitting });
  window.__player = stateOf(transport, sitting, headphones);
  if (tour.wanted) tour.open();
  void sitting.start();
}

/** Ask for the check where the server wants it; wait for it where it may not be skipped. */
async function checkHeadphones(headphones, tour, view) {
  try {
    headphones.state = await getJson("/api/headphones");
  } catch (error) {
    view.say(`The headphone check is not there: ${error.message}`);
    return; // the pairs themselves will say what is wrong, and go on trying
  }
  if (!headphones.state.wanted) return;
  if (!tour.running) headphones.open();
  if (headphones.state.may_skip) return;
  view.phase("loading", "First the headphone check.");
  const sheet = view.parts.headphones;
  while (headphones.state.wanted) {
    await new Promise((resolve) => sheet.addEventListener("close", resolve, { once: true }));
  }
}

function actionsOf({ transport, view, sitting, tour, headphones }) {
  const beats = (event) => (event?.shiftKey ? 1 : 4);
  const nudgeVolume = (by) => {
    const next = Math.min(1, Math.max(0, transport.volume + by));
    view.parts.volume.value = next;
    saveVolume(transport, next);
  };
  const flip = () => transport.switchTo(transport.side === "left" ? "right" : "left");
  const actions = {
    play: () => transport.toggle(),
    back: (event) => transport.step(-beats(event)),
    forward: (event) => transport.step(beats(event)),
    restart: () => transport.seek(0),
    switch: flip,
    difference: (event) => {
      transport.nextDifference(event?.shiftKey ? -1 : 1);
      if (!transport.playing) void transport.play();
    },
    loop: () => transport.toggleLoop(),
    louder: () => nudgeVolume(0.05),
    softer: () => nudgeVolume(-0.05),
    notes: () => {
      view.parts.notes.open = true;
      view.parts.comment.focus();
    },
    tag: (which) => view.toggleTag(which),
    undo: (_event, id = null) => sitting.undo(id),
    answer: (number) => headphones.answer(number),
    help: () => view.parts.help.showModal(),
    tour: () => tour.open(),
    "tour-next": () => tour.next(),
    "tour-skip": () => view.parts.tour.close(),
    votes: async () => {
      view.votes(await getJson("/api/my-votes"), sitting.votes.map((vote) => vote.id));
      view.parts.votes.showModal();
    },
    headphones: () => headphones.open(),
    "headphones-go": () => headphones.go(),
    "headphones-again": () => headphones.play(),
    "headphones-leave": () => headphones.leave(),
  };
  for (const side of ["left", "right", "original"]) {
    actions[`listen-${side}`] = () => {
      transport.switchTo(side);
      if (!transport.playing) void transport.play();
    };
  }
  for (const choice of ["left", "right", "tie", "both_bad", "skip"]) {
    actions[`vote-${choice}`] = () => sitting.vote(choice);
  }
  TAG_KEYS.forEach((_key, index) => {
    actions[`tag-${index}`] = () => {
      view.parts.notes.open = true;
      actions.tag(index);
    };
  });
  for (const value of [1, 2, 3]) {
    actions[`strength-${value}`] = () => sitting.setStrength(sitting.strength === value ? null : value);
  }
  return actions;
}

function listen(root, actions) {
  const stop = new AbortController();
  const { signal } = stop;
  document.addEventListener("keydown", (event) => {
    if (!root.isConnected) {
      stop.abort(); // Gradio took the component away: leave no listener behind
      return;
    }
    if (event.key === "Escape" && event.target.matches("textarea")) event.target.blur();
    const action = actionOf(event);
    if (!action || (event.repeat && !["back", "forward", "louder", "softer"].includes(action))) return;
    event.preventDefault();
    void actions[action](event);
  }, { signal });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { do: does, listen: side, vote, strength, tag, undo, answer } = button.dataset;
    if (undo) {
      button.closest("dialog").close();
      void actions.undo(event, undo);
    }
    if (answer) void actions.answer(Number(answer));
    if (tag !== undefined) actions.tag(button);
    const name = does ?? (side && `listen-${side}`) ?? (vote && `vote-${vote}`)
      ?? (strength && `strength-${strength}`);
    if (name) void actions[name](event);
    // A click leaves the keyboard free: space must play, not press this button again.
    if (event.detail > 0 && !button.closest("dialog")) button.blur();
  }, { signal });
}

function restoreVolume(transport, view) {
  const kept = Number(localStorage.getItem(VOLUME) ?? 0.9);
  const volume = kept >= 0 && kept <= 1 ? kept : 0.9;
  transport.setVolume(volume);
  view.parts.volume.value = volume;
  const sliders = [view.parts.volume, view.parts["headphones-volume"]];
  for (const slider of sliders) {
    slider.addEventListener("input", (event) => {
      for (const other of sliders) other.value = event.target.value;
      saveVolume(transport, Number(event.target.value));
    });
  }
}

function saveVolume(transport, volume) {
  transport.setVolume(volume);
  localStorage.setItem(VOLUME, volume);
}

function clock(root, { transport, view, sitting }) {
  let reported = 0;
  const tick = (now) => {
    if (!root.isConnected) {
      transport.unload();
      return;
    }
    if (sitting.current) {
      view.frame(transport);
      if (now - reported > HEARD_EVERY) {
        reported = now;
        transport.report();
        view.heard(sitting.current.listening, transport);
      }
    }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
  const redraw = () => Object.values(view.waves).forEach((wave) => wave.draw());
  new MutationObserver(redraw).observe(document.body, { attributeFilter: ["class"] });
}

/** State to look at (and a seek), for tests and for the curious at the console. */
function stateOf(transport, sitting, headphones) {
  return {
    get assignment() { return sitting.current?.assignment.assignment_id ?? null; },
    get side() { return transport.side; },
    get playing() { return transport.playing; },
    get position() { return transport.position(); },
    get positions() { return transport.pair ? transport.positions() : null; },
    get moment() { return transport.pair ? transport.moment() : null; },
    get song() {
      if (!transport.pair) return null;
      const { beat, phase } = transport.moment();
      return beat + phase;
    },
    seek: (seconds) => transport.seek(seconds),
    get differences() { return transport.pair?.differences ?? []; },
    get loop() { return transport.loop; },
    get open() { return sitting.current?.listening.open ?? false; },
    get missing() {
      const listening = sitting.current?.listening;
      return listening ? { left: listening.missing("left"), right: listening.missing("right") } : null;
    },
    get prefetched() { return sitting.ahead?.ready?.assignment.assignment_id ?? null; },
    get headphones() { return { truth: headphones.truth, ...headphones.state }; },
    get unsent() { return sitting.outbox.items().length; },
    get delivery() { return sitting.outbox.state; },
    get votes() { return sitting.votes.map((vote) => vote.id); },
    get beats() {
      return transport.pair && Object.fromEntries(
        ["left", "right", "original"].map((side) => [side, transport.beats(side)]));
    },
  };
}
