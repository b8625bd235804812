// One finding: what moved, since when, on what evidence, and traces that show it.

import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, facts, panel, place, since } from "../parts.js";
import { link } from "../router.js";
import { comparison, evidenceChart, isOf, sentence } from "./drift.js";

export const name = "Finding";
export const controls = {};

const MAX_EXAMPLES = 5;

// Keys of a monitor's evidence in words for people; others are shown as they are called.
const EVIDENCE_WORDS = {
  n_since_onset: "sessions since it began",
  n_positive: "of these with it",
  n_reference: "sessions in the reference",
  interval: "current lies in (95 %)",
  reference_interval: "reference lies in (95 %)",
  rate_ratio: "times as often",
  rate_ratio_interval: "times as often (95 %)",
  null_rate: "taken as still normal",
  mean_shift_sd: "shift of the mean, in sd",
  reference_sd: "sd of the reference",
  gate_sd: "smallest shift that counts, in sd",
};
const IN_UNIT = new Set(["interval", "reference_interval", "null_rate"]);

export async function load({ get, id }) {
  const finding = await get(`findings/${encodeURIComponent(id)}`);
  const [monitors, ...examples] = await Promise.all([
    get("monitors", { service: finding.service, feature: finding.feature }),
    ...finding.examples.slice(0, MAX_EXAMPLES).map((trace) => example(get, trace)),
  ]);
  return { finding, monitor: monitors.monitors.find((row) => isOf(finding, row)) ?? null, examples };
}

/** An example may be older than what is kept; then only its id is shown. */
async function example(get, id) {
  try {
    const { spans } = await get(`traces/${id}`);
    return { id, input: spans[0].input_text || spans[0].name, output: spans[0].output_text };
  } catch (error) {
    if (error.status === 404) return { id, input: null, output: null };
    throw error;
  }
}

export function title({ finding }) {
  return `${finding.monitor} · ${place(finding)}`;
}

export function render({ finding, monitor, examples }) {
  return [
    panel(
      { className: "summary" },
      h(
        "p",
        { class: "lead" },
        badge(finding.level, finding.level === "page" ? "bad" : "neutral"),
        " ",
        sentence(finding.summary),
        finding.provisional ? [" ", badge("provisional", "warn", "the reference was still short")] : null,
      ),
      facts([
        ["began about", [format.dateTime(finding.onset_ns / 1e6), " (", since(finding.onset_ns / 1e6), ")"]],
        ["found", [format.dateTime(finding.at_ns / 1e6), " (", since(finding.at_ns / 1e6), ")"]],
        ["kind", finding.kind],
        ["environment", finding.environment || "–"],
        finding.log_threshold > 0
          ? [
              "evidence",
              `log e ${format.number(finding.log_e)}, alarm at ${format.number(finding.log_threshold)}`,
            ]
          : null,
      ]),
      h(
        "p",
        null,
        h(
          "a",
          {
            class: "button",
            href: link("traces", null, {
              service: finding.service,
              feature: finding.feature,
              since: Math.floor(finding.onset_ns / 1e6),
              until: null,
            }),
          },
          "All traces since it began",
        ),
      ),
    ),
    h(
      "div",
      { class: "grid-2" },
      panel(
        { title: "Before and after" },
        comparison(finding.reference, finding.current, finding.unit) ??
          h("p", { class: "quiet" }, "There is no single number to compare."),
        movers(finding.evidence, finding.unit),
      ),
      panel(
        { title: "Evidence over time" },
        monitor?.history.length
          ? evidenceChart(monitor, [finding])
          : h("p", { class: "quiet" }, "The monitor keeps no course any more."),
      ),
    ),
    panel(
      { title: "Traces that show it" },
      examples.length
        ? h("ul", { class: "example-list" }, examples.map(renderExample))
        : h("p", { class: "quiet" }, "No single trace shows this change; it is in the sum."),
    ),
  ];
}

/** What a monitor of categories says moved, as bars; other evidence as it came. */
function movers({ movers: risen = [], fallen = null, ...rest }, unit) {
  const moved = fallen ? [...risen, fallen] : risen;
  const largest = Math.max(...moved.flatMap((one) => [one.reference, one.current]), 0.001);
  const order = Object.keys(EVIDENCE_WORDS);
  const sorted = Object.entries(rest).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
  const others = sorted.map(([key, value]) => [
    EVIDENCE_WORDS[key] ?? key.replace(/^n_/, "").replaceAll("_", " "),
    IN_UNIT.has(key) ? interval(value, (end) => format.quantity(end, unit)) : shown(value),
  ]);
  return [
    moved.length
      ? [
          h("h3", null, "What moved"),
          h(
            "ul",
            { class: "movers" },
            moved.map((one) => mover(one, largest)),
          ),
        ]
      : null,
    others.length ? facts(others) : null,
  ];
}

function mover({ name: what, reference, current, texts = [] }, largest) {
  const bar = (value, color) =>
    h(
      "span",
      { class: "meter" },
      h("span", { class: `ground-${color}`, style: { width: `${(value / largest) * 100}%` } }),
    );
  return h(
    "li",
    { class: "mover" },
    h("span", { class: "mover-name" }, what),
    h("span", { class: "mover-bars" }, bar(reference, "5"), bar(current, "1")),
    h(
      "span",
      { class: "mover-values" },
      `${format.percent(reference)} → `,
      h("strong", null, format.percent(current)),
    ),
    texts.map((text) => h("q", { class: "sub", dir: "auto" }, text)),
  );
}

function shown(value) {
  if (typeof value === "number") return format.number(value);
  return typeof value === "string" ? value : interval(value, format.number);
}

/** Two ends as "a – b", one number by itself, anything else as JSON. */
function interval(value, show) {
  if (typeof value === "number") return show(value);
  const isPair = Array.isArray(value) && value.length === 2 && value.every((end) => typeof end === "number");
  return isPair ? value.map(show).join(" – ") : JSON.stringify(value);
}

function renderExample({ id, input, output }) {
  return h(
    "li",
    null,
    h("a", { href: link("traces", id), dir: "auto" }, input ?? id),
    h("span", { class: "sub", dir: "auto" }, input === null ? "no longer kept" : output || "no answer"),
  );
}
