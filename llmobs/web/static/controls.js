// The bar at the top: filters, time range, live refresh.

import { get } from "./api.js";
import { h, icon } from "./dom.js";
import { dateTime, exactTime } from "./format.js";
import { choice } from "./parts.js";
import { defaultSince, RANGES } from "./range.js";
import { currentRoute, go, here } from "./router.js";

/**
 * Make the controls that a view asks for.
 * @param {{range?: boolean, filters?: string[]}} wanted
 * @param {{isPaused: boolean, onPause: function()}} live
 */
export function controlBar({ range = false, filters = [] }, live) {
  return [filters.length ? filterBar(filters) : null, range ? rangePicker() : null, liveButton(live)].filter(
    Boolean,
  );
}

let updatedMs = null; // when what is shown was read

/** Say in the bar whether what is shown is current. */
export function setUpdated(isFresh, reason = "") {
  const state = document.getElementById("live-state");
  if (isFresh) updatedMs = Date.now();
  state.classList.toggle("stale", !isFresh);
  state.title = isFresh ? "" : reason;
  state.textContent = isFresh ? exactTime(updatedMs) : "Not current";
  if (!isFresh) document.getElementById("announce").textContent = reason;
}

function liveButton({ isPaused, onPause }) {
  const button = h(
    "button",
    {
      type: "button",
      class: "ghost",
      "aria-pressed": isPaused ? "true" : "false",
      title: isPaused ? "Refresh again every few seconds" : "Stop refreshing",
      onclick: onPause,
    },
    icon(isPaused ? "play" : "pause"),
    h("span", null, isPaused ? "Paused" : "Live"),
  );
  return h(
    "div",
    { class: `live ${isPaused ? "paused" : ""}` },
    button,
    h("span", { id: "live-state", class: "live-state" }, updatedMs === null ? "" : exactTime(updatedMs)),
  );
}

function rangePicker() {
  const { params } = currentRoute();
  const since = params.get("since") ?? defaultSince();
  const until = params.get("until");
  const menu = h(
    "details",
    { class: "menu" },
    h(
      "summary",
      { "aria-label": "Time range" },
      icon("clock"),
      h("span", null, rangeName(since, until)),
      icon("chevron"),
    ),
  );
  const choose = (params) => {
    menu.open = false;
    go(here(params));
  };
  const presets = RANGES.map(([key, name]) =>
    h(
      "button",
      {
        type: "button",
        class: "menu-item",
        "aria-current": key === since && !until ? "true" : null,
        onclick: () => choose({ since: key, until: null }),
      },
      name,
    ),
  );
  menu.append(h("div", { class: "menu-body" }, presets, customRange(choose)));
  closeOutside(menu);
  return menu;
}

function customRange(choose) {
  const from = h("input", {
    type: "datetime-local",
    required: true,
    value: localTime(Date.now() - 86_400_000),
  });
  const to = h("input", { type: "datetime-local", required: true, value: localTime(Date.now()) });
  const submit = (event) => {
    event.preventDefault();
    const [since, until] = [Date.parse(from.value), Date.parse(to.value)];
    to.setCustomValidity(since < until ? "" : "The end must be after the begin.");
    if (to.reportValidity()) choose({ since, until });
  };
  return h(
    "form",
    { class: "menu-form", onsubmit: submit },
    h("label", null, "From", from),
    h("label", null, "To", to),
    h("button", { type: "submit", class: "button" }, "Apply"),
  );
}

function localTime(tsMs) {
  const offset = new Date(tsMs).getTimezoneOffset() * 60_000;
  return new Date(tsMs - offset).toISOString().slice(0, 16);
}

function rangeName(since, until) {
  const preset = RANGES.find(([key]) => key === since && !until);
  if (preset) return preset[1];
  const name = (value) => (/^\d{12,}$/.test(value) ? dateTime(Number(value)) : value);
  return until ? `${name(since)} – ${name(until)}` : `Since ${name(since)}`;
}

function filterBar(names) {
  const { params } = currentRoute();
  const bar = h("div", { class: "filters" });
  const draw = (values) => {
    const lists = names.map((name) => {
      const value = params.get(name) ?? "";
      // A value from a shared link may not occur in this window; it still has to show.
      const options = [...new Set([...(values[name] ?? []), value])].filter(Boolean);
      return choice({
        label: name,
        value,
        options: [["", `All ${plurals[name]}`], ...options.map((one) => [one, one])],
        onChoose: (chosen) => go(here({ [name]: chosen })),
      });
    });
    const isSet = names.some((name) => params.get(name));
    const clear = h(
      "button",
      {
        type: "button",
        class: "ghost",
        onclick: () => go(here(Object.fromEntries(names.map((name) => [name, null])))),
      },
      icon("close"),
      h("span", null, "Clear"),
    );
    bar.replaceChildren(...lists, ...(isSet ? [clear] : []));
  };
  draw({});
  get("dimensions", { since: params.get("since") ?? defaultSince(), until: params.get("until") }).then(
    draw,
    () => {},
  ); // the view itself reports what fails
  return bar;
}

const plurals = { service: "services", environment: "environments", feature: "features", model: "models" };

function closeOutside(menu) {
  const close = (event) => {
    if (event.type === "keydown" ? event.key === "Escape" : !menu.contains(event.target)) menu.open = false;
  };
  menu.addEventListener("toggle", () => {
    const change = menu.open ? "addEventListener" : "removeEventListener";
    document[change]("pointerdown", close);
    document[change]("keydown", close);
  });
}
