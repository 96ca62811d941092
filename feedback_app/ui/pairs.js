// Getting pairs: the next assignment from the server, its three sounds decoded and ready.

import { Listening } from "./listening.js";
import { SIDES } from "./transport.js";
import { peaksOf } from "./waveform.js";

/** The server cannot be reached or is restarting: worth trying again. */
export class Unreachable extends Error {}
/** The session is over: sign in again. */
export class SignedOut extends Error {}
/** One pair cannot be played; others may. */
export class Unplayable extends Error {
  constructor(message, assignmentId) {
    super(message);
    this.assignmentId = assignmentId;
  }
}

async function get(url) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin" });
  } catch (error) {
    if (error instanceof TypeError) throw new Unreachable("no connection to the server");
    throw error;
  }
  if (response.status === 401) throw new SignedOut("signed out");
  if (response.status >= 500 || response.status === 429) {
    throw new Unreachable(`the server answered ${response.status}`);
  }
  return response;
}

/** JSON of an API route; throws Unreachable, SignedOut, or Error with the server's words. */
export async function getJson(url) {
  const response = await get(url);
  let answer;
  try {
    answer = await response.json();
  } catch (error) {
    throw new Unreachable(`an answer that cannot be read (${error.message})`);
  }
  if (!response.ok) throw new Error(answer.error ?? `the server answered ${response.status}`);
  return answer;
}

/** {assignment} or {empty, message}; never one of the assignments in `exclude`. */
export async function nextAssignment(exclude) {
  const query = exclude.length ? `?exclude=${exclude.map(encodeURIComponent).join(",")}` : "";
  const answer = await getJson(`/api/next${query}`);
  return answer.empty ? answer : { assignment: answer.assignment ?? answer };
}

/** Fetch and decode a pair's sounds: {assignment, buffers, peaks, listening}. */
export async function prepare(assignment, transport) {
  const loaded = await Promise.all(SIDES.map((side) => sound(assignment, side, transport)));
  const buffers = Object.fromEntries(SIDES.map((side, i) => [side, loaded[i]]));
  const peaks = Object.fromEntries(SIDES.map((side) => {
    const given = assignment[side].peaks;
    return [side, given?.length ? given : peaksOf(buffers[side])];
  }));
  return { assignment, buffers, peaks, listening: new Listening(assignment, assignment.first_side) };
}

async function sound(assignment, side, transport) {
  const response = await get(assignment[side].media);
  const id = assignment.assignment_id;
  if (!response.ok) throw new Unplayable("its audio is not on the server", id);
  let bytes;
  try {
    bytes = await response.arrayBuffer();
  } catch (error) {
    throw new Unreachable(`the audio broke off (${error.message})`);
  }
  try {
    return await transport.decode(bytes);
  } catch (error) {
    if (error.name !== "EncodingError") throw error;
    throw new Unplayable("this browser cannot decode its audio", id);
  }
}
