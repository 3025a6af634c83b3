// The page of facetpu serve: the log-in, and the line to the server on which it tells what to show anew.

import {erase, get, Gone, post, Refusal} from './api.js';
import {count, element, pause, sentence} from './dom.js';
import {showEvents} from './events.js';
import {house} from './house.js';
import {rest, watch} from './live.js';
import {Line} from './notices.js';
import {showPeople} from './people.js';
import {attempt, state} from './say.js';
import {showThreshold} from './threshold.js';

const FIRST_WAIT = 1000, LONGEST_WAIT = 10000; // milliseconds until a server that is gone is asked again
const SETTLING = 300; // milliseconds in which several notices are one reason to ask

let line = null, connecting = false, due = false; // whether to get in anew

document.addEventListener('visibilitychange', () => (document.hidden ? disconnect() : connect()));
document.addEventListener('logged-out', () => location.reload());
addEventListener('hashchange', async () => {
  if (await usedToken()) connect();
});
connect();

/** Get in, show all there is, and listen; ask again and again until the server answers or the page is hidden. */
async function connect() {
  due = true;
  if (connecting) return;
  connecting = true;
  try {
    for (let wait = FIRST_WAIT; due && !document.hidden; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      due = false;
      if (await reached()) continue;
      due = true;
      await pause(wait);
    }
  } finally {
    connecting = false;
  }
  if (document.hidden) disconnect(); // while it was being shown
}

async function reached() {
  try {
    await usedToken();
    const {token_needed: needed, inside} = await get('session');
    element('log-out').hidden = !(needed && inside);
    needed && !inside ? showLogIn() : await showHouse();
    return true;
  } catch (error) {
    if (!(error instanceof Gone || error instanceof Refusal)) throw error;
    state(`${error.message} It is asked again…`, true);
    return false;
  }
}

async function showHouse() {
  for (const id of ['house', 'tabs']) element(id).hidden = false;
  element('log-in').hidden = true;
  disconnect();
  const {stands} = line = new Line(hear, async () => {
    disconnect();
    await pause(FIRST_WAIT);
    connect();
  });
  await Promise.all([watch(), showPeople(), showThreshold()]);
  await showEvents(); // they name people and cameras
  await showState();
  if (!(await stands)) throw new Refusal('too many pages are open; close one');
}

function disconnect() {
  line?.close();
  line = null;
  rest();
}

// --- what the server tells

const PARTS = {seen: [showPeople, showEvents], people: [showPeople, showEvents, showThreshold], camera: [showState]};
const stale = new Set();
let refreshed = Promise.resolve();

/** Show anew what a notice is about; several at once are one. */
function hear(kind) {
  if (!stale.size) setTimeout(() => (refreshed = refreshed.then(refresh)), SETTLING);
  for (const show of [...PARTS[kind], showState]) stale.add(show);
}

async function refresh() {
  const parts = [...stale];
  stale.clear();
  try {
    for (const show of parts) await show();
  } catch (error) {
    if (!(error instanceof Gone || error instanceof Refusal)) throw error; // a server that is gone breaks the line too
  }
}

async function showState() {
  const {problem, cameras} = await get('status');
  const watching = cameras.filter((camera) => camera.state === 'watching').length;
  const known = `${count(house.people.length, 'person').replace('persons', 'people')} known`;
  const eyes = watching ? `${count(watching, 'camera')} watching` : 'No camera is watching';
  state(problem ? sentence(problem) : `${eyes} · ${known}`, Boolean(problem));
}

// --- the log-in

/** Log in by the token in the address, and take it out of there, where anybody could read it. */
async function usedToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token === null) return false;
  await logIn(token);
  history.replaceState(null, '', location.pathname);
  return true;
}

/** Whether `token` is the one; if it is not, the page says so. */
async function logIn(token) {
  try {
    await post({token}, 'session');
    element('log-in-problem').textContent = '';
    return true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    element('log-in-problem').textContent = error.message;
    return false;
  }
}

function showLogIn() {
  for (const id of ['house', 'tabs', 'log-out']) element(id).hidden = true;
  element('log-in').hidden = false;
  element('token').value = '';
  element('token').focus();
  state('This page is for those who have the token.');
}

element('log-in').onsubmit = (event) => {
  event.preventDefault();
  attempt(element('log-in'), async () => {
    if (await logIn(element('token').value.trim())) await connect();
  }, (reason) => (element('log-in-problem').textContent = reason || element('log-in-problem').textContent));
};

element('log-out').onclick = ({currentTarget}) => attempt(currentTarget, async () => {
  await erase('session');
  location.reload();
});
