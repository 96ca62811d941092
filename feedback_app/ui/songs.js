// Sending songs in pieces with progress, and tapping along to one.
// Everything that a file is called goes into the page as text.

const PIECE = 2 * 1024 * 1024;
const TRIES = 8; // a piece is tried so often, with growing pauses of 0.5 s to 20 s
const MIN_TAPS = 4;

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const make = (tag, name, text = "") => {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  return node;
};

/** One file's line: name, bar, words. */
class Line {
  constructor(list, file) {
    this.node = list.appendChild(make("li", "fa-upload"));
    this.node.append(make("span", "fa-upload-name", file.name));
    this.bar = this.node.appendChild(make("progress", "fa-upload-bar"));
    this.bar.max = file.size || 1;
    this.bar.value = 0;
    this.words = this.node.appendChild(make("span", "fa-upload-words", "waits"));
  }

  show(received, words) {
    this.bar.value = received;
    this.words.textContent = words;
  }
}

/** Sends one file; resolves to its key. Rejects with words where the server refuses it. */
export async function send(file, line, fetchIt = fetch, pause = wait) {
  let offset = -1; // -1: ask how much is there
  for (let failed = 0; ; ) {
    const piece = offset < 0 ? new Blob([]) : file.slice(offset, offset + PIECE);
    const told = { name: file.name, size: file.size, modified: file.lastModified, offset: Math.max(offset, 0) };
    let answer = null;
    try {
      answer = await fetchIt(`/research/uploads?${new URLSearchParams(told)}`, { method: "POST", body: piece });
    } catch {
      // no connection: told below
    }
    const busy = answer !== null && (answer.status === 429 || answer.status >= 500);
    if (answer === null || busy) {
      failed += 1;
      const said = busy ? (await answer.json().catch(() => ({}))).error : "";
      if (failed >= TRIES) throw new Error(said || "no connection; choose the file again to go on");
      line.show(Math.max(offset, 0), `${said || "no connection"}; tries again`);
      await pause(Math.min(500 * 2 ** failed, 20000));
      continue;
    }
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok && answer.status !== 409) throw new Error(body.error || `the server answered ${answer.status}`);
    failed = 0;
    offset = body.received;
    line.show(offset, `${Math.floor((100 * offset) / file.size)} %`);
    if (body.done) return body.key;
  }
}

/** The panel with the file input and the drop area. */
export function uploads(element, trigger) {
  const input = element.querySelector("input[type=file]");
  const list = element.querySelector("ul");
  let queue = Promise.resolve();
  const add = (files) => {
    const lines = files.map((file) => [file, new Line(list, file)]);
    queue = queue.then(async () => {
      const keys = [];
      for (const [file, line] of lines) {
        try {
          keys.push(await send(file, line));
          line.show(file.size, "sent");
        } catch (error) {
          line.node.classList.add("fa-upload-bad");
          line.words.textContent = error.message;
        }
      }
      if (keys.length) trigger("submit", { keys });
    });
  };
  const take = () => {
    add([...input.files]);
    input.value = "";
  };
  input.addEventListener("change", take);
  if (input.files.length) take(); // chosen before this script was there
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
}

/** {period, start} of the even line through the taps (least squares; a missed tap is a gap). */
export function tappedLine(taps) {
  const gaps = taps.slice(1).map((tap, i) => tap - taps[i]);
  const median = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length / 2)];
  const places = [0];
  for (const gap of gaps) places.push(places.at(-1) + Math.round(gap / median));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(places), mean(taps)];
  const over = places.reduce((sum, place, i) => sum + (place - x) * (taps[i] - y), 0);
  const period = over / places.reduce((sum, place) => sum + (place - x) ** 2, 0);
  return { period, start: y - period * x };
}

/** Tapping along: the button or T sets a beat where the song is; the grid is seen before saving. */
export function tapping(element, trigger) {
  const find = (name) => element.querySelector(`[data-id="${name}"]`);
  let taps = [];
  let of = "";
  const draw = () => {
    const audio = find("song");
    const line = element.querySelector(".fa-wave .tapped");
    const enough = taps.length >= MIN_TAPS;
    find("save").disabled = !enough;
    find("clear").disabled = taps.length === 0;
    const { period, start } = enough ? tappedLine(taps) : { period: 0, start: 0 };
    find("taps").textContent = enough
      ? `${taps.length} taps, ${(60 / period).toFixed(1)} BPM: the dashed strokes. The first tap is a downbeat.`
      : `${taps.length} of at least ${MIN_TAPS} taps.`;
    if (!line || !audio.duration) return;
    let marks = taps.map((tap) => `M${((1000 * tap) / audio.duration).toFixed(1)} 40V80`).join("");
    if (enough && period > 0.1) {
      for (let at = start % period; at < audio.duration; at += period) {
        marks += `M${((1000 * at) / audio.duration).toFixed(1)} 0V30`;
      }
    }
    line.setAttribute("d", marks || "M0 0");
  };
  const tap = () => {
    const audio = find("song");
    if (!audio) return;
    if (audio.paused || of !== audio.dataset.song) {
      taps = [];
      of = audio.dataset.song;
      audio.play();
    } else if (taps.length === 0 || audio.currentTime > taps.at(-1)) taps.push(audio.currentTime);
    draw();
  };
  const acts = {
    tap,
    clear: () => {
      taps = [];
      draw();
    },
    save: () => {
      const how = `tap:${taps.map((at) => at.toFixed(3)).join(",")}`;
      taps = [];
      trigger("submit", { act: "tapped", of: find("song").dataset.song, how });
    },
  };
  element.addEventListener("click", (event) => acts[event.target.closest("[data-id]")?.dataset.id]?.());
  element.addEventListener(
    "timeupdate",
    (event) => {
      const cursor = element.querySelector(".fa-wave .cursor");
      const audio = event.target;
      if (cursor && audio.duration) cursor.setAttribute("d", `M${(1000 * audio.currentTime) / audio.duration} 0V120`);
    },
    true,
  );
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable], .cm-editor");
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat;
    const seen = element.isConnected && element.offsetParent !== null && find("song");
    if (event.key.toLowerCase() === "t" && plain && !typing && seen) {
      event.preventDefault();
      tap();
    }
  });
}
