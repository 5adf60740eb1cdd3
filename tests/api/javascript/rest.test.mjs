// The unmodified `@azure-rest/ai-personalizer`, which speaks v1.1-preview.3: every call, what it is refused, and how it
// tries again.

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";

import sdk from "@azure-rest/ai-personalizer";

const { ENDPOINT, KEY, SLOTS_KEY, FAULTY_ENDPOINT, FAULTY_KEY } = process.env;
const { MODEL, INTERACTIONS, OBSERVATIONS } = process.env; // bytes as base64

const insecure = { allowInsecureConnection: true };
const actions = ["a", "b", "c"].map((id) => ({ id, features: [{ dish: { name: id } }] }));
const slots = [{ id: "hero", baselineAction: "c", excludedActions: ["b"] }, { id: "side", baselineAction: "a" }];
const day = 86_400_000;
const today = Math.floor(Date.now() / day) * day;
const span = { startTime: new Date(today).toISOString(), endTime: new Date(today + day).toISOString() };

function at(endpoint, key = KEY) {
  const client = sdk.default(endpoint, { key }, insecure);
  return (method, path, options = {}) => {
    const [template, ...parameters] = [].concat(path);
    return client.path(template, ...parameters)[method.toLowerCase()](options);
  };
}

const call = at(ENDPOINT);

function operation(id, ask, check = () => {}) {
  test(id, async () => {
    const [method, path] = id.split(" ");
    const answer = await ask(method, path);
    const { error } = answer.body ?? {};
    assert.ok(!sdk.isUnexpected(answer) || path.includes("{"), JSON.stringify(error)); // which it takes for no path of its own
    assert.equal(error, undefined);
    assert.match(answer.status, /^20[014]$/);
    check(answer.body, answer);
  });
}

operation("POST /rank", (method, path) => call(method, path, { body: { actions, eventId: "p3", deferActivation: true } }), (body) => {
  assert.deepEqual(body.ranking.map(({ id }) => id).sort(), ["a", "b", "c"]);
  assert.equal(body.eventId, "p3");
});
operation("POST /events/{eventId}/activate", (method, path) => call(method, [path, "p3"]));
operation("POST /events/{eventId}/reward", (method, path) => call(method, [path, "p3"], { body: { value: 0.75 } }));

const slotsCall = at(ENDPOINT, SLOTS_KEY);
operation("POST /multislot/rank", (method, path) => slotsCall(method, path, { body: { actions, slots, eventId: "slots" } }), (body) => {
  assert.deepEqual(body.slots.map(({ id }) => id), ["hero", "side"]);
  assert.equal(new Set(body.slots.map(({ rewardActionId }) => rewardActionId)).size, 2);
});
operation("POST /multislot/events/{eventId}/activate", (method, path) => slotsCall(method, [path, "slots"]));
operation("POST /multislot/events/{eventId}/reward", (method, path) =>
  slotsCall(method, [path, "slots"], { body: { reward: [{ slotId: "hero", value: 1 }] } }));

operation("GET /configurations/service", (method, path) => call(method, path), (body) => {
  assert.equal(body.rewardWaitTime, "PT10M");
  assert.equal(body.learningMode, "Online");
});
operation("PUT /configurations/service", async (method, path) => {
  const { body } = await call("GET", path);
  return call(method, path, { body: { ...body, modelExportFrequency: "PT1M" } });
}, (body) => assert.equal(body.modelExportFrequency, "PT1M"));
operation("GET /configurations/policy", (method, path) => call(method, path), (body) => assert.match(body.name, /^[0-9a-f]{32}$/));
operation("PUT /configurations/policy", (method, path) =>
  call(method, path, { body: { name: "mine", arguments: "--cb_explore_adf --epsilon 0.4" } }), (body) =>
  assert.equal(body.arguments, "--cb_explore_adf --epsilon 0.4"));
operation("DELETE /configurations/policy", (method, path) => call(method, path), (body) => assert.match(body.arguments, /--cb_type mtr/));

let evaluationId = "none";
operation("POST /evaluations", (method, path) => call(method, path, { body: { name: "week 3", ...span, policies: [] } }), (body, answer) => {
  assert.equal(body.status, "pending");
  assert.match(answer.headers.location, /\/evaluations\/.+/);
  evaluationId = body.id;
});
operation("GET /evaluations", (method, path) => call(method, path), (body) => assert.equal(body.length, 1));
operation("GET /evaluations/{evaluationId}", (method, path) => call(method, [path, evaluationId]), (body) =>
  assert.equal(body.name, "week 3"));
operation("DELETE /evaluations/{evaluationId}", (method, path) => call(method, [path, evaluationId]));

const binary = (text) => ({ contentType: "application/octet-stream", body: Buffer.from(text, "base64") });
operation("POST /logs/interactions", (method, path) => call(method, path, binary(INTERACTIONS)));
operation("POST /logs/observations", (method, path) => call(method, path, binary(OBSERVATIONS)));
operation("GET /logs/properties", (method, path) => call(method, path), (body) => assert.ok(body.dateRange.from < body.dateRange.to));
operation("PUT /model", (method, path) => call(method, path, binary(MODEL)));
operation("GET /model", (method, path) => call(method, path, { queryParameters: { signed: true } }), (body) => assert.ok(body.length > 100));
operation("GET /model/properties", (method, path) => call(method, path), (body) => assert.ok(body.creationTime > "2001"));
operation("DELETE /model", (method, path) => call(method, path));
operation("DELETE /logs", (method, path) => call(method, path));

test("POST /configurations/applyFromEvaluation", async () => {
  const path = "/configurations/applyFromEvaluation";
  const answer = await call("POST", path, { body: { evaluationId: "none", policyName: "online" } });

  assert.ok(sdk.isUnexpected(answer));
  assert.equal(answer.status, "404");
  assert.equal(answer.body.error.code, "evaluationNotFound");
});

test("what is refused is answered with code, message and target", async () => {
  const answer = await call("POST", "/rank", { body: { actions: [...actions, actions[0]] } });

  assert.ok(sdk.isUnexpected(answer));
  assert.equal(answer.status, "400");
  assert.equal(answer.body.error.code, "invalidRankRequest");
  assert.equal(answer.body.error.target, "actions");
});

test("a wrong key is refused", async () => {
  const answer = await at(ENDPOINT, "wrong")("GET", "/configurations/service");

  assert.ok(sdk.isUnexpected(answer));
  assert.equal(answer.status, "401");
  assert.equal(answer.body.error.code, "401");
});

test("what got no answer is tried again, and does no harm", async () => {
  const faulty = at(FAULTY_ENDPOINT, FAULTY_KEY);
  const decided = await faulty("POST", "/rank", { body: { actions, eventId: "p3-again", deferActivation: true } });
  const activated = await faulty("POST", ["/events/{eventId}/activate", "p3-again"]);
  const rewarded = await faulty("POST", ["/events/{eventId}/reward", "p3-again"], { body: { value: 0.5 } });

  assert.deepEqual([decided.status, activated.status, rewarded.status], ["201", "204", "204"]);
});
