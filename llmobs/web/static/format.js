// Numbers and times in words for people. Not known is "–", never 0.

const UNKNOWN = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const significant = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const date = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const exactClock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

/** 12,345 below ten thousand, then 12.3K. */
export function count(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (Math.abs(value) < 10 && !Number.isInteger(value)) return significant.format(value);
  return Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
}

export function number(value) {
  return isKnown(value) ? significant.format(value) : UNKNOWN;
}

/** A score, mostly in [0, 1]: three digits behind the point say all that it can. */
export function score(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (value !== 0 && Math.abs(value) < 0.001) return value < 0 ? "> −0.001" : "< 0.001";
  return String(Number(value.toFixed(3)));
}

/** US dollars, with as many digits as the amount needs to be seen. */
export function usd(value) {
  if (!isKnown(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size === 0) return "$0";
  if (size < 1e-6) return "<$0.000001";
  if (size >= 10_000) return `$${compact.format(value)}`;
  if (size >= 1) {
    const digits = Number.isInteger(value) ? 0 : 2; // "$200" on an axis
    return `$${value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
  }
  return `$${value.toLocaleString("en", { maximumSignificantDigits: size >= 0.1 ? 3 : 2, maximumFractionDigits: 6 })}`;
}

/** A duration given in milliseconds. */
export function ms(value) {
  if (!isKnown(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size === 0) return "0 ms";
  if (size < 1) return `${significant.format(value * 1000)} µs`;
  if (size < 1000) return `${whole.format(value)} ms`;
  if (size < 60_000) return `${significant.format(value / 1000)} s`;
  if (size < 3_600_000) return `${Math.floor(value / 60_000)} min ${Math.round((value % 60_000) / 1000)} s`;
  return span(value);
}

/** A long duration in its two largest units. */
export function span(value) {
  if (value < 59_500) return `${Math.round(value / 1000)} s`;
  const minutes = Math.round(value / 60_000);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)} d${hours % 24 ? ` ${hours % 24} h` : ""}`;
}

/** How much of what was numbered came in; rounded down, for 100 % is said of nothing that lost a span. */
export function seen(ratio) {
  return ratio === 1 ? "all seen" : `${(Math.floor(ratio * 10_000) / 100).toFixed(2)} % seen`;
}

export function percent(value) {
  if (!isKnown(value)) return UNKNOWN;
  const share = value * 100;
  return `${share !== 0 && Math.abs(share) < 10 ? significant.format(Number(share.toFixed(2))) : whole.format(share)} %`;
}

export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  const power = value < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(value) / 3));
  return `${significant.format(value / 1000 ** power)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

/** A value in the unit that a monitor names. */
export function quantity(value, unit) {
  if (unit.startsWith("share")) return percent(value);
  if (unit === "USD") return usd(value);
  if (unit === "ms") return ms(value);
  if (unit === "s") return isKnown(value) ? ms(value * 1000) : UNKNOWN;
  return isKnown(value) && unit && unit !== "score" ? `${number(value)} ${unit}` : number(value);
}

/** The sum of what is known; null where nothing is. */
export function total(...values) {
  const known = values.filter(isKnown);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
}

/** `value` for each of `n`; null where either can't be had. */
export function per(value, n) {
  return isKnown(value) && n ? value / n : null;
}

/** The change against what was before, as a share; null where there is nothing to compare with. */
export function change(now, before) {
  if (!isKnown(now) || !isKnown(before) || before === 0) return null;
  return (now - before) / before;
}

export function signedPercent(value) {
  const size = `${whole.format(Math.abs(value) * 100)} %`;
  return `${value > 0 ? "+" : value < 0 ? "−" : ""}${size}`;
}

export function time(tsMs) {
  return isKnown(tsMs) ? clock.format(tsMs) : UNKNOWN;
}

export function exactTime(tsMs) {
  return isKnown(tsMs) ? exactClock.format(tsMs) : UNKNOWN;
}

export function day(tsMs) {
  return isKnown(tsMs) ? date.format(tsMs) : UNKNOWN;
}

export function dateTime(tsMs) {
  return isKnown(tsMs) ? `${date.format(tsMs)}, ${clock.format(tsMs)}` : UNKNOWN;
}

/** "3 min ago"; the page keeps such texts current by itself (see parts.js, `since`). */
export function ago(tsMs, nowMs = Date.now()) {
  if (!isKnown(tsMs)) return UNKNOWN;
  const passed = nowMs - tsMs;
  if (passed < 5_000) return "just now";
  if (passed < 60_000) return `${Math.floor(passed / 1000)} s ago`;
  if (passed < 3_600_000) return `${Math.floor(passed / 60_000)} min ago`;
  if (passed < 48 * 3_600_000) return `${Math.floor(passed / 3_600_000)} h ago`;
  return `${Math.floor(passed / 86_400_000)} d ago`;
}

/** "1 call", "3 calls". */
export function plural(n, word) {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}
