// What people were told: firing now, and what has passed.

import { h, icon } from "../dom.js";
import * as format from "../format.js";
import { badge, byPlace, empty, panel, place, since } from "../parts.js";
import { link } from "../router.js";

export const name = "Alerts";
export const controls = { filters: ["service", "feature"] };

const MIN_SPAN_MS = 15 * 60_000;
const MAX_LANES = 20;

export async function load({ get, filters }) {
  const { alerts } = await get("alerts", { service: filters.service, feature: filters.feature });
  return { alerts };
}

export function render({ alerts }) {
  if (!alerts.length) return panel({}, nothing());
  const firing = alerts.filter((alert) => alert.state === "firing");
  const resolved = alerts.filter((alert) => alert.state === "resolved");
  return [
    panel({ title: "Time line" }, timeline(alerts)),
    panel(
      { title: `Firing (${firing.length})` },
      firing.length
        ? h("ul", { class: "alert-list" }, byPlace(firing).map(bundle))
        : h("p", { class: "quiet" }, icon("check"), "Nothing is firing."),
    ),
    panel(
      { title: `Resolved (${resolved.length})` },
      resolved.length
        ? h("ul", { class: "alert-list" }, byPlace(resolved).map(bundle))
        : h("p", { class: "quiet" }, "No alert has been resolved yet."),
    ),
  ];
}

const tone = (alert) => (alert.state === "resolved" ? "neutral" : alert.severity === "page" ? "bad" : "warn");

function timeline(alerts) {
  const now = Date.now();
  const shown = [...alerts].sort((a, b) => place(a).localeCompare(place(b))).slice(0, MAX_LANES);
  const earliest = Math.min(...shown.map((alert) => alert.starts_at_ns / 1e6));
  const begin = Math.min(now - MIN_SPAN_MS, earliest - 0.04 * (now - earliest));
  const clock = now - begin < 20 * 3_600_000 ? format.time : format.dateTime;
  const share = (tsMs) => ((tsMs - begin) / (now - begin)) * 100;
  const rows = shown.map((alert) => {
    const from = share(alert.starts_at_ns / 1e6);
    const to = share(alert.ends_at_ns === null ? now : alert.ends_at_ns / 1e6);
    return h(
      "li",
      null,
      h(
        "a",
        { class: "lane-name", href: link("drift", alert.finding_id) },
        alert.monitor,
        h("span", { class: "sub" }, place(alert)),
      ),
      h(
        "span",
        { class: "track" },
        h("span", {
          class: `lane-bar ${tone(alert)}`,
          style: { left: `${from}%`, width: `max(4px, ${to - from}%)` },
          title: alert.message,
        }),
      ),
    );
  });
  const ticks = [0, 0.25, 0.5, 0.75].map((part) =>
    h("span", null, clock(begin + part * (now - begin))),
  );
  return [
    h("ol", { class: "lanes" }, rows),
    h("div", { class: "lane-scale", "aria-hidden": "true" }, ticks, h("span", null, "now")),
  ];
}

/** All alerts of one place: what goes wrong together mostly has one cause. */
function bundle(alerts) {
  const urgentFirst = [...alerts].sort((a, b) => rank(a) - rank(b) || a.starts_at_ns - b.starts_at_ns);
  const [first] = urgentFirst;
  const begin = Math.min(...alerts.map((alert) => alert.starts_at_ns / 1e6));
  const ends = alerts.map((alert) => alert.ends_at_ns).filter((end) => end !== null);
  const traces = link("traces", null, {
    service: first.service,
    environment: first.environment,
    feature: first.feature,
    since: Math.floor(begin),
    until: ends.length === alerts.length ? Math.ceil(Math.max(...ends) / 1e6) : null,
  });
  return h(
    "li",
    { class: `alert-card ${tone(first)}` },
    h(
      "div",
      { class: "alert-head" },
      h("strong", null, place(first) || "everywhere"),
      first.environment ? badge(first.environment) : null,
      h("span", { class: "muted" }, format.plural(alerts.length, "alert"), ", began ", since(begin)),
      h("a", { class: "alert-traces", href: traces }, "Traces since it began"),
    ),
    h("ul", { class: "alert-rows" }, urgentFirst.map(row)),
  );
}

const rank = (alert) => (alert.severity === "page" ? 0 : 1);

function row(alert) {
  const begin = alert.starts_at_ns / 1e6;
  const lasted = (alert.ends_at_ns === null ? Date.now() : alert.ends_at_ns / 1e6) - begin;
  const [headline] = alert.message.split("\n");
  return h(
    "li",
    null,
    badge(alert.severity, tone(alert)),
    h(
      "div",
      { class: "alert-words" },
      h("a", { href: link("drift", alert.finding_id) }, headline),
      h(
        "details",
        { "data-key": `message-${alert.id}` },
        h("summary", { class: "muted" }, `${alert.monitor}: the message as it was sent`),
        h("p", { class: "message-text" }, h("strong", null, alert.title), "\n", alert.message),
      ),
    ),
    h(
      "span",
      { class: "muted when" },
      alert.state === "firing" ? `for ${format.span(lasted)}` : `lasted ${format.span(lasted)}`,
    ),
  );
}

function nothing() {
  return empty({
    title: "No alert so far",
    text: "Alerts come from findings of level “page”. To hear of them elsewhere, name a Slack channel, a webhook or an address in the settings; then check that it arrives with:",
    code: "llmobs alerts test CHANNEL",
  });
}
