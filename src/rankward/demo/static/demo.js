// The demo's page: asks for front pages, says what was clicked, and shows how everything stands.

import { draw } from "./chart.js";
import { element, layOut } from "./paper.js";

const POLL_MS = 1000;
const DEVICES = { phone: "on a phone", tablet: "on a tablet", laptop: "on a laptop" };
const TIMES = { morning: "in the morning", noon: "at noon", evening: "in the evening", night: "at night" };
const EDITIONS = { morning: "morning edition", noon: "noon edition", evening: "evening edition", night: "night edition" };
const SEASONS = { ordinary: "An ordinary week", festival: "Festival week", storm: "A storm is coming" };
const FLASHES = {
  festival: "Festival week! Everybody wants Culture and Food, whatever they follow.",
  storm: "Storm warning! All eyes on the Outdoors, and on who still plays.",
};
const NEXT = { ordinary: "festival", festival: "storm", storm: "ordinary" };
const WAIT_MS = Number(document.body.dataset.waitS) * 1000;
const SILENT_MAX = 3;
const MARGIN_MS = 1500; // so that what is clicked at the last moment still counts

const $ = (id) => document.getElementById(id);
const me = { device: "laptop", time: "morning", follows: [], name: `you-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}` };
const stories = new Map();
let view = null; // as the service last said
let page = null; // the front page that is up: {eventId, learningMode, stories, at}
let paging = null; // the request for the next one
let act = "";
let silent = 0; // times in a row that nobody answered
let looks = 0; // how often it was asked how everything stands
let newest = 0; // the number of the look that `view` came from

async function ask(path, body) {
  const answer = await fetch(`/demo/${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? null : answer.json();
}

const percent = (share) => `${Math.round(share * 100)} %`;
const capital = (word) => word[0].toUpperCase() + word.slice(1);
const count = (number) => number.toLocaleString("en");

// The front page

/** Put up the next front page, `unless` something says, when it has come, that the one that is up shall stay. */
async function turn(unless = () => false) {
  const asked = (paging = {});
  try {
    const next = await ask("page", me);
    if (asked !== paging || unless()) return; // the reader has become somebody else meanwhile, or has begun to read
    page = { ...next, at: performance.now() };
    layOut($("stories"), page.stories, stories, open);
    $("edition").textContent = EDITIONS[me.time];
    $("arranged").textContent = page.learningMode === "Online" ? "arranged for you by the loop" : "arranged by the editor";
    $("turn-text").textContent = "Click what you would read. What you leave alone counts as nothing at all.";
  } catch (error) {
    $("turn-text").textContent = "The service did not answer; the next page is asked for again.";
    console.warn(error);
    if (page) page.at = performance.now();
  } finally {
    if (asked === paging) paging = null;
  }
}

const age = () => (page ? performance.now() - page.at : 0);
const held = () => $("still").checked || $("reader").open || document.hidden || $("stories").matches(":hover, :focus-within");

function open(printed, story) {
  const late = age() > WAIT_MS;
  $("reader").dataset.topic = story.topic;
  $("reader-picture").src = `/demo/static/pictures/${story.id}.svg`;
  $("reader-picture").alt = story.picture;
  $("reader-topic").textContent = `${story.topic} · ${story.minutes} minutes`;
  $("reader-title").textContent = story.title;
  $("reader-text").replaceChildren(...story.text.map((paragraph) => element("p", "", paragraph)));
  $("reader-note").textContent = late
    ? `This page had been up for longer than the reward wait of ${WAIT_MS / 1000} seconds, so the click counts no more.`
    : note(printed);
  if (!late) give(printed.place);
  $("reader").showModal();
}

function note(printed) {
  const seconds = Math.ceil((WAIT_MS - age()) / 1000) + 1;
  if (view && view.learningMode === "Apprentice") {
    return "Reported as a reward of 1. The apprentice does not learn from it: so far it only learns to do what the editor does.";
  }
  return `Reported as a reward of 1 for the place “${printed.place}”, 0 for the others. It is learned in about ${seconds} seconds, when the reward wait is over.`;
}

function give(clicked) {
  if (!page) return;
  ask("opinion", { eventId: page.eventId, clicked }).catch(console.warn);
}

function tick() {
  const left = page ? Math.max(0, 1 - age() / (WAIT_MS - MARGIN_MS)) : 1;
  $("clock").style.transform = `scaleX(${left})`;
  if (page && !paging && left === 0 && !held()) turn(held);
}

// Who you are

function become() {
  const form = document.querySelector(".you");
  const chosen = new FormData(form);
  me.device = chosen.get("device");
  me.time = chosen.get("time");
  me.follows = chosen.getAll("follows");
  document.body.dataset.time = me.time;
  $("paper").dataset.device = me.device;
  turn();
  look();
}

// What is learned

async function look() {
  const number = ++looks;
  try {
    const seen = await ask("view", me);
    silent = 0;
    if (number < newest) return; // what was asked later was answered sooner: this is how things stood before
    newest = number;
    view = seen;
    show();
  } catch (error) {
    console.warn(error);
    if (++silent === SILENT_MAX) {
      act = "";
      $("act-do").disabled = true;
      $("act-title").textContent = "The demo has ended";
      $("act-text").textContent = "Nobody answers any more. Start it again with rankward demo, and this page goes on by itself.";
    }
  }
}

function show() {
  showAct();
  $("pages").textContent = count(view.pages);
  $("clicks").textContent = count(view.clicks);
  $("learned").textContent = count(view.learned);
  $("season-now").textContent = SEASONS[view.season];
  for (const radio of document.querySelectorAll("[name=rate]")) radio.checked = Number(radio.value) === view.rate;
  $("flash").hidden = view.season === "ordinary";
  $("flash").textContent = FLASHES[view.season] ?? "";
  showVisits();
  showLines();
  showBelief();
}

function showVisits() {
  const list = $("visits");
  list.replaceChildren(...view.visits.toReversed().map((visit) => {
    const read = visit.clicked.map((id) => stories.get(id).title);
    const who = `${capital(visit.device)}, ${visit.time}, ${visit.follows.join(" + ")}`;
    return element("li", "", `${who} → `, read.length ? element("b", "", read.join(" · ")) : "nothing");
  }));
}

function showLines() {
  draw($("chart"), view.lines, view.marks);
  const newest = view.lines.at(-1)?.clicks;
  $("now").textContent = newest ? newest.shown.toFixed(2) : "–";
  if (!newest) {
    $("against").textContent = "Nobody has been here yet.";
    return;
  }
  const better = newest.shown / newest.editor - 1;
  const than = Math.abs(better) < 0.015 ? "as the editor" : `${percent(Math.abs(better))} ${better > 0 ? "more" : "less"} than the editor`;
  $("against").textContent = `${than}; the best there is: ${newest.best.toFixed(2)}`;
}

function showBelief() {
  const { topics, leading, reasons } = view.belief;
  const who = `${DEVICES[me.device]} ${TIMES[me.time]}`;
  $("belief-text").textContent = view.modelId
    ? `Reading ${who}, you would get ${capital(leading)} on top ${Math.round(topics[leading] * 100)} times in 100.`
    : "It has no model yet, so every story is as likely to lead your page.";
  keep($("topics"), Object.entries(topics), ([topic, share], row) => {
    row.dataset.topic = topic;
    row.classList.toggle("first", topic === leading && view.modelId !== null);
    fill(row, capital(topic), percent(share));
    row.querySelector(".track span").style.transform = `scaleX(${share})`;
  });
  const known = view.modelId === null ? [] : reasons.slice(0, 6);
  $("reasons-title").textContent = known.length ? `What ${capital(leading)} hangs on` : "What that hangs on: nothing yet";
  keep($("reasons"), known, (reason, row) => {
    const points = Math.round(reason.share * 100);
    fill(row, trait(reason), `${points > 0 ? "+" : points < 0 ? "−" : "±"}${Math.abs(points)}`);
    const bar = row.querySelector(".track span");
    const half = Math.min(50, Math.abs(reason.share) * 50);
    bar.classList.toggle("against", reason.share < 0);
    bar.style.left = `${reason.share < 0 ? 50 - half : 50}%`;
    bar.style.width = `${half}%`;
  });
}

function trait(reason) {
  const [space, name] = reason.trait.split(".");
  if (space === "reader") return "what you clicked";
  if (space === "follows") return name === "nothing" ? "you follow nothing" : `you follow ${capital(name)}`;
  return `you read ${name === "device" ? DEVICES[reason.value] : TIMES[reason.value]}`;
}

/** Give a list as many rows as there are entries, and let each be filled. */
function keep(list, entries, fillRow) {
  while (list.children.length > entries.length) list.lastChild.remove();
  entries.forEach((entry, index) => {
    const row = list.children[index] ?? list.appendChild(
      element("li", "", element("span", "what"), element("span", "track", element("span")), element("span", "value")));
    fillRow(entry, row);
  });
}

function fill(row, what, value) {
  row.querySelector(".what").textContent = what;
  row.querySelector(".value").textContent = value;
}

// The acts

const ACTS = {
  begin: { number: 0, title: "The editor makes the front page", text: "And a model looks over the editor’s shoulder. It knows nothing yet. Let some readers in, and watch.", button: "Let the readers in", go: () => scene({ rate: 20 }) },
  watch: { number: 0, title: "An apprentice watches", text: "Readers get the editor’s page. Behind it the model guesses what the editor would do, and learns from every page.", button: "Let it decide", go: () => scene({ learningMode: "Online", rate: 50 }) },
  ready: { number: 0, title: "The apprentice knows the job", text: "It does what the editor does, nearly everywhere. Nobody has seen a page of its own yet. Shall it decide?", button: "Let it decide", go: () => scene({ learningMode: "Online", rate: 50 }) },
  decide: { number: 1, title: "Now the loop decides", text: "It begins as the editor would, tries other stories now and then, and learns from what is clicked. Become somebody else below, and click along.", button: "Change everybody’s taste", go: () => change() },
  adapt: { number: 2, title: "Everybody’s taste has changed", text: "Nobody told the loop. What it knew is worth less at once, it sees so in the clicks, and learns anew.", button: "What about my app?", go: () => finish() },
};

function currentAct() {
  if (view.learningMode !== "Online") return view.rate === 0 && view.pages === 0 ? "begin" : view.ready ? "ready" : "watch";
  return view.season === "ordinary" ? "decide" : "adapt";
}

function showAct() {
  const name = currentAct();
  const shown = ACTS[name];
  const watching = view.learningMode !== "Online" && view.matched !== null;
  $("act-meter").hidden = !watching;
  if (watching) {
    $("act-meter").firstElementChild.style.width = `${view.matched * 100}%`;
    $("act-matched").textContent = `It would do as the editor does in ${percent(view.matched)} of all places`;
  }
  $("act-do").textContent = watching ? `Let it decide (${percent(view.matched)} like the editor)` : shown.button;
  $("start-over").hidden = name === "begin";
  $("act-do").disabled = false;
  if (name === act) return;
  act = name;
  $("act-title").textContent = shown.title;
  $("act-text").textContent = shown.text;
  stand(shown.number);
}

/** Mark how far the play has come. */
function stand(number) {
  document.querySelectorAll(".acts li").forEach((item, index) => {
    item.classList.toggle("done", index < number);
    if (index === number) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
}

async function scene(change) {
  await ask("scene", change);
  await look();
  if (change.learningMode) turn();
}

const change = () => scene({ season: NEXT[view.season] });

function finish() {
  stand(3);
  $("yours").scrollIntoView();
  $("yours").focus({ preventScroll: true });
}

// Beginning

for (const story of await (await fetch("/demo/stories")).json()) stories.set(story.id, story);
document.querySelector(".you").addEventListener("change", become);
$("rates").addEventListener("change", (event) => scene({ rate: Number(event.target.value) }));
$("season").addEventListener("click", change);
$("act-do").addEventListener("click", () => ACTS[act].go());
$("start-over").addEventListener("click", async () => {
  await ask("start-over", {});
  await look();
  turn();
});
$("nothing").addEventListener("click", () => {
  if (age() <= WAIT_MS) give(null);
  turn();
});
$("reader").addEventListener("close", async () => {
  await turn();
  $("paper").focus({ preventScroll: true }); // the story that was opened from may be gone
});
document.querySelector(".snippets").addEventListener("change", (event) => {
  for (const snippet of document.querySelectorAll("[data-language]")) snippet.hidden = snippet.dataset.language !== event.target.value;
});
become();
setInterval(tick, 100);
setInterval(() => document.hidden || look(), POLL_MS);
