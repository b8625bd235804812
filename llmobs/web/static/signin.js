// Asks for the token that `llmobs up` was started with.

import { login } from "./api.js";
import { h } from "./dom.js";

/** @param {function()} onDone Called once the cookie is set. */
export function signIn(onDone) {
  const input = h("input", {
    type: "password",
    id: "token",
    autocomplete: "current-password",
    required: true,
  });
  const problem = h("p", { class: "problem", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      await login(input.value);
      onDone();
    } catch (error) {
      problem.textContent = error.status === 401 ? "That is not the token." : error.message;
      input.select();
    }
  };
  // Password managers file the token under a name.
  const owner = h("input", {
    type: "text",
    autocomplete: "username",
    value: "llmobs",
    hidden: true,
    readonly: true,
  });
  return h(
    "form",
    { class: "panel sign-in", onsubmit: submit },
    h("h2", null, "Sign in"),
    h("p", { class: "muted" }, "This engine shows its data to those who know its token."),
    owner,
    h("label", { for: "token" }, "Token"),
    input,
    problem,
    h("button", { type: "submit", class: "button primary" }, "Sign in"),
  );
}
