// Draws an object's figures with BokehJS: again when a new alert has come or the colour scheme changes.
// Whoever has panned or zoomed is asked first.

const PHONE_PX = 576;
const box = document.getElementById("figures");
const redraw = document.getElementById("redraw");
const dark = matchMedia("(prefers-color-scheme: dark)");
let drawn = null;
let touched = false;

function version() {
  return document.getElementById("headline").dataset.version;
}

function say(text) {
  const line = document.createElement("p");
  line.className = "wait";
  line.textContent = text;
  box.replaceChildren(line);
}

async function fetchFigures() {
  const url = new URL(box.dataset.url, location.href);
  url.searchParams.set("scheme", dark.matches ? "dark" : "light");
  url.searchParams.set("narrow", String(box.clientWidth < PHONE_PX));
  const response = await fetch(url, { cache: "no-store" });
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

// The new drawing grows beside the old one and takes its place when it is ready: nothing flickers.
async function draw() {
  const asked = version();
  const { figures } = await fetchFigures();
  drawn = asked;
  touched = false;
  redraw.hidden = true;
  if (!figures) return say("Nothing to draw yet: no light curve and no score of this object is stored.");
  const place = document.createElement("div");
  place.className = "drawing";
  const old = [...box.children];
  box.append(place);
  await Bokeh.embed.embed_item(figures, place);
  old.forEach((each) => each.remove());
}

function drawSafely() {
  draw().catch(() => {
    if (drawn === null) say("The figures cannot be drawn: the portal gave none. Load the page again.");
  });
}

document.addEventListener("noctule:fresh", () => {
  if (version() === drawn) return;
  if (touched) redraw.hidden = false;
  else drawSafely();
});
box.addEventListener("pointerdown", () => (touched = true));
box.addEventListener("wheel", () => (touched = true), { passive: true });
redraw.addEventListener("click", drawSafely);
dark.addEventListener("change", drawSafely);
drawSafely();
