// What the server tells of by itself: somebody is seen, people change, a camera comes or goes.

const KINDS = ['seen', 'people', 'camera'];

/** A line that the server tells on: `hear(kind, data)`, and `broken()` once it breaks, if it ever stood. */
export class Line {
  constructor(hear, broken) {
    this.source = new EventSource('/api/notices');
    for (const kind of KINDS) this.source.addEventListener(kind, ({data}) => hear(kind, JSON.parse(data)));
    /** Whether it stands: false when the server will not have it. */
    this.stands = new Promise((resolve) => (this.settle = resolve));
    this.source.onopen = () => this.settle(true);
    const over = async () => {
      this.settle(false);
      this.source.close();
      if (await this.stands) broken();
    };
    this.source.onerror = over;
    this.source.addEventListener('dropped', over); // it told faster than we heard
  }

  close() {
    this.settle(true); // whether it would have stood is no matter now
    this.source.close();
  }
}
