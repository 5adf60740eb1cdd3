/** A client for rankward: decisions within a deadline or the baseline, rewards sent in the background. */

import { Outbox, within, type Report } from "./outbox.js";
import {
  CallerError,
  RefusedError,
  Unanswered,
  type Actions,
  type Decision,
  type Features,
  type Options,
  type RankOptions,
  type Reason,
  type Slot,
  type SlotsDecision,
  type Stats,
} from "./types.js";

export { CallerError, RefusedError } from "./types.js";
export type {
  Actions,
  Decision,
  Features,
  FeatureValue,
  Options,
  RankOptions,
  Reason,
  Slot,
  SlotsDecision,
  Stats,
} from "./types.js";

const API = "/personalizer/v1.1-preview.3";
const FALLBACK_PREFIX = "fallback-"; // no service ever saw an event id that begins so
const PATIENCE_MS = 10_000; // with anything that nobody waits for
const LATE_MAX = 64; // questions that may stay open after their deadline
const REMEMBERED = 10_000; // event ids of the caller's own whose decisions fell back
const ID_LENGTH = 256;

/** A Rank of either kind, ready to be sent. */
interface Question<Answer> {
  eventId: string;
  path: string;
  body: string;
  /** Reads the answer; undefined: it does not fit. */
  read: (answer: any) => Answer | undefined;
  confirms: boolean;
}

/** One loop of a service. Make one when the application starts, and close it when it ends. */
export class Client {
  readonly #base: string;
  readonly #key: string;
  readonly #timeoutMs: number;
  readonly #confirm: boolean;
  readonly #strict: boolean;
  readonly #warn: (message: string) => void;
  readonly #outbox: Outbox;
  readonly #counts = { decisions: 0, late: 0, sent: 0, dropped: 0, withheld: 0 };
  readonly #fallbacks: Partial<Record<Reason, number>> = {};
  readonly #complaints = new Set<string>();
  readonly #fallen = new Set<string>();
  readonly #open = new Set<AbortController>();
  #away = false;
  #closed = false;

  /**
   * @param endpoint of the service, as `http://HOST:PORT`, or `http://HOST:PORT/loops/NAME`
   * @param key of the loop
   * @param options see there
   */
  constructor(endpoint: string, key: string, options: Options = {}) {
    this.#base = endpoint.replace(/\/+$/, "") + API;
    this.#key = key;
    this.#timeoutMs = options.timeoutMs ?? 50;
    this.#confirm = options.confirm ?? false;
    this.#strict = options.strict ?? false;
    this.#warn = options.warn ?? ((message) => console.warn(message));
    this.#outbox = new Outbox(
      (report) => this.#deliver(report),
      options.queueSize ?? 10_000,
      (count) => (this.#counts.dropped += count),
    );
  }

  /**
   * Choose one of the actions, within the time.
   *
   * @throws CallerError there is nothing to show: no actions, or all of them excluded; or the client is strict, and
   *   something cannot be used
   */
  async rank(context: Features, actions: Actions, options: RankOptions = {}): Promise<Decision> {
    const pairs = Array.isArray(actions) ? actions : Object.entries(actions);
    const ids = pairs.map(([id]) => id);
    const excluded = options.excluded ?? [];
    const baseline = ids.find((id) => !excluded.includes(id));
    if (baseline === undefined) {
      throw new CallerError(`of ${ids.length} actions none is left to choose: give at least one that is not excluded`);
    }
    return this.#decideOr(
      () => this.#question(context, pairs, excluded, options),
      options.eventId,
      (eventId) => ({
        eventId,
        actionId: baseline,
        ranking: ids.map((id) => ({ id, probability: id === baseline ? 1 : 0 })),
        fallback: true,
      }),
    );
  }

  /**
   * Choose an action for each slot, none of them twice, within the time; else every slot's baseline.
   *
   * @throws CallerError there are no slots; or the client is strict, and something cannot be used
   */
  async rankSlots(
    context: Features,
    actions: Actions,
    slots: Slot[],
    options: Omit<RankOptions, "excluded"> = {},
  ): Promise<SlotsDecision> {
    if (slots.length === 0) {
      throw new CallerError("there are no slots: give at least one");
    }
    const pairs = Array.isArray(actions) ? actions : Object.entries(actions);
    return this.#decideOr(
      () => this.#slotsQuestion(context, pairs, slots, options),
      options.eventId,
      (eventId) => ({
        eventId,
        slots: slots.map(({ id, baseline }) => ({
          slotId: id,
          actionId: baseline,
          ranking: [{ id: baseline, probability: 1 }],
        })),
        fallback: true,
      }),
    );
  }

  /** Ask, or fall back, under an event id of its own: a reward of the baseline must not be credited to what was drawn. */
  async #decideOr<Answer>(
    write: () => Question<Answer>,
    eventId: string | undefined,
    fallback: (eventId: string) => Answer,
  ): Promise<Answer> {
    try {
      const question = write();
      const decision = await this.#decide(question);
      this.#counts.decisions += 1;
      this.#away = false;
      this.#fallen.delete(question.eventId);
      if (question.confirms) {
        this.#outbox.put(activation(question.eventId));
      }
      return decision;
    } catch (error) {
      if (this.#strict && error instanceof CallerError) {
        throw error;
      }
      this.#fellBack(error, eventId);
      return fallback(FALLBACK_PREFIX + makeId());
    }
  }

  /**
   * Report how well the shown action did. It is sent in the background.
   *
   * @param eventId of the decision
   * @param value from -1 to 1, and best from 0 to 1
   * @param slot id of the slot that it is about; left out: the whole event
   */
  reward(eventId: string, value: number, slot?: string): void {
    this.#report(eventId, () => {
      if (!(typeof value === "number" && value >= -1 && value <= 1)) {
        throw new CallerError(`reward ${value} is outside -1 to 1: scale it`);
      }
      const path = `/events/${encodeURIComponent(checkId(eventId))}/reward`;
      const reportId = makeId();
      return slot === undefined
        ? { eventId, path, body: JSON.stringify({ value, reportId }) }
        : { eventId, path: `/multislot${path}`, body: JSON.stringify({ reward: [{ slotId: slot, value }], reportId }) };
    });
  }

  /** Say that a deferred decision was really shown. It is sent in the background. */
  activate(eventId: string): void {
    this.#report(eventId, () => activation(checkId(eventId)));
  }

  /** What became of the calls so far. */
  get stats(): Stats {
    return { ...this.#counts, fallbacks: { ...this.#fallbacks }, queued: this.#outbox.length };
  }

  /** Wait until everything reported is sent. Answers whether it was, within the time. */
  flush(timeoutMs = 5_000): Promise<boolean> {
    return this.#outbox.flush(timeoutMs);
  }

  /** Send what waits, within the time, and let go of everything. Decisions fall back from here on. */
  async close(timeoutMs = 5_000): Promise<void> {
    this.#closed = true;
    await this.#outbox.flush(timeoutMs);
    this.#outbox.close();
    for (const open of this.#open) {
      open.abort();
    }
  }

  #question(
    context: Features,
    pairs: [string, Features][],
    excluded: string[],
    options: RankOptions,
  ): Question<Decision> {
    const { ids, ...question } = this.#written("/rank", context, pairs, options, { excludedActions: excluded });
    const read = ({ ranking, eventId, rewardActionId }: any): Decision | undefined =>
      Array.isArray(ranking) && typeof eventId === "string" && ids.has(rewardActionId) && !excluded.includes(rewardActionId)
        ? { eventId, actionId: rewardActionId, ranking, fallback: false }
        : undefined;
    return { ...question, read };
  }

  #slotsQuestion(
    context: Features,
    pairs: [string, Features][],
    slots: Slot[],
    options: RankOptions,
  ): Question<SlotsDecision> {
    const asked = slots.map(({ id, baseline, features, excluded }) => ({
      id: checkId(id),
      baselineAction: baseline,
      features: listed(features ?? []),
      excludedActions: excluded ?? [],
    }));
    const path = "/multislot/rank?probabilities=true";
    const { ids, ...question } = this.#written(path, context, pairs, options, { slots: asked });
    const read = ({ slots: filled, eventId }: any): SlotsDecision | undefined => {
      const fits =
        Array.isArray(filled) &&
        typeof eventId === "string" &&
        filled.length === slots.length &&
        filled.every((slot, index) => slot?.id === slots[index]?.id && ids.has(slot.rewardActionId));
      return fits
        ? {
            eventId,
            slots: filled.map(({ id, rewardActionId, ranking }) => ({
              slotId: id,
              actionId: rewardActionId,
              ranking: ranking ?? [],
            })),
            fallback: false,
          }
        : undefined;
    };
    return { ...question, read };
  }

  /** Write what both kinds of Rank have in common, and what one has of its own. */
  #written(path: string, context: Features, pairs: [string, Features][], options: RankOptions, own: object) {
    const eventId = checkId(options.eventId ?? makeId());
    const ids = new Set(pairs.map(([id]) => checkId(id)));
    if (ids.size < pairs.length) {
      throw new CallerError("two actions have the same id: an id must name one action");
    }
    const deferred = options.deferred ?? false;
    const body = {
      contextFeatures: listed(context),
      actions: pairs.map(([id, features]) => ({ id, features: listed(features) })),
      eventId,
      deferActivation: deferred || this.#confirm,
      ...own,
    };
    return { ids, eventId, path, body: write(body), confirms: this.#confirm && !deferred };
  }

  /**
   * Ask, and wait for the answer as long as there is time. A question that is not answered by then stays open for a
   * while: breaking it off would close its connection, and the next one would have to begin by opening another.
   */
  #decide<Answer>(question: Question<Answer>): Promise<Answer> {
    if (this.#closed) {
      throw new Unanswered("the client is closed", "closed");
    }
    let inTime = true;
    const breakOff = new AbortController();
    this.#open.add(breakOff);
    const asked = this.#ask(question, breakOff.signal).finally(() => this.#open.delete(breakOff));
    asked.then(
      () => (this.#counts.late += inTime ? 0 : 1),
      () => undefined,
    );
    const late = (): never => {
      inTime = false;
      if (this.#open.size > LATE_MAX) {
        breakOff.abort();
      } else {
        void within<unknown>(PATIENCE_MS, asked, () => breakOff.abort()).catch(() => undefined);
      }
      throw new Unanswered("there was no answer in time", "timeout");
    };
    return within<Answer>(this.#timeoutMs, asked, late, true);
  }

  async #ask<Answer>(question: Question<Answer>, signal: AbortSignal): Promise<Answer> {
    const answer = await this.#post(question.path, question.body, signal);
    if (answer.status !== 201) {
      throw await refusal(answer);
    }
    const decision = question.read((await answer.json().catch(() => ({}))) ?? {});
    if (decision === undefined) {
      throw new Unanswered("the answer does not fit the question", "failed");
    }
    return decision;
  }

  async #post(path: string, body: string, signal: AbortSignal): Promise<Response> {
    const headers = { "Ocp-Apim-Subscription-Key": this.#key, "Content-Type": "application/json" };
    const send = () => fetch(this.#base + path, { method: "POST", headers, body, signal, redirect: "manual" });
    try {
      return await send();
    } catch (error) {
      // A connection that the service closed while nobody used it looks so. Sending again does no harm: the
      // service knows events and reports by their names.
      if (!signal.aborted) {
        return await send().catch((again) => {
          throw new Unanswered(`the service cannot be reached: ${describe(again)}`, "unreachable");
        });
      }
      throw new Unanswered(`the call was given up: ${describe(error)}`, "timeout");
    }
  }

  #report(eventId: string, write: () => Report): void {
    try {
      if (typeof eventId === "string" && (eventId.startsWith(FALLBACK_PREFIX) || this.#fallen.has(eventId))) {
        this.#counts.withheld += 1;
        return;
      }
      const report = write();
      if (this.#closed) {
        this.#counts.dropped += 1;
      } else {
        this.#outbox.put(report);
      }
    } catch (error) {
      if (this.#strict) {
        throw error;
      }
      this.#counts.dropped += 1;
      this.#complain(error);
    }
  }

  async #deliver(report: Report): Promise<number | null> {
    const breakOff = new AbortController();
    this.#open.add(breakOff);
    try {
      const sent = this.#post(report.path, report.body, breakOff.signal);
      const answer = await within(PATIENCE_MS, sent, () => {
        breakOff.abort();
        throw new Unanswered("there was no answer", "timeout");
      });
      if (answer.status !== 204) {
        throw await refusal(answer);
      }
      this.#counts.sent += 1;
      return null;
    } catch (error) {
      if (error instanceof Unanswered) {
        return error.retryAfterMs;
      }
      this.#counts.dropped += 1;
      this.#complain(error);
      return null;
    } finally {
      this.#open.delete(breakOff);
    }
  }

  #fellBack(error: unknown, eventId: string | undefined): void {
    const reason =
      error instanceof Unanswered ? error.reason : error instanceof RefusedError ? "refused" : "invalid";
    this.#fallbacks[reason] = (this.#fallbacks[reason] ?? 0) + 1;
    if (!(error instanceof Unanswered)) {
      this.#complain(error);
    } else if (!this.#away) {
      this.#warn(`rankward: decisions fall back to the baseline (${reason}): ${error.message}`);
    }
    this.#away = true;
    if (eventId !== undefined) {
      this.#fallen.add(eventId);
      for (const oldest of this.#fallen) {
        if (this.#fallen.size <= REMEMBERED) {
          break;
        }
        this.#fallen.delete(oldest);
      }
    }
  }

  #complain(error: unknown): void {
    const kind = error instanceof RefusedError ? `${error.status}` : describe(error);
    if (!this.#complaints.has(kind) && this.#complaints.size < REMEMBERED) {
      this.#complaints.add(kind);
      this.#warn(`rankward: ${describe(error)} (said once of its kind)`);
    }
  }
}

function activation(eventId: string): Report {
  return { eventId, path: `/events/${encodeURIComponent(eventId)}/activate`, body: "" };
}

/** Make an error of an answer that is not the one hoped for. */
async function refusal(answer: Response): Promise<Unanswered | RefusedError> {
  const body = await answer.json().catch(() => undefined);
  const message = `the service answers ${answer.status}: ${body?.error?.message ?? "without saying why"}`;
  if (answer.status === 429 || answer.status === 503) {
    return new Unanswered(message, "busy", 1_000 * (Number(answer.headers.get("retry-after")) || 0));
  }
  if (answer.status >= 500 || answer.status === 408 || answer.status === 409) {
    return new Unanswered(message, "failed");
  }
  return new RefusedError(message, answer.status);
}

function listed(features: Features): unknown[] {
  return Array.isArray(features) ? features : [features];
}

/** Write JSON. Numbers that JSON does not have are refused, not turned into null: null is a feature like any other. */
function write(body: unknown): string {
  try {
    return JSON.stringify(body, (name, value) => {
      if (typeof value === "number" && !Number.isFinite(value)) {
        throw new CallerError(`feature ${name} is ${value}, which JSON cannot say: leave it out`);
      }
      return value;
    });
  } catch (error) {
    throw error instanceof CallerError ? error : new CallerError(`features cannot be written: ${describe(error)}`);
  }
}

function checkId(id: string): string {
  if (typeof id !== "string" || id.length < 1 || id.length > ID_LENGTH) {
    throw new CallerError(`${String(id).slice(0, 40)} is no id: give it 1 to ${ID_LENGTH} characters`);
  }
  return id;
}

function makeId(): string {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto === undefined) {
    bytes.forEach((_, index) => (bytes[index] = Math.floor(Math.random() * 256))); // Node 18
  } else {
    globalThis.crypto.getRandomValues(bytes);
  }
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
