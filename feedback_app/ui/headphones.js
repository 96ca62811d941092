// The headphone check: six rounds of three noises, one of which hides a tone (Huggins pitch).
//
// Both ears get the same white noise, save that in a narrow band round 600 Hz the phase of one ear
// runs once round the circle. Each ear by itself hears plain noise; only the two together, kept
// apart by headphones, make the faint tone. From loudspeakers they mix in the air and it is lost.
// Method: Milne et al. 2021, "An online headphone screening test based on dichotic pitch".

import { uuid } from "./outbox.js";

export const ROUNDS = 6;
const CENTRE = 600, WIDTH = 0.06; // Hz; share of it on either side
const SECONDS = 1, GAP = 0.35, RAMP = 0.03, LEVEL = 0.12; // LEVEL: root mean square

/** One interval: [left, right], Float32Arrays of one second. */
export function interval(rate, hidden) {
  const size = Math.round(rate * SECONDS);
  const left = noise(size);
  const right = hidden ? turned(left, rate) : left.slice();
  const ramp = Math.round(RAMP * rate);
  for (const ear of [left, right]) {
    for (let i = 0; i < ramp; i++) {
      const gain = 0.5 - 0.5 * Math.cos((Math.PI * i) / ramp);
      ear[i] *= gain;
      ear[size - 1 - i] *= gain;
    }
  }
  return [left, right];
}

function noise(size) {
  const out = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
    out[i] = LEVEL * radius * Math.cos(2 * Math.PI * Math.random());
  }
  return out;
}

/** The noise with the phases of the band's bins advanced from nothing to a full turn. */
function turned(source, rate) {
  const size = source.length, out = source.slice();
  const from = CENTRE * (1 - WIDTH), to = CENTRE * (1 + WIDTH);
  for (let bin = Math.ceil((from * size) / rate); bin <= (to * size) / rate; bin++) {
    const angle = (2 * Math.PI * bin) / size;
    let real = 0, imaginary = 0; // the noise's own content at this bin
    for (let i = 0; i < size; i++) {
      real += source[i] * Math.cos(angle * i);
      imaginary -= source[i] * Math.sin(angle * i);
    }
    const phase = (2 * Math.PI * ((bin * rate) / size - from)) / (to - from);
    const cosine = Math.cos(phase) - 1, sine = Math.sin(phase);
    const addReal = ((real * cosine - imaginary * sine) * 2) / size;
    const addImaginary = ((real * sine + imaginary * cosine) * 2) / size;
    for (let i = 0; i < size; i++) {
      out[i] += addReal * Math.cos(angle * i) - addImaginary * Math.sin(angle * i);
    }
  }
  return out;
}

export class HeadphoneCheck {
  /** onclose(state) with the server's {wanted, may_skip, outcome} after the sheet has closed. */
  constructor(parts, transport, onclose) {
    this.parts = parts;
    this.transport = transport;
    this.onclose = onclose;
    this.state = { wanted: false, may_skip: true, outcome: null };
    this.rounds = [];
    this.truth = null;
    this.sources = [];
    parts.headphones.addEventListener("close", () => {
      this.silence();
      this.onclose(this.state);
    });
    parts.headphones.addEventListener("cancel", (event) => {
      if (!this.state.may_skip && this.state.wanted) event.preventDefault();
    });
    parts.headphones.addEventListener("keydown", (event) => {
      const digit = /^(?:Digit|Numpad)([123])$/.exec(event.code)?.[1] ?? event.key;
      if (["1", "2", "3"].includes(digit) && this.truth !== null) {
        event.preventDefault();
        void this.answer(Number(digit));
      }
    });
  }

  get running() {
    return this.parts.headphones.open;
  }

  open() {
    const { parts } = this;
    this.transport.pause();
    parts.headphones.showModal();
    this.say("Check your headphones",
      "Six times you hear three noises. One of the three hides a faint, steady tone that only " +
      "headphones let you hear. Say which one. Set a comfortable level with the volume below.");
    this.step("begin", this.wayOut);
    parts["headphones-volume"].value = this.transport.volume;
    parts["headphones-go"].focus();
  }

  /** What the button that ends the check says; empty where the check must be passed. */
  get wayOut() {
    if (!this.state.wanted) return "Close";
    return this.state.may_skip ? "Skip" : "";
  }

  say(title, text) {
    this.parts["headphones-title"].textContent = title;
    this.parts["headphones-text"].textContent = text;
  }

  /** phase: begin | round | end. leave: what the quiet button says; empty: there is none. */
  step(phase, leave, go = "Start") {
    const { parts } = this;
    this.phase = phase;
    parts["headphones-parts"].hidden = phase !== "round";
    parts["headphones-go"].hidden = phase === "round";
    parts["headphones-again"].hidden = phase !== "round";
    parts["headphones-go"].textContent = go;
    parts["headphones-leave"].textContent = leave;
    parts["headphones-leave"].hidden = !leave;
  }

  /** The main button: begin, try again, or go on to listening. */
  async go() {
    if (this.phase === "end" && this.state.outcome === "passed") {
      this.parts.headphones.close();
      return;
    }
    this.rounds = [];
    await this.transport.audio().resume();
    this.round();
  }

  round() {
    this.step("round", this.wayOut);
    this.say(`Round ${this.rounds.length + 1} of ${ROUNDS}`, "Which of the three hides the tone?");
    this.truth = 1 + Math.floor(3 * Math.random());
    const rate = this.transport.audio().sampleRate;
    this.sounds = [1, 2, 3].map((number) => interval(rate, number === this.truth));
    this.play();
    this.parts["headphones-again"].focus();
  }

  play() {
    const context = this.transport.audio();
    this.silence();
    const start = context.currentTime + 0.15;
    this.sources = this.sounds.map((ears, index) => {
      const buffer = context.createBuffer(2, ears[0].length, context.sampleRate);
      ears.forEach((samples, channel) => buffer.copyToChannel(samples, channel));
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.transport.master);
      source.start(start + index * (SECONDS + GAP));
      return source;
    });
    const lit = () => {
      const part = Math.floor((context.currentTime - start) / (SECONDS + GAP));
      [...this.parts["headphones-parts"].children].forEach((button, index) =>
        button.classList.toggle("sounding", index === part && this.sources.length > 0));
      if (this.sources.length && part < 3) requestAnimationFrame(lit);
    };
    lit();
  }

  silence() {
    for (const source of this.sources) source.stop();
    this.sources = [];
  }

  async answer(number) {
    if (this.truth === null) return;
    this.rounds.push({ truth: this.truth, answer: number });
    this.truth = null;
    this.silence();
    if (this.rounds.length < ROUNDS) this.round();
    else await this.finish();
  }

  async finish() {
    const right = this.rounds.filter(({ truth, answer }) => truth === answer).length;
    const kept = await this.report({ rounds: this.rounds });
    if (!kept) return;
    if (this.state.outcome === "passed") {
      this.say("Your headphones work", `${right} of ${ROUNDS} found. Let's listen.`);
      this.step("end", "", "Go on");
    } else {
      this.say("Not heard clearly", `${right} of ${ROUNDS} found. Are both ears on, left on the ` +
        "left, without loudspeakers or a mono setting? A quieter room helps as well.");
      this.step("end", this.state.may_skip ? "Go on without" : "", "Try again");
    }
    this.parts["headphones-go"].focus();
  }

  async leave() {
    this.truth = null;
    if (this.state.wanted && !(await this.report({ rounds: [] }))) return;
    this.parts.headphones.close();
  }

  /** Tell the server; false (with words on the sheet) when it does not take it. */
  async report(body) {
    try {
      const response = await fetch("/api/headphones", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ check_id: uuid(), ...body }),
        credentials: "same-origin",
      });
      const answer = await response.json();
      if (!response.ok) throw new TypeError(answer.error);
      this.state = answer;
      return true;
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof SyntaxError)) throw error;
      this.say("The result could not be saved", `${error.message}. Try again in a moment.`);
      this.step("end", this.state.may_skip ? "Go on without" : "", "Try again");
      if (this.state.may_skip) this.state.wanted = false; // asked again on the next visit
      return false;
    }
  }
}
