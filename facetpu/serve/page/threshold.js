// How like somebody a face must be: a choice of how many strangers may pass for somebody known.

import {get, put} from './api.js';
import {choice, element, make, showRows} from './dom.js';
import {attempt} from './say.js';

let last = null; // what the server said last

/** Show the threshold as the server has it now. */
export const showThreshold = async () => show(await get('threshold'));

function show(threshold) {
  const {cosine, false_accepts: now, choices} = threshold;
  const all = [...choices];
  if (cosine !== null && !all.some((one) => one.false_accepts === now)) all.push({false_accepts: now, cosine});
  all.sort((one, other) => one.false_accepts - other.false_accepts);
  element('threshold').hidden = all.length === 0;
  const rows = all.map((one, index) => ({...one, means: meaning(index, all.length)}));
  showRows(element('choices'), rows, (one) => one.false_accepts, row);
  for (const input of element('choices').querySelectorAll('input')) input.checked = Number(input.value) === now;
  if (JSON.stringify(threshold) === JSON.stringify(last)) return; // what was said of it still holds
  last = threshold;
  element('threshold-note').textContent = cosine === null ? 'This can be chosen when somebody is known.'
    : choices.length ? '' : 'There are no faces of strangers with this model to set it by.';
}

const row = ({false_accepts: falseAccepts, cosine, means}) => choice('false-accepts', falseAccepts, false,
  make('span', {}, `about ${share(falseAccepts)}`,
    make('small', {}, `${means}Known from a cosine of ${cosine.toFixed(2)} on.`)));

/** "3 of 1,000". */
function share(falseAccepts) {
  const among = [100, 1000, 10000].find((many) => many * falseAccepts >= 1) ?? 100000;
  return `${Number((among * falseAccepts).toPrecision(2))} of ${among.toLocaleString('en')}`;
}

function meaning(index, choices) {
  if (choices > 1 && index === 0) return 'Strictest: people you know are missed most often. ';
  if (choices > 1 && index === choices - 1) return 'Most lenient: strangers are given a name most often. ';
  return '';
}

element('choices').onchange = ({target}) => attempt(element('threshold'), async () => {
  show(await put({false_accepts: Number(target.value)}, 'threshold'));
  element('threshold-note').textContent = 'Set. It holds from now on.';
}, (reason) => {
  if (reason) show(last); // what was chosen does not hold
  element('threshold-note').textContent = reason;
});
