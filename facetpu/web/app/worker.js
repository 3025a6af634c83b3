// The part that computes, off the page's own thread. A classic worker: LiteRT.js loads its WebAssembly by
// importScripts, which module workers lack.

const load = (async () => {
  const at = (name) => new URL(name, self.location.href).href;
  self.Module = {locateFile: (name) => at(`litert/${name}`)};
  const [litert, {Recogniser}] = await Promise.all([import(at('litert/index.js')), import(at('recogniser.js'))]);
  await litert.loadLiteRt(at('litert/'));
  const response = await fetch(at('model/model.json'));
  return Recogniser.open(litert, await response.json(), at('model/'));
})();

let last = Promise.resolve(); // questions are answered one after the other: the networks share their memory

self.onmessage = ({data: {id, image}}) => {
  last = last.then(async () => {
    try {
      const recogniser = await load;
      self.postMessage({id, answer: image ? await recogniser.look(image) : recogniser.model});
    } catch (error) {
      self.postMessage({id, error: error.message || String(error)});
    }
  });
};
