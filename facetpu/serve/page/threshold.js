// How like somebody a face must be: a choice of how many strangers may pass for somebody known.

import {get, put} from './api.js';
import {choice, element, make} from './dom.js';
import {attempt} from './say.js';

let last = null; // what the server said last

/** Show the threshold as the server has it now. */
export const showThreshold = async () => show(await get('threshold'));

function show(threshold) {
  last = threshold;
  const {cosine, false_accepts: now, choices} = threshold;
  const all = [...choices];
  if (cosine !== null && !all.some((one) => one.false_accepts === now)) all.push({false_accepts: now, cosine});
  all.sort((one, other) => one.false_accepts - other.false_accepts);
  element('threshold').hidden = all.length === 0;
  element('choices').replaceChildren(...all.map((one, index) => choice(
    'false-accepts', one.false_accepts, one.false_accepts === now,
    make('span', {}, `about ${share(one.false_accepts)}`,
      make('small', {}, `${meaning(index, all.length)}Known from a cosine of ${one.cosine.toFixed(2)} on.`)))));
  const why = cosine === null ? 'This can be chosen when somebody is known.'
    : choices.length ? '' : 'There are no faces of strangers with this model to set it by.';
  element('threshold-note').textContent = why;
}

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
