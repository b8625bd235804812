// What people were told: firing now, and what has passed.

import { h, icon } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, panel, place, since } from "../parts.js";
import { link } from "../router.js";

export const name = "Alerts";
export const controls = { filters: ["service", "feature"] };

const MIN_SPAN_MS = 24 * 3_600_000;

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
        ? h("ul", { class: "alert-list" }, firing.map(card))
        : h("p", { class: "quiet" }, icon("check"), "Nothing is firing."),
    ),
    panel(
      { title: `Resolved (${resolved.length})` },
      resolved.length
        ? h("ul", { class: "alert-list" }, resolved.map(card))
        : h("p", { class: "quiet" }, "No alert has been resolved yet."),
    ),
  ];
}

const tone = (alert) => (alert.state === "resolved" ? "neutral" : alert.severity === "page" ? "bad" : "warn");

function timeline(alerts) {
  const now = Date.now();
  const begin = Math.min(now - MIN_SPAN_MS, ...alerts.map((alert) => alert.starts_at_ns / 1e6));
  const share = (tsMs) => ((tsMs - begin) / (now - begin)) * 100;
  const rows = alerts.slice(0, 20).map((alert) => {
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
    h("span", null, format.dateTime(begin + part * (now - begin))),
  );
  return [
    h("ol", { class: "lanes" }, rows),
    h("div", { class: "lane-scale", "aria-hidden": "true" }, ticks, h("span", null, "now")),
  ];
}

function card(alert) {
  const lasted = (alert.ends_at_ns === null ? Date.now() : alert.ends_at_ns / 1e6) - alert.starts_at_ns / 1e6;
  return h(
    "li",
    { class: `alert-card ${tone(alert)}` },
    h(
      "div",
      { class: "alert-head" },
      badge(alert.state, tone(alert)),
      badge(alert.severity, "neutral"),
      h("strong", null, alert.title),
    ),
    h("p", { class: "message-text" }, alert.message),
    h(
      "div",
      { class: "alert-foot" },
      h(
        "span",
        { class: "muted" },
        "began ",
        since(alert.starts_at_ns / 1e6),
        `, ${alert.state === "firing" ? "for" : "lasted"} ${format.span(lasted)}`,
      ),
      h("span", { class: "muted" }, format.plural(alert.n_findings, "finding")),
      h("a", { href: link("drift", alert.finding_id) }, "Evidence"),
      h(
        "a",
        {
          href: link("traces", null, {
            service: alert.service,
            feature: alert.feature,
            since: Math.floor(alert.starts_at_ns / 1e6 - 3_600_000),
            until: alert.ends_at_ns === null ? null : Math.ceil(alert.ends_at_ns / 1e6),
          }),
        },
        "Traces of that time",
      ),
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
