// What the parts of the page share: whom and what the server knows, as it said last.

export const house = {people: [], cameras: []};

/** What a camera is called: its number is enough. */
export const cameraName = (id) => `Camera ${Number(id) + 1}`;
