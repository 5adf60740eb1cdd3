"""What behaves differently here than in the original: told in the pages, and in each report of a migration."""

from __future__ import annotations

import msgspec


class Difference(msgspec.Struct, frozen=True):
    """Something that behaves differently. Words of the contract stand between backquotes."""

    what: str
    original: str  # empty where there is nothing to say
    here: str


DIFFERENCES = (
    Difference(
        "error codes",
        "capitalised in the published lists, lower-case first letter on the wire",
        "lower-case first letter, as on the wire",
    ),
    Difference("codes within `innerError`", "capitalised", "capitalised"),
    Difference(
        "codes by version",
        "each version lists its own",
        "those of all lists, in every version; `invalidContainer` is `invalidSasUri` in 2022-09-01-preview",
    ),
    Difference(
        "header `x-ms-error-code`",
        "2022-09-01-preview",
        "the same; not on 404 and 405 for paths, which reach no operation",
    ),
    Difference(
        "a retried Rank",
        "the same answer, and a second event that nobody rewards",
        "the same answer, logged once",
    ),
    Difference(
        "a retried Reward",
        "counts twice with `sum` and `average`",
        "counts once, if both have the same `x-ms-client-request-id`, or the same `reportId` in their bodies",
    ),
    Difference("`rewardWaitTime`", "5 s to 2 days, later one of four values", "anything above 0, up to 30 days"),
    Difference("`logRetentionDays`", "0 was accepted once", "-1, or at least the wait plus a day"),
    Difference("durations in requests", "ISO 8601, earlier `hh:mm:ss`", "both, and answered in ISO 8601"),
    Difference("`PUT` of the configuration", "", "members left out, or null, stay as they are"),
    Difference(
        "`modelRetrainDays`",
        "required in `PUT` of 2022-09-01-preview, 0 until it is set",
        "optional, 2 until it is set; answered in every version",
    ),
    Difference(
        "automatic optimization",
        "applied what looked better on the data that had chosen it",
        "applies what is better beyond doubt on data that had no say, watches over it, and goes back by itself",
    ),
    Difference(
        "`autoOptimizationStartDate`",
        "comes back as it was sent",
        "the same, but what is no full moment, as `2026-01-31`, comes back as one: `2026-01-31T00:00:00Z`",
    ),
    Difference("`max` of rewards that are not above 0", "the default reward", "the largest of them"),
    Difference("an excluded first action", "once shown all the same", "never shown"),
    Difference("probabilities", "single precision", "7 decimals; what is drawn from and logged has double precision"),
    Difference("policy name", "the loop's id, whatever was sent", "the same"),
    Difference("learner options about input and output (`--dsjson`)", "accepted", "accepted, and left out"),
    Difference(
        "a changed policy",
        "learned from then on",
        "a new model learns the last days beside the old one, which serves until the new one has caught up",
    ),
    Difference(
        "rate limits",
        "429",
        "nothing is rationed, so 429 is not used; when too much waits, 503 with `Retry-After`, which "
        "most SDKs try again by themselves",
    ),
    Difference("`GET /model` without a model", "no bytes", "no bytes, `Last-Modified` in the year 1"),
    Difference(
        "`PUT /model`",
        "models that the service itself signed",
        "the same, and what the loop's `model_import` lets in; the model must be of the loop's policy",
    ),
    Difference("a signed model of a loop without one", "", "no bytes, as without a signature"),
    Difference("going over to slots", "said to be irreversible", "a policy change like any other"),
    Difference("a slot for which earlier ones may leave nothing", "not said", "400"),
    Difference("LoggingOnly with slots", "logs what the model drew", "logs the baselines, as for single slots"),
    Difference("probabilities of slots", "not answered", "answered when asked for"),
    Difference(
        "an evaluation made through another version",
        "refused, `IncompatibleEvaluationVersion`",
        "answered in the words of the version that asks",
    ),
    Difference(
        "`enableOfflineExperimentation`, `enablePolicyOptimization`",
        "better policies are looked for",
        "the same, from the loop's own policy; the finalists are listed, judged by events that the search has not used",
    ),
    Difference(
        "`filter` of evaluations",
        "not said but for an example",
        "`evaluationType`, `status` and `name`, with `eq` and `ne`, joined by `and`",
    ),
    Difference(
        "`optimalPolicy`",
        "not the largest mean",
        "the policy that is better than `online` beyond doubt, by most; else `online`",
    ),
    Difference("`evaluationType`", "`Manual` or `Auto`", "`Manual`: nothing is optimized by itself yet"),
)
"""The table of the page about the API."""
