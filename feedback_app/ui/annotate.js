// The sitting: pair after pair. Fetches and decodes ahead, takes votes and undos, keeps going when
// the server or the network does not.

import { Outbox, uuid } from "./outbox.js";
import { SignedOut, Unplayable, Unreachable, getJson, nextAssignment, prepare } from "./pairs.js";
import { voteText } from "./view.js";

const CLIENT_VERSION = "annotate-1";
const POLL = 4000; // ms between looks for new pairs, and between tries without a server
const KEPT = 100; // votes of this sitting that can be undone
const VOTED = "sitting/votes"; // sessionStorage: their ids, so that undo works after a reload

export class Sitting {
  constructor(view, transport) {
    this.view = view;
    this.transport = transport;
    this.current = null;
    this.waiting = []; // prepared pairs put aside by undo, to come back to
    this.ahead = null; // promise of the next prepared pair, or null
    this.unplayable = new Set();
    this.restoring = new Set(); // undone votes whose pair is brought back from memory
    this.strength = null;
    this.trouble = false; // the notice on the page is about getting pairs
    this.counted = false; // the progress shown is the server's
    this.turn = 0; // counts what is shown, so that a late answer cannot replace something newer
    this.votes = JSON.parse(sessionStorage.getItem(VOTED) ?? "[]").map((id) => ({ id }));
    this.autoplay = false; // the listener has begun: from now on pairs start by themselves
    this.mayPlay = () => this.autoplay || transport.unlocked;
    this.mayBegin = async () => {}; // resolves when pairs may be asked for
    this.outbox = new Outbox({
      onstored: (item, answer) => this.stored(item, answer),
      onrefused: (item, message) => this.refused(item, message),
      onstate: () => this.delivery(),
    });
  }

  async start() {
    this.transport.onheard = (side, from, to) => this.current?.listening.add(side, from, to);
    if (this.votes.length) this.view.last("Your last vote can still be undone.");
    while (!(await this.attempt(() => this.identify()))) await pause(POLL);
    void this.outbox.flush();
    await this.mayBegin();
    await this.advance();
  }

  /** Learn who is signed in; another account's votes of this tab are not ours to undo. */
  async identify() {
    const { name } = await getJson("/api/me");
    if (this.outbox.owner !== name) {
      this.votes = [];
      this.saveVotes();
      this.view.last(null);
    }
    this.outbox.own(name);
    return true;
  }

  // -- pairs ------------------------------------------------------------------------------------

  /** Assignments that must not be given again: shown, put aside, or voted on but not yet stored. */
  taken(also = []) {
    const unsent = this.outbox.items().filter((item) => item.kind === "vote")
      .map((item) => item.body.assignment_id);
    const held = [this.current, ...this.waiting].filter(Boolean)
      .map((pair) => pair.assignment.assignment_id);
    return [...new Set([...unsent, ...held, ...also, ...this.unplayable])];
  }

  /** A prepared pair, or {empty}. */
  async obtain() {
    const answer = await nextAssignment(this.taken());
    if (["waiting", "signed-out"].includes(this.outbox.state)) void this.outbox.flush();
    if (answer.empty) return answer;
    return prepare(answer.assignment, this.transport);
  }

  async advance() {
    const turn = ++this.turn;
    this.current = null;
    const put = this.waiting.shift();
    if (put) return this.show(put);
    const ahead = this.ahead;
    this.ahead = null;
    if (ahead?.ready) return this.show(ahead.ready);
    this.transport.unload();
    this.view.phase("loading", "Fetching the next pair…");
    for (let first = true; turn === this.turn; first = false) {
      const pair = await this.attempt(() => (first && ahead ? ahead : this.obtain()));
      if (turn !== this.turn) return this.keep(pair);
      if (pair && !pair.empty) return this.show(pair);
      await pause(first && ahead ? 0 : POLL);
    }
  }

  /** A pair that arrived after something else had been put on the page is next in line. */
  keep(pair) {
    if (pair && !pair.empty) this.waiting.push(pair);
  }

  /** Try to get a pair; say in words what stands in the way. Null: try again. */
  async attempt(work) {
    const { view } = this;
    try {
      const pair = await work();
      if (pair?.empty) view.phase("empty", "You are up to date.", pair.message);
      if (this.trouble) view.notice(null);
      this.trouble = false;
      return pair;
    } catch (error) {
      this.trouble = error instanceof SignedOut;
      if (error instanceof SignedOut) {
        view.phase("trouble", "You have been signed out.", "Your votes are safe. Sign in to go on.");
        this.sessionEnded();
      } else if (error instanceof Unreachable) {
        view.phase("trouble", "No answer from the server.",
          `Trying again every few seconds. Votes are kept on this device until then.`);
      } else if (error instanceof Unplayable) {
        this.unplayable.add(error.assignmentId);
        this.tell(`One pair was left out: ${error.message}. Here comes another.`);
      } else {
        view.phase("trouble", "Something went wrong.", error.message);
      }
      return null;
    }
  }

  show(pair) {
    this.turn += 1;
    this.current = pair;
    const { view, transport } = this;
    transport.load(pair, pair.assignment.first_side);
    this.setStrength(null);
    view.phase("ready");
    view.pair(pair, transport);
    view.transport(transport);
    view.heard(pair.listening, transport);
    if (!this.counted) this.progress(pair.assignment.progress);
    if (this.mayPlay()) void transport.play();
    this.fetchAhead();
  }

  fetchAhead() {
    clearTimeout(this.later);
    if (this.ahead || this.waiting.length) return;
    // Nothing to be had now, or no connection: said in words when the pair is really needed; tried
    // again meanwhile, so that it is there by then.
    const again = () => {
      if (this.ahead === ahead) this.ahead = null;
      this.later = setTimeout(() => this.current && this.fetchAhead(), POLL);
    };
    const ahead = this.obtain();
    this.ahead = ahead;
    ahead.then(
      (pair) => {
        if (pair.empty) again();
        else ahead.ready = pair;
      },
      (error) => {
        if (!(error instanceof Unplayable)) return again();
        this.unplayable.add(error.assignmentId); // there is time to get another one quietly
        if (this.ahead !== ahead) return;
        this.ahead = null;
        if (this.current) this.fetchAhead();
      },
    );
  }

  // -- votes ------------------------------------------------------------------------------------

  setStrength(value) {
    this.strength = value;
    this.view.strength(value);
  }

  vote(choice) {
    const { current: pair, view, transport } = this;
    if (!pair) return;
    transport.report();
    if (!pair.listening.open && choice !== "skip") {
      view.nudge();
      transport.knock();
      return;
    }
    const decided = choice === "left" || choice === "right";
    const body = {
      vote_id: uuid(),
      assignment_id: pair.assignment.assignment_id,
      choice,
      strength: decided ? this.strength : null,
      tags: view.chosenTags(),
      comment: view.parts.comment.value.trim(),
      listened: { ...pair.listening.summary(transport.switches), volume: transport.volume },
      response_ms: pair.listening.responseTime(),
      client_version: CLIENT_VERSION,
    };
    view.parts.comment.blur();
    this.remember({ id: body.vote_id, pair, choice, strength: body.strength });
    this.autoplay = true;
    view.last(`${capital(voteText(body))}. Saving…`);
    view.say(`Voted: ${voteText(body)}`);
    void this.outbox.add("vote", body);
    void this.advance();
  }

  remember(vote) {
    for (const older of this.votes) {
      if (older.pair) older.pair.buffers = null; // only the latest stays decoded
    }
    this.votes = [...this.votes, vote].slice(-KEPT);
    this.saveVotes();
  }

  saveVotes() {
    sessionStorage.setItem(VOTED, JSON.stringify(this.votes.map((vote) => vote.id)));
  }

  /** Take back the last vote of the sitting, or the one with this id. */
  async undo(id = null) {
    const { view } = this;
    const index = id === null ? this.votes.length - 1
      : this.votes.findIndex((vote) => vote.id === id);
    const [vote] = index < 0 ? [] : this.votes.splice(index, 1);
    if (!vote) {
      view.say("There is no vote to undo.");
      return;
    }
    this.saveVotes();
    view.last(this.votes.length ? "Undone. One more can be undone." : null);
    view.say("Vote undone.");
    const body = { vote_id: uuid(), undoes: vote.id };
    void this.outbox.add("undo", body);
    if (!vote.pair) return; // voted before a reload: the answer brings the pair back
    this.restoring.add(vote.id);
    if (vote.pair.buffers) this.bringBack(vote.pair);
    else await this.reopen(vote.pair.assignment, vote.pair.listening);
  }

  async reopen(assignment, listening = null) {
    const turn = this.turn;
    const pair = await this.attempt(() => prepare(assignment, this.transport));
    if (!pair) return;
    if (listening) pair.listening = listening;
    if (turn === this.turn) this.bringBack(pair);
    else this.waiting.unshift(pair);
  }

  bringBack(pair) {
    if (this.current) this.waiting.unshift(this.current);
    this.show(pair);
  }

  // -- what the server says ---------------------------------------------------------------------

  stored(item, answer) {
    const { view } = this;
    if (answer.progress) this.progress(answer.progress);
    if (this.current) this.fetchAhead(); // the connection is there
    if (item.kind === "undo") {
      const known = this.restoring.delete(item.body.undoes);
      if (answer.assignment && !known) void this.reopen(answer.assignment);
      return;
    }
    const latest = this.votes[this.votes.length - 1];
    if (answer.hint) {
      this.tell(answer.hint);
    }
    if (latest?.id !== item.id) return;
    view.last(`Saved: ${voteText(item.body)}.`);
    if (answer.reveal && latest.pair) {
      view.reveal(answer.reveal, latest.pair.assignment.original);
    }
  }

  /** A notice that goes by itself. */
  tell(text) {
    this.view.notice(text);
    setTimeout(() => this.view.notice(null, false, text), 12000);
  }

  progress(figures) {
    this.counted = true;
    this.view.progress(figures);
  }

  refused(item, message) {
    const what = item.kind === "vote" ? "A vote" : "An undo";
    this.view.notice(`${what} was not accepted: ${message}.`);
  }

  /** "2 votes are kept …", "" where none waits. */
  kept() {
    const count = this.outbox.items().length;
    const votes = count === 1 ? "1 vote is" : `${count} votes are`;
    return count ? ` ${votes} kept on this device and will be sent.` : "";
  }

  sessionEnded() {
    this.view.notice(`Your session has ended.${this.kept()}`, true);
  }

  delivery() {
    const { view, outbox } = this;
    if (outbox.state === "signed-out") {
      this.sessionEnded();
      this.interrupted = true;
    } else if (outbox.state === "waiting" && outbox.tries > 1) {
      view.notice(`No connection.${this.kept()}`);
      this.interrupted = true;
    } else if (outbox.state === "idle" && this.interrupted) {
      this.interrupted = false;
      view.notice("Connected again. Everything is saved.");
      setTimeout(() => view.notice(null), 4000);
    }
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
