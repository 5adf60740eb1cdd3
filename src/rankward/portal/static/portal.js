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
  const question = event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

// A part of a page that could not be had is said, rather than missed.
document.addEventListener("htmx:responseError", ({ detail }) => showTrouble(detail.xhr.responseText.slice(0, 500)));
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
