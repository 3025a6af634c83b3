// What is told to whoever looks: how things stand, how an action went, and questions before what cannot be undone.

import {Gone, Refusal} from './api.js';
import {element} from './dom.js';

const READING = 7000; // milliseconds that the outcome of an action stays

/** How things stand, at the top; a problem stays in view. */
export function state(text, problem = false) {
  element('state').textContent = text;
  element('state').classList.toggle('problem', problem);
}

let fading;

/** How an action went, for a while. */
export function say(text, problem = false) {
  clearTimeout(fading);
  element('outcome').textContent = text;
  element('outcome').classList.toggle('problem', problem);
  fading = setTimeout(() => say(''), READING);
}

/** Whether something that `control` began is still under way. */
export const busy = (control) => control.ariaBusy === 'true';

/**
 * Do what the server may refuse; `tell` hears the reason, and '' first.
 * A second press of `control` before the first is answered does nothing.
 */
export async function attempt(control, act, tell = (reason) => reason && say(reason, true)) {
  if (busy(control)) return;
  control.ariaBusy = 'true';
  tell('');
  try {
    await act();
  } catch (error) {
    if (!(error instanceof Refusal || error instanceof Gone)) throw error;
    tell(error.message);
  } finally {
    control.ariaBusy = null;
  }
}

/** Ask before something is done for good. */
export function confirmed({title, text, yes, no}) {
  const dialog = element('question');
  element('question-title').textContent = title;
  element('question-text').textContent = text;
  element('yes').textContent = yes;
  element('no').textContent = no;
  dialog.returnValue = '';
  dialog.showModal();
  element('no').focus();
  return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === 'yes')));
}

element('yes').onclick = () => element('question').close('yes');
element('no').onclick = () => element('question').close('no');
