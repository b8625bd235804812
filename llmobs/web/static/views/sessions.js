// Sessions, with what each has cost.

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
  stat,
  table,
} from "../parts.js";
import { go, here, link } from "../router.js";

export const name = "Sessions";
export const controls = { range: true, filters: ["service", "environment", "feature", "model"] };

const PAGE = 100;
const ORDERS = [
  ["last", "last active"],
  ["cost", "cost"],
  ["calls", "calls"],
  ["errors", "errors"],
];

export async function load({ get, window, filters, params }) {
  const limit = Number(params.get("limit") ?? PAGE);
  const [sessions, overview] = await Promise.all([
    get("sessions", { ...window, ...filters, q: params.get("q"), order: params.get("order"), limit }),
    get("overview", { ...window, ...filters }),
  ]);
  return { rows: sessions.sessions, overview, limit };
}

export function render({ rows, overview, limit }, { params }) {
  const query = params.get("q");
  const order = params.get("order") ?? "last";
  const bar = h(
    "div",
    { class: "list-bar" },
    searchField({
      label: "Session, user, feature or model",
      value: query,
      onSearch: (text) => go(here({ q: text }), { replace: true }),
    }),
    choice({ label: "sort by", value: order, options: ORDERS, onChoose: (key) => go(here({ order: key })) }),
    h(
      "span",
      { class: "muted" },
      rows.length === limit ? `first ${format.count(limit)}` : format.plural(rows.length, "session"),
    ),
  );
  const more =
    rows.length === limit && limit < 1000
      ? h("a", { class: "button", href: here({ limit: Math.min(1000, limit * 3) }) }, "Show more")
      : null;
  return [headline(overview), panel({}, bar, rows.length ? list(rows, order) : nothing(query), more)];
}

function headline({ current: now, previous: before }) {
  const per = (totals, key) => format.per(totals[key], totals.sessions);
  return h(
    "div",
    { class: "stats" },
    stat({
      label: "Sessions",
      value: format.count(now.sessions),
      now: now.sessions,
      before: before.sessions,
    }),
    stat({
      label: "Cost per session",
      value: format.usd(per(now, "cost_usd")),
      now: per(now, "cost_usd"),
      before: per(before, "cost_usd"),
      isUpBad: true,
    }),
    stat({
      label: "Calls per session",
      value: format.number(per(now, "calls")),
      now: per(now, "calls"),
      before: per(before, "calls"),
    }),
    stat({ label: "Users", value: format.count(now.users), now: now.users, before: before.users }),
  );
}

function list(rows, order) {
  const dearest = Math.max(...rows.map((row) => row.cost_usd ?? 0), 0);
  const columns = [
    {
      label: "session",
      className: "main-cell",
      cell: (row) => [
        h("a", { class: "row-link mono nowrap", href: link("sessions", row.session_id) }, row.session_id),
        h("span", { class: "sub" }, row.user_id ? `user ${row.user_id}` : "no user id"),
      ],
    },
    {
      label: "where",
      className: "nowrap",
      cell: (row) => [named(row.service), h("span", { class: "sub" }, row.features.join(", "))],
    },
    { label: "models", className: "clip", cell: (row) => row.models.join(", ") || "–" },
    { label: "last active", order: "last", align: "right", cell: (row) => since(row.last_ms) },
    { label: "turns", align: "right", cell: (row) => format.count(row.traces) },
    { label: "calls", order: "calls", align: "right", cell: (row) => format.count(row.calls) },
    {
      label: "errors",
      order: "errors",
      align: "right",
      cell: (row) => (row.errors ? badge(format.count(row.errors), "bad") : "0"),
    },
    {
      label: "flags",
      className: "marks",
      cell: (row) =>
        row.flags.length ? row.flags.map((flag) => badge(flag, "warn", "failed this score")) : null,
    },
    {
      label: "tokens",
      align: "right",
      cell: (row) => format.count(format.total(row.input_tokens, row.output_tokens)),
    },
    {
      label: "cost",
      order: "cost",
      className: "wide",
      cell: (row) => barCell(row.cost_usd ?? 0, dearest, costText(row), "3"),
    },
  ];
  return table({
    caption: "Sessions",
    columns,
    rows,
    order,
    onOrder: (key) => go(here({ order: key })),
    isCards: true,
  });
}

function costText(row) {
  const isUnpriced = row.unpriced_calls > 0;
  if (isUnpriced && !row.cost_usd) return "unpriced";
  return `${format.usd(row.cost_usd)}${isUnpriced ? " +" : ""}`;
}

function nothing(query) {
  if (!query) return noTraffic();
  return empty({
    title: `No session matches “${query}”`,
    text: "The search looks at session ids, users, services, features and models. Try a part of one, or a longer range.",
  });
}
