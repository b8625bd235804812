// One session as the conversation that it was.

import { h } from "../dom.js";
import * as format from "../format.js";
import { conversation, renderMessage } from "../messages.js";
import { badge, facts, named, panel, scoreBadge } from "../parts.js";
import { link } from "../router.js";

export const name = "Session";
export const controls = {};

const MAX_TURNS = 40; // further turns show their shortened texts
const ANSWERS = ["chat", "generate_content", "text_completion"];

const spansOf = new Map(); // a finished turn doesn't change: read its spans once

export async function load({ get, id }) {
  const session = await get(`sessions/${encodeURIComponent(id)}`);
  const traces = [...session.traces].sort((a, b) => a.ts_ms - b.ts_ms);
  const turns = await Promise.all(
    traces.map(async (trace, n) => ({ trace, spans: n < MAX_TURNS ? await spans(get, trace) : [] })),
  );
  return { session, turns };
}

async function spans(get, trace) {
  const key = `${trace.trace_id} ${trace.spans}`;
  if (!spansOf.has(key)) spansOf.set(key, (await get(`traces/${trace.trace_id}`)).spans);
  return spansOf.get(key);
}

export function title({ session }) {
  return session.session_id;
}

export function render({ session, turns }) {
  return [
    panel(
      { className: "summary" },
      facts([
        ["user", named(session.user_id)],
        ["where", [session.service, session.features.filter(Boolean).join(", ")].filter(Boolean).join(" / ")],
        ["models", session.models.join(", ") || "–"],
        ["begin", format.dateTime(session.first_ms)],
        ["lasted", format.span(session.last_ms - session.first_ms)],
        ["calls", format.count(session.calls)],
        ["errors", session.errors ? badge(format.count(session.errors), "bad") : "0"],
        ["tokens", `${format.count(session.input_tokens)} in, ${format.count(session.output_tokens)} out`],
        [
          "cost",
          session.unpriced_calls
            ? `${format.usd(session.cost_usd)} + ${format.plural(session.unpriced_calls, "unpriced call")}`
            : format.usd(session.cost_usd),
        ],
      ]),
    ),
    h(
      "ol",
      { class: "turns" },
      turns.map((turn, n) => renderTurn(turn, n + 1)),
    ),
  ];
}

function renderTurn({ trace, spans: all }, number) {
  const answers = all.filter((span) => ANSWERS.includes(span.operation));
  const steps = all.filter((span) => span.operation === "execute_tool" || span.operation === "retrieval");
  const scores = all.flatMap((span) => span.scores);
  const failed = scores.filter((score) => score.label === "fail");
  return h(
    "li",
    { class: "panel turn" },
    h(
      "header",
      { class: "turn-head" },
      h("strong", null, `Turn ${number}`),
      h("span", { class: "muted" }, format.exactTime(trace.ts_ms)),
      h("span", null, format.ms(trace.duration_ms)),
      h("span", null, trace.cost_usd || !trace.unpriced_calls ? format.usd(trace.cost_usd) : "unpriced"),
      h("span", { class: "muted" }, format.plural(trace.calls, "call")),
      trace.errors ? badge(format.plural(trace.errors, "error"), "bad") : null,
      h("a", { href: link("traces", trace.trace_id) }, "Open trace"),
    ),
    h("ol", { class: "conversation" }, messages(trace, answers).map(renderMessage)),
    steps.length
      ? h(
          "div",
          { class: "chips" },
          h("span", { class: "muted" }, "Steps"),
          steps.map((span) =>
            badge(
              `${span.tool || span.name} · ${format.ms(span.duration_ms)}`,
              span.status === 2 ? "bad" : "neutral",
            ),
          ),
        )
      : null,
    scores.length ? scoreLine(unique(scores)) : null,
    failed
      .filter((score) => score.explanation)
      .map((score) =>
        h("p", { class: "explanation" }, h("strong", null, score.name), ` ${score.explanation}`),
      ),
  );
}

/** Those that failed as badges; that the others passed is one word, with their values behind it. */
function scoreLine(scores) {
  const failed = scores.filter((score) => score.label === "fail");
  const others = scores.filter((score) => score.label !== "fail");
  const values = others.map((one) => `${one.name} of ${one.target}: ${format.score(one.value)}`);
  return h(
    "div",
    { class: "chips" },
    h("span", { class: "muted" }, "Scores"),
    failed.map(scoreBadge),
    others.length ? badge(`${others.length} fine`, "good", values.join("\n")) : null,
  );
}

/** What was asked first and what was said last; tool calls in between are steps. */
function messages(trace, answers) {
  const asked = answers.length
    ? conversation(answers[0]).findLast((message) => message.role === "user")
    : null;
  const said = answers.length
    ? conversation(answers.at(-1)).findLast((message) => message.role === "assistant")
    : null;
  const error = answers.at(-1)?.status === 2 ? answers.at(-1) : null;
  const text = (role, content) => (content ? { role, parts: [{ type: "text", content }] } : null);
  return [
    asked ?? text("user", trace.input),
    error
      ? text("error", [error.error_type, error.status_message].filter(Boolean).join(": "))
      : (said ?? text("assistant", trace.output)),
  ].filter(Boolean);
}

/** One badge a score: of several calls in a turn, the one that failed or came last. */
function unique(scores) {
  const byName = new Map();
  for (const score of scores) {
    const key = `${score.name} ${score.target}`;
    if (byName.get(key)?.label !== "fail") byName.set(key, score);
  }
  return [...byName.values()];
}
