// The frame around the views: navigation, controls, loading, live refresh.

import * as api from "./api.js";
import { controlBar, setUpdated } from "./controls.js";
import { h, icon } from "./dom.js";
import { errorBox, refreshTimes, skeleton } from "./parts.js";
import { defaultSince, fitRange } from "./range.js";
import { currentRoute, FILTERS, link, listen } from "./router.js";
import { signIn } from "./signin.js";
import * as alerts from "./views/alerts.js";
import * as drift from "./views/drift.js";
import * as finding from "./views/finding.js";
import * as overview from "./views/overview.js";
import * as session from "./views/session.js";
import * as sessions from "./views/sessions.js";
import * as system from "./views/system.js";
import * as trace from "./views/trace.js";
import * as traces from "./views/traces.js";

// A view has: `name` (in the navigation), `controls` ({range, filters}), `load(context)` that
// reads the API, `title(data)`, and `render(data, context)` that returns its element.
const LISTS = { overview, sessions, traces, drift, alerts, system };
const DETAILS = { sessions: session, traces: trace, drift: finding };

const REFRESH_MS = 5_000;
const LONG_REFRESH_MS = 30_000; // a week of calls is read whole each time
const RESTING_MS = 10_000; // a pointer that rests so long on a chart reads nothing there
const LOADING_MS = 150; // quicker than this, grey shapes would only flicker

const main = document.getElementById("main");
const heading = document.getElementById("title");
let shown = null; // what is on the page: {route, view, context, text}
let running = null; // AbortController of the load that is under way
let timer = 0;
let isPaused = false;
let pointedMs = 0; // when the pointer last moved

/** Whether a route leads to another page than the one that is shown, not only to other parameters. */
function isElsewhere(route) {
  return shown?.route.view !== route.view || shown?.route.id !== route.id;
}

function contextOf(route, signal) {
  const { params } = route;
  const window = { since: params.get("since") ?? defaultSince(), until: params.get("until") };
  const filters = Object.fromEntries(FILTERS.map((name) => [name, params.get(name)]));
  return { id: route.id, params, window, filters, get: (path, query) => api.get(path, query, signal) };
}

/** Load and show what the address says. */
async function show({ isRefresh = false } = {}) {
  clearTimeout(timer);
  running?.abort();
  const controller = new AbortController();
  running = controller;
  const route = currentRoute();
  const view = route.id === null ? LISTS[route.view] : DETAILS[route.view];
  const before = defaultSince();
  if (view?.controls.range && !route.params.has("since")) await fitRange(controller.signal);
  if (controller.signal.aborted) return;
  if (!isRefresh || before !== defaultSince()) drawFrame(route, view);
  if (!view)
    return main.replaceChildren(
      errorBox(new api.ApiError(404, "There is no such page", "Choose a view on the left."), show),
    );
  const context = contextOf(route, controller.signal);
  const grey = isElsewhere(route) ? setTimeout(() => main.replaceChildren(skeleton()), LOADING_MS) : 0;
  main.setAttribute("aria-busy", "true");
  try {
    const data = await view.load(context);
    if (controller.signal.aborted) return;
    clearTimeout(grey);
    if (draw(route, view, context, data, isRefresh)) setUpdated(true);
  } catch (error) {
    clearTimeout(grey);
    if (controller.signal.aborted || error.name === "AbortError") return;
    fail(error, isRefresh);
  } finally {
    if (running === controller) {
      main.removeAttribute("aria-busy");
      plan(route);
    }
  }
}

/** Draw the data, and return whether the page now shows them. */
function draw(route, view, context, data, isRefresh) {
  const text = JSON.stringify(data);
  if (isRefresh && text === shown?.text) return true;
  if (isRefresh && isInUse()) return false; // not under the reader's hands
  const isOther = isElsewhere(route);
  shown = { route, view, context, text };
  const restore = isOther ? () => scrollTo(0, 0) : keepPlace();
  main.replaceChildren(
    h(
      "div",
      { class: `view view-${route.id === null ? route.view : `${route.view}-detail`}` },
      view.render(data, context),
    ),
  );
  const title = view.title?.(data) ?? view.name;
  const isDetail = route.id !== null;
  heading.replaceChildren(
    ...(isDetail ? [h("a", { href: link(route.view) }, LISTS[route.view].name), " / ", title] : [title]),
  );
  document.title = `${title} · llmobs`;
  restore();
  return true;
}

function fail(error, isRefresh) {
  if (error.status === 401) {
    // Someone may be typing the token; once it is right, the next look shows the data.
    if (!main.querySelector(".sign-in")) main.replaceChildren(signIn(() => show()));
    return;
  }
  if (!(error instanceof api.ApiError)) console.error(error);
  setUpdated(false, error.message);
  if (isRefresh) return; // what is shown stays, marked as not current
  shown = null;
  main.replaceChildren(errorBox(error, () => show()));
}

/** Plan the next refresh; the range decides how often, and never two at once. */
function plan(route) {
  clearTimeout(timer);
  if (isPaused || document.hidden) return;
  const isLong = /^(\d+[dw])$/.test(route.params.get("since") ?? "");
  timer = setTimeout(() => show({ isRefresh: true }), isLong ? LONG_REFRESH_MS : REFRESH_MS);
}

function isInUse() {
  const selection = getSelection();
  const isSelecting = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  const isTyping = main.contains(document.activeElement) && document.activeElement.matches("input, select");
  const isPointing = Date.now() - pointedMs < RESTING_MS && main.querySelector(".chart:hover") !== null;
  return isSelecting || isTyping || isPointing || main.querySelector(".chart:focus") !== null;
}

/** Remember focus, open parts and scroll positions; call the answer to put them back. */
function keepPlace() {
  const focused = document.activeElement?.dataset?.key;
  const caret = document.activeElement?.selectionStart;
  const kept = [...main.querySelectorAll("[data-key]")].map((element) => [
    element.dataset.key,
    element.open,
    element.scrollTop,
  ]);
  return () => {
    const find = (key) => main.querySelector(`[data-key="${CSS.escape(key)}"]`);
    for (const [key, isOpen, top] of kept) {
      const element = find(key);
      if (!element) continue;
      if (isOpen !== undefined) element.open = isOpen;
      if (top) element.scrollTop = top;
    }
    if (!focused) return;
    const element = find(focused);
    element?.focus({ preventScroll: true });
    if (typeof caret === "number") element?.setSelectionRange?.(caret, caret);
  };
}

function drawFrame(route, view) {
  const items = Object.entries(LISTS).map(([key, one]) =>
    h(
      "li",
      null,
      h(
        "a",
        { href: link(key), "aria-current": key === route.view ? "page" : null },
        icon(key),
        h("span", null, one.name),
      ),
    ),
  );
  document.getElementById("nav").replaceChildren(...items);
  document.querySelector(".brand").href = link("overview");
  if (isElsewhere(route)) heading.textContent = view?.name ?? "Not found";
  document
    .getElementById("controls")
    .replaceChildren(...controlBar(view?.controls ?? {}, { isPaused, onPause }));
}

function onPause() {
  isPaused = !isPaused;
  drawFrame(currentRoute(), shown?.view);
  if (isPaused) clearTimeout(timer);
  else show({ isRefresh: true });
}

function drawTheme() {
  const button = document.getElementById("theme");
  const dataset = document.documentElement.dataset;
  const isDark = () =>
    (dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => {
    button.replaceChildren(icon(isDark() ? "sun" : "moon"));
    button.title = isDark() ? "Light theme" : "Dark theme";
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("llmobs-theme", dataset.theme);
    label();
  });
  label();
}

listen(() => show());
addEventListener("pointermove", () => (pointedMs = Date.now()), { passive: true });
document.addEventListener("visibilitychange", () => document.hidden || isPaused || show({ isRefresh: true }));
setInterval(refreshTimes, 5_000);
drawTheme();
show();
