// The short walk-through of the first visit, remembered per browser.

const SEEN = "tour-seen/1";
const STEPS = [
  { title: "Put your headphones on",
    text: "You will hear two edits of the same stretch of a song, A and B. Set a comfortable " +
      "level now and leave it: both are equally loud. You can keep your eyes shut.",
    keys: [["space", "play, pause"], ["↑ ↓", "level"]] },
  { title: "Switch as often as you like",
    text: "Switching keeps the same moment of the song, even when one edit is shorter. The " +
      "original is there to compare with; it is not the right answer.",
    keys: [["1", "A"], ["2", "B"], ["3", "original"], ["S", "flip"]] },
  { title: "Go where they differ",
    text: "Marks above the waveforms show where A and B differ. Hear those places on both sides " +
      "and voting opens: the marks fill as you listen.",
    keys: [["D", "next difference, looped"], ["L", "stop looping"]] },
  { title: "Vote, then move on",
    text: "Say which one you would rather hear, and how clearly, if you like. The next pair " +
      "starts at once, and any vote can be undone.",
    keys: [["Q", "A"], ["W", "B"], ["E", "equal"], ["R", "both bad"], ["T", "can't judge"],
      ["U", "undo"]] },
];

export class Tour {
  constructor(parts, ondone) {
    this.parts = parts;
    this.ondone = ondone;
    this.step = 0;
    parts.tour.addEventListener("close", () => {
      localStorage.setItem(SEEN, "1");
      this.ondone();
    });
  }

  get wanted() {
    return localStorage.getItem(SEEN) === null;
  }

  open() {
    this.step = 0;
    this.parts.tour.showModal();
    this.show();
  }

  get running() {
    return this.parts.tour.open;
  }

  next() {
    this.step += 1;
    if (this.step < STEPS.length) this.show();
    else this.parts.tour.close();
  }

  show() {
    const { title, text, keys } = STEPS[this.step];
    const { parts } = this;
    parts["tour-count"].textContent = `${this.step + 1} of ${STEPS.length}`;
    parts["tour-title"].textContent = title;
    parts["tour-text"].textContent = text;
    parts["tour-keys"].replaceChildren(...keys.map(([key, meaning]) => {
      const item = document.createElement("span"), cap = document.createElement("kbd");
      cap.textContent = key;
      item.append(cap, ` ${meaning}`);
      return item;
    }));
    parts["tour-next"].textContent = this.step + 1 < STEPS.length ? "Next" : "Start listening";
    parts["tour-next"].focus();
  }
}
