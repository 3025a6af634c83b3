// Getting to know somebody: by photos, or guided through five poses before a camera.

import {ask, erase, get, Gone, post, Refusal, url} from './api.js';
import {count, element, make, named, pause, sentence} from './dom.js';
import {cameraName, house} from './house.js';
import {rest, stop, stream, watch} from './live.js';
import {attempt, busy, say} from './say.js';

const MOST = 10, MEGABYTE = 2 ** 20, LARGEST = 10, ALL = 40; // photos in one go, and their megabytes
const LOOK = 400; // milliseconds between two looks at how far an enrolment is
const POSES = {front: 'Front', left: 'Left', right: 'Right', up: 'Up', down: 'Down'};

const dialog = element('new-person'), guideDialog = element('guide');
const sayUpload = (text) => (element('upload-state').textContent = text);
let opened = 0; // how often the dialog was

/** Ask for somebody's name, and how they are to be shown; a `name` is somebody's who gets more photos. */
export function openNewPerson(name = '') {
  element('new-person-title').textContent = name ? 'Add photos' : 'Add somebody';
  element('new-name').value = name;
  element('new-name').readOnly = Boolean(name);
  const cameras = house.cameras.filter(({state}) => state === 'watching');
  element('new-camera').replaceChildren(...cameras.map(({id}) => make('option', {value: id}, cameraName(id))));
  element('which-camera').hidden = cameras.length < 2;
  element('by-camera').disabled = !cameras.length;
  element('uploaded').replaceChildren();
  sayUpload(cameras.length ? '' : 'There is no camera at present: choose photos.');
  noteName();
  opened += 1;
  dialog.showModal();
}

element('add').onclick = () => openNewPerson();
element('close-new').onclick = () => dialog.close();
element('ways').onsubmit = (event) => event.preventDefault();
element('new-name').oninput = noteName;

function noteName() {
  const known = house.people.find(({name}) => name === element('new-name').value.trim());
  element('new-note').textContent = known
    ? `${known.name} is known already, by ${count(known.photos, 'photo')}; yours are added to them.` : '';
}

/** The name that was given; none, and the field asks for one. */
function givenName() {
  element('new-name').value = element('new-name').value.trim();
  return element('new-name').reportValidity() ? element('new-name').value : null;
}

// --- by photos

for (const id of ['photos', 'snapshot']) {
  element(id).onclick = (event) => givenName() || event.preventDefault();
  element(id).onchange = ({target}) => {
    const photos = [...target.files], name = givenName();
    target.value = '';
    if (!name || !photos.length) return;
    const ways = element('ways'), since = opened, here = () => dialog.open && opened === since;
    if (busy(ways)) return sayUpload('The photos before are still being looked at; choose again when they are done.');
    attempt(ways, () => upload(name, photos, here), (reason) => (here() ? sayUpload(reason) : say(reason, true)));
  };
}

/** Send photos of somebody; what became of them is shown in the dialog if that is still `here`. */
async function upload(name, photos, here) {
  element('uploaded').replaceChildren();
  const size = photos.reduce((sum, photo) => sum + photo.size, 0);
  if (photos.length > MOST) return sayUpload(`These are ${photos.length} photos; choose ${MOST} at most.`);
  const large = photos.find((photo) => photo.size > LARGEST * MEGABYTE);
  if (large) return sayUpload(`${large.name} has more than ${LARGEST} MB; make it smaller.`);
  if (size > ALL * MEGABYTE) return sayUpload(`The photos have more than ${ALL} MB in all; choose fewer.`);
  sayUpload(`Looking at ${count(photos.length, 'photo')}…`);
  const form = new FormData();
  for (const photo of photos) form.append('photos', photo);
  const enrolled = await ask('POST', url('people', name, 'photos'), form);
  if (!here()) return say(learnt(enrolled), !enrolled.added);
  const reasons = new Map(enrolled.refused.map(({photo, text}) => [photo, text]));
  element('uploaded').append(...photos.map((photo, index) => outcome(photo, reasons.get(`photo ${index + 1}`))));
  sayUpload(learnt(enrolled));
}

/** One photo and what became of it. */
function outcome(photo, refusal) {
  const image = make('img', {alt: '', src: URL.createObjectURL(photo)});
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  const verdict = refusal ? [{className: 'problem'}, `Not taken: it ${refusal}`] : [{}, '✓ taken'];
  return make('li', {}, image, make('div', {className: 'about'}, named(photo.name), make('small', ...verdict)));
}

function learnt({name, photos, added}) {
  if (!added) return 'None of the photos could be used.';
  return `${name} is known now, by ${count(photos, 'photo')}${added < photos ? `, ${added} of them new` : ''}.`;
}

// --- guided, before a camera

element('by-camera').onclick = ({currentTarget}) => {
  const name = givenName();
  if (name) attempt(currentTarget, async () => {
    const enrolment = await post({name, camera: element('new-camera').value}, 'enrolments');
    dialog.close();
    await guide(enrolment);
  }, sayUpload);
};

let guided = null; // the enrolment that is under way

async function guide(enrolment) {
  rest();
  element('guide-title').replaceChildren('Getting to know ', named(enrolment.name));
  guideDialog.showModal();
  stream(element('guide-picture'), enrolment.camera);
  showEnrolment(enrolment);
  while (guided && guided.pose !== null) {
    await pause(LOOK);
    if (guided) await follow(guided.id);
  }
  if (guided) await finish();
}

async function follow(id) {
  try {
    const enrolment = await get('enrolments', id);
    if (guided?.id === id) showEnrolment(enrolment);
  } catch (error) {
    if (error instanceof Gone) return tellRefusal(error.message);
    if (!(error instanceof Refusal)) throw error;
    if (guided?.id !== id) return;
    leave();
    say(error.message, true);
  }
}

function showEnrolment(enrolment) {
  const before = guided?.taken.length ?? 0;
  guided = enrolment;
  if (enrolment.taken.length > before) navigator.vibrate?.(80); // who looks aside cannot see the page
  element('instruction').textContent = sentence(enrolment.task);
  tellRefusal(enrolment.refusal ? sentence(enrolment.refusal) : '');
  element('finish').disabled = !enrolment.can_finish;
  element('poses').replaceChildren(...Object.entries(POSES).map(([pose, label]) => {
    const taken = enrolment.taken.includes(pose), now = enrolment.pose === pose;
    return make('li', {className: taken ? 'taken' : '', ...(now ? {'aria-current': 'step'} : {})},
      make('span', {className: 'mark', 'aria-hidden': 'true'}, taken ? '✓' : now ? '▾' : '·'), label,
      make('span', {className: 'hidden'}, taken ? ', taken' : now ? ', now' : ''));
  }));
}

const tellRefusal = (text) => element('refusal').textContent === text || (element('refusal').textContent = text);

function finish() {
  return attempt(element('finish'), async () => {
    const enrolled = await post({}, 'enrolments', guided.id, 'finish');
    leave();
    const refused = enrolled.refused.map(({photo, text}) => ` Not taken: ${photo} ${text}.`).join('');
    say(learnt(enrolled) + refused, !enrolled.added);
  }, tellRefusal);
}

function leave() {
  guided = null;
  stop(element('guide-picture'));
  guideDialog.close();
  watch();
}

function giveUp() {
  const {id} = guided;
  leave();
  attempt(element('give-up'), () => erase('enrolments', id), () => {}); // one that is over already is no matter
}

element('take').onclick = ({currentTarget}) => attempt(currentTarget, async () => {
  const enrolment = await post({}, 'enrolments', guided.id, 'take');
  if (guided?.id === enrolment.id) showEnrolment(enrolment);
}, tellRefusal);
element('finish').onclick = finish;
element('give-up').onclick = giveUp;
guideDialog.oncancel = (event) => {
  event.preventDefault();
  giveUp();
};
addEventListener('pagehide', () => {
  if (guided) ask('DELETE', url('enrolments', guided.id), undefined, {keepalive: true}).catch(() => {});
});
