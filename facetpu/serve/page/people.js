// Whom the house knows: the list, and what can be done with a person.

import {change, erase, get, post, url} from './api.js';
import {button, count, element, make, moment, named, showRows} from './dom.js';
import {openNewPerson} from './enrol.js';
import {house} from './house.js';
import {attempt, confirmed, say} from './say.js';

const dialog = element('person'), problem = (reason) => (element('person-problem').textContent = reason);
let open = null; // the person whose dialog is open, as they were then

/** Show the people as the server knows them now. */
export async function showPeople() {
  house.people = (await get('people')).people;
  element('nobody').hidden = house.people.length > 0;
  showRows(element('known'), house.people, ({name}) => name, (person) => make(
    'li', {}, portrait(person), make('div', {className: 'about'}, named(person.name), make('small', {}, ...about(person))),
    button('Change', () => openPerson(person), `Change ${person.name}`)));
}

/** A person's picture, or their initial in its place. */
export function portrait({name, photos, portrait: there}) {
  return there ? make('img', {src: `${url('people', name, 'portrait.jpg')}?${photos}`, alt: '', loading: 'lazy'})
    : make('span', {className: 'blank', 'data-initial': [...name][0]});
}

const about = ({photos, last_seen: seen}) =>
  [count(photos, 'photo'), ' · ', ...(seen === null ? ['not seen yet'] : ['last seen ', moment(seen)])];

function openPerson(person) {
  open = person;
  element('person-portrait').hidden = !person.portrait;
  if (person.portrait) element('person-portrait').src = portrait(person).src;
  element('person-name').replaceChildren(named(person.name));
  element('person-about').replaceChildren(...about(person));
  element('other-name').value = person.name;
  const others = house.people.filter(({name}) => name !== person.name);
  element('merge').hidden = !others.length;
  element('merge-into').replaceChildren(...others.map(({name}) => make('option', {value: name}, name)));
  problem('');
  dialog.showModal();
}

async function done(text) {
  dialog.close();
  say(text);
  await showPeople();
}

element('close-person').onclick = () => dialog.close();
element('more-photos').onclick = () => {
  dialog.close();
  openNewPerson(open.name);
};

element('rename').onsubmit = (event) => {
  event.preventDefault();
  const name = element('other-name').value.trim(), before = open.name;
  if (!name || name === before) return dialog.close();
  attempt(element('rename'), async () => {
    await change({name}, 'people', before);
    await done(`${before} is called ${name} now.`);
  }, problem);
};

element('merge').onsubmit = async (event) => {
  event.preventDefault();
  const into = element('merge-into').value, {name, photos} = open;
  const sure = await confirmed({
    title: `Are ${name} and ${into} one person?`,
    text: `The ${count(photos, 'photo')} of ${name} and all that ${name} was seen in become ${into}'s. `
      + `The name ${name} is lost. This cannot be undone.`,
    yes: 'Merge', no: 'Leave them apart',
  });
  if (sure) attempt(element('merge'), async () => {
    await post({into}, 'people', name, 'merge');
    await done(`${name} is ${into} now.`);
  }, problem);
};

element('erase-person').onclick = async ({currentTarget}) => {
  const {name, photos} = open;
  const sure = await confirmed({
    title: `Erase ${name}?`,
    text: `What was learnt from ${count(photos, 'photo')} of ${name} is lost, with the portrait, and the picture and name `
      + `on everything that ${name} was seen in. ${name} will be a stranger. This cannot be undone.`,
    yes: `Erase ${name}`, no: 'Keep',
  });
  if (sure) attempt(currentTarget, async () => {
    await erase('people', name);
    await done(`${name} is erased.`);
  }, problem);
};
