// Every key of the page, in one table: what the handler obeys and what the `?` sheet shows.

export const KEYS = [
  { group: "Listen", keys: ["1", "a"], show: "1", does: "listen-left", text: "A" },
  { group: "Listen", keys: ["2", "b"], show: "2", does: "listen-right", text: "B" },
  { group: "Listen", keys: ["3", "o"], show: "3", does: "listen-original", text: "Original" },
  { group: "Listen", keys: [" "], show: "space", does: "play", text: "Play, pause" },
  { group: "Listen", keys: ["s"], show: "S", does: "switch", text: "Flip between A and B" },
  { group: "Listen", keys: ["d", "n"], show: "D", does: "difference",
    text: "Next place where they differ, looped" },
  { group: "Listen", keys: ["l"], show: "L", does: "loop", text: "Loop this difference, or stop looping" },
  { group: "Listen", keys: ["arrowleft"], show: "←", does: "back",
    text: "Back four beats (with shift: one)" },
  { group: "Listen", keys: ["arrowright"], show: "→", does: "forward",
    text: "On four beats (with shift: one)" },
  { group: "Listen", keys: ["home"], show: "Home", does: "restart", text: "From the beginning" },
  { group: "Listen", keys: ["arrowup"], show: "↑", does: "louder", text: "Louder" },
  { group: "Listen", keys: ["arrowdown"], show: "↓", does: "softer", text: "Softer" },
  { group: "Vote", keys: ["q"], show: "Q", does: "vote-left", text: "A is better" },
  { group: "Vote", keys: ["w"], show: "W", does: "vote-right", text: "B is better" },
  { group: "Vote", keys: ["e"], show: "E", does: "vote-tie", text: "Equally good" },
  { group: "Vote", keys: ["r"], show: "R", does: "vote-both_bad", text: "Both bad" },
  { group: "Vote", keys: ["t"], show: "T", does: "vote-skip", text: "Can't judge" },
  { group: "Before voting, if you like", keys: ["z"], show: "Z", does: "strength-1", text: "slightly" },
  { group: "Before voting, if you like", keys: ["x"], show: "X", does: "strength-2", text: "clearly" },
  { group: "Before voting, if you like", keys: ["c"], show: "C", does: "strength-3", text: "by far" },
  ...["4", "5", "6", "7", "8", "9"].map((key, index) => ({
    group: "Before voting, if you like", keys: [key], show: key, does: `tag-${index}`,
    text: index ? null : "Tags, in their order" })),
  { group: "Before voting, if you like", keys: ["g"], show: "G", does: "notes",
    text: "A comment; Esc brings you back" },
  { group: "Any time", keys: ["u"], show: "U", does: "undo", text: "Undo the last vote" },
  { group: "Any time", keys: ["?"], show: "?", does: "help", text: "This list" },
];

/** How many tags have a key of their own. */
export const TAG_KEYS = KEYS.filter(({ does }) => does.startsWith("tag-")).map(({ show }) => show);

const BY_KEY = new Map(KEYS.flatMap((entry) => entry.keys.map((key) => [key, entry.does])));
const SLIDER_KEYS = new Set(["arrowleft", "arrowright", "arrowup", "arrowdown", "home"]);

/** The action of a key press, or null where the key belongs to what has the focus. */
export function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return null;
  const { target } = event;
  // The number row listens on every layout, also where its plain keys are no digits.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  const key = digit && !event.shiftKey ? digit[1] : event.key.toLowerCase();
  if (target.closest("textarea, input:not([type=range]), select, dialog[open]")) return null;
  if (target.matches("input[type=range]") && SLIDER_KEYS.has(key)) return null;
  if (key === " " && target.closest("button, summary, a")) return null;
  return BY_KEY.get(key) ?? null;
}

/** Fill the `?` sheet. */
export function listKeys(host) {
  const groups = new Map();
  for (const entry of KEYS) {
    if (!groups.has(entry.group)) groups.set(entry.group, []);
    groups.get(entry.group).push(entry);
  }
  host.replaceChildren(...[...groups].map(([name, entries]) => {
    const section = document.createElement("section");
    const title = document.createElement("h3");
    const list = document.createElement("dl");
    title.textContent = name;
    for (const { show, keys, text, does } of entries) {
      if (text === null) continue; // told in the row of the first of its kind
      const term = document.createElement("dt"), meaning = document.createElement("dd");
      const letters = does.startsWith("tag-") ? [`${TAG_KEYS[0]} … ${TAG_KEYS.at(-1)}`]
        : [show, ...keys.slice(1).map((key) => key.toUpperCase())];
      term.append(...letters.map((letter) => {
        const cap = document.createElement("kbd");
        cap.textContent = letter;
        return cap;
      }));
      meaning.textContent = text;
      list.append(term, meaning);
    }
    section.append(title, list);
    return section;
  }));
}
