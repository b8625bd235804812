// What the monitors say: how each stands, its evidence, and what they have found.

import { legend, sparkline, timeChart } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, facts, panel, place, since, table } from "../parts.js";
import { here, link } from "../router.js";

export const name = "Drift";
export const controls = { range: true, filters: ["service", "feature"] };

const ORDER = { alarm: 0, watching: 1, learning: 2 };
const TONES = { alarm: "bad", watching: "good", learning: "neutral" };

export async function load({ get, window, filters }) {
  const wanted = { service: filters.service, feature: filters.feature };
  const [monitors, findings] = await Promise.all([
    get("monitors", wanted),
    get("findings", { ...window, ...wanted }),
  ]);
  return { monitors: monitors.monitors, findings: findings.findings };
}

export function render({ monitors, findings }, { params }) {
  if (!monitors.length) return panel({}, nothingWatched());
  const sorted = [...monitors].sort(
    (a, b) => ORDER[a.state] - ORDER[b.state] || (b.log_e ?? -Infinity) - (a.log_e ?? -Infinity),
  );
  const chosen = sorted.find((monitor) => keyOf(monitor) === params.get("monitor")) ?? sorted[0];
  return [
    headline(monitors),
    h(
      "div",
      { class: "drift-layout" },
      panel({ title: "Monitors", className: "monitor-list" }, list(sorted, chosen)),
      detail(chosen, findings),
    ),
    foundPanel(findings),
  ];
}

const keyOf = (monitor) =>
  [monitor.monitor, monitor.service, monitor.environment, monitor.feature].join("|");
export const isOf = (finding, monitor) => keyOf(finding) === keyOf(monitor);

function headline(monitors) {
  const n = (state) => monitors.filter((monitor) => monitor.state === state).length;
  const one = (state, text) =>
    h(
      "div",
      { class: "tally" },
      h("strong", { class: TONES[state] }, String(n(state))),
      h("span", null, text),
    );
  return h(
    "div",
    { class: "tallies" },
    one("alarm", "moved: the evidence crossed its threshold"),
    one("watching", "quiet: as in the reference"),
    one("learning", "learning what is normal"),
  );
}

function list(monitors, chosen) {
  const columns = [
    {
      label: "monitor",
      className: "main-cell",
      cell: (row) => [
        h(
          "a",
          {
            class: "row-link",
            href: here({ monitor: keyOf(row) }),
            "aria-current": row === chosen ? "true" : null,
            "data-key": keyOf(row),
          },
          row.monitor,
        ),
        h("span", { class: "sub" }, place(row)),
      ],
    },
    {
      label: "state",
      className: "wide",
      cell: (row) => [badge(row.state, TONES[row.state]), h("span", { class: "sub wrap" }, row.words)],
    },
    {
      label: "evidence",
      className: "spark-cell",
      cell: (row) => (row.history.length ? evidenceSpark(row) : h("span", { class: "muted" }, "not yet")),
    },
  ];
  return table({ caption: "Monitors", columns, rows: monitors, isCards: true });
}

/** Evidence as a share of the threshold, so that all rows have one scale. */
function evidenceSpark(monitor) {
  const values = monitor.history.map(([, value]) => (value === null ? null : Math.max(0, value)));
  return h(
    "span",
    { class: "evidence-spark" },
    sparkline(values, monitor.state === "alarm" ? "bad" : "1", monitor.log_threshold),
    h(
      "span",
      { class: "muted" },
      `${format.percent(Math.max(0, (monitor.log_e ?? 0) / monitor.log_threshold))} of threshold`,
    ),
  );
}

function detail(monitor, findings) {
  const found = findings.filter((finding) => isOf(finding, monitor));
  return panel(
    {
      title: `${monitor.monitor} in ${place(monitor)}`,
      aside: badge(monitor.state, TONES[monitor.state]),
      className: "monitor-detail",
    },
    h("p", { class: "words" }, sentence(monitor.words)),
    comparison(monitor.reference, monitor.current, monitor.unit),
    monitor.history.length
      ? evidenceChart(monitor, found)
      : h("p", { class: "quiet" }, "Evidence is counted once the reference is complete."),
    facts([
      ["reference", format.plural(monitor.n_reference, "session")],
      ["judged since", format.plural(monitor.n_units, "session")],
      ["kind", monitor.kind],
    ]),
    found.length
      ? h(
          "ul",
          { class: "plain" },
          found.map((finding) =>
            h(
              "li",
              null,
              h("a", { href: link("drift", finding.id) }, finding.summary),
              " ",
              h("span", { class: "muted" }, since(finding.at_ns / 1e6)),
            ),
          ),
        )
      : null,
  );
}

/** Evidence against its threshold, with a mark where an alarm was raised. */
export function evidenceChart(monitor, findings) {
  const series = [
    { name: "evidence (log e)", color: "1", kind: "area", values: monitor.history.map(([, value]) => value) },
  ];
  const threshold = {
    value: monitor.log_threshold,
    label: `alarm at ${format.number(monitor.log_threshold)}`,
  };
  const chart = timeChart({
    label: `Evidence of ${monitor.monitor}`,
    xs: monitor.history.map(([tsNs]) => tsNs / 1e6),
    series,
    format: format.number,
    threshold,
    marks: findings.map((finding) => ({ x: finding.at_ns / 1e6, label: finding.summary })),
    height: 220,
  });
  return [legend([...series, { name: "threshold", color: "bad", dash: "6 4" }]), chart];
}

/** A statistic in the reference beside the same one now. */
export function comparison(reference, current, unit) {
  if (reference === null || current === null) return null;
  const largest = Math.max(reference, current);
  const row = (label, value, color) =>
    h(
      "div",
      { class: "compare-row" },
      h("span", { class: "muted" }, label),
      h(
        "span",
        { class: "meter" },
        h("span", {
          class: `ground-${color}`,
          style: { width: `${largest > 0 ? (value / largest) * 100 : 0}%` },
        }),
      ),
      h("strong", null, format.quantity(value, unit)),
    );
  return h("div", { class: "compare" }, row("reference", reference, "5"), row("current", current, "1"));
}

function foundPanel(findings) {
  const title = "Findings in this window";
  if (!findings.length)
    return panel({ title }, h("p", { class: "quiet" }, "No monitor has found a change in this window."));
  const rows = findings.map((finding) =>
    h(
      "li",
      { class: "finding-row" },
      badge(finding.level, finding.level === "page" ? "bad" : "neutral"),
      h("a", { href: link("drift", finding.id) }, finding.summary),
      h("span", { class: "muted" }, `${finding.monitor} · ${place(finding)}`),
      h("span", { class: "muted when" }, "found ", since(finding.at_ns / 1e6)),
    ),
  );
  return panel({ title }, h("ul", { class: "finding-list" }, rows));
}

/** Words as a sentence: a capital first, a point last. */
export function sentence(words) {
  return words ? `${words[0].toUpperCase()}${words.slice(1)}.`.replace(/[.,]+\.$/, ".") : "";
}

function nothingWatched() {
  return empty({
    title: "No monitor is running yet",
    text: "A monitor starts by itself for each feature once sessions come in, and first learns what is normal. Give your calls a feature and a session, so that it can tell them apart:",
    code: 'with llmobs.session("chat-42"):\n    answer("…")  # decorated with @llmobs.observe(feature="chat")',
  });
}
