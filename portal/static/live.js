// Keeps the page fresh: every two seconds the server renders its live sections again, and those that
// differ are put in place of the old ones. A section that the reader is using waits for the next turn.

const PERIOD_MS = 2000;
const PATIENCE_MS = 10000;

const main = document.getElementById("main");
let failedSince = null;
let timer = null;

function isInUse(section) {
  const selection = document.getSelection();
  const selecting = selection && !selection.isCollapsed && section.contains(selection.anchorNode);
  return section.matches(":active") || selecting;
}

function swap(section, fresh) {
  const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...section.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
  section.replaceChildren(...fresh.childNodes);
  Object.assign(section.dataset, fresh.dataset);
  [...section.querySelectorAll(".scroll")].forEach((box, at) => {
    [box.scrollLeft, box.scrollTop] = scrolled[at] ?? [0, 0];
  });
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const section of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(section.id);
    if (next && next.innerHTML !== section.innerHTML && !isInUse(section)) swap(section, next);
  }
  document.dispatchEvent(new CustomEvent("noctule:fresh"));
}

function utc() {
  return new Date().toISOString().slice(11, 19) + " UTC";
}

function say(state, text) {
  const away = document.getElementById("away");
  document.getElementById("live-state").className = "live-state " + state;
  away.hidden = !text;
  if (away.textContent !== text) away.textContent = text;
}

function reportFailure(error) {
  failedSince ??= utc();
  const why = error.status ? `The portal cannot answer (${error.message})` : "The portal does not answer";
  say("is-away", `${why} since ${failedSince}. This page goes on by itself when it is back.`);
}

async function fetchFragment() {
  const response = await fetch(main.dataset.liveUrl, {
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw Object.assign(new Error(body?.error?.message ?? response.status), { status: response.status });
  }
  return response.text();
}

async function refresh() {
  try {
    show(await fetchFragment());
    failedSince = null;
    document.getElementById("live-clock").textContent = utc();
    say("", "");
  } catch (error) {
    reportFailure(error);
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  if (document.hidden) say("is-paused", "");
  else timer = setTimeout(refresh, PERIOD_MS);
}

document.addEventListener("visibilitychange", () => (document.hidden ? plan() : refresh()));
if (main.dataset.liveUrl) plan();
