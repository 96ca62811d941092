// One side's waveform: a slider that is drawn on canvas. All sides have the same drawn width, so
// that nothing but the sound tells them apart; marks show where the two edits differ, in one
// neutral colour, and fill with the lamp's amber as they are heard.

const BAR = 2, GAP = 1, STRIP = 9;

export class Waveform {
  /** onseek(seconds) is called on click, drag and the slider's own keys. */
  constructor(host, onseek) {
    this.host = host;
    this.onseek = onseek;
    this.duration = 1;
    this.peaks = [];
    this.marks = [];
    this.heard = [];
    this.layers = ["base", "played"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = `wave-${name}`;
      canvas.setAttribute("aria-hidden", "true");
      host.append(canvas);
      return canvas;
    });
    this.head = document.createElement("div");
    this.head.className = "playhead";
    host.append(this.head);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(host);
    host.addEventListener("pointerdown", (event) => this.drag(event));
  }

  show({ duration, peaks, marks }) {
    Object.assign(this, { duration, marks, heard: [], loop: null });
    this.peaks = peaks;
    this.host.setAttribute("aria-valuemax", duration.toFixed(1));
    this.draw();
    this.moveTo(0);
  }

  /** Show what has been heard of the marks, and which stretch goes round. */
  update(heard, loop) {
    this.heard = heard;
    this.loop = loop;
    this.draw();
  }

  moveTo(seconds) {
    const share = Math.min(1, Math.max(0, seconds / this.duration));
    this.head.style.transform = `translateX(${share * this.width}px)`;
    this.layers[1].style.clipPath = `inset(0 ${(1 - share) * 100}% 0 0)`;
  }

  /** For screen readers; called a few times a second, not every frame. */
  announce(seconds) {
    this.host.setAttribute("aria-valuenow", seconds.toFixed(1));
    this.host.setAttribute("aria-valuetext", `${seconds.toFixed(0)} seconds`);
  }

  get width() {
    return this.host.clientWidth;
  }

  drag(event) {
    const seek = ({ clientX }) => {
      const box = this.host.getBoundingClientRect();
      this.onseek(Math.min(1, Math.max(0, (clientX - box.left) / box.width)) * this.duration);
    };
    if (event.button !== 0) return;
    event.preventDefault();
    this.host.setPointerCapture(event.pointerId);
    seek(event);
    const stop = new AbortController();
    const options = { signal: stop.signal };
    let pending = 0;
    this.host.addEventListener("pointermove", (move) => {
      cancelAnimationFrame(pending);
      pending = requestAnimationFrame(() => seek(move));
    }, options);
    for (const end of ["pointerup", "pointercancel"]) {
      this.host.addEventListener(end, () => stop.abort(), options);
    }
  }

  draw() {
    const width = this.width, height = this.host.clientHeight;
    if (!width || !height) return;
    const style = getComputedStyle(this.host);
    const colour = (name) => style.getPropertyValue(name).trim();
    const ratio = window.devicePixelRatio || 1;
    this.layers.forEach((canvas, played) => {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      if (!played) this.drawMarks(pen, width, height, colour);
      pen.fillStyle = colour(played ? "--wave-played" : "--wave");
      this.drawBars(pen, width, height);
    });
  }

  drawBars(pen, width, height) {
    const count = Math.floor(width / (BAR + GAP));
    const middle = STRIP + (height - STRIP) / 2, reach = (height - STRIP) / 2 - 2;
    const { peaks } = this;
    if (!peaks.length) return;
    const loudest = Math.max(...peaks, 1e-4);
    pen.beginPath();
    for (let i = 0; i < count; i++) {
      const from = Math.floor((i / count) * peaks.length);
      const to = Math.max(from + 1, Math.floor(((i + 1) / count) * peaks.length));
      const half = Math.max(0.75, (Math.max(...peaks.slice(from, to)) / loudest) ** 1.5 * reach);
      pen.roundRect(i * (BAR + GAP), middle - half, BAR, 2 * half, 1);
    }
    pen.fill();
  }

  drawMarks(pen, width, height, colour) {
    const x = (seconds) => (seconds / this.duration) * width;
    for (const [start, end] of this.marks) {
      const left = x(start), span = Math.max(3, x(end) - left);
      pen.fillStyle = colour("--mark-band");
      pen.fillRect(left, STRIP, span, height - STRIP);
      pen.fillStyle = colour("--mark");
      pen.beginPath();
      pen.roundRect(left, 1, span, 5, 2.5);
      pen.fill();
      pen.fillStyle = colour("--lamp");
      for (const [from, to] of this.heard) {
        const inside = [Math.max(from, start), Math.min(to, end)];
        if (inside[1] - inside[0] < 0.02) continue;
        pen.beginPath();
        pen.roundRect(x(inside[0]), 1, Math.max(2, x(inside[1]) - x(inside[0])), 5, 2.5);
        pen.fill();
      }
    }
    if (this.loop) {
      pen.strokeStyle = colour("--lamp");
      pen.lineWidth = 1.5;
      const [start, end] = this.loop.map(x);
      pen.strokeRect(start + 0.75, STRIP + 0.75, Math.max(4, end - start - 1.5), height - STRIP - 1.5);
    }
  }
}

/** Loudest sample of each of `count` equal stretches of a decoded buffer. */
export function peaksOf(buffer, count = 400) {
  const data = buffer.getChannelData(0);
  const size = data.length / count;
  return Array.from({ length: count }, (_, i) => {
    let top = 0;
    const end = Math.floor((i + 1) * size);
    for (let j = Math.floor(i * size); j < end; j += 8) top = Math.max(top, Math.abs(data[j]));
    return top;
  });
}
