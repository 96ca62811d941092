// The one transport under A, B and the original: decoded buffers on one audio clock.
//
// A switch, a seek and the wrap of a loop are the same act: the voice that sounds fades out over
// 8 ms while a new one, started on the same sample clock at the mapped offset, fades in. So there
// is neither gap nor click, and the position is arithmetic on the clock, never a guess. Times are
// seconds of the side's own output; `side` is "left", "right" or "original".

import { differences, durationOf, mapTime, momentAt, stepBeats } from "./map.js";

export const SIDES = ["left", "right", "original"];
const FADE = 0.008; // long enough not to click, short enough to feel immediate
const MARGIN = 0.008; // s ahead of what the device has already been given: see soon()
const SHORTEST_LOOP = 0.5;

export class Transport {
  constructor({ onchange = () => {}, onheard = () => {} } = {}) {
    this.onchange = onchange;
    this.onheard = onheard;
    this.context = null;
    this.pair = null;
    this.side = "left";
    this.playing = false;
    this.loop = null; // index into pair.differences, or null: the whole passage goes round
    this.switches = 0;
    this.trail = null;
    this.volume = 1;
    this.offset = 0;
    this.startedAt = 0;
    this.reportedAt = 0;
    this.voices = [];
  }

  /** The audio context, made on first need. Its clock runs only after the first touch or key. */
  audio() {
    if (!this.context) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.master = this.context.createGain();
      this.master.gain.value = this.volume;
      this.master.connect(this.context.destination);
    }
    return this.context;
  }

  get unlocked() {
    return this.context?.state === "running";
  }

  /** Fetched bytes -> decoded buffers. One at a time: three decodes at once stall slow machines. */
  async decode(bytes) {
    return this.audio().decodeAudioData(bytes);
  }

  /** Take a prepared pair ({assignment, buffers}), silent, at its start. */
  load(pair, side) {
    this.halt();
    this.pair = pair;
    pair.differences ??= differences(pair.assignment);
    this.side = side;
    this.loop = null;
    this.trail = null;
    this.switches = 0;
    this.offset = 0;
    this.onchange();
  }

  unload() {
    this.halt();
    this.pair = null;
    this.onchange();
  }

  beats(side = this.side) {
    return this.pair.assignment[side].beats;
  }

  duration(side = this.side) {
    return Math.min(durationOf(this.beats(side)), this.pair.buffers[side].duration);
  }

  /** [start, end] of what goes round on a side. */
  bounds(side = this.side) {
    if (this.loop === null) return [0, this.duration(side)];
    const [start, end] = this.pair.differences[this.loop][side];
    const stop = Math.min(Math.max(end, start + SHORTEST_LOOP), this.duration(side));
    return [Math.max(0, Math.min(start, stop - SHORTEST_LOOP)), stop];
  }

  position() {
    if (!this.pair) return 0;
    return this.playing ? this.wrap(this.elapsed()) : this.offset;
  }

  elapsed(time = this.context.currentTime) {
    return Math.max(0, time - this.startedAt);
  }

  /**
   * The clock time at which a change can take effect without a click. The device is fed in blocks
   * (baseLatency long), so what is scheduled closer than that may come too late for its own ramp.
   */
  soon() {
    return this.context.currentTime + Math.min(0.05, (this.context.baseLatency || 0.012) + MARGIN);
  }

  /** Where the sound will be at a clock time. */
  positionAt(when) {
    return this.playing ? this.wrap(this.elapsed(when)) : this.offset;
  }

  wrap(elapsed) {
    const [start, end] = this.bounds();
    const raw = this.offset + elapsed;
    return raw < end ? raw : start + ((raw - end) % (end - start));
  }

  moment() {
    return momentAt(this.beats(), this.position());
  }

  /** The positions that each side would play from if it were switched to now. */
  positions() {
    const now = this.position();
    return Object.fromEntries(SIDES.map((side) => [side, this.mapped(side, now)]));
  }

  mapped(side, now) {
    if (side === this.side) return now;
    const trail = this.trail?.side === side && now >= this.trail.to ? this.trail : null;
    const time = mapTime(this.beats(), this.beats(side), now, trail);
    return Math.max(0, Math.min(time, this.duration(side) - 0.01));
  }

  async play() {
    if (!this.pair) return;
    const context = this.audio();
    if (context.state !== "running") await context.resume();
    if (this.playing || !this.pair) return;
    this.playing = true;
    this.sound(this.offset, this.soon());
    this.onchange();
  }

  pause() {
    if (!this.playing) return;
    const now = this.position();
    this.halt();
    this.offset = now;
    this.onchange();
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  switchTo(side) {
    if (!this.pair || side === this.side) return;
    const when = this.playing ? this.soon() : 0;
    const now = this.positionAt(when);
    const landing = this.mapped(side, now);
    this.report(when);
    const left = this.side;
    this.side = side;
    this.switches += 1;
    this.move(landing, when);
    this.trail = { side: left, from: now, to: this.offset };
  }

  seek(time, { keepLoop = false } = {}) {
    if (!this.pair) return;
    this.report();
    this.trail = null;
    const target = Math.max(0, Math.min(time, this.duration() - 0.02));
    if (!keepLoop && this.loop !== null) {
      const [start, end] = this.bounds();
      if (target < start || target >= end) this.loop = null;
    }
    this.move(target);
  }

  /** Jump by beats, keeping the groove: the place within the beat stays. */
  step(steps) {
    if (this.pair) this.seek(stepBeats(this.beats(), this.position(), steps));
  }

  /** Go to the next place where the two differ and stay around it. Returns its index or null. */
  nextDifference(direction = 1) {
    const places = this.pair?.differences ?? [];
    if (!places.length) return null;
    const now = this.position();
    let index;
    if (this.loop !== null) index = (this.loop + direction + places.length) % places.length;
    else index = Math.max(0, places.findIndex((place) => place[this.side][0] > now - 0.01));
    this.report();
    this.loop = index;
    this.seek(this.bounds()[0], { keepLoop: true });
    return index;
  }

  /** Loop the difference that sounds (or the next one), or let the whole passage run again. */
  toggleLoop() {
    const places = this.pair?.differences ?? [];
    if (!places.length) return;
    const when = this.playing ? this.soon() : 0;
    const now = this.positionAt(when);
    this.report(when);
    if (this.loop !== null) {
      this.loop = null;
      this.move(now, when);
      return;
    }
    const index = places.findIndex((place) => place[this.side][1] > now);
    this.loop = Math.max(0, index);
    const [start, end] = this.bounds();
    this.trail = null;
    this.move(now >= start && now < end ? now : start, when);
  }

  /** A soft knock that says "not yet" to closed eyes. */
  knock() {
    if (!this.unlocked) return;
    const { context } = this, now = context.currentTime;
    const tone = new OscillatorNode(context, { frequency: 150 });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.linearRampToValueAtTime(0.12, now + 0.01);
    gain.gain.linearRampToValueAtTime(0, now + 0.09);
    tone.connect(gain).connect(this.master);
    tone.onended = () => gain.disconnect();
    tone.start(now);
    tone.stop(now + 0.1);
  }

  setVolume(volume) {
    this.volume = volume;
    if (this.master) this.master.gain.setTargetAtTime(volume, this.context.currentTime, 0.01);
  }

  /** Tell the listener which stretches of which side have sounded since the last report. */
  report(time = this.context?.currentTime) {
    if (!this.playing) return;
    const elapsed = this.elapsed(time);
    const [start, end] = this.bounds();
    let from = this.offset + this.reportedAt;
    let left = elapsed - this.reportedAt;
    if (from >= end) from = start + ((from - end) % (end - start));
    while (left > 1e-6) {
      const length = Math.min(left, end - from);
      if (length > 0) this.onheard(this.side, from, from + length);
      left -= Math.max(length, 1e-3);
      from = start;
    }
    this.reportedAt = elapsed;
  }

  // -- voices -----------------------------------------------------------------------------------

  /** Go on from an offset of the current side, at the clock time `when`. */
  move(offset, when = this.playing ? this.soon() : 0) {
    const [start, end] = this.bounds();
    this.offset = offset < end ? offset : start;
    if (this.playing) {
      this.release(when);
      this.sound(this.offset, when);
    }
    this.onchange();
  }

  /** Start sounding at an offset, with the next round of the loop already on the clock. */
  sound(offset, when) {
    this.offset = offset;
    this.startedAt = when;
    this.reportedAt = 0;
    const [start, end] = this.bounds();
    this.follow(this.voice(when, offset, end), start, end);
  }

  follow(last, start, end) {
    const next = this.voice(last.until, start, end);
    last.source.onended = () => {
      if (this.voices.includes(next)) this.follow(next, start, end);
    };
  }

  voice(when, from, to) {
    const { context } = this;
    const source = context.createBufferSource();
    const gain = context.createGain();
    const until = when + (to - from);
    source.buffer = this.pair.buffers[this.side];
    gain.gain.setValueAtTime(0, when);
    gain.gain.linearRampToValueAtTime(1, when + FADE);
    gain.gain.setValueAtTime(1, Math.max(until, when + FADE));
    gain.gain.linearRampToValueAtTime(0, Math.max(until, when + FADE) + FADE);
    source.connect(gain).connect(this.master);
    source.start(when, from);
    source.stop(until + 2 * FADE);
    const voice = { source, gain, when, until };
    this.voices.push(voice);
    this.voices = this.voices.filter((other) => other.until > context.currentTime - 1);
    return voice;
  }

  release(when) {
    for (const { source, gain, when: began, until } of this.voices) {
      source.onended = () => gain.disconnect();
      if (began >= when) {
        source.stop();
        gain.disconnect();
      } else if (when < until + FADE) {
        // Its level is known, so the ramps need not be asked: that differs between browsers.
        const rising = (when - began) / FADE, falling = 1 - (when - until) / FADE;
        const level = Math.max(0, Math.min(1, rising, falling));
        gain.gain.cancelScheduledValues(when);
        if (level < 1) gain.gain.linearRampToValueAtTime(level, when);
        else gain.gain.setValueAtTime(1, when);
        gain.gain.linearRampToValueAtTime(0, when + FADE);
        source.stop(when + 2 * FADE);
      }
    }
    this.voices = [];
  }

  halt() {
    if (!this.playing) return;
    this.report();
    this.playing = false;
    this.release(this.soon());
  }
}
