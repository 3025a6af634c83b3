// The people this browser knows: their embeddings and pictures, in IndexedDB, on this device alone.

const SAME_PHOTO = 0.9995; // see facetpu/board/threshold.py

export class People {
  /** Open the gallery of one base; those of other bases stay apart. */
  static async open(model) {
    const request = indexedDB.open(`facetpu ${model.base_digest}`, 1);
    request.onupgradeneeded = () => request.result.createObjectStore('people', {keyPath: 'name'});
    const people = new People(await settled(request), model);
    await people.#read();
    return people;
  }

  constructor(database, model) {
    Object.assign(this, {database, model, known: []});
  }

  /** Add faces ({embedding, picture}) to a person, who may be new. */
  async learn(name, faces) {
    const before = this.known.find((person) => person.name === name);
    const all = [...(before?.faces ?? []), ...faces.map(({embedding, picture}) => ({embedding, picture}))];
    await this.#change((store) => store.put({name, faces: all, lastSeen: before?.lastSeen ?? null}));
  }

  /** Erase a person: every embedding and picture of theirs. */
  async erase(name) {
    await this.#change((store) => store.delete(name));
  }

  /** Give a person another name; two people of one name become one. */
  async rename(name, newName) {
    const {faces} = this.known.find((person) => person.name === name);
    const joined = this.known.find((person) => person.name === newName)?.faces ?? [];
    await this.#change((store) => {
      store.delete(name);
      store.put({name: newName, faces: [...joined, ...faces], lastSeen: null});
    });
  }

  /** Whose face this is: {name (null for a stranger), nearest, cosine, threshold}. */
  identify(embedding) {
    let nearest = null, cosine = -1;
    for (const person of this.known) {
      const likeness = dot(person.mean, embedding);
      if (likeness > cosine) [nearest, cosine] = [person.name, likeness];
    }
    return {name: cosine >= this.threshold ? nearest : null, nearest, cosine, threshold: this.threshold};
  }

  async #change(edit) {
    const transaction = this.database.transaction('people', 'readwrite', {durability: 'strict'});
    edit(transaction.objectStore('people'));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
    await this.#read();
  }

  async #read() {
    const stored = await settled(this.database.transaction('people').objectStore('people').getAll());
    this.known = stored.map((person) => ({...person, mean: mean(person.faces.map((face) => face.embedding))}));
    this.threshold = this.#threshold();
  }

  /** The cosine that only the asked share of strangers reaches; the more people, the higher it must be. */
  #threshold() {
    const {cohort, false_accepts: falseAccepts, threshold} = this.model;
    if (!this.known.length) return threshold;
    const enrolled = this.known.flatMap((person) => person.faces.map((face) => face.embedding));
    const friends = new Set();
    cohort.embeddings.forEach((other, index) => {
      if (enrolled.some((face) => dot(face, other) >= SAME_PHOTO)) friends.add(cohort.people[index]);
    });
    const scores = cohort.embeddings
      .filter((_, index) => !friends.has(cohort.people[index]))
      .map((other) => Math.max(...this.known.map((person) => dot(person.mean, other))));
    return scores.length < 10 ? threshold : scoreThreshold(scores, falseAccepts);
  }
}

/**
 * The cosine that at most `falseAccepts` of strangers' best scores reach, as facetpu/board/threshold.py
 * has it: between two scores where there are enough, from the tail of a Gumbel distribution where not.
 */
export function scoreThreshold(scores, falseAccepts) {
  const ordered = [...scores].sort((one, other) => other - one);
  const passing = Math.min(Math.floor(falseAccepts * ordered.length + 1e-9), ordered.length - 1);
  let asked;
  if (passing) {
    asked = (ordered[passing - 1] + ordered[passing]) / 2;
  } else {
    const average = ordered.reduce((sum, score) => sum + score, 0) / ordered.length;
    const spread = Math.sqrt(ordered.reduce((sum, score) => sum + (score - average) ** 2, 0) / ordered.length);
    const scale = (spread * Math.sqrt(6)) / Math.PI;
    asked = average - 0.5772156649015329 * scale - scale * Math.log(-Math.log1p(-falseAccepts));
  }
  return Math.min(Math.max(asked, ordered[passing] + 1e-7), 1);
}

/** The mean of embeddings, of length 1. */
function mean(embeddings) {
  const sum = new Float32Array(embeddings[0].length);
  for (const embedding of embeddings) embedding.forEach((value, i) => (sum[i] += value));
  const length = Math.hypot(...sum) || 1;
  return sum.map((value) => value / length);
}

function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[i];
  return sum;
}

const settled = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
