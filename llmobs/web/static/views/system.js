// Whether the engine is well, what it keeps, and how busy the observed processes are.

import { legend, timeChart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, facts, panel, since, stat } from "../parts.js";
import { go, here } from "../router.js";

export const name = "System";
export const controls = { range: true };

// Each chart shows one line a service. `keep` chooses points by their labels; several states
// of one moment add up, several processors of one moment average.
const CHARTS = [
  {
    metric: "process.cpu.utilization",
    title: "CPU of the process",
    unit: "share of the machine",
    format: format.percent,
  },
  {
    metric: "process.memory.usage",
    title: "Memory of the process",
    unit: "resident bytes",
    format: format.bytes,
  },
  {
    metric: "system.cpu.utilization",
    title: "CPU of the host",
    unit: "share that is not idle",
    format: format.percent,
    keep: (labels) => labels.state !== "idle",
  },
  {
    metric: "system.memory.utilization",
    title: "Memory of the host",
    unit: "share that is used",
    format: format.percent,
    keep: (labels) => labels.state === "used",
  },
];
const COLORS = ["1", "2", "3", "4", "5"];
const DASHES = [undefined, "6 3", "2 3", "8 3 2 3", "4 4"];

export async function load({ get, window }) {
  const [status, ...metrics] = await Promise.all([
    get("status"),
    ...CHARTS.map(({ metric }) => get("metrics", { ...window, name: metric })),
  ]);
  return { status, metrics };
}

export function render({ status, metrics }) {
  return [
    headline(status),
    parts(status),
    h("div", { class: "grid-2" }, wayIn(status.health), wayOut(status.health)),
    completeness(status.health),
    courses(metrics),
  ];
}

function headline({ ready, sizes, version }) {
  return h(
    "div",
    { class: "stats" },
    stat({
      label: "Engine",
      value: badge(ready ? "ready" : "not ready", ready ? "good" : "bad"),
      detail: `llmobs ${version}`,
    }),
    stat({ label: "Newest span", value: sizes.newest_ms ? since(sizes.newest_ms) : "none yet" }),
    stat({
      label: "Spans kept",
      value: format.count(sizes.spans),
      detail: sizes.oldest_ms ? `since ${format.day(sizes.oldest_ms)}` : null,
    }),
    stat({
      label: "On disk",
      value: format.bytes(sizes.bytes_on_disk),
      detail: sizes.bytes_a_span ? `${format.bytes(sizes.bytes_a_span)} a span` : null,
    }),
    stat({ label: "Scores kept", value: format.count(sizes.scores) }),
    stat({ label: "Events kept", value: format.count(sizes.events) }),
  );
}

/** The parts of the engine: each in words, and when it last finished a cycle. */
function parts({ ready, details, health }) {
  const rows = Object.entries(details).map(([part, state]) => {
    const age = health.heartbeat_age_s[part];
    return [
      `${part[0].toUpperCase()}${part.slice(1)}`,
      [
        state === "ok"
          ? badge("ok", "good")
          : h("span", { class: ready ? "" : "problem" }, String(state)),
        age === undefined ? null : h("span", { class: "sub" }, `cycle ${format.ms(age * 1000)} ago`),
      ],
    ];
  });
  return panel({ title: "Parts" }, facts(rows));
}

/** What came in, and what of it could not be taken. */
function wayIn({ requests, items, repairs, log }) {
  const refused = Object.entries(requests).filter(([outcome]) => outcome !== "accepted");
  return panel(
    { title: "Way in", note: "Since the server started." },
    facts([
      ["requests accepted", format.count(requests.accepted ?? 0)],
      ["requests refused", tally(refused)],
      ["items stored", format.count(items.accepted ?? 0)],
      ["sent twice", format.count(items.duplicate ?? 0)],
      ["set aside", tally(items.rejected ? [["could not be read", items.rejected]] : [])],
      ["values mended", tally(Object.entries(repairs), "warn")],
      ["waiting in the log", backlog(log)],
    ]),
  );
}

function wayOut({ lag_s: lag, scorer_failures: scorers, publish_failures: targets, folded_series: folded }) {
  return panel(
    { title: "Analysis and announcing", note: "Since the server started." },
    facts([
      ["last batch analyzed after", lag === null ? "no batch yet" : format.ms(lag * 1000)],
      ["scorers failed", tally(Object.entries(scorers))],
      ["could not reach", tally(Object.entries(targets))],
      ["series put together", tally(Object.entries(folded), "warn")],
    ]),
  );
}

/** How many of the spans that were numbered came in; silent where nobody numbers them. */
function completeness({ completeness: ratios, missing }) {
  const services = Object.entries(ratios);
  if (!services.length) return null;
  return panel(
    { title: "Completeness", note: "Spans seen of those that were numbered, of the last day." },
    facts(services.map(([service, ratio]) => [service || "(not set)", share(ratio, missing[service] ?? 0)])),
  );
}

function share(ratio, n) {
  if (ratio === 1) return badge(format.seen(ratio), "good");
  return [
    badge(format.seen(ratio), ratio < 0.999 ? "bad" : "warn"),
    h("span", { class: "sub" }, `${format.count(n)} missing since counting began`),
  ];
}

function backlog({ n_segments: n, size_bytes: size, oldest_s: age }) {
  return n ? `${format.bytes(size)}, oldest ${format.ms(age * 1000)}` : n === 0 ? "nothing" : "–";
}

/** Counts by name, "0" where there is none. */
function tally(entries, tone = "bad") {
  if (!entries.length) return "0";
  return entries.map(([what, n]) => badge(`${format.count(n)} ${what.replaceAll("_", " ")}`, tone));
}

/** CPU and memory; one word for all where nobody sends them. */
function courses(metrics) {
  const isSent = metrics.some(({ rows }) => rows.length);
  if (isSent)
    return h(
      "div",
      { class: "grid-2" },
      CHARTS.map((chart, n) => metricPanel(chart, metrics[n])),
    );
  return panel(
    { title: "CPU and memory" },
    h("p", { class: "quiet" }, "No process sent its CPU and memory in this window. Install beside your app:"),
    h("pre", { class: "code" }, h("code", null, "pip install 'llmobs[system]'")),
    h("p", { class: "quiet" }, "llmobs.init() then sends them."),
  );
}

function metricPanel(chart, { rows, step_s: step }) {
  const kept = chart.keep ? rows.filter((row) => chart.keep(row.labels)) : rows;
  if (!kept.length)
    return panel(
      { title: chart.title },
      h(
        "p",
        { class: "quiet" },
        "No such metric came in in this window.",
      ),
    );
  const xs = [...new Set(kept.map((row) => row.ts_ms))].sort((a, b) => a - b);
  const services = [...Map.groupBy(kept, (row) => row.service)].slice(0, COLORS.length);
  const series = services.map(([service, points], n) => ({
    name: service || "(not set)",
    color: COLORS[n],
    dash: DASHES[n],
    values: course(points, xs),
  }));
  const onZoom = (from, to) => go(here({ since: from, until: to }));
  return panel(
    { title: chart.title, aside: legend(series) },
    timeChart({ label: chart.title, xs, series, format: chart.format, stepMs: step * 1000, onZoom }),
    h("p", { class: "unit" }, chart.unit),
  );
}

function course(points, xs) {
  const byTime = Map.groupBy(points, (row) => row.ts_ms);
  return xs.map((ts) => {
    const now = byTime.get(ts);
    if (!now) return null;
    const processors = new Set(now.map((row) => row.labels.cpu)).size;
    return now.reduce((sum, row) => sum + row.value, 0) / processors;
  });
}
