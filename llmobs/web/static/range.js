// The range of time where the address names none: short while there is little to show.

import { get } from "./api.js";

export const RANGES = [
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["6h", "Last 6 hours"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
  ["30d", "Last 30 days"],
];

const MINUTES = { "15m": 15, "1h": 60, "6h": 360 };
const LONGEST = "24h"; // what the API takes, too
const FRESH_MS = 60_000;

let fitted = LONGEST;
let askedMs = -Infinity;

/** The range that holds where the address names none. */
export function defaultSince() {
  return fitted;
}

/** Fit the default to what is kept: the shortest range that holds all of it, a day at most. */
export async function fitRange(signal) {
  if (Date.now() - askedMs < FRESH_MS) return;
  try {
    const { sizes } = await get("status", {}, signal);
    askedMs = Date.now();
    fitted = shortest(sizes.oldest_ms === null ? Infinity : askedMs - sizes.oldest_ms);
  } catch {
    // The view asks the same server next, and says what fails.
  }
}

function shortest(ageMs) {
  return Object.keys(MINUTES).find((key) => ageMs <= MINUTES[key] * 60_000) ?? LONGEST;
}
