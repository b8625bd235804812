// One trace: a waterfall of its spans, and everything about the span that is chosen.

import { h } from "../dom.js";
import * as format from "../format.js";
import { conversation, longText, pretty, renderConversation } from "../messages.js";
import { badge, facts, named, panel } from "../parts.js";
import { go, here, link } from "../router.js";

export const name = "Trace";
export const controls = {};

const NO_PARENT = "0000000000000000";
const KINDS = {
  chat: "model",
  generate_content: "model",
  text_completion: "model",
  fetch_response: "model",
  embeddings: "embedding",
  retrieval: "retrieval",
  execute_tool: "tool",
  invoke_agent: "agent",
  create_agent: "agent",
  invoke_workflow: "agent",
  plan: "agent",
};

export function load({ get, id }) {
  return get(`traces/${encodeURIComponent(id)}`);
}

export function title({ spans }) {
  return spans[0].name;
}

export function render({ trace_id: id, n_spans: nSpans, spans }, { params }) {
  const rows = inTreeOrder(spans);
  const chosen = spans.find((span) => span.span_id === params.get("span")) ?? mostTelling(spans);
  const cut =
    nSpans > spans.length
      ? `The first ${format.count(spans.length)} of ${format.count(nSpans)} spans.`
      : null;
  return [
    summary(id, spans),
    h(
      "div",
      { class: "trace-layout" },
      panel({ title: "Spans", note: cut, className: "waterfall-panel" }, waterfall(rows, chosen)),
      detail(chosen),
    ),
  ];
}

const kindOf = (span) => KINDS[span.operation] ?? "span";
const hasFailedScore = (span) => span.scores.some((score) => score.label === "fail");
const sum = (spans, key) => format.total(...spans.map((span) => span[key]));

/** The call that failed, else one with a failed score, else the first call. */
function mostTelling(spans) {
  const calls = spans.filter((span) => kindOf(span) === "model");
  return calls.find((span) => span.status === 2) ?? calls.find(hasFailedScore) ?? calls[0] ?? spans[0];
}

function summary(id, spans) {
  const root = spans[0];
  const calls = spans.filter((span) => kindOf(span) === "model");
  const billed = spans.filter((span) => kindOf(span) === "model" || kindOf(span) === "embedding");
  const unpriced = billed.filter((span) => span.cost_usd === null).length;
  const failed = spans.filter((span) => span.status === 2).length;
  return panel(
    { className: "summary" },
    facts([
      ["trace", h("span", { class: "mono" }, id)],
      ["when", format.dateTime(root.ts_ms)],
      ["where", [named(root.service), " / ", named(root.feature)]],
      [
        "session",
        root.session_id
          ? h("a", { class: "mono", href: link("sessions", root.session_id) }, root.session_id)
          : "–",
      ],
      ["duration", format.ms(extent(spans).length)],
      ["calls", format.count(calls.length)],
      ["errors", failed ? badge(format.plural(failed, "span"), "bad") : "0"],
      [
        "tokens",
        `${format.count(sum(billed, "input_tokens"))} in, ${format.count(sum(billed, "output_tokens"))} out`,
      ],
      [
        "cost",
        `${format.usd(sum(billed, "cost_usd"))}${unpriced ? ` + ${format.plural(unpriced, "unpriced call")}` : ""}`,
      ],
    ]),
  );
}

function extent(spans) {
  const begin = Math.min(...spans.map((span) => span.ts_ms));
  const end = Math.max(...spans.map((span) => span.ts_ms + span.duration_ms));
  return { begin, length: Math.max(end - begin, 0.001) };
}

/** Parents before children, children by start; a span whose parent is missing counts as a root. */
function inTreeOrder(spans) {
  const known = new Set(spans.map((span) => span.span_id));
  const children = Map.groupBy(spans, (span) => (known.has(span.parent_id) ? span.parent_id : NO_PARENT));
  const rows = [];
  const seen = new Set();
  const visit = (span, depth) => {
    if (seen.has(span.span_id)) return;
    seen.add(span.span_id);
    rows.push({ span, depth });
    for (const child of children.get(span.span_id) ?? []) visit(child, depth + 1);
  };
  for (const root of children.get(NO_PARENT) ?? []) visit(root, 0);
  for (const span of spans) visit(span, 0); // those in a ring of parents
  return rows;
}

function waterfall(rows, chosen) {
  const { begin, length } = extent(rows.map((row) => row.span));
  const scale = h(
    "span",
    { class: "scale", "aria-hidden": "true" },
    [0, 0.5, 1].map((share) => h("span", null, format.ms(length * share))),
  );
  const list = h(
    "ol",
    { class: "waterfall", "data-key": "waterfall" },
    rows.map(({ span, depth }) => waterfallRow(span, depth, begin, length, span === chosen)),
  );
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = step && rows[rows.findIndex((row) => row.span === chosen) + step];
    if (!next) return;
    event.preventDefault();
    list.querySelector(`[data-key="span-${next.span.span_id}"]`).focus(); // and it stays there when the view is drawn anew
    go(here({ span: next.span.span_id }), { replace: true });
  });
  return [
    h(
      "div",
      { class: "waterfall-head" },
      h("span", null, "span"),
      scale,
      h("span", { class: "right" }, "duration"),
      h("span", { class: "right money" }, "cost"),
    ),
    list,
  ];
}

function waterfallRow(span, depth, begin, length, isChosen) {
  const from = ((span.ts_ms - begin) / length) * 100;
  const width = (span.duration_ms / length) * 100;
  const failed = span.scores.filter((score) => score.label === "fail");
  return h(
    "li",
    null,
    h(
      "a",
      {
        class: "waterfall-row",
        href: here({ span: span.span_id }),
        "aria-current": isChosen ? "true" : null,
        "data-key": `span-${span.span_id}`,
      },
      h(
        "span",
        { class: "span-name", style: { "padding-left": `${Math.min(depth, 12) * 14}px` } },
        h("span", { class: `kind kind-${kindOf(span)}` }, kindOf(span)),
        h("span", { class: "span-title" }, span.tool || span.request_model || span.name),
        span.status === 2 ? badge("error", "bad") : null,
        failed.length
          ? badge(format.plural(failed.length, "flag"), "warn", failed.map((score) => score.name).join(", "))
          : null,
      ),
      h(
        "span",
        { class: "track" },
        h("span", {
          class: `span-bar kind-${kindOf(span)}${span.status === 2 ? " failed" : ""}`,
          style: { left: `${from.toFixed(2)}%`, width: `max(2px, ${width.toFixed(2)}%)` },
        }),
      ),
      h("span", { class: "right" }, format.ms(span.duration_ms)),
      h("span", { class: "right money" }, span.cost_usd === null ? "" : format.usd(span.cost_usd)),
    ),
  );
}

function detail(span) {
  return h(
    "div",
    { class: "stack span-detail" },
    panel(
      { title: span.name, aside: h("span", { class: `kind kind-${kindOf(span)}` }, kindOf(span)) },
      span.status === 2
        ? h(
            "p",
            { class: "failure", role: "note" },
            [span.error_type || "Error", span.status_message].filter(Boolean).join(": "),
          )
        : null,
      facts([
        ["duration", format.ms(span.duration_ms)],
        span.ttft_ms === null ? null : ["first chunk", format.ms(span.ttft_ms)],
        span.request_model
          ? [
              "model",
              span.response_model && span.response_model !== span.request_model
                ? `${span.request_model} → ${span.response_model}`
                : span.request_model,
            ]
          : null,
        span.provider ? ["provider", span.provider] : null,
        span.input_tokens === null ? null : ["tokens", tokens(span)],
        span.request_model
          ? ["cost", span.cost_usd === null ? "no price known" : format.usd(span.cost_usd)]
          : null,
        span.finish_reason ? ["finished", span.finish_reason] : null,
        span.prompt_name
          ? ["prompt", `${span.prompt_name}${span.prompt_version ? ` v${span.prompt_version}` : ""}`]
          : null,
      ]),
    ),
    content(span),
    span.scores.length ? scores(span) : null,
    span.events.length ? events(span) : null,
    attributes(span),
  );
}

function tokens(span) {
  const parts = [`${format.count(span.input_tokens)} in`, `${format.count(span.output_tokens)} out`];
  if (span.cache_read_tokens) parts.push(`${format.count(span.cache_read_tokens)} cached`);
  if (span.reasoning_tokens) parts.push(`${format.count(span.reasoning_tokens)} reasoning`);
  return parts.join(", ");
}

function scores(span) {
  const rows = span.scores.map((score) =>
    h(
      "li",
      { class: "score" },
      h("span", { class: "score-name" }, score.name, h("span", { class: "muted" }, ` of ${score.target}`)),
      h(
        "span",
        { class: "meter", "aria-hidden": "true" },
        h("span", {
          class: score.label === "fail" ? "ground-bad" : "ground-1",
          style: { width: `${Math.min(1, Math.max(0, score.value ?? 0)) * 100}%` },
        }),
      ),
      h("span", { class: "score-value" }, format.score(score.value)),
      score.label ? badge(score.label, score.label === "fail" ? "bad" : "neutral") : null,
      score.explanation ? h("p", { class: "explanation" }, score.explanation) : null,
    ),
  );
  return panel({ title: "Scores" }, h("ul", { class: "scores" }, rows));
}

function content(span) {
  if (kindOf(span) === "model") {
    const messages = conversation(span);
    if (messages.length) return panel({ title: "Conversation" }, renderConversation(messages));
    return panel(
      { title: "Conversation" },
      h(
        "p",
        { class: "quiet" },
        "The texts were not captured. Call llmobs.init(capture_content=…) with “redacted” or “full” to see them here.",
      ),
    );
  }
  const blocks = [
    ["Input", span.input_text],
    ["Output", span.output_text],
  ].filter(([, text]) => text);
  if (!blocks.length) return null;
  return panel(
    { title: "Content" },
    h(
      "div",
      { class: "blocks" },
      blocks.map(([label, text]) =>
        h(
          "div",
          null,
          h("div", { class: "part-title" }, label),
          isJson(text) ? h("pre", { class: "code" }, h("code", null, pretty(text))) : longText(text),
        ),
      ),
    ),
  );
}

function isJson(text) {
  return /^\s*[[{]/.test(text) && pretty(text) !== text;
}

function events(span) {
  const rows = span.events.map((event) =>
    h(
      "li",
      null,
      h("span", { class: "muted" }, `+${format.ms(event.ts_ms - span.ts_ms)}`),
      " ",
      h("strong", null, event.event_name),
      event.body ? h("div", { class: "text" }, event.body) : null,
    ),
  );
  return panel({ title: "Events" }, h("ul", { class: "events" }, rows));
}

function attributes(span) {
  const own = Object.entries({
    "span id": span.span_id,
    "parent id": span.parent_id === NO_PARENT ? "" : span.parent_id,
    scope: span.scope,
    environment: span.environment,
    operation: span.operation,
    agent: span.agent,
    "user id": span.user_id,
    "response id": span.response_id,
  }).filter(([, value]) => value);
  const rows = [...own, ...Object.entries(span.attributes).sort(([a], [b]) => a.localeCompare(b))];
  return h(
    "details",
    { class: "panel attributes", "data-key": "attributes" },
    h("summary", null, h("h2", null, "Attributes"), h("span", { class: "muted" }, String(rows.length))),
    h(
      "dl",
      { class: "attribute-list" },
      rows.map(([key, value]) => [h("dt", null, key), h("dd", null, String(value))]),
    ),
  );
}
