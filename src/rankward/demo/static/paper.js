// The front page: lays stories out by place, and lets them glide when they change places.

const TRY = 0.1; // what is chosen with less probability than this is shown to learn of it
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

/** Make an element of a class, with text or children. */
export function element(name, className, ...inside) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

function card(story, printed, open) {
  const item = element("li", "story");
  item.dataset.place = printed.place;
  item.dataset.story = story.id;
  item.dataset.topic = story.topic;
  const picture = element("img");
  picture.src = `/demo/static/pictures/${story.id}.svg`;
  picture.alt = "";
  const button = element("button", "", story.title);
  button.type = "button";
  button.addEventListener("click", () => open(printed, story));
  const tag = element("p", "tag", element("span", "", story.topic));
  if (printed.probability !== null) {
    const chance = element("span", "chance", `${printed.probability < TRY ? "a try, " : ""}${Math.round(printed.probability * 100)} %`);
    chance.title = "The probability with which it was chosen for this place";
    tag.append(chance);
  }
  item.append(element("div", "picture", picture), element("div", "words", tag, element("h3", "", button), element("p", "teaser", story.teaser)));
  return item;
}

function glide(item, before) {
  const after = item.getBoundingClientRect();
  if (!before) {
    item.animate([{ opacity: 0, transform: "translateY(14px)" }, { opacity: 1, transform: "none" }], { duration: 420, easing: "ease-out" });
    return;
  }
  const x = before.left - after.left, y = before.top - after.top;
  if (Math.abs(x) + Math.abs(y) < 2) return;
  const scale = Math.min(1.4, Math.max(0.6, before.width / after.width));
  item.animate(
    [{ transform: `translate(${x}px, ${y}px) scale(${scale})`, transformOrigin: "0 0" }, { transform: "none", transformOrigin: "0 0" }],
    { duration: 620, easing: "cubic-bezier(.3, .9, .3, 1)" },
  );
}

/**
 * Lay out a front page.
 * @param {HTMLElement} list that holds the stories
 * @param {{place: string, story: string, probability: number | null}[]} printed from the lead down
 * @param {Map<string, object>} stories by id
 * @param {(printed: object, story: object) => void} open called for a story that is clicked
 */
export function layOut(list, printed, stories, open) {
  const before = new Map([...list.children].map((item) => [item.dataset.story, item.getBoundingClientRect()]));
  list.replaceChildren(...printed.map((each) => card(stories.get(each.story), each, open)));
  if (STILL.matches) return;
  for (const item of list.children) glide(item, before.get(item.dataset.story));
}
