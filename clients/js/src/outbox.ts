/** Reports on their way to the service: sent in order, tried again with growing pauses, bounded in memory. */

const AT_ONCE = 16;
const PAUSE_MS = 100; // after the first failure; it doubles
const PAUSE_MAX_MS = 30_000;
const PAUSE_FLUSHING_MS = 200; // while somebody waits for it

export interface Report {
  eventId: string;
  path: string;
  body: string;
}

/** Sends a report. Null: it need not be sent again; else so many milliseconds must pass before it may be, at least. */
export type Send = (report: Report) => Promise<number | null>;

export class Outbox {
  #waiting: Report[] = [];
  #underWay = 0;
  #running = false;
  #closed = false;
  #flushing = 0;
  #wake: (() => void) | undefined;
  #emptied: (() => void)[] = [];

  /**
   * @param send sends one report
   * @param size reports that may wait
   * @param drop told how many were given up
   */
  constructor(
    private readonly send: Send,
    private readonly size: number,
    private readonly drop: (count: number) => void,
  ) {}

  get length(): number {
    return this.#waiting.length + this.#underWay;
  }

  put(report: Report): void {
    if (this.#closed) {
      this.drop(1);
      return;
    }
    this.#waiting.push(report);
    this.#bound();
    if (!this.#running) {
      this.#running = true;
      void this.#run();
    }
  }

  /** Wait until all is sent. Answers whether it was, within the time. */
  async flush(timeoutMs: number): Promise<boolean> {
    if (this.length === 0) {
      return true;
    }
    this.#flushing += 1;
    this.#wake?.();
    const empty = new Promise<boolean>((resolve) => this.#emptied.push(() => resolve(true)));
    try {
      return await within(timeoutMs, empty, () => false, true);
    } finally {
      this.#flushing -= 1;
    }
  }

  /** Stop. What waits is given up. */
  close(): void {
    this.#closed = true;
    this.drop(this.length);
    this.#waiting = [];
    this.#underWay = 0;
    this.#wake?.();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (this.#waiting.length > 0) {
      const taken = this.#take();
      const pauses = await Promise.all(taken.map((report) => this.send(report)));
      if (this.#closed) {
        break;
      }
      this.#underWay = 0;
      const again = taken.filter((_, index) => pauses[index] !== null);
      this.#waiting.unshift(...again);
      this.#bound();
      failures = again.length > 0 ? failures + 1 : 0;
      if (failures > 0) {
        await this.#rest(failures, Math.max(...pauses.map((pause) => pause ?? 0)));
      }
    }
    this.#running = false;
    for (const resolve of this.#emptied.splice(0)) {
      resolve();
    }
  }

  /** Take the oldest reports. Those of one event are never under way together, so they arrive in order. */
  #take(): Report[] {
    const events = new Set<string>();
    let count = 0;
    for (const report of this.#waiting.slice(0, AT_ONCE)) {
      if (events.has(report.eventId)) {
        break;
      }
      events.add(report.eventId);
      count += 1;
    }
    this.#underWay = count;
    return this.#waiting.splice(0, count);
  }

  #bound(): void {
    const surplus = this.#waiting.length - this.size;
    if (surplus > 0) {
      this.#waiting.splice(0, surplus);
      this.drop(surplus);
    }
  }

  /** Pause before the next attempt. Half of it is drawn, so that many clients do not come back at once. */
  async #rest(failures: number, atLeastMs: number): Promise<void> {
    const longest = Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** Math.min(failures, 16));
    const drawn = Math.max(atLeastMs, longest * (0.5 + Math.random() / 2));
    const pause = this.#flushing > 0 ? Math.min(drawn, PAUSE_FLUSHING_MS) : drawn;
    const woken = new Promise<void>((resolve) => (this.#wake = resolve));
    await within(pause, woken, () => undefined);
    this.#wake = undefined;
  }
}

/**
 * Wait for something, but not for ever.
 *
 * @param timeoutMs how long
 * @param what to wait for
 * @param late makes what is answered when the time is over
 * @param holds whether the wait keeps a Node process alive
 */
export async function within<T>(timeoutMs: number, what: Promise<T>, late: () => T, holds = false): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, timeoutMs)));
  if (!holds) {
    (timer as { unref?: () => void } | undefined)?.unref?.(); // browsers have no such thing
  }
  try {
    return await Promise.race([what, over.then(late)]);
  } finally {
    clearTimeout(timer);
  }
}
