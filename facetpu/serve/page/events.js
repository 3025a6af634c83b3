// Who was seen: the events, and putting right what the recogniser got wrong.

import {ask, erase, post, url} from './api.js';
import {button, choice, duration, element, make, moment, named, showRows} from './dom.js';
import {cameraName, house} from './house.js';
import {portrait} from './people.js';
import {attempt, confirmed, say} from './say.js';

const PAGE = 12; // events shown at first, and more at each "older"
const MOST = 199; // of them; the server tells 200 at once, the last for whether there are more
const NOBODY = 'nobody', NEW = 'new', PERSON = 'person '; // what is chosen in a correction

const dialog = element('correction'), problem = (reason) => (element('correction-problem').textContent = reason);
let wanted = PAGE, open = null; // the event that is being corrected

const who = (event) => (event.corrected ? event.corrected_name : event.name);

/** Show the newest events, as many as were asked for. */
export async function showEvents() {
  const whose = showWhose();
  const query = new URLSearchParams({limit: wanted + 1, ...(whose ? {name: whose} : {})});
  const {events} = await ask('GET', `${url('events')}?${query}`);
  element('nothing').hidden = events.length > 0;
  element('nothing').textContent = whose ? `${whose} was not seen yet.` : 'Nobody was seen yet.';
  element('older').hidden = events.length <= wanted || wanted === MOST;
  const shown = events.slice(0, wanted).map(({sightings, track, cosine, ended, ...event}) =>
    (event.present ? {...event, ended: null} : {...event, ended, cosine})); // what changes with each frame is not shown
  showRows(element('seen'), shown, ({id}) => id, row);
}

/** The choice of whose events are shown; returns the name chosen, '' for everybody's. */
function showWhose() {
  const names = ['', ...house.people.map(({name}) => name)];
  showRows(element('whose'), names, (name) => name, (name) => make('option', {value: name}, name || 'everybody'));
  return element('whose').value;
}

function row(event) {
  const name = who(event), label = name ?? 'a stranger';
  const title = name === null ? make('span', {className: 'stranger'}, 'Stranger') : named(name);
  const began = moment(event.began);
  const when = event.present ? ['here since ', began] : [began, `, ${duration(event.ended - event.began)}`];
  const place = house.cameras.length > 1 ? ` · ${cameraName(event.camera)}` : '';
  const judged = !event.present && !event.corrected && event.cosine !== null;
  const likeness = judged ? ` · cosine ${event.cosine.toFixed(2)}` : '';
  const before = event.name === null ? 'a stranger' : named(event.name);
  const hand = event.corrected ? make('small', {}, 'put right by hand; was taken for ', before) : '';
  return make('li', {}, crop(event),
    make('div', {className: 'about'}, title, make('small', {}, ...when, place, likeness), hand),
    button(name === null ? 'Who is this?' : 'Not right?', () => openCorrection(event),
      `Say who this is: ${label}, ${began.textContent}`));
}

/** The picture of an event, which may still change while the face is present. */
const crop = ({id, crop: there, present}) => there
  ? make('img', {src: `${url('events', id, 'crop.jpg')}?${present ? 'now' : 'last'}`, alt: '', loading: 'lazy'})
  : make('span', {className: 'blank', 'data-initial': '?'});

// --- putting right

function openCorrection(event) {
  open = event;
  const name = who(event), others = house.people.filter((person) => person.name !== name);
  element('correction-crop').hidden = !event.crop;
  if (event.crop) element('correction-crop').src = crop(event).src;
  element('correction-legend').replaceChildren(
    'This was taken for ', name === null ? 'a stranger' : named(name), '. It is:');
  const option = (value, ...about) => choice('who', value, false, ...about);
  element('candidates').replaceChildren(
    ...(name === null ? [] : [option(NOBODY, make('span', {}, 'not ', named(name), ', and nobody you know'))]),
    ...others.map((person) => option(PERSON + person.name, portrait(person), named(person.name))),
    option(NEW, make('span', {}, 'somebody new')));
  element('somebody-new').value = '';
  showNew();
  problem('');
  dialog.showModal();
}

const chosen = () => new FormData(element('correct')).get('who');

function showNew() {
  element('somebody-new').hidden = chosen() !== NEW;
}

element('candidates').onchange = () => {
  showNew();
  if (chosen() === NEW) element('somebody-new').focus();
};
element('close-correction').onclick = () => dialog.close();
element('correct').onsubmit = (event) => {
  event.preventDefault();
  const answer = chosen(), typed = element('somebody-new').value.trim();
  if (!answer) return problem('Choose who it is.');
  if (answer === NEW && !typed) return problem('Give the new person a name.');
  const name = answer === NOBODY ? null : answer === NEW ? typed : answer.slice(PERSON.length);
  attempt(element('correct'), async () => {
    const {refusal} = await post({name}, 'events', open.id, 'correction');
    dialog.close();
    await showEvents();
    say(outcome(name, refusal));
  }, problem);
};

function outcome(name, refusal) {
  if (name === null) return 'Noted: it is nobody you know.';
  return refusal ? `Noted: it is ${name}. The picture was not added to ${name}'s photos: it ${refusal}.`
    : `Noted: it is ${name}. The picture is one of ${name}'s photos now.`;
}

element('forget').onclick = async ({currentTarget}) => {
  const sure = await confirmed({
    title: 'Erase this event?',
    text: 'Its picture, its name and its time are lost; nobody is forgotten. This cannot be undone.',
    yes: 'Erase it', no: 'Keep',
  });
  if (sure) attempt(currentTarget, async () => {
    await erase('events', open.id);
    dialog.close();
    await showEvents();
    say('The event is erased.');
  }, problem);
};

element('whose').onchange = () => {
  wanted = PAGE;
  attempt(element('whose'), showEvents);
};
element('older').onclick = ({currentTarget}) => {
  wanted = Math.min(wanted + PAGE, MOST);
  attempt(currentTarget, showEvents);
};
