// The page: the camera or a photo in, boxes and names out, and the people it knows.

import {People} from './people.js';

const element = (id) => document.getElementById(id);
const canvas = element('picture'), pen = canvas.getContext('2d', {willReadFrequently: true});
const LONGEST = 1280; // side of a photo that is looked at; larger ones are shrunk
const THUMBNAIL_QUALITY = 0.85;
const COLOURS = {face: '#466ea0', known: '#2ea043', stranger: '#cf222e'};

const worker = new Worker('worker.js');
const waiting = new Map();
worker.onmessage = ({data: {id, answer, error}}) => {
  const {resolve, reject} = waiting.get(id);
  waiting.delete(id);
  error ? reject(new Error(error)) : resolve(answer);
};
worker.onerror = ({message}) => say(`The recogniser does not run in this browser: ${message}`, true);

/** Ask the worker what is in an ImageData, or, without one, for the model. */
function ask(image) {
  const id = crypto.randomUUID();
  return new Promise((resolve, reject) => {
    waiting.set(id, {resolve, reject});
    worker.postMessage({id, image}, image ? [image.data.buffer] : []);
  });
}

let people, camera = null, faces = [], lookedAt = 0;

start().catch((error) => say(`It cannot start: ${error.message}`, true));

async function start() {
  if (typeof WebAssembly === 'undefined') throw new Error('this browser has no WebAssembly; use a current one');
  people = await People.open(await ask());
  for (const id of ['camera', 'photo', 'learn']) element(id).disabled = false;
  showPeople();
  say('Ready. Nothing leaves this device.');
}

element('camera').onclick = () => (camera ? stopCamera() : startCamera());
element('photo').onchange = async ({target}) => {
  const [file] = target.files;
  target.value = '';
  if (file) await lookAtPhoto(file);
};
element('enrol').onsubmit = (event) => {
  event.preventDefault();
  learn(element('name').value.trim());
};

async function startCamera() {
  if (!navigator.mediaDevices) {
    return say('The camera needs a page at localhost or over https; choose a photo instead.', true);
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'user', width: 640, height: 480}});
    const video = document.createElement('video');
    Object.assign(video, {srcObject: stream, muted: true, playsInline: true});
    await video.play();
    camera = {stream, video};
    stream.getVideoTracks()[0].onended = () => stopCamera('The camera has gone. Start it again when it is back.');
  } catch (error) {
    return say(`No camera: ${error.message}`, true);
  }
  element('camera').textContent = 'Stop the camera';
  say('Watching.');
  watch(camera);
}

function stopCamera(reason = 'Ready. Nothing leaves this device.') {
  camera?.stream.getTracks().forEach((track) => track.stop());
  camera = null;
  element('camera').textContent = 'Start the camera';
  say(reason);
}

/** Look at the newest frame, again and again: a slow device sees fewer frames, never old ones. */
async function watch(mine) {
  while (camera === mine) {
    const began = performance.now();
    canvas.width = mine.video.videoWidth;
    canvas.height = mine.video.videoHeight;
    pen.drawImage(mine.video, 0, 0);
    await look();
    element('speed').value = `${(1000 / (performance.now() - began)).toFixed(1)} pictures/s`;
    await new Promise(requestAnimationFrame);
  }
}

async function lookAtPhoto(file) {
  stopCamera();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say(`${file.name} is no picture that this browser can read.`, true);
  }
  const shrink = Math.max(1, Math.max(bitmap.width, bitmap.height) / LONGEST);
  canvas.width = Math.round(bitmap.width / shrink);
  canvas.height = Math.round(bitmap.height / shrink);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  await look();
  element('speed').value = '';
}

/** Find who is in what the canvas shows, and draw it. */
async function look() {
  element('hint').hidden = true;
  const frame = pen.getImageData(0, 0, canvas.width, canvas.height);
  const shown = new ImageData(frame.data.slice(), frame.width, frame.height);
  try {
    const answer = await ask(frame);
    faces = answer.faces.map((face) => ({...face, ...people.identify(face.embedding)}));
  } catch (error) {
    return say(`The picture could not be looked at: ${error.message}`, true);
  }
  pen.putImageData(shown, 0, 0);
  faces.forEach(drawFace);
  lookedAt += 1;
  canvas.dataset.lookedAt = lookedAt;
  element('seen').replaceChildren(...faces.map((face) => {
    const item = document.createElement('li'), who = document.createElement('span');
    [who.className, who.textContent] = verdict(face);
    item.append(who, people.known.length ? ` ${face.cosine.toFixed(2)}` : '');
    return item;
  }));
}

/** What is said of a face: its class and its words. With nobody to compare it with it is just a face. */
function verdict({name}) {
  if (!people.known.length) return ['face', 'face'];
  return name === null ? ['stranger', 'stranger'] : ['known', name];
}

function drawFace(face) {
  const [kind, label] = verdict(face), colour = COLOURS[kind], [x1, y1, x2, y2] = face.box;
  const line = Math.max(2, canvas.width / 400);
  pen.lineWidth = line;
  pen.strokeStyle = pen.fillStyle = colour;
  pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  pen.font = `600 ${line * 7}px system-ui, "DejaVu Sans", sans-serif`;
  const width = pen.measureText(label).width + 4 * line, top = Math.max(0, y1 - 9 * line);
  pen.fillRect(x1 - line / 2, top, width, 9 * line);
  pen.fillStyle = '#fff';
  pen.fillText(label, x1 + 1.5 * line, top + 6.8 * line);
}

async function learn(name) {
  if (!name) return advise('Give a name first.');
  if (faces.length !== 1) {
    return advise(faces.length ? 'Several faces are in the picture: let one stay alone.' : 'There is no face in the picture.');
  }
  const [{embedding, crop}] = faces;
  const {nearest, cosine} = people.identify(embedding);
  if (nearest !== null && nearest !== name && cosine >= people.threshold
      && !confirm(`This looks like ${nearest}. Learn it as ${name} all the same?`)) return;
  try {
    await people.learn(name, [{embedding, picture: await picture(crop)}]);
  } catch (error) {
    return advise(`It could not be kept: ${error.message}`);
  }
  const {faces: kept} = people.known.find((person) => person.name === name);
  advise(kept.length < 5 ? `Learned. ${5 - kept.length} more would help: turn the head a little.` : 'Learned.');
  showPeople();
}

function picture(crop) {
  const sheet = document.createElement('canvas');
  [sheet.width, sheet.height] = [crop.width, crop.height];
  sheet.getContext('2d').putImageData(crop, 0, 0);
  return new Promise((resolve) => sheet.toBlob(resolve, 'image/jpeg', THUMBNAIL_QUALITY));
}

function showPeople() {
  element('known').replaceChildren(...people.known.map((person) => {
    const item = document.createElement('li'), about = document.createElement('div');
    const image = new Image(), count = document.createElement('small');
    image.alt = '';
    image.src = URL.createObjectURL(person.faces[0].picture);
    image.onload = () => URL.revokeObjectURL(image.src);
    count.textContent = person.faces.length === 1 ? '1 picture' : `${person.faces.length} pictures`;
    about.append(person.name, count);
    item.append(image, about, action('Rename', () => rename(person)), action('Erase', () => erase(person)));
    return item;
  }));
  element('strictness').textContent = `A face is known from a cosine of ${people.threshold.toFixed(2)} on: `
    + `${(people.model.false_accepts * 100).toFixed(0)}% of the strangers' faces it was tuned on reach that.`;
}

function action(label, act) {
  const button = document.createElement('button');
  Object.assign(button, {className: 'quiet', textContent: label, onclick: act});
  return button;
}

async function rename({name}) {
  const newName = prompt(`Call ${name} from now on:`, name)?.trim();
  if (!newName || newName === name) return;
  await people.rename(name, newName);
  showPeople();
}

async function erase({name}) {
  if (!confirm(`Erase ${name}, with every picture and embedding?`)) return;
  await people.erase(name);
  showPeople();
}

function say(text, problem = false) {
  element('state').textContent = text;
  element('state').classList.toggle('problem', problem);
}

const advise = (text) => (element('advice').textContent = text);
