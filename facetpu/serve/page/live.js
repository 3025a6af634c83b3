// The cameras: one large and live, the others small, a picture now and then.

import {get, Gone, url} from './api.js';
import {count, element, make, named, sentence, showRows} from './dom.js';
import {cameraName, house} from './house.js';

const LOOK = 2000; // milliseconds between two looks at the cameras' states and the small pictures
const AGAIN = 3000; // until a stream that broke off is asked for again

let chosen = '0', running = null, round = 0;
const picture = element('picture');

/** Show what the cameras see, from now on. */
export function watch() {
  rest();
  if (element('guide').open) return null; // it has a picture of its own
  stream(picture, chosen);
  running = setInterval(look, LOOK);
  return look();
}

/** Show nothing new until `watch` is called again. */
export function rest() {
  clearInterval(running);
  running = null;
  stop(picture);
}

/** Have an image show a camera as it is now. */
export function stream(image, camera) {
  image.src = `${url('cameras', camera, 'stream')}?${++round}`; // a number of its own: no old stream is gone on with
}

/** Let go of a stream; the browser keeps but a few connections to one server. */
export const stop = (image) => image.removeAttribute('src');

async function look() {
  try {
    showCameras((await get('cameras')).cameras);
  } catch (error) {
    if (!(error instanceof Gone)) throw error; // that the server is gone is told by the notices
  }
}

/** Take up the states of all cameras. */
export function showCameras(cameras) {
  const before = house.cameras.find(({id}) => id === chosen);
  house.cameras = cameras;
  const camera = cameras.find(({id}) => id === chosen) ?? cameras[0];
  element('others').hidden = cameras.length < 2;
  picture.hidden = !camera;
  if (!camera) return showHint('There is no camera: facetpu serve was started without one. People can be added by photos.');
  if (running && before?.state === 'lost' && camera.state === 'watching') stream(picture, chosen);
  showHint({
    starting: `${cameraName(camera.id)} is being opened…`,
    lost: `${cameraName(camera.id)} is lost. ${sentence(camera.problem ?? '')} It is tried again until it is back.`,
  }[camera.state] ?? '');
  picture.alt = `What ${cameraName(camera.id)} sees, with a box and a name on each face`;
  showFaces(camera);
  const delay = camera.latency_ms === null ? '' : `, each known after ${Math.round(camera.latency_ms)} ms`;
  element('speed').textContent = camera.state === 'watching'
    ? `${cameraName(camera.id)}, ${camera.source}: ${camera.frames_per_second.toFixed(1)} pictures a second${delay}.` : '';
  showOthers();
}

function showHint(text) {
  element('hint').textContent = text;
  element('hint').hidden = !text;
}

function showFaces({state, faces, people}) {
  const chips = [...new Set(people)].map((name) => ({kind: 'known', label: name})), unknown = faces - people.length;
  if (unknown > 0) chips.push({kind: 'stranger', label: count(unknown, house.people.length ? 'stranger' : 'face')});
  if (state !== 'watching') chips.length = 0;
  else if (!faces) chips.push({kind: 'note', label: 'nobody in the picture'});
  showRows(element('faces'), chips, JSON.stringify, ({kind, label}) => make('li', {className: kind}, named(label)));
}

function showOthers() {
  const list = element('others');
  const states = house.cameras.map(({id, state}) => ({id, state, live: id === chosen}));
  showRows(list, states, ({id}) => id, ({id, state, live}) => {
    const about = {watching: '', starting: ' (being opened)', lost: ' (lost)'}[state];
    const still = make('img', {alt: '', 'data-camera': id, 'data-watching': state === 'watching'});
    const show = {type: 'button', className: 'quiet', 'aria-pressed': String(live), onclick: () => choose(id)};
    return make('li', {}, make('button', show, still, `${cameraName(id)}${about}`));
  });
  if (house.cameras.length < 2 || !running) return;
  round += 1;
  for (const still of list.querySelectorAll('img[data-watching=true]')) {
    still.src = `${url('cameras', still.dataset.camera, 'picture.jpg')}?${round}`;
  }
}

function choose(id) {
  chosen = id;
  watch();
}

picture.onerror = () => setTimeout(() => running && stream(picture, chosen), AGAIN);
