// Which view the address means, and addresses for views. Range and filters live in the query,
// so that a copied link shows the same thing; they travel along when the view changes.

import { BASE } from "./api.js";

export const FILTERS = ["service", "environment", "feature", "model"];
const CARRIED = ["since", "until", ...FILTERS, "theme"];

/** @returns {{view: string, id: ?string, params: URLSearchParams}} */
export function currentRoute() {
  const path = location.pathname.slice(BASE.length).replace(/^\/|\/$/g, "");
  const [view, ...rest] = path.split("/");
  const id = rest.length ? decodeURIComponent(rest.join("/")) : null;
  return { view: view || "overview", id, params: new URLSearchParams(location.search) };
}

/**
 * Make the address of a view.
 * @param {string} view
 * @param {?string} [id]
 * @param {Object<string, ?string>} [params] Beyond range and filters; null takes one away.
 */
export function link(view, id = null, params = {}) {
  const now = new URLSearchParams(location.search);
  const query = new URLSearchParams();
  for (const name of CARRIED) if (now.has(name)) query.set(name, now.get(name));
  return address(view, id, assign(query, params));
}

/** Make the address of the view that is shown, with other parameters. */
export function here(params) {
  const { view, id, params: now } = currentRoute();
  return address(view, id, assign(new URLSearchParams(now), params));
}

function assign(query, params) {
  for (const [name, value] of Object.entries(params)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  return query;
}

function address(view, id, query) {
  const path = view === "overview" ? "/" : `/${view}${id === null ? "" : `/${encodeURIComponent(id)}`}`;
  return `${BASE}${path}${query.size ? `?${query}` : ""}`;
}

let onChange = () => {};

/** Go to an address of this page. */
export function go(url, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", url);
  onChange();
}

/** Call `listener` whenever the address changes, and follow links without loading the page anew. */
export function listen(listener) {
  onChange = listener;
  addEventListener("popstate", () => onChange());
  document.addEventListener("click", (event) => {
    const anchor = event.target instanceof Element ? event.target.closest("a[href]") : null;
    const isPlain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!anchor || !isPlain || anchor.target || anchor.hash || anchor.origin !== location.origin) return;
    if (!anchor.pathname.startsWith(`${BASE}/`)) return;
    event.preventDefault();
    go(anchor.href);
  });
}
