/** The words of the client: what is asked, what is answered, what is counted. */

export type FeatureValue = string | number | boolean | null | number[] | { [name: string]: FeatureValue };

/** Features of a context or of an action: an object, or several. */
export type Features = { [name: string]: FeatureValue } | { [name: string]: FeatureValue }[];

/** Features by action id, or pairs of both. The first action that is not excluded is the baseline. */
export type Actions = { [id: string]: Features } | [id: string, features: Features][];

export interface Options {
  /** How long a decision may take in all, in milliseconds. Default: 50. */
  timeoutMs?: number;
  /** Have a decision learned only if it came in time. It costs a second call in the background. */
  confirm?: boolean;
  /** Throw the caller's mistakes (what cannot be used, 400, 401, 403, 404) instead of falling back: for tests. */
  strict?: boolean;
  /** Rewards that may wait to be sent; the oldest are given up for newer ones. Default: 10,000. */
  queueSize?: number;
  /** Told of mistakes, once of each kind, and of outages, when they begin. Default: `console.warn`. */
  warn?: (message: string) => void;
}

export interface RankOptions {
  /** Ids of actions that must not be chosen. */
  excluded?: string[];
  /** Yours; left out: one is made. */
  eventId?: string;
  /** Whether the decision counts only once it is activated. */
  deferred?: boolean;
}

export interface Decision {
  /** To report the reward under. */
  eventId: string;
  /** To show. */
  actionId: string;
  /** Every action with its probability, in the order of the service's answer. */
  ranking: { id: string; probability: number }[];
  /** There was no answer in time: the action is the baseline, and nothing is learned of it. */
  fallback: boolean;
}

/** A place to fill with an action. */
export interface Slot {
  id: string;
  /** Id of the action that the application would show here by itself; each slot has its own. */
  baseline: string;
  features?: Features;
  /** Ids of actions that must not be chosen here. */
  excluded?: string[];
}

export interface SlotsDecision {
  /** To report rewards under. */
  eventId: string;
  /** In the order in which they were asked for; `ranking` has the actions that earlier slots had left. */
  slots: { slotId: string; actionId: string; ranking: { id: string; probability: number }[] }[];
  /** There was no answer in time: every slot has its baseline, and nothing is learned of it. */
  fallback: boolean;
}

/** Why a decision fell back to the baseline. */
export type Reason = "timeout" | "unreachable" | "busy" | "failed" | "refused" | "invalid" | "closed";

export interface Stats {
  /** Decisions that came in time. */
  decisions: number;
  /** Decisions that did not, by reason. */
  fallbacks: Partial<Record<Reason, number>>;
  /** Fallbacks that the service had decided and logged after all. */
  late: number;
  /** Reports (rewards, activations) that wait to be sent. */
  queued: number;
  /** Reports that the service has taken. */
  sent: number;
  /** Reports given up: too many waited, the service refused them, or the client was closed. */
  dropped: number;
  /** Reports of fallback decisions, which are not sent. */
  withheld: number;
}

/** What a strict client throws, and what any client throws when there is nothing to show. */
export class CallerError extends Error {
  override name = "CallerError";
}

/** The service gave no decision, or did not take a report. */
export class Unanswered extends Error {
  override name = "Unanswered";

  constructor(
    message: string,
    readonly reason: Reason,
    readonly retryAfterMs = 0,
  ) {
    super(message);
  }
}

/** The service calls it the caller's mistake. */
export class RefusedError extends CallerError {
  override name = "RefusedError";

  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}
