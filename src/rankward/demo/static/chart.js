// Draws clicks per page over time: what was shown, beside the editor's page, chance, and the best there is.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 340, HEIGHT = 182, RIGHT = 62, BOTTOM = 30, TOP = 8;
const LETTER = 6.2; // about how wide one is
const NAMES = { best: "best", shown: "the loop", editor: "editor", chance: "chance" };

/** Make an SVG element with attributes. */
function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Move labels apart, so that none covers another. */
function spread(labels, gap) {
  labels.sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + gap);
  const over = labels.length ? labels.at(-1).y - (HEIGHT - BOTTOM) : 0;
  if (over > 0) for (const label of labels) label.y -= over;
  return labels;
}

/**
 * Draw the lines into an element.
 * @param {HTMLElement} element that holds nothing else
 * @param {{second: number, clicks: Record<string, number>}[]} lines oldest first
 * @param {{second: number, what: string}[]} marks moments at which something was changed
 */
export function draw(element, lines, marks) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  if (lines.length < 2) {
    svg.setAttribute("aria-label", "Clicks per page: nothing to show yet");
    svg.append(make("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "The lines begin with the first readers."));
    element.replaceChildren(svg);
    return;
  }
  const first = lines[0].second, last = lines.at(-1).second;
  const high = Math.max(...lines.map((point) => point.clicks.best)) * 1.04;
  const low = Math.min(...lines.map((point) => point.clicks.chance)) * 0.8;
  const x = (second) => ((second - first) / Math.max(1, last - first)) * (WIDTH - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = (name) => "M" + lines.map((point) => `${x(point.second).toFixed(1)} ${y(point.clicks[name]).toFixed(1)}`).join("L");
  const free = [0, 0]; // from where on each of the two rows below the lines has room
  for (const mark of marks) {
    if (mark.second < first || mark.second > last) continue;
    const at = x(mark.second);
    const from = Math.min(at, WIDTH - mark.what.length * LETTER);
    svg.append(make("path", { class: "mark", d: `M${at} ${TOP}V${HEIGHT - BOTTOM}` }));
    const row = free.findIndex((end) => end <= from);
    if (row < 0) continue;
    free[row] = from + mark.what.length * LETTER;
    svg.append(make("text", { x: from, y: HEIGHT - BOTTOM + 12 + 13 * row }, mark.what));
  }
  svg.append(make("path", { class: "area", d: `${path("shown")}L${x(last)} ${y(low)}L0 ${y(low)}Z` }));
  for (const name of ["best", "chance", "editor", "shown"]) svg.append(make("path", { class: name, d: path(name) }));
  const newest = lines.at(-1).clicks;
  const labels = Object.keys(NAMES).map((name) => ({ name, y: y(newest[name]) + 4 }));
  for (const label of spread(labels, 13)) {
    svg.append(make("text", { class: label.name, x: WIDTH - RIGHT + 6, y: label.y.toFixed(1) }, NAMES[label.name]));
  }
  const said = Object.keys(NAMES).map((name) => `${NAMES[name]} ${newest[name].toFixed(2)}`).join(", ");
  svg.setAttribute("aria-label", `Clicks per page, now: ${said}`);
  element.replaceChildren(svg);
}
