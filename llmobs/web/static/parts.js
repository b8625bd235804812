// What several views are made of.

import { h, icon } from "./dom.js";
import * as format from "./format.js";
import { sparkline } from "./charts.js";

/** A titled box. */
export function panel({ title, aside = null, note = null, className = "", id = null }, ...body) {
  const head =
    title || aside ? h("header", { class: "panel-head" }, title ? h("h2", null, title) : null, aside) : null;
  return h(
    "section",
    { class: `panel ${className}`, id, "aria-label": title },
    head,
    note ? h("p", { class: "note" }, note) : null,
    ...body,
  );
}

/** A short word on a coloured ground; the word carries the meaning. */
export function badge(text, tone = "neutral", title = null) {
  return h("span", { class: `badge ${tone}`, title }, text);
}

/** A headline number with its course and what it was before. */
export function stat({
  label,
  value,
  detail = null,
  now = null,
  before = null,
  isUpBad = null,
  values = [],
  color = "1",
}) {
  const share = format.change(now, before);
  return h(
    "div",
    { class: "stat" },
    h("div", { class: "stat-label" }, label),
    h("div", { class: "stat-value" }, value),
    h(
      "div",
      { class: "stat-foot" },
      share === null ? null : delta(share, isUpBad),
      detail ? h("span", { class: "muted" }, detail) : null,
    ),
    values.length ? sparkline(values, color) : null,
  );
}

function delta(share, isUpBad) {
  const isFlat = Math.abs(share) < 0.005;
  const tone =
    isUpBad === null || isFlat || Math.abs(share) < 0.1 ? "" : share > 0 === isUpBad ? "bad" : "good";
  return h(
    "span",
    { class: `delta ${tone}`, title: "against the window before, of the same length" },
    isFlat ? "unchanged" : format.signedPercent(share),
  );
}

/**
 * A table.
 * @param {Object} options
 * @param {string} options.caption For screen readers.
 * @param {Object[]} options.columns {label, cell: row → Node|string, align, order, width}; a
 *   column with an `order` can be sorted by.
 * @param {Object[]} options.rows
 * @param {?string} [options.order] The order that holds now.
 * @param {?function(string)} [options.onOrder]
 * @param {boolean} [options.isCards] On a phone every row becomes a card.
 */
export function table({ caption, columns, rows, order = null, onOrder = null, isCards = false }) {
  const heads = columns.map((column) => {
    const isOrder = column.order && column.order === order;
    const content = column.order
      ? h(
          "button",
          { type: "button", class: "sort", onclick: () => onOrder(column.order) },
          column.label,
          h("span", { "aria-hidden": "true" }, isOrder ? " ↓" : ""),
        )
      : column.label;
    return h(
      "th",
      { scope: "col", class: column.align, "aria-sort": isOrder ? "descending" : null },
      content,
    );
  });
  const body = rows.map((row) =>
    h(
      "tr",
      null,
      columns.map((column) =>
        h(
          "td",
          { class: `${column.align ?? ""} ${column.className ?? ""}`, "data-label": column.label },
          column.cell(row),
        ),
      ),
    ),
  );
  return h(
    "div",
    { class: "table-wrap" },
    h(
      "table",
      { class: isCards ? "cards" : "" },
      h("caption", { class: "sr-only" }, caption),
      h("thead", null, h("tr", null, heads)),
      h("tbody", null, body),
    ),
  );
}

/** A value with a bar behind it that shows its part of the largest. */
export function barCell(value, largest, text, color = "1") {
  const share = largest > 0 ? Math.max(0, Math.min(1, value / largest)) : 0;
  return h(
    "span",
    { class: "bar-cell" },
    h("span", { class: `bar-fill ground-${color}`, style: { width: `${(share * 100).toFixed(1)}%` } }),
    h("span", { class: "bar-text" }, text),
  );
}

/** "3 min ago", kept current by `refreshTimes`. */
export function since(tsMs) {
  return h(
    "time",
    { "data-ms": tsMs, datetime: tsMs ? new Date(tsMs).toISOString() : null, title: format.dateTime(tsMs) },
    format.ago(tsMs),
  );
}

export function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-ms]"))
    element.textContent = format.ago(Number(element.dataset.ms));
}

/** Bring rows together that are of one place, in the order in which places come first. */
export function byPlace(rows) {
  const key = (row) => `${row.service}|${row.environment}|${row.feature}`;
  return [...Map.groupBy(rows, key).values()];
}

/** Where something is: the service, and the feature where it is of one. */
export function place({ service, feature }) {
  return [service, feature].filter(Boolean).join(" / ");
}

/** A name for "" in a breakdown. */
export function named(name) {
  return name || h("span", { class: "muted" }, "(not set)");
}

/** What to say where there is nothing, and what to do about it. */
export function empty({ title, text, action = null, code = null }) {
  return h(
    "div",
    { class: "empty" },
    h("h3", null, title),
    h("p", null, text),
    code ? h("pre", { class: "code" }, h("code", null, code)) : null,
    action,
  );
}

const START = `import llmobs

llmobs.init(service="my-app")

@llmobs.observe(feature="chat")
def answer(question: str) -> str:
    ...  # your call to a model`;

/** The first thing that somebody with no data sees. */
export function noTraffic() {
  return empty({
    title: "No calls in this window yet",
    text: "Choose a longer range or clear the filters above. If you have just started: decorate the function that calls your model and run it; it shows here within seconds.",
    code: START,
  });
}

export function errorBox(error, retry) {
  return h(
    "div",
    { class: "empty error", role: "alert" },
    icon("warning"),
    h("h3", null, error.message),
    error.hint ? h("p", null, error.hint) : null,
    h("button", { type: "button", class: "button", onclick: retry }, "Try again"),
  );
}

/** Grey shapes where the content will be. */
export function skeleton() {
  return h(
    "div",
    { class: "skeletons", role: "status", "aria-label": "Loading" },
    Array.from({ length: 7 }, () => h("div", { class: "skeleton" })),
  );
}

/** A search field that acts a moment after the last key. */
export function searchField({ label, value, onSearch }) {
  let timer = 0;
  const input = h("input", {
    type: "search",
    "data-key": "search",
    placeholder: label,
    "aria-label": label,
    value: value ?? "",
    maxlength: 256,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => onSearch(input.value.trim()), 350);
    },
  });
  return h("label", { class: "search" }, icon("search"), input);
}

/** A list of choices. */
export function choice({ label, value, options, onChoose }) {
  const list = options.map(([key, text]) => h("option", { value: key, selected: key === value }, text));
  return h(
    "label",
    { class: "choice" },
    h("span", null, label),
    h("select", { "data-key": `choice-${label}`, onchange: (event) => onChoose(event.target.value) }, list),
  );
}

/** A switch that is on or off. */
export function toggle({ label, isOn, onToggle }) {
  return h(
    "button",
    {
      type: "button",
      class: "chip",
      "aria-pressed": isOn ? "true" : "false",
      "data-key": `toggle-${label}`,
      onclick: () => onToggle(!isOn),
    },
    label,
  );
}

/** Names with values, as a definition list. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );
}

/** A score as a badge: name, value, and whether it failed in words. */
export function scoreBadge(score) {
  const isFail = score.label === "fail";
  const label = score.label && score.label !== "pass" && !isFail ? ` ${score.label}` : "";
  return badge(
    `${score.name}${label} ${format.score(score.value)}${isFail ? " · fail" : ""}`,
    isFail ? "bad" : "neutral",
    score.explanation || `${score.name} of the ${score.target}`,
  );
}
