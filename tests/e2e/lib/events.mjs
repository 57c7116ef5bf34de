// A log of things that happened, which tests wait on instead of sleeping.

/** How long any single awaited event may take before the test fails. */
export const PATIENCE = Number(process.env.E2E_PATIENCE ?? 20_000);

export class Events {
  #pending = [];
  #waiters = [];
  /** Everything that ever happened, in order: [name, value, time in ms]. */
  history = [];

  constructor(label = 'events') {
    this.label = label;
  }

  push(name, value) {
    const event = [name, value, Date.now()];
    this.history.push(event);
    const at = this.#waiters.findIndex((w) => w.names.includes(name) && w.match(value));
    if (at < 0) {
      this.#pending.push(event);
      return;
    }
    const [waiter] = this.#waiters.splice(at, 1);
    clearTimeout(waiter.timer);
    waiter.resolve({ name, value, at: event[2] });
  }

  /** The next unconsumed event of one of these names: `{ name, value, at }`. */
  first(names, match = () => true, patience = PATIENCE) {
    const at = this.#pending.findIndex(([name, value]) => names.includes(name) && match(value));
    if (at >= 0) {
      const [[name, value, time]] = this.#pending.splice(at, 1);
      return Promise.resolve({ name, value, at: time });
    }
    const late = new Error(`${this.label}: no ${names.join('/')} within ${patience} ms`);
    return new Promise((resolve, reject) => {
      const waiter = { names, match, resolve };
      waiter.timer = setTimeout(() => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        late.message += `; happened: ${this.summary()}`;
        reject(late);
      }, patience);
      this.#waiters.push(waiter);
    });
  }

  /** The value of the next unconsumed event of this name. */
  async next(name, match, patience) {
    return (await this.first([name], match, patience)).value;
  }

  count(name) {
    return this.history.filter(([n]) => n === name).length;
  }

  summary() {
    const tail = this.history.slice(-12).map(([name, value]) => {
      let text;
      try {
        text = value instanceof Error ? value.message : JSON.stringify(value);
      } catch {
        text = '…';
      }
      return `${name}(${String(text ?? '').slice(0, 120)})`;
    });
    return tail.join(', ') || 'nothing';
  }
}

/** Fails when the promise takes longer than it may; for awaits that are not an `Events`. */
export function within(promise, what, patience = PATIENCE) {
  let timer;
  const late = new Error(`${what}: not within ${patience} ms`);
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(late), patience);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}
