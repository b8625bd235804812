// The newest traces, narrowed by what they are, said or failed.

import { h } from "../dom.js";
import * as format from "../format.js";
import {
  badge,
  barCell,
  choice,
  empty,
  named,
  noTraffic,
  panel,
  searchField,
  since,
  table,
  toggle,
} from "../parts.js";
import { go, here, link } from "../router.js";

export const name = "Traces";
export const controls = { range: true, filters: ["service", "environment", "feature", "model"] };

const PAGE = 100;

export async function load({ get, window, filters, params }) {
  const limit = Number(params.get("limit") ?? PAGE);
  const own = Object.fromEntries(["q", "error", "flag", "user_id"].map((key) => [key, params.get(key)]));
  const [traces, scores] = await Promise.all([
    get("traces", { ...window, ...filters, ...own, limit }),
    get("scores", { ...window, ...filters }),
  ]);
  return { rows: traces.traces, flags: [...new Set(scores.rows.map((row) => row.name))], limit };
}

export function render({ rows, flags, limit }, { params }) {
  const flag = params.get("flag") ?? "";
  const bar = h(
    "div",
    { class: "list-bar" },
    searchField({
      label: "Text in question or answer",
      value: params.get("q"),
      onSearch: (text) => go(here({ q: text }), { replace: true }),
    }),
    toggle({
      label: "Errors only",
      isOn: params.get("error") === "1",
      onToggle: (isOn) => go(here({ error: isOn ? "1" : null })),
    }),
    choice({
      label: "failed score",
      value: flag,
      options: [
        ["", "any or none"],
        ...[...new Set([...flags, flag])].filter(Boolean).map((one) => [one, one]),
      ],
      onChoose: (one) => go(here({ flag: one })),
    }),
    h(
      "span",
      { class: "muted" },
      rows.length === limit ? `first ${format.count(limit)}` : format.plural(rows.length, "trace"),
    ),
  );
  const more =
    rows.length === limit && limit < 1000
      ? h("a", { class: "button", href: here({ limit: Math.min(1000, limit * 3) }) }, "Show more")
      : null;
  return panel({}, bar, rows.length ? list(rows) : nothing(params), more);
}

function list(rows) {
  const longest = Math.max(...rows.map((row) => row.duration_ms), 0);
  const columns = [
    { label: "when", cell: (row) => since(row.ts_ms) },
    {
      label: "question and answer",
      className: "main-cell texts",
      cell: (row) => [
        h("a", { class: "row-link", dir: "auto", href: link("traces", row.trace_id) }, row.input || row.name),
        h("span", { class: "sub", dir: "auto" }, row.output || "no answer"),
      ],
    },
    {
      label: "where",
      className: "nowrap",
      cell: (row) => [named(row.service), h("span", { class: "sub" }, row.feature || row.name)],
    },
    { label: "models", className: "clip", cell: (row) => row.models.join(", ") || "–" },
    { label: "marks", className: "marks", cell: (row) => marks(row) },
    { label: "spans", align: "right", cell: (row) => format.count(row.spans) },
    {
      label: "tokens",
      align: "right",
      cell: (row) => format.count(format.total(row.input_tokens, row.output_tokens)),
    },
    {
      label: "cost",
      align: "right",
      cell: (row) => (row.unpriced_calls && !row.cost_usd ? "unpriced" : format.usd(row.cost_usd)),
    },
    {
      label: "duration",
      className: "bar-column",
      cell: (row) => barCell(row.duration_ms, longest, format.ms(row.duration_ms), "4"),
    },
  ];
  return table({ caption: "Traces", columns, rows, isCards: true });
}

function marks(row) {
  return [
    row.errors ? badge(format.plural(row.errors, "error"), "bad") : null,
    row.flags.map((flag) => badge(flag, "warn", "failed this score")),
  ];
}

function nothing(params) {
  const own = ["q", "error", "flag", "user_id"];
  if (!own.some((key) => params.get(key))) return noTraffic();
  const clear = h(
    "a",
    { class: "button", href: here(Object.fromEntries(own.map((key) => [key, null]))) },
    "Clear search",
  );
  return empty({
    title: "No trace matches",
    text: "Try other words, a longer range, or fewer conditions.",
    action: clear,
  });
}
