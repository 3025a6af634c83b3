// Questions to the server, and what it says no to.

import {sentence} from './dom.js';

const NO_CONTENT = 204, LOG_IN_FIRST = 401;

/** The server's answer is no; the message is its reason. */
export class Refusal extends Error {
  constructor(reason) {
    super(sentence(reason));
  }
}

/** The server cannot be reached. */
export class Gone extends Error {
  constructor() {
    super('The server does not answer. See that it runs and that this device is in its network.');
  }
}

/** The URL of a thing: parts of a path, which may be names that somebody typed. */
export const url = (...parts) => ['/api', ...parts.map(encodeURIComponent)].join('/');

export const get = (...parts) => ask('GET', url(...parts));
export const erase = (...parts) => ask('DELETE', url(...parts));
export const post = (body, ...parts) => ask('POST', url(...parts), body);
export const change = (body, ...parts) => ask('PATCH', url(...parts), body);
export const put = (body, ...parts) => ask('PUT', url(...parts), body);

/**
 * Ask the server something: a body goes as JSON, or as it is where it is a form.
 * When the log-in is over the page hears of it by the event "logged-out".
 */
export async function ask(method, address, body, extra = {}) {
  const form = body instanceof FormData;
  const headers = {'X-Facetpu': '1', ...(body && !form ? {'Content-Type': 'application/json'} : {})};
  let response;
  try {
    response = await fetch(address, {method, headers, body: form || !body ? body : JSON.stringify(body), ...extra});
  } catch {
    throw new Gone();
  }
  const answer = await response.json().catch(() => {
    if (response.ok && response.status !== NO_CONTENT) throw new Gone(); // in the middle of its answer
    return {};
  });
  if (response.ok) return answer;
  if (response.status === LOG_IN_FIRST && address !== url('session')) document.dispatchEvent(new Event('logged-out'));
  throw new Refusal(answer.error ?? `The server says ${response.status} ${response.statusText}`);
}
