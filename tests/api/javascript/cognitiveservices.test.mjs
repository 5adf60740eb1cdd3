// The unmodified `@azure/cognitiveservices-personalizer`, which speaks v1.0: every call, what it is refused, and how it
// tries again.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PersonalizerClient } from "@azure/cognitiveservices-personalizer";
import { ApiKeyCredentials } from "@azure/ms-rest-js";

const { ENDPOINT, KEY, FAULTY_ENDPOINT, FAULTY_KEY } = process.env;

function client(endpoint = ENDPOINT, key = KEY) {
  return new PersonalizerClient(new ApiKeyCredentials({ inHeader: { "Ocp-Apim-Subscription-Key": key } }), endpoint);
}

function request(eventId, members = {}) {
  return {
    contextFeatures: [{ visitor: { device: "phone", returning: true } }],
    actions: ["pasta", "ramen", "salad"].map((id) => ({ id, features: [{ dish: { name: id } }] })),
    eventId,
    ...members,
  };
}

for (const end of ["", "/"]) {
  test(`an endpoint that ends in '${end}' ranks, rewards and activates`, async () => {
    const answer = await client(ENDPOINT + end).rank(request(`v1${end}`, { excludedActions: ["ramen"], deferActivation: true }));

    assert.equal(answer._response.status, 201);
    assert.equal(answer.eventId, `v1${end}`);
    assert.equal(answer.ranking[1].id, "ramen");
    assert.equal(answer.ranking[1].probability, 0);
    assert.ok(["pasta", "salad"].includes(answer.rewardActionId));
    const activated = await client(ENDPOINT + end).events.activate(answer.eventId);
    assert.equal(activated._response.status, 204);
    const rewarded = await client(ENDPOINT + end).events.reward(answer.eventId, { value: 0.75 });
    assert.equal(rewarded._response.status, 204);
  });
}

test("a service that names the event is told which by its reward", async () => {
  const answer = await client().rank(request(undefined));

  assert.match(answer.eventId, /^[0-9a-f]{32}-/);
  await client().events.reward(answer.eventId, { value: 0 });
});

test("an event id arrives as it is", async () => {
  await client().events.reward("v1/2026 grüße 🍜 100%", { value: 1 });
});

test("a refused rank is thrown with code, message and target", async () => {
  await assert.rejects(client().rank(request("v1-refused", { excludedActions: ["pasta", "ramen", "salad"] })), (error) => {
    assert.equal(error.statusCode, 400);
    assert.equal(error.body.error.code, "invalidRankRequest");
    assert.equal(error.body.error.target, "excludedActions");
    assert.match(error.body.error.message, /all 3 actions/);
    return true;
  });
});

test("a refused reward is thrown too", async () => {
  await assert.rejects(client().events.reward("v1-refused", { value: 7 }), { statusCode: 400 });
});

test("a wrong key is thrown, whatever is called", async () => {
  const stranger = client(ENDPOINT, "wrong");
  await assert.rejects(stranger.rank(request("v1-refused")), { statusCode: 401 });
  await assert.rejects(stranger.events.reward("v1-refused", { value: 1 }), { statusCode: 401 });
  await assert.rejects(stranger.events.activate("v1-refused"), { statusCode: 401 });
});

test("what got no answer is tried again, and does no harm", async () => {
  const answer = await client(FAULTY_ENDPOINT, FAULTY_KEY).rank(request("v1-again", { deferActivation: true }));
  assert.equal(answer.eventId, "v1-again");
  await client(FAULTY_ENDPOINT, FAULTY_KEY).events.activate("v1-again");
  await client(FAULTY_ENDPOINT, FAULTY_KEY).events.reward("v1-again", { value: 0.5 });
});
