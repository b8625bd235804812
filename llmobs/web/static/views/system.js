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
    details(status),
    h(
      "div",
      { class: "grid-2" },
      CHARTS.map((chart, n) => metricPanel(chart, metrics[n])),
    ),
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

/** What the engine says about its own parts; groups where it groups them. */
function details({ ready, details: all }) {
  const entries = Object.entries(all);
  const isGroup = ([, value]) => value !== null && typeof value === "object" && !Array.isArray(value);
  const single = entries.filter((entry) => !isGroup(entry));
  const groups = [
    ...(single.length ? [["engine", Object.fromEntries(single)]] : []),
    ...entries.filter(isGroup),
  ];
  if (!groups.length) return null;
  return h(
    "div",
    { class: "grid-3" },
    groups.map(([title, values]) =>
      panel(
        { title: words(title) },
        facts(Object.entries(values).map(([key, value]) => [words(key), shown(key, value, ready)])),
      ),
    ),
  );
}

function words(key) {
  const text = key
    .replace(/^n_/, "")
    .replace(/_per_s$/, " per second")
    .replace(/_(s|ms|bytes)$/, "")
    .replaceAll("_", " ");
  return `${text[0].toUpperCase()}${text.slice(1)}`;
}

function shown(key, value, isReady) {
  if (value === "ok") return badge("ok", "good");
  if (typeof value === "string" && !isReady) return h("span", { class: "problem" }, value);
  if (typeof value === "boolean") return badge(value ? "yes" : "no", value ? "good" : "bad");
  if (typeof value === "number") {
    if (key.endsWith("_per_s")) return format.count(value);
    if (key.endsWith("_ms")) return format.ms(value);
    if (key.endsWith("_s")) return format.ms(value * 1000);
    if (key.endsWith("_bytes")) return format.bytes(value);
    return format.count(value);
  }
  if (Array.isArray(value)) return value.length ? value.map(String).join(", ") : "none";
  return value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function metricPanel(chart, { rows, step_s: step }) {
  const kept = chart.keep ? rows.filter((row) => chart.keep(row.labels)) : rows;
  if (!kept.length)
    return panel(
      { title: chart.title },
      h(
        "p",
        { class: "quiet" },
        "No such metric came in. Install llmobs[system] beside the app: llmobs.init() then sends CPU and memory.",
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
