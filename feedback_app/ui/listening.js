// What the listener has heard of a pair: seconds per side, and which parts of the differing regions.
//
// Stretches are kept as merged intervals, so hearing one place twice counts once towards voting;
// the seconds per side count everything that sounded.

const NEARLY = 0.15; // s: a fade's worth of a region's end, and of the clock's granularity

export class Listening {
  constructor(assignment, firstSide) {
    this.assignment = assignment;
    this.firstSide = firstSide;
    this.seconds = { left: 0, right: 0, original: 0 };
    this.heard = { left: [], right: [], original: [] };
    this.openedAt = null;
    this.startedAt = performance.now();
    this.check();
  }

  add(side, start, end) {
    this.seconds[side] += end - start;
    this.heard[side] = merge(this.heard[side], [start, end]);
    this.check();
  }

  /** Seconds of each region heard on a side, in the order of the assignment's regions. */
  regions(side) {
    return this.assignment[side].regions.map((region) => covered(this.heard[side], region));
  }

  /** Seconds still to be heard in the marked places of a side before voting opens. */
  missing(side) {
    const total = this.regions(side).reduce((sum, seconds) => sum + seconds, 0);
    const wanted = this.assignment.required_s[side];
    return wanted - total > NEARLY ? wanted - total : 0;
  }

  get open() {
    return this.openedAt !== null;
  }

  check() {
    if (this.openedAt === null && !this.missing("left") && !this.missing("right")) {
      this.openedAt = performance.now();
    }
  }

  /** Milliseconds from the moment that both sides were heard. */
  responseTime() {
    return Math.round(performance.now() - (this.openedAt ?? this.startedAt));
  }

  summary(switches) {
    const round = (value) => Math.round(value * 1000) / 1000;
    return {
      left_s: round(this.seconds.left),
      right_s: round(this.seconds.right),
      original_s: round(this.seconds.original),
      switches,
      regions_left_s: this.regions("left").map(round),
      regions_right_s: this.regions("right").map(round),
      first_side: this.firstSide,
    };
  }
}

/** Sorted disjoint intervals with one more added. */
export function merge(intervals, added) {
  const all = [...intervals, added].sort((a, b) => a[0] - b[0]);
  const out = [];
  for (const [start, end] of all) {
    const last = out[out.length - 1];
    if (last && start <= last[1] + 0.02) last[1] = Math.max(last[1], end);
    else out.push([start, end]);
  }
  return out;
}

/** Seconds of a region that lie inside intervals. */
export function covered(intervals, [start, end]) {
  return intervals.reduce(
    (sum, [from, to]) => sum + Math.max(0, Math.min(to, end) - Math.max(from, start)), 0);
}
