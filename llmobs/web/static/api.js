// The JSON API of this server.

export const BASE = document.querySelector('meta[name="llmobs-base"]').content;

/** An answer that is not 200, in the server's words. */
export class ApiError extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

/**
 * Read one address below /api/v1/.
 * @param {string} path Such as "traces".
 * @param {Object<string, ?string|number>} [params] Empty ones are left out.
 * @param {AbortSignal} [signal]
 */
export function get(path, params = {}, signal = undefined) {
  const given = Object.entries(params).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const query = new URLSearchParams(given).toString();
  return request(`${path}${query ? `?${query}` : ""}`, { signal });
}

/** Trade the token for a cookie. */
export function login(token) {
  return request("login", { method: "POST", body: JSON.stringify({ token }) });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(`${BASE}/api/v1/${path}`, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(
      0,
      "The engine can't be reached",
      "Is `llmobs up` still running? This page tries again by itself.",
    );
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.error ?? response.statusText, body.hint ?? "");
  return body;
}
