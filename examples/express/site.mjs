/**
 * A page of a grocer, made with Express: which dish leads is decided for each visitor, and learned from clicks.
 * README.md beside this file says how to start it. The page comes out whether the service is there or not.
 */

import express from "express";
import { Client } from "rankward";

const dishes = {
  pasta: { dish: { veg: true, hot: true, price: 9.5 } },
  ramen: { dish: { veg: false, hot: true, price: 12 } },
  salad: { dish: { veg: true, hot: false, price: 7 } },
};

const endpoint = process.env.RANKWARD_ENDPOINT ?? "http://127.0.0.1:8080";
const client = new Client(endpoint, process.env.RANKWARD_KEY ?? "", { timeoutMs: 50 });
const site = express();

site.get("/", async (request, response) => {
  const context = {
    visitor: { device: /Mobile/.test(request.get("user-agent") ?? "") ? "phone" : "desktop" },
    clock: { hour: new Date().getUTCHours() },
  };
  const { actionId, eventId } = await client.rank(context, dishes);
  const others = Object.keys(dishes).filter((dish) => dish !== actionId);
  response.send(
    `<h1><a href="/dishes/${actionId}?eventId=${encodeURIComponent(eventId)}">${actionId} today</a></h1>` +
      `<ul>${others.map((dish) => `<li>${dish}</li>`).join("")}</ul>`,
  );
});

site.get("/dishes/:dish", (request, response) => {
  client.reward(String(request.query.eventId ?? ""), 1);
  response.redirect(303, "/");
});

site.get("/stats", (_request, response) => {
  response.json(client.stats);
});

const server = site.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});

process.once("SIGTERM", () => {
  server.close(async () => {
    await client.close(); // sends the rewards that wait
  });
});
