// One finding: what moved, since when, on what evidence, and traces that show it.

import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, facts, panel, place, since } from "../parts.js";
import { link } from "../router.js";
import { comparison, evidenceChart, isOf } from "./drift.js";

export const name = "Finding";
export const controls = {};

const MAX_EXAMPLES = 5;

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
        finding.summary,
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
        movers(finding.evidence),
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
function movers({ movers: risen = [], fallen = null, ...rest }) {
  const moved = fallen ? [...risen, fallen] : risen;
  const largest = Math.max(...moved.flatMap((one) => [one.reference, one.current]), 0.001);
  const others = Object.entries(rest).map(([key, value]) => [
    key.replace(/^n_/, "").replaceAll("_", " "),
    shown(value),
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
  if (typeof value === "string") return value;
  const isInterval =
    Array.isArray(value) && value.length === 2 && value.every((end) => typeof end === "number");
  return isInterval ? `${format.number(value[0])} – ${format.number(value[1])}` : JSON.stringify(value);
}

function renderExample({ id, input, output }) {
  return h(
    "li",
    null,
    h("a", { href: link("traces", id), dir: "auto" }, input ?? id),
    h("span", { class: "sub", dir: "auto" }, input === null ? "no longer kept" : output || "no answer"),
  );
}
