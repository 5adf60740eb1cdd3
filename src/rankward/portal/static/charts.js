// Charts over time: from JSON in `data-chart` of a <figure class="chart">, or fetched from its `data-src`, and where that
// has a `data-every`, fetched again after so many seconds.
//
//   {
//     "unit": "reward",                        of the values, for people
//     "times": [1700000000, ...],              seconds since 1970, rising
//     "series": [{"name": "online",            at most six
//                 "values": [0.5, null, ...],  null: there is none
//                 "low": [...], "high": [...]  optional: the interval, drawn as a band
//                }],
//     "range": [0, 1],                         optional: of the unit; a band as wide as half of it would hide the others,
//                                              and is not drawn: the legend and the table have its interval
//     "marks": [{"time": 1700000000, "label": "model 12"}]   optional: on the time axis
//   }
//
// Beside the picture stand a legend with the values under the pointer, and the same numbers as a table and as CSV.

import uPlot from "./vendor/uPlot.esm.js";

const HEIGHT = 260;
const drawn = new WeakMap();
const resized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const plot = drawn.get(target)?.plot;
    if (plot && contentRect.width > 0 && Math.abs(plot.width - contentRect.width) > 1) {
      plot.setSize({ width: contentRect.width, height: HEIGHT });
    }
  }
});
const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
// On the time axis, from years to seconds: distance of ticks, text, and what is added where a year, a day or a minute begins.
const MOMENTS = [
  [31536000, "{YYYY}", null, null, null, null, null, null, 1],
  [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, ":{ss}", "\n{D} {MMM} {HH}:{mm}", null, "\n{D} {MMM} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];
const NUMBER = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });

/** Draw the charts in a part of the page; `again` draws those anew that are drawn already. */
export function drawCharts(within, { again = false } = {}) {
  for (const figure of within.querySelectorAll("figure.chart")) {
    const known = drawn.get(figure);
    if (known && !again) continue;
    if (known) draw(figure, known.data);
    else load(figure);
  }
}

async function load(figure) {
  drawn.set(figure, { data: null });
  try {
    const data = figure.dataset.chart
      ? JSON.parse(figure.dataset.chart)
      : await (await fetched(figure.dataset.src)).json();
    draw(figure, data);
    if (figure.dataset.every) follow(figure);
  } catch (error) {
    say(figure, `The chart cannot be drawn: ${error.message}`);
  }
}

/** Bring a chart up to date for as long as it is on the page. What cannot be had now may be had the next time. */
function follow(figure) {
  const timer = setInterval(async () => {
    if (!figure.isConnected) clearInterval(timer);
    else if (!document.hidden) await fetched(figure.dataset.src).then((answer) => answer.json()).then((data) => update(figure, data)).catch(() => {});
  }, figure.dataset.every * 1000);
}

function update(figure, data) {
  const { plot, data: before } = drawn.get(figure);
  const kind = (each) => JSON.stringify(each.series.map(({ name, low }) => [name, Boolean(low)]));
  if (!plot || kind(before) !== kind(data) || data.times.length < 3) draw(figure, data);
  else {
    drawn.set(figure, { ...drawn.get(figure), data });
    plot.setData(rowsOf(data));
    drawn.get(figure).read();
  }
}

/** The values as the plot wants them: those of each series, then where it has an interval, its ends. */
function rowsOf(data) {
  const widest = data.range ? (data.range[1] - data.range[0]) / 2 : Infinity;
  const columns = data.series.flatMap(({ values, low, high }) => {
    if (!low || !high) return [values];
    const drawn = (ends) => ends.map((end, index) => (high[index] - low[index] < widest ? end : null));
    return [values, drawn(high), drawn(low)];
  });
  return [data.times, ...columns];
}

async function fetched(source) {
  const answer = await fetch(source, { headers: { "HX-Request": "true" } });
  if (!answer.ok || answer.status === 204) throw new Error(answer.ok ? "your session has ended" : await answer.text());
  return answer;
}

function draw(figure, data) {
  if (!data) return;
  drawn.get(figure)?.plot?.destroy();
  for (const part of figure.querySelectorAll(":scope > :not(figcaption)")) part.remove();
  drawn.set(figure, { data });
  if (data.times.length === 0) {
    say(figure, "There is nothing to draw yet.");
    return;
  }
  const legend = element("dl", "legend");
  const readings = data.series.map((series, index) => {
    const reading = element("dd");
    const name = element("dt", `tone-${index + 1}`);
    name.append(element("span", "swatch"), series.name);
    legend.append(name, reading);
    return reading;
  });
  const moment = element("p", "moment");
  const canvas = element("div", "canvas");
  canvas.setAttribute("aria-hidden", "true"); // the table beside it says the same
  figure.append(legend, canvas, moment, alternative(figure));
  const tones = [...legend.querySelectorAll("dt")].map((name) => getComputedStyle(name).color);
  const ink = getComputedStyle(moment).color;
  const line = getComputedStyle(figure).borderTopColor;

  const series = [{}];
  const bands = [];
  data.series.forEach((each, index) => {
    const color = tones[index];
    series.push({ label: each.name, stroke: color, width: 2, points: { show: data.times.length < 3 } });
    if (each.low && each.high) {
      const edge = { stroke: "transparent", width: 0, points: { show: false } };
      series.push(edge, edge);
      bands.push({ series: [series.length - 2, series.length - 1], fill: faint(color) });
    }
  });
  const axis = {
    stroke: ink,
    font: `12px ${getComputedStyle(figure).fontFamily}`,
    grid: { stroke: line, width: 1 },
    ticks: { show: false },
  };
  const plot = new uPlot(
    {
      width: Math.max(canvas.clientWidth, 200),
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, points: { size: 7 } },
      scales: { x: { range: (_, first, last) => (first === last ? [first - 1800, last + 1800] : [first, last]) } },
      axes: [{ ...axis, values: MOMENTS }, { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => NUMBER.format(tick)) }],
      series,
      bands,
      hooks: {
        draw: [(self) => drawMarks(self, drawn.get(figure).data.marks ?? [], ink)],
        setCursor: [() => drawn.get(figure).read?.()],
      },
    },
    rowsOf(data),
    canvas,
  );
  drawn.set(figure, { data, plot, read: () => read(plot, drawn.get(figure).data, readings, moment) });
  drawn.set(canvas, { plot });
  resized.observe(canvas);
  drawn.get(figure).read();
}

/** Write the values under the pointer, or the newest. */
function read(plot, data, readings, moment) {
  const index = plot.cursor.idx ?? data.times.length - 1;
  data.series.forEach((series, number) => {
    const value = series.values[index];
    const interval = series.low && series.low[index] != null ? ` (${shown(series.low[index])} to ${shown(series.high[index])})` : "";
    readings[number].textContent = shown(value) + interval;
  });
  const time = data.times[index];
  const near = (data.marks ?? []).filter((mark) => Math.abs(plot.valToPos(mark.time, "x") - plot.valToPos(time, "x")) < 6);
  moment.textContent = [WHEN.format(new Date(time * 1000)), ...near.map((mark) => mark.label)].join(" · ");
}

function drawMarks(plot, marks, color) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = color;
  ctx.fillStyle = color;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.time, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, bbox.top + bbox.height, 4 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fill();
  }
  ctx.restore();
}

/** The same numbers as a table, and as a file: those that the chart shows when they are asked for. */
function alternative(figure) {
  const details = element("details", "numbers");
  details.append(element("summary", "", "As a table"));
  const save = element("button", "quiet", "Download CSV");
  save.type = "button";
  save.addEventListener("click", () => download(figure.querySelector("figcaption").textContent, drawn.get(figure).data));
  details.addEventListener("toggle", () => {
    details.querySelector(".scroller")?.remove();
    if (details.open) details.append(tableOf(figure.querySelector("figcaption").textContent, drawn.get(figure).data));
  });
  const both = element("div", "alternative");
  both.append(details, save);
  return both;
}

/** Every series, and where it has an interval, its ends, as columns. */
function columnsOf(data) {
  const ends = (each) => (each.low ? ["low", "high"].map((end) => ({ name: `${each.name} ${end}`, values: each[end] })) : []);
  return data.series.flatMap((each) => [each, ...ends(each)]);
}

function tableOf(title, data) {
  const columns = columnsOf(data);
  const table = element("table", "rows");
  const head = table.createTHead().insertRow();
  for (const name of ["Time", ...columns.map((column) => column.name)]) {
    const cell = element("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  data.times.forEach((time, index) => {
    const row = body.insertRow();
    row.insertCell().textContent = WHEN.format(new Date(time * 1000));
    for (const column of columns) row.insertCell().textContent = shown(column.values[index]);
  });
  const scroller = element("div", "scroller");
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", `${title}, as a table`);
  scroller.append(table);
  return scroller;
}

function download(title, data) {
  const { times } = data;
  const columns = columnsOf(data);
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [["time", ...columns.map((column) => column.name)].map(cell).join(",")];
  times.forEach((time, index) => {
    lines.push([new Date(time * 1000).toISOString(), ...columns.map((column) => column.values[index] ?? "")].join(","));
  });
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
  link.download = `${title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function say(figure, text) {
  figure.append(element("p", "quiet-text", text));
}

function element(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

function shown(value) {
  return value == null ? "–" : NUMBER.format(value);
}

/** The same colour, so that lines can be seen through it. */
function faint(color) {
  return color.replace(/^rgb\((.*)\)$/, "rgba($1, 0.14)");
}
