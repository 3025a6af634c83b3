// What the server tells of by itself: somebody is seen, people change, a camera comes or goes.

const KINDS = ['seen', 'people', 'camera'];

/** A line that the server tells on, until it breaks: `hear(kind, data)`, and `broken()` once. */
export class Line {
  constructor(hear, broken) {
    this.source = new EventSource('/api/notices');
    for (const kind of KINDS) this.source.addEventListener(kind, ({data}) => hear(kind, JSON.parse(data)));
    const over = () => {
      this.close();
      broken();
    };
    this.source.onerror = over;
    this.source.addEventListener('dropped', over); // it told faster than we heard
  }

  close() {
    this.source.close();
  }
}
