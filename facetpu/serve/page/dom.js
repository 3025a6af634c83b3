// Elements, found and made. What people typed goes in as text, never as markup.

export const element = (id) => document.getElementById(id);

/** A new element with properties (attributes where their names have a dash) and children. */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    name.includes('-') ? made.setAttribute(name, value) : (made[name] = value);
  }
  made.append(...children);
  return made;
}

/** A person's name, kept apart from the words around it, whichever way it is written. */
export const named = (name) => make('bdi', {className: 'name'}, name);

/** A button; `about` says to a screen reader which of several it is. */
export const button = (label, act, about = label) =>
  make('button', {type: 'button', className: 'quiet', onclick: act, 'aria-label': about}, label);

/** One of several things to choose from; `about` is what is said of it beside its label. */
export const choice = (group, value, checked, ...about) =>
  make('label', {className: 'choice'}, make('input', {type: 'radio', name: group, value, checked}), ...about);

/** "1 photo", "2 photos". */
export const count = (number, thing) => `${number} ${thing}${number === 1 ? '' : 's'}`;

/** The words of the server, which are to go on after a colon, as a sentence of their own. */
export const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.?!…]$/.test(words) ? '' : '.'}`;

/** A moment by this device's clock: the time, and the day unless it is today. */
export function moment(seconds) {
  const time = new Date(seconds * 1000), today = time.toDateString() === new Date().toDateString();
  const day = today ? {} : {day: 'numeric', month: 'short'};
  const shown = time.toLocaleString([], {...day, hour: 'numeric', minute: '2-digit'});
  return make('time', {dateTime: time.toISOString(), title: time.toLocaleString()}, shown);
}

/** How long something took: "20 s", "3 min". */
export const duration = (seconds) => (seconds < 60 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);

const shown = new WeakMap(); // of each row its key, and the item and the day it was made of

/**
 * Show `items` as the rows of a list. A row whose item is what it was stays the element it is, so that nothing
 * flickers; but on another day a moment reads otherwise. Its buttons stay even where the row does not: whoever has
 * come to one by keyboard stays there, and comes back to it from the dialog that it opened.
 */
export function showRows(list, items, keyOf, rowOf) {
  const today = new Date().toDateString(), focused = document.activeElement;
  const before = new Map([...list.children].map((row) => [shown.get(row).key, row]));
  const rows = items.map((item) => {
    const key = keyOf(item), state = JSON.stringify([item, today]), old = before.get(key);
    if (old && shown.get(old).state === state) return old;
    const row = rowOf(item);
    shown.set(row, {key, state});
    if (old) keepControls(old, row);
    return row;
  });
  for (const row of [...list.children]) if (!rows.includes(row)) row.remove();
  rows.forEach((row, at) => list.children[at] === row || list.insertBefore(row, list.children[at] ?? null));
  if (focused !== document.activeElement && list.contains(focused)) {
    focused.focus({preventScroll: true}); // moving it took the focus away
  }
}

/** Put the buttons and inputs of `old` into `row` for its own, with what its own are, say and do. */
function keepControls(old, row) {
  const [olds, fresh] = [old, row].map((one) => [...one.querySelectorAll('button, input')]);
  olds.slice(0, fresh.length).forEach((kept, index) => {
    const one = fresh[index];
    for (const {name, value} of one.attributes) kept.setAttribute(name, value);
    kept.onclick = one.onclick;
    kept.replaceChildren(...one.childNodes);
    one.replaceWith(kept);
  });
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
