// Pure functions between output time and the moment of the song, for sides of any length and order.
//
// A side's `beats` are rows [source beat, output start in s, duration in s, reversed], in playing
// order, end to end from 0 (EDL.to_json). A moment of the song is {beat, phase, occurrence}: the
// source beat, how far into it the music is (0..1, counted in the source's own direction), and how
// often that beat had already been played on this side. Nothing here touches the page or the audio.

const BEAT = 0, START = 1, LENGTH = 2, REVERSED = 3;

/** Index of the row that sounds at output time t; clamped to the first and the last row. */
export function indexAt(beats, t) {
  let low = 0, high = beats.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (beats[middle][START] <= t + 1e-9) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Seconds of output that the rows make. */
export function durationOf(beats) {
  const last = beats[beats.length - 1];
  return last[START] + last[LENGTH];
}

function occurrenceOf(beats, index) {
  let count = 0;
  for (let i = 0; i < index; i++) if (beats[i][BEAT] === beats[index][BEAT]) count++;
  return count;
}

/** The moment of the song at output time t. */
export function momentAt(beats, t) {
  const index = indexAt(beats, t);
  const row = beats[index];
  const through = Math.min(1, Math.max(0, (t - row[START]) / row[LENGTH]));
  return {
    index,
    beat: row[BEAT],
    phase: row[REVERSED] ? 1 - through : through,
    occurrence: occurrenceOf(beats, index),
  };
}

/** Output time of a phase within one row. */
export function timeIn(row, phase) {
  return row[START] + row[LENGTH] * (row[REVERSED] ? 1 - phase : phase);
}

/**
 * Output time on `beats` of a moment of the song. Of several repeats the same occurrence, else the
 * one nearest to `near` seconds; a beat that was cut gives its join: the start of the next source
 * beat that was kept. Where nothing after it was kept, the start of the last kept beat before it.
 */
export function timeOf(beats, moment, near) {
  const rows = beats.filter((row) => row[BEAT] === moment.beat);
  if (rows.length > moment.occurrence) return timeIn(rows[moment.occurrence], moment.phase);
  if (rows.length) return timeIn(nearest(rows, near), moment.phase);
  const kept = beats.map((row) => row[BEAT]);
  const after = kept.filter((beat) => beat > moment.beat);
  const landing = after.length ? Math.min(...after) : Math.max(...kept);
  return nearest(beats.filter((row) => row[BEAT] === landing), near)[START];
}

function nearest(rows, near) {
  return rows.reduce((best, row) =>
    Math.abs(row[START] - near) < Math.abs(best[START] - near) ? row : best);
}

/**
 * Output time on `to` that is the same moment of the song as time t on `from`.
 *
 * `trail` = {from, to} (seconds) says where the last switch left `to` (trail.from) and entered
 * `from` (trail.to), when the music has simply played on since. Then the way back is the way that
 * was come: as many rows on from where one was, if that is the same beat (so a repeat is found in
 * the same pass), and within the beat of arrival exactly where one was, plus the time gone by.
 */
export function mapTime(from, to, t, trail = null) {
  const moment = momentAt(from, t);
  if (trail) {
    const steps = moment.index - indexAt(from, trail.to);
    const left = indexAt(to, trail.from);
    if (steps === 0) return Math.min(trail.from + (t - trail.to), durationOf(to) - 0.01);
    const row = steps > 0 ? to[left + steps] : undefined;
    if (row && row[BEAT] === moment.beat) return timeIn(row, moment.phase);
  }
  return timeOf(to, moment, t);
}

/** Output time `steps` beats on (or back), keeping the place within the beat; wraps round. */
export function stepBeats(beats, t, steps) {
  const index = indexAt(beats, t);
  const through = Math.min(0.999, (t - beats[index][START]) / beats[index][LENGTH]);
  const target = (((index + steps) % beats.length) + beats.length) % beats.length;
  return beats[target][START] + through * beats[target][LENGTH];
}

function songSpan(beats, [start, end]) {
  const first = indexAt(beats, start + 1e-6), last = indexAt(beats, end - 1e-6);
  const heard = beats.slice(first, last + 1).map((row) => row[BEAT]);
  return [Math.min(...heard), Math.max(...heard) + 1];
}

function spanOn(beats, [first, last]) {
  const inside = beats.filter((row) => row[BEAT] >= first && row[BEAT] < last);
  const rows = inside.length
    ? inside
    : [beats[indexAt(beats, timeOf(beats, { beat: first, phase: 0, occurrence: 0 }, 0))]];
  return [Math.min(...rows.map((row) => row[START])),
    Math.max(...rows.map((row) => row[START] + row[LENGTH]))];
}

/**
 * The places where the two edits differ, in song order, each with its stretch on every side:
 * [{song: [first, end beat], left: [s, e], right: [s, e], original: [s, e]}]. Regions of the two
 * sides that touch in the song are one difference.
 */
export function differences(assignment) {
  const { left, right, original } = assignment;
  const spans = [
    ...left.regions.map((region) => songSpan(left.beats, region)),
    ...right.regions.map((region) => songSpan(right.beats, region)),
  ].sort((a, b) => a[0] - b[0]);
  const merged = [];
  for (const span of spans) {
    const last = merged[merged.length - 1];
    if (last && span[0] < last[1]) last[1] = Math.max(last[1], span[1]);
    else merged.push([...span]);
  }
  return merged.map((song) => ({
    song,
    left: spanOn(left.beats, song),
    right: spanOn(right.beats, song),
    original: spanOn(original.beats, song),
  }));
}

/** What became of each source beat, for the reveal: Map beat -> kept|cut|repeat|move|level|reverse. */
export function beatFates(segments, removed, firstBeat, endBeat) {
  const played = [];
  for (const segment of segments) {
    for (let beat = segment.start_beat; beat < segment.end_beat; beat++) {
      const level = segment.gain_start !== 1 || segment.gain_end !== 1;
      played.push({ beat, level, reverse: Boolean(segment.reverse) });
    }
  }
  const fates = new Map();
  for (let beat = firstBeat; beat < endBeat; beat++) fates.set(beat, "cut");
  const times = new Map();
  for (const { beat } of played) times.set(beat, (times.get(beat) ?? 0) + 1);
  let highest = -Infinity;
  const lowestAfter = new Array(played.length);
  for (let i = played.length - 1, low = Infinity; i >= 0; i--) {
    lowestAfter[i] = low;
    if (times.get(played[i].beat) === 1) low = Math.min(low, played[i].beat);
  }
  played.forEach(({ beat, level, reverse }, i) => {
    const moved = times.get(beat) === 1 && (beat < highest || lowestAfter[i] < beat);
    if (times.get(beat) > 1) fates.set(beat, "repeat");
    else if (reverse) fates.set(beat, "reverse");
    else if (moved) fates.set(beat, "move");
    else fates.set(beat, level ? "level" : "kept");
    if (times.get(beat) === 1) highest = Math.max(highest, beat);
  });
  for (const { start_beat: start, end_beat: end } of removed) {
    for (let beat = start; beat < end; beat++) if (!times.has(beat)) fates.set(beat, "cut");
  }
  return fates;
}
