// After a vote: what each edit had done to the song, beat by beat along the original. Colours are
// Okabe and Ito's and each has its own pattern, so no colour vision is needed to tell them apart.

import { beatFates } from "./map.js";

const KINDS = {
  kept: "as it was",
  cut: "cut",
  repeat: "played again",
  move: "moved",
  level: "faded, louder or softer",
  reverse: "backwards",
};

/** Draw both sides and their legend; `reveal` is the vote's answer, `original` the pair's side. */
export function showReveal(reveal, original, canvases, legend) {
  const beats = original.beats.map((row) => row[0]);
  const first = Math.min(...beats), end = Math.max(...beats) + 1;
  const seen = new Set();
  for (const side of ["left", "right"]) {
    const { segments, removed } = reveal[side];
    const fates = beatFates(segments, removed ?? [], first, end);
    for (const kind of fates.values()) seen.add(kind);
    draw(canvases[side], fates, first, end);
    canvases[side].setAttribute("aria-label", describe(fates));
  }
  legend.replaceChildren(...Object.keys(KINDS).filter((kind) => seen.has(kind)).map(legendItem));
}

function describe(fates) {
  const counts = {};
  for (const kind of fates.values()) counts[kind] = (counts[kind] ?? 0) + 1;
  return Object.entries(counts).map(([kind, n]) => `${n} beats ${KINDS[kind]}`).join(", ");
}

function legendItem(kind) {
  const item = document.createElement("li");
  const swatch = document.createElement("canvas");
  swatch.className = "swatch";
  item.append(swatch, KINDS[kind]);
  requestAnimationFrame(() => draw(swatch, new Map([[0, kind]]), 0, 1));
  return item;
}

function draw(canvas, fates, first, end) {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const step = width / (end - first);
  for (const [beat, kind] of fates) {
    const box = [(beat - first) * step, 0, Math.max(1, step - (step > 5 ? 1 : 0)), height];
    paint(pen, kind, box, style);
  }
}

function paint(pen, kind, [x, y, width, height], style) {
  const colour = style.getPropertyValue(kind === "kept" ? "--wave" : `--edit-${kind}`).trim();
  pen.save();
  pen.beginPath();
  pen.rect(x, y, width, height);
  pen.clip();
  pen.fillStyle = pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  const third = height / 3;
  if (kind === "kept") pen.fillRect(x, y + third, width, third);
  else if (kind === "cut") hatch(pen, x, width, height);
  else if (kind === "repeat") {
    pen.fillRect(x, y, width, third * 1.2);
    pen.fillRect(x, y + third * 1.8, width, third * 1.2);
  } else if (kind === "move") pen.fillRect(x, y, width, height);
  else if (kind === "level") wedge(pen, x, width, height);
  else arrows(pen, x, width, height);
  pen.restore();
}

function hatch(pen, x, width, height) {
  pen.beginPath();
  const first = Math.floor((x - height) / 5) * 5;
  for (let at = first; at < x + width; at += 5) {
    pen.moveTo(at, height);
    pen.lineTo(at + height, 0);
  }
  pen.stroke();
}

function wedge(pen, x, width, height) {
  pen.beginPath();
  pen.moveTo(x, height);
  pen.lineTo(x + width, 0);
  pen.lineTo(x + width, height);
  pen.fill();
}

function arrows(pen, x, width, height) {
  pen.beginPath();
  pen.moveTo(x, height / 2);
  pen.lineTo(x + width, 0);
  pen.lineTo(x + width, height);
  pen.fill();
}
