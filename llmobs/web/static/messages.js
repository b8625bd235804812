// What a model was told and what it said, as a conversation. Everything here is somebody else's
// text; it is only ever put in as text.

import { h } from "./dom.js";

const CLAMP_CHARS = 1600;
const ROLE_NAMES = {
  system: "System",
  user: "User",
  assistant: "Assistant",
  tool: "Tool",
  context: "Context",
};

/**
 * Read the messages of a span: those sent as JSON, else its plain texts.
 * @returns {{role: string, parts: Object[]}[]}
 */
export function conversation(span) {
  const sent = parsed(span.input_messages);
  const messages = sent.length
    ? [...sent]
    : [textMessage("context", span.context_text), textMessage("user", span.input_text)];
  if (!messages.some((message) => message?.role === "system"))
    messages.unshift(textMessage("system", span.system_text));
  const answered = parsed(span.output_messages);
  messages.push(...(answered.length ? answered : [textMessage("assistant", span.output_text)]));
  return messages.filter((message) => message && message.parts.length);
}

function parsed(json) {
  if (!json) return [];
  try {
    const messages = JSON.parse(json);
    return Array.isArray(messages)
      ? messages.filter((message) => message && typeof message === "object").map(normal)
      : [];
  } catch {
    return []; // cut off or not JSON: the plain texts stand in
  }
}

function normal(message) {
  const parts = Array.isArray(message.parts)
    ? message.parts
    : [{ type: "text", content: message.content ?? "" }];
  return {
    role: String(message.role ?? "user"),
    parts: parts.filter((part) => part && typeof part === "object"),
  };
}

function textMessage(role, text) {
  return text ? { role, parts: [{ type: "text", content: text }] } : null;
}

/** Draw messages, one below the other. */
export function renderConversation(messages) {
  return h("ol", { class: "conversation" }, messages.map(renderMessage));
}

export function renderMessage({ role, parts }) {
  const known = Object.hasOwn(ROLE_NAMES, role) ? role : "other";
  return h(
    "li",
    { class: `message ${known}` },
    h("div", { class: "role" }, ROLE_NAMES[role] ?? role),
    h("div", { class: "bubble" }, parts.map(renderPart)),
  );
}

function renderPart(part) {
  switch (part.type) {
    case "text":
      return longText(asText(part.content));
    case "reasoning":
      return h("details", { class: "part" }, h("summary", null, "Reasoning"), longText(asText(part.content)));
    case "tool_call":
      return toolPart(`Calls ${part.name ?? "a tool"}`, part.arguments);
    case "tool_call_response":
      return toolPart("Result", part.response ?? part.result);
    case "uri":
    case "file":
    case "blob":
      return h(
        "div",
        { class: "part" },
        `${part.modality ?? "file"}: ${part.uri ?? part.file_id ?? part.mime_type ?? "inline data"}`,
      );
    default:
      return toolPart(part.type ? `Part of type ${part.type}` : "Part", part);
  }
}

function toolPart(title, value) {
  return h(
    "div",
    { class: "part" },
    h("div", { class: "part-title" }, title),
    value === undefined || value === null
      ? null
      : h("pre", { class: "code" }, h("code", null, pretty(value))),
  );
}

/** Lay out JSON, given as a value or as text; other text stays as it is. */
export function pretty(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  try {
    const inner = JSON.parse(value);
    return typeof inner === "object" && inner !== null ? JSON.stringify(inner, null, 2) : value;
  } catch {
    return value;
  }
}

function asText(content) {
  return typeof content === "string" ? content : pretty(content ?? "");
}

/** Text with its own line breaks and direction; very long ones open on request. */
export function longText(text) {
  const element = h(
    "div",
    { class: "text", dir: "auto" },
    text.length > CLAMP_CHARS ? `${text.slice(0, CLAMP_CHARS)}…` : text,
  );
  if (text.length <= CLAMP_CHARS) return element;
  const more = h(
    "button",
    { type: "button", class: "link" },
    `Show all ${text.length.toLocaleString("en")} characters`,
  );
  more.addEventListener("click", () => {
    element.textContent = text;
    more.remove();
  });
  return h("div", null, element, more);
}
