/** The client against a service: `RANKWARD_ENDPOINT` and `RANKWARD_KEY` say which; the loop is the test's alone. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createSocketServer } from "node:net";
import { test } from "node:test";

import { CallerError, Client } from "../dist/index.js";

const endpoint = process.env.RANKWARD_ENDPOINT;
const key = process.env.RANKWARD_KEY;
const LONG_MS = 120_000; // a deadline that a busy machine keeps, too
const actions = { soup: { dish: { hot: true } }, salad: { dish: { hot: false } }, stew: { dish: { hot: true } } };
const context = { visitor: { device: "phone" } };

/** Run a server for a while. Gives its endpoint. */
async function serving(server, use) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections?.();
    server.close();
  }
}

/** A server that answers each request as it is told, and keeps what it was asked. */
function answering(...answers) {
  const asked = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
      asked.push({ path: request.url, key: request.headers["ocp-apim-subscription-key"], body });
      const [status, headers, text] = answers[Math.min(asked.length, answers.length) - 1];
      response.writeHead(status, headers).end(text);
    });
  });
  return { server, asked };
}

test("a decision comes from the service, and its reward gets there", async () => {
  const client = new Client(endpoint, key, { timeoutMs: LONG_MS });
  const decision = await client.rank(context, actions, { excluded: ["soup"] });
  client.reward(decision.eventId, 0.5);
  assert.ok(await client.flush(LONG_MS));
  await client.close();
  assert.equal(decision.fallback, false);
  assert.ok(["salad", "stew"].includes(decision.actionId));
  assert.equal(decision.ranking.find(({ id }) => id === "soup").probability, 0);
  assert.deepEqual(client.stats, {
    decisions: 1,
    fallbacks: {},
    late: 0,
    queued: 0,
    sent: 1,
    dropped: 0,
    withheld: 0,
  });
});

test("a caller may repeat a rank under its own id, and odd ids are escaped", async () => {
  const client = new Client(endpoint, key, { timeoutMs: LONG_MS, confirm: true });
  const eventId = "a/b c#é";
  const first = await client.rank(context, Object.entries(actions), { eventId });
  assert.deepEqual(await client.rank(context, Object.entries(actions), { eventId }), first);
  client.reward(eventId, 1);
  assert.ok(await client.flush(LONG_MS));
  assert.equal(client.stats.sent, 3); // two confirmations and a reward
  await client.close();
});

test("mistakes are said once and fall back", async () => {
  const said = [];
  const client = new Client(endpoint, key, { timeoutMs: LONG_MS, warn: (message) => said.push(message) });
  const stranger = new Client(endpoint, "no such key", { timeoutMs: LONG_MS, warn: (message) => said.push(message) });
  for (let turn = 0; turn < 2; turn += 1) {
    assert.equal((await client.rank(context, { a: { tags: ["x"] }, b: { x: 1 } })).actionId, "a");
    assert.equal((await client.rank({ x: Number.NaN }, actions)).fallback, true);
    assert.equal((await stranger.rank(context, actions)).fallback, true);
    client.reward("e", 7);
  }
  assert.deepEqual(client.stats.fallbacks, { refused: 2, invalid: 2 });
  assert.equal(client.stats.dropped, 2);
  assert.deepEqual(stranger.stats.fallbacks, { refused: 2 });
  assert.equal(said.length, 4);
  await client.close();
  await stranger.close();
});

test("slots are filled and rewarded one by one, or have their baselines", async () => {
  const slots = [
    { id: "hero", baseline: "salad", features: { size: "large" }, excluded: ["soup"] },
    { id: "side", baseline: "soup" },
  ];
  const client = new Client(endpoint, process.env.RANKWARD_SLOTS_KEY, { timeoutMs: LONG_MS });
  const decision = await client.rankSlots(context, actions, slots, { eventId: "front/1" });
  client.reward(decision.eventId, 0.5, "hero");
  assert.ok(await client.flush(LONG_MS));
  await client.close();
  assert.deepEqual(decision.slots.map(({ slotId }) => slotId), ["hero", "side"]);
  assert.equal(new Set(decision.slots.map(({ actionId }) => actionId)).size, 2);
  assert.equal(client.stats.sent, 1);
  const mistaken = new Client(endpoint, key, { timeoutMs: LONG_MS, warn: () => undefined });
  const fallback = await mistaken.rankSlots(context, actions, slots);
  await mistaken.close();
  assert.equal(fallback.fallback, true);
  assert.deepEqual(fallback.slots.map(({ actionId }) => actionId), ["salad", "soup"]);
  assert.deepEqual(mistaken.stats.fallbacks, { refused: 1 });
  await assert.rejects(mistaken.rankSlots(context, actions, []), CallerError);
});

test("a strict client throws mistakes", async () => {
  const client = new Client(endpoint, key, { timeoutMs: LONG_MS, strict: true });
  await assert.rejects(client.rank(context, { a: { tags: ["x"] }, b: { x: 1 } }), /numbers only/);
  await assert.rejects(client.rank({ x: Infinity }, actions), CallerError);
  assert.throws(() => client.reward("e", 7), /outside -1 to 1/);
  assert.throws(() => client.activate(""), /is no id/);
  await client.close();
});

test("a late decision is a fallback, is noticed, and is never rewarded", async () => {
  let miss;
  const missed = new Promise((resolve) => (miss = resolve));
  const slow = createServer(async (request, response) => {
    const headers = { "content-type": "application/json", "ocp-apim-subscription-key": key };
    const body = Buffer.concat(await request.toArray());
    const answer = await fetch(endpoint + request.url, { method: request.method, headers, body });
    await missed; // the service has decided, and nobody may hear of it in time
    response.writeHead(answer.status).end(await answer.text());
  });
  await serving(slow, async (relay) => {
    const client = new Client(relay, key, { timeoutMs: 10, warn: () => undefined });
    const decision = await client.rank(context, actions, { eventId: "late-one" });
    assert.deepEqual([decision.actionId, decision.fallback], ["soup", true]);
    assert.match(decision.eventId, /^fallback-/);
    client.reward(decision.eventId, 1);
    client.reward("late-one", 1);
    client.activate("late-one");
    miss();
    while (client.stats.late === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(client.stats.withheld, 3);
    assert.equal(client.stats.queued, 0);
    await client.close();
  });
});

test("a silent service costs no more than the deadline", async () => {
  await serving(createSocketServer(), async (silent) => {
    const client = new Client(silent, "key", { timeoutMs: 10, warn: () => undefined });
    const decisions = await Promise.all(Array.from({ length: 100 }, () => client.rank(context, actions)));
    assert.equal(new Set(decisions.map(({ eventId }) => eventId)).size, 100);
    assert.deepEqual(client.stats.fallbacks, { timeout: 100 });
    await client.close();
  });
});

test("whatever a service answers, something is shown", async () => {
  const fits = { ranking: [], eventId: "e", rewardActionId: "soup" };
  for (const [status, headers, text, reason] of [
    [503, { "retry-after": "3" }, "{}", "busy"],
    [429, {}, "", "busy"],
    [500, {}, "oops", "failed"],
    [409, {}, "{}", "failed"],
    [403, {}, "null", "refused"],
    [301, { location: "/" }, "", "refused"],
    [201, {}, "[]", "failed"],
    [201, {}, "null", "failed"],
    [201, {}, JSON.stringify(fits), "failed"],
  ]) {
    const { server } = answering([status, headers, text]);
    await serving(server, async (odd) => {
      const client = new Client(odd, "key", { timeoutMs: LONG_MS, warn: () => undefined });
      const decision = await client.rank(context, actions, { excluded: ["soup"] });
      assert.deepEqual([decision.actionId, decision.fallback], ["salad", true]);
      assert.deepEqual(client.stats.fallbacks, { [reason]: 1 }, `${status}`);
      await client.close();
    });
  }
});

test("a report that is not taken is sent again, under the same name and in order", async () => {
  const { server, asked } = answering([503, {}, "{}"], [500, {}, ""], [204, {}, ""]);
  await serving(server, async (busy) => {
    const client = new Client(`${busy}/`, "key", { warn: () => undefined });
    client.reward("e", 0.25);
    client.reward("e", 0.75);
    assert.ok(await client.flush(LONG_MS));
    assert.equal(client.stats.sent, 2);
    const reports = asked.map(({ body }) => JSON.parse(body));
    assert.deepEqual(reports.map(({ value }) => value), [0.25, 0.25, 0.25, 0.75]);
    assert.equal(new Set(reports.map(({ reportId }) => reportId)).size, 2);
    assert.equal(asked[0].path, "/personalizer/v1.1-preview.3/events/e/reward");
    assert.equal(asked[0].key, "key");
    await client.close();
  });
});

test("waiting rewards are bounded, and the oldest go", async () => {
  await serving(createSocketServer((socket) => socket.destroy()), async (gone) => {
    const client = new Client(gone, "key", { queueSize: 10, warn: () => undefined });
    for (let number = 0; number < 100; number += 1) {
      client.reward(`e${number}`, 1);
    }
    assert.equal(await client.flush(1), false);
    assert.equal(client.stats.queued + client.stats.dropped, 100);
    assert.ok(client.stats.queued <= 26);
    await client.close(1);
    assert.equal(client.stats.dropped, 100);
    assert.equal(client.stats.queued, 0);
  });
});

test("a closed client still shows something", async () => {
  const client = new Client(endpoint, key, { warn: () => undefined });
  await client.close();
  assert.equal((await client.rank(context, actions)).actionId, "soup");
  client.reward("e", 1);
  assert.deepEqual(client.stats.fallbacks, { closed: 1 });
  assert.equal(client.stats.dropped, 1);
});

test("there must be something to show", async () => {
  const client = new Client(endpoint, key);
  await assert.rejects(client.rank(context, {}), CallerError);
  await assert.rejects(client.rank(context, actions, { excluded: Object.keys(actions) }), CallerError);
});
