// What pages do in the browser beside htmx: theme, times, copying, questions, trouble, charts.
// Everything here is a help: without it, every page can be read and every form sent.

import { drawCharts } from "./charts.js";

const root = document.documentElement;

function switchTheme() {
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `rankward_theme=${root.dataset.theme}; path=/portal; max-age=31536000; samesite=lax`;
  drawCharts(document, { again: true });
}

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Write times as the reader's clock shows them. */
function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = LOCAL.format(new Date(time.dateTime));
  }
}

function showTrouble(said) {
  const place = document.getElementById("trouble");
  place.hidden = false;
  place.textContent = said;
}

async function copy(button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it by hand";
  }
  setTimeout(() => (button.textContent = label), 2000);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("button");
  if (target?.matches("[data-theme-switch]")) switchTheme();
  if (target?.matches("[data-copy]")) copy(target);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = form.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
  else if ("upload" in form.dataset) {
    event.preventDefault();
    upload(form);
  }
});

// A choice that writes into a field, and a file that is read into one.
document.addEventListener("change", async (event) => {
  const { fill, text, load } = event.target.dataset;
  if (fill) write(fill, text);
  if (load && event.target.files.length) write(load, await event.target.files[0].text());
});

function write(id, text) {
  const field = document.getElementById(id);
  field.value = text;
  htmx.trigger(field, "filled");
}

/** Send a form's file as it is, with its progress; where it leads to afterwards, the answer says. */
function upload(form) {
  const bar = form.querySelector("progress");
  const button = form.querySelector("button");
  const asked = [...form.querySelectorAll("[data-query]:checked")].map((box) => box.dataset.query);
  const sending = new XMLHttpRequest();
  sending.open("POST", form.action + (asked.length ? `?${asked.join("&")}` : ""));
  sending.setRequestHeader("HX-Request", "true");
  sending.setRequestHeader("Content-Type", "application/octet-stream");
  const file = form.querySelector("input[type=file]").files[0];
  sending.setRequestHeader("X-File-Name", encodeURIComponent(file.name));
  for (const [name, value] of Object.entries(JSON.parse(document.body.getAttribute("hx-headers")))) sending.setRequestHeader(name, value);
  sending.upload.addEventListener("progress", ({ loaded, total }) => (bar.value = loaded / (total || 1)));
  sending.addEventListener("loadend", () => {
    bar.hidden = true;
    button.disabled = false;
    const next = sending.getResponseHeader("HX-Redirect");
    if (next) location.assign(next);
    else showTrouble(sending.responseText.slice(0, 500) || "The service does not answer. Nothing was taken in.");
  });
  bar.value = 0;
  bar.hidden = false;
  button.disabled = true;
  sending.send(file);
}

// A part of a page that could not be had is said, rather than missed: in its place, if nothing stands there yet.
document.addEventListener("htmx:responseError", ({ detail }) => {
  const said = detail.xhr.responseText.slice(0, 500);
  const empty = detail.target?.querySelector?.(".looking, .missed");
  if (!empty) return showTrouble(said);
  empty.className = "missed refused";
  empty.textContent = said;
});
document.addEventListener("htmx:sendError", () => showTrouble("The service does not answer. The page is as it was."));
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.successful) document.getElementById("trouble").hidden = true;
});
document.addEventListener("htmx:afterSwap", ({ detail }) => {
  localTimes(detail.elt);
  drawCharts(detail.elt);
});

localTimes(document);
drawCharts(document);
