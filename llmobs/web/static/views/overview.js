// How it goes: what needs somebody, headline numbers, courses, and who or what takes part.

import { legend, timeChart } from "../charts.js";
import { h, icon } from "../dom.js";
import * as format from "../format.js";
import {
  badge,
  barCell,
  byPlace,
  choice,
  named,
  noTraffic,
  panel,
  place,
  since,
  stat,
  table,
} from "../parts.js";
import { go, here, link } from "../router.js";

export const name = "Overview";
export const controls = { range: true, filters: ["service", "environment", "feature", "model"] };

// Those that wake somebody come first; the rest is a click away.
const MAX_NOTICES = 5;

const COST_KEYS = [
  ["user_id", "user"],
  ["session_id", "session"],
  ["agent", "agent"],
  ["provider", "provider"],
  ["environment", "environment"],
  ["prompt_version", "prompt version"],
  ["day", "day"],
];

export async function load({ get, window, filters, params }) {
  const wanted = { service: filters.service, feature: filters.feature };
  const [overview, series, alerts, findings, monitors, cost, status] = await Promise.all([
    get("overview", { ...window, ...filters }),
    get("series", { ...window, ...filters }),
    get("alerts", { state: "firing", ...wanted }),
    get("findings", { ...window, ...wanted }),
    get("monitors", { ...wanted, history: "0" }),
    get("cost", { ...window, by: params.get("by") ?? COST_KEYS[0][0], limit: 8 }),
    get("status"),
  ]);
  return {
    overview,
    series,
    alerts: alerts.alerts,
    findings: findings.findings,
    monitors: monitors.monitors,
    cost,
    completeness: status.health.completeness,
  };
}

export function render(data, { filters }) {
  const { current, previous } = data.overview;
  if (!current.calls && !previous.calls) return [attention(data), panel({}, noTraffic())];
  return [
    attention(data),
    headline(data.overview, data.series.rows, seen(data.completeness, filters.service)),
    h("div", { class: "grid-2" }, courses(data.series)),
    h(
      "div",
      { class: "grid-2" },
      breakdown("By model", "model", current.by_model),
      breakdown("By feature", "feature", current.by_feature),
    ),
    h(
      "div",
      { class: "grid-2" },
      scores(data.overview),
      h(
        "div",
        { class: "stack" },
        breakdown("By service", "service", current.by_service),
        errors(current.by_error),
      ),
    ),
    cost(data.cost, filters),
  ];
}

function attention({ alerts, findings, monitors }) {
  const announced = new Set(alerts.map((alert) => alert.finding_id));
  const others = findings.filter((finding) => !announced.has(finding.id));
  if (!alerts.length && !others.length) {
    const learning = monitors.filter((monitor) => monitor.state === "learning").length;
    const words = monitors.length
      ? `${format.plural(monitors.length - learning, "monitor")} watching${learning ? `, ${learning} still learning` : ""}`
      : "monitors start once there is traffic";
    return h(
      "p",
      { class: "calm" },
      icon("check"),
      h("strong", null, "Nothing needs you."),
      ` No open alerts; ${words}.`,
    );
  }
  const urgentFirst = [...alerts].sort(
    (a, b) => (a.severity === "page" ? 0 : 1) - (b.severity === "page" ? 0 : 1),
  );
  // A place whose alert is shown needs no second line for what was only noted there.
  const alarmed = new Set(alerts.map(place));
  const items = [
    ...byPlace(urgentFirst).map(([first, ...rest]) =>
      notice({
        tone: first.severity === "page" ? "bad" : "warn",
        word: first.severity,
        text: first.message.split("\n")[0],
        row: first,
        tsMs: first.starts_at_ns / 1e6,
        href: link("drift", first.finding_id),
        also: rest,
      }),
    ),
    ...byPlace(others.filter((finding) => !alarmed.has(place(finding)))).map(([first, ...rest]) =>
      notice({
        tone: "neutral",
        word: first.level,
        text: first.summary,
        row: first,
        tsMs: first.at_ns / 1e6,
        href: link("drift", first.id),
        also: rest,
      }),
    ),
  ];
  const more = items.length - MAX_NOTICES;
  return h(
    "section",
    { class: "attention", "aria-label": "Needs attention" },
    h("ul", null, items.slice(0, MAX_NOTICES)),
    more > 0 ? h("a", { class: "more", href: link("alerts") }, format.plural(more, "more place")) : null,
  );
}

/** One line for a place: what is most urgent there, and which other monitors say so, too. */
function notice({ tone, word, text, row, tsMs, href, also }) {
  const names = [...new Set(also.map((one) => one.monitor))].filter((one) => one !== row.monitor);
  return h(
    "li",
    { class: `notice ${tone}` },
    badge(word, tone),
    h(
      "div",
      { class: "notice-text" },
      h("a", { href }, text),
      names.length ? h("span", { class: "sub wrap" }, `also moved there: ${names.join(", ")}`) : null,
    ),
    h("span", { class: "muted place" }, place(row)),
    h("span", { class: "muted when" }, since(tsMs)),
  );
}

/** How much of the service that lost most came in today; null where nobody numbers spans. */
function seen(completeness, service) {
  const ratios = service ? [completeness[service] ?? []].flat() : Object.values(completeness);
  return ratios.length ? format.seen(Math.min(...ratios)) : null;
}

function headline({ current: now, previous: before }, rows, seenToday) {
  const column = (key) => rows.map((row) => row[key]);
  const perSession = (totals) => format.per(totals.cost_usd, totals.sessions);
  const tokens = (totals) => format.total(totals.input_tokens, totals.output_tokens);
  return h(
    "div",
    { class: "stats" },
    stat({
      label: "Calls",
      value: format.count(now.calls),
      now: now.calls,
      before: before.calls,
      values: column("calls"),
      detail: [format.plural(now.users, "user"), seenToday].filter(Boolean).join(", "),
    }),
    stat({
      label: "Errors",
      value: format.percent(now.error_ratio),
      now: now.error_ratio,
      before: before.error_ratio,
      isUpBad: true,
      values: column("errors"),
      color: "bad",
      detail: `${format.count(now.errors)} calls`,
    }),
    stat({
      label: "Latency p95",
      value: format.ms(now.p95_ms),
      now: now.p95_ms,
      before: before.p95_ms,
      isUpBad: true,
      values: column("p95_ms"),
      color: "4",
      detail: `p50 ${format.ms(now.p50_ms)}`,
    }),
    stat({
      label: "Cost",
      value: format.usd(now.cost_usd),
      now: now.cost_usd,
      before: before.cost_usd,
      isUpBad: true,
      values: rows.map(spent),
      color: "3",
      detail: now.unpriced_calls ? `${format.count(now.unpriced_calls)} calls unpriced` : null,
    }),
    stat({
      label: "Cost per session",
      value: format.usd(perSession(now)),
      now: perSession(now),
      before: perSession(before),
      isUpBad: true,
      detail: format.plural(now.sessions, "session"),
    }),
    stat({
      label: "Tokens",
      value: format.count(tokens(now)),
      now: tokens(now),
      before: tokens(before),
      values: rows.map(tokens),
      color: "2",
      detail: `${format.count(now.output_tokens)} out`,
    }),
  );
}

/** What a step cost: nothing where nobody called, unknown where no call is priced. */
function spent(row) {
  return row.cost_usd ?? (row.calls ? null : 0);
}

function courses({ rows, step_s: step }) {
  const xs = rows.map((row) => row.ts_ms);
  const onZoom = (from, to) => go(here({ since: from, until: to }));
  const chart = (title, unit, series, formatValue) =>
    panel(
      { title, aside: legend(series) },
      timeChart({ label: title, xs, series, format: formatValue, stepMs: step * 1000, onZoom }),
      h("p", { class: "unit" }, unit),
    );
  const each = step === 60 ? "per minute" : `per ${format.span(step * 1000)}`;
  return [
    chart(
      "Calls and errors",
      `calls ${each}`,
      [
        { name: "errors", color: "bad", kind: "bar", values: rows.map((row) => row.errors) },
        { name: "fine", color: "1", kind: "bar", values: rows.map((row) => row.calls - row.errors) },
      ],
      format.count,
    ),
    chart(
      "Latency",
      "of one call",
      [
        { name: "p95", color: "4", values: rows.map((row) => row.p95_ms) },
        { name: "p50", color: "1", dash: "5 4", values: rows.map((row) => row.p50_ms) },
      ],
      format.ms,
    ),
    chart(
      "Cost",
      "USD per hour",
      [
        {
          name: "cost per hour",
          color: "3",
          kind: "area",
          values: rows.map((row) => format.per(spent(row), step / 3600)),
        },
      ],
      format.usd,
    ),
    chart(
      "Tokens",
      `tokens ${each}`,
      [
        { name: "output", color: "2", kind: "bar", values: rows.map((row) => row.output_tokens) },
        { name: "input", color: "1", kind: "bar", values: rows.map((row) => row.input_tokens) },
      ],
      format.count,
    ),
  ];
}

function breakdown(title, key, rows) {
  const most = Math.max(...rows.map((row) => row.calls), 0);
  const dearest = Math.max(...rows.map((row) => row.cost_usd ?? 0), 0);
  const columns = [
    {
      label: key,
      cell: (row) => h("a", { href: here({ [key]: row.name }), title: "Filter by this" }, named(row.name)),
    },
    { label: "calls", cell: (row) => barCell(row.calls, most, format.count(row.calls)), className: "wide" },
    { label: "errors", align: "right", cell: (row) => format.percent(format.per(row.errors, row.calls)) },
    { label: "p95", align: "right", cell: (row) => format.ms(row.p95_ms) },
    {
      label: "cost",
      cell: (row) => barCell(row.cost_usd ?? 0, dearest, format.usd(row.cost_usd), "3"),
      className: "wide",
    },
  ];
  return panel({ title }, table({ caption: title, columns, rows: rows.slice(0, 8) }));
}

function errors(rows) {
  if (!rows.length)
    return panel({ title: "Errors by type" }, h("p", { class: "quiet" }, "No call failed in this window."));
  const most = Math.max(...rows.map((row) => row.calls));
  const columns = [
    { label: "type", cell: (row) => h("a", { href: link("traces", null, { error: "1" }) }, named(row.name)) },
    {
      label: "calls",
      cell: (row) => barCell(row.calls, most, format.count(row.calls), "bad"),
      className: "wide",
    },
  ];
  return panel(
    { title: "Errors by type" },
    table({ caption: "Errors by type", columns, rows: rows.slice(0, 6) }),
  );
}

function scores({ current, previous }) {
  if (!current.scores.length)
    return panel(
      { title: "Scores" },
      h(
        "p",
        { class: "quiet" },
        "Nothing was scored in this window: scorers need the texts, so check that content is captured.",
      ),
    );
  const before = new Map(previous.scores.map((score) => [`${score.name} ${score.target}`, score]));
  const columns = [
    {
      label: "score",
      cell: (row) => [
        h("a", { href: link("traces", null, { flag: row.name }), title: "Traces that failed it" }, row.name),
        h("span", { class: "muted" }, ` of ${row.target}`),
      ],
    },
    {
      label: "failed",
      cell: (row) =>
        barCell(
          row.fail_ratio ?? 0,
          0.25,
          `${format.percent(row.fail_ratio)} (${format.count(row.n_fail)})`,
          "bad",
        ),
      className: "wide",
    },
    {
      label: "before",
      align: "right",
      cell: (row) => format.percent(before.get(`${row.name} ${row.target}`)?.fail_ratio),
    },
    { label: "mean", align: "right", cell: (row) => format.score(row.mean) },
    { label: "scored", align: "right", cell: (row) => format.count(row.n) },
  ];
  return panel(
    { title: "Scores", note: "Share of scored texts that failed. A full bar is 25 %." },
    table({ caption: "Scores", columns, rows: current.scores }),
  );
}

function cost({ rows, by }, filters) {
  const title = "Where the money goes";
  const isFiltered = Object.values(filters).some(Boolean);
  const picker = choice({
    label: "by",
    value: by,
    options: COST_KEYS,
    onChoose: (key) => go(here({ by: key })),
  });
  const dearest = Math.max(...rows.map((row) => row.cost_usd ?? 0), 0);
  const key = COST_KEYS.find(([one]) => one === by)[1];
  const columns = [
    {
      label: key,
      cell: (row) =>
        by === "session_id" && row.key
          ? h("a", { href: link("sessions", row.key) }, row.key)
          : named(row.key),
    },
    {
      label: "cost",
      cell: (row) => barCell(row.cost_usd ?? 0, dearest, format.usd(row.cost_usd), "3"),
      className: "wide",
    },
    { label: "calls", align: "right", cell: (row) => format.count(row.calls) },
    { label: "input tokens", align: "right", cell: (row) => format.count(row.input_tokens) },
    { label: "output tokens", align: "right", cell: (row) => format.count(row.output_tokens) },
    { label: "unpriced", align: "right", cell: (row) => format.count(row.unpriced_calls) },
  ];
  return panel(
    {
      title,
      aside: picker,
      note: isFiltered ? "Over all traffic of the window; the filters above don't narrow this table." : null,
    },
    table({ caption: title, columns, rows }),
  );
}
