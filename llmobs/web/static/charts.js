// Charts over time in SVG: axes, legend, tooltip, keyboard, zoom by dragging.

import { h, s } from "./dom.js";
import { day, dateTime, time } from "./format.js";

const MARGIN = { top: 8, right: 10, bottom: 22, left: 52 };
const MINUTE = 60_000;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080].map(
  (minutes) => minutes * MINUTE,
);

/**
 * Draw values over time.
 *
 * A series is {name, values, color, kind, dash}: `values` beside `xs` (null: not known),
 * `color` names a CSS colour (`--c-…`), `kind` is "line" (default), "area" or "bar"; bars
 * stack. A dash tells lines apart where colours don't.
 *
 * @param {Object} options
 * @param {string} options.label What the chart shows, for screen readers.
 * @param {number[]} options.xs Ms since 1970, ascending.
 * @param {Object[]} options.series
 * @param {function(number): string} options.format Of values, with the unit.
 * @param {number} [options.stepMs] Width of a bar; the last step is drawn as not over yet.
 * @param {?{value: number, label: string}} [options.threshold]
 * @param {{x: number, label: string}[]} [options.marks] Moments, such as an alarm.
 * @param {?function(number, number)} [options.onZoom] Called with what was dragged over, in ms.
 * @param {number} [options.height] In px.
 * @returns {HTMLElement}
 */
export function timeChart(options) {
  const height = options.height ?? 190;
  const tooltip = h("div", { class: "tooltip", hidden: true, "aria-live": "polite" });
  const root = h(
    "div",
    {
      class: "chart",
      tabindex: "0",
      role: "group",
      "aria-label": `${options.label}. Arrow keys read single values.`,
      style: { height: `${height}px` },
    },
    tooltip,
  );
  let drawn = null;
  const draw = () => {
    drawn?.svg.remove();
    drawn = drawChart(options, root.clientWidth, height);
    root.prepend(drawn.svg);
  };
  // The width is known only once the chart is in the page, and changes with the window.
  new ResizeObserver(() => root.clientWidth && root.clientWidth !== drawn?.width && draw()).observe(root);
  addPointing(root, tooltip, options, () => drawn);
  return root;
}

/** Name the series with their colours. */
export function legend(series) {
  return h(
    "ul",
    { class: "legend" },
    series.map((one) => h("li", null, swatch(one), one.name, one.note ? h("b", null, one.note) : null)),
  );
}

function swatch(one) {
  const isLine = (one.kind ?? "line") === "line";
  const shape = isLine
    ? s("line", { x1: 0, x2: 14, y1: 5, y2: 5, "stroke-dasharray": one.dash })
    : s("rect", { x: 2, width: 10, height: 10, rx: 2 });
  return s(
    "svg",
    {
      class: `swatch ${isLine ? "stroke" : "fill"}-${one.color}`,
      viewBox: "0 0 14 10",
      "aria-hidden": "true",
    },
    shape,
  );
}

/** Draw a small line without axes, beside a number that it gives the course of. */
export function sparkline(values, color = "1", least = 0) {
  const top = Math.max(least, ...values.filter((value) => value !== null)) || 1;
  const points = values.map((value, n) =>
    value === null ? null : [(n / Math.max(1, values.length - 1)) * 100, 27 - (value / top) * 24],
  );
  return s(
    "svg",
    { class: "spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: `area fill-${color}`, d: areaPath(points, 28) }),
    s("path", { class: `line stroke-${color}`, d: linePath(points) }),
  );
}

function drawChart(options, width, height) {
  const { xs, series, stepMs = 0 } = options;
  const left = MARGIN.left;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const [from, to] = [xs[0] ?? 0, (xs.at(-1) ?? 1) + stepMs];
  const x = (value) => left + ((value - from) / (to - from || 1)) * (right - left);
  const bars = series.filter((one) => one.kind === "bar");
  const [low, high, ticks] = scale(options, bars);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);

  const svg = s("svg", { width, height, role: "img", "aria-label": summary(options) });
  for (const tick of ticks) {
    svg.append(
      s("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: left - 8, y: y(tick) + 3.5, "text-anchor": "end" }, options.format(tick)),
    );
  }
  for (const { at, text } of timeTicks(from, to, Math.max(2, Math.floor((right - left) / 90)))) {
    svg.append(
      s(
        "text",
        { class: "tick", x: Math.min(x(at), right - 14), y: height - 6, "text-anchor": "middle" },
        text,
      ),
    );
  }
  if (bars.length) svg.append(...drawBars(bars, xs, stepMs, x, y));
  for (const one of series.filter((other) => other.kind !== "bar")) {
    const points = one.values.map((value, n) => (value === null ? null : [x(xs[n] + stepMs / 2), y(value)]));
    if (one.kind === "area")
      svg.append(s("path", { class: `area fill-${one.color}`, d: areaPath(points, y(Math.max(low, 0))) }));
    svg.append(
      s("path", { class: `line stroke-${one.color}`, d: linePath(points), "stroke-dasharray": one.dash }),
      ...lonePoints(points, one.color),
    );
  }
  if (options.threshold) svg.append(...drawThreshold(options.threshold, left, right, y));
  for (const mark of options.marks ?? []) {
    if (mark.x >= from && mark.x <= to) svg.append(...drawMark(mark, x(mark.x), MARGIN.top, bottom));
  }
  const cursor = s("line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
  const brush = s("rect", {
    class: "brush",
    y: MARGIN.top,
    height: bottom - MARGIN.top,
    visibility: "hidden",
  });
  svg.append(cursor, brush);
  const toTime = (pixel) =>
    from + ((Math.min(right, Math.max(left, pixel)) - left) / (right - left)) * (to - from);
  return { svg, width, x, toTime, cursor, brush };
}

function scale(options, bars) {
  const stacked = bars.length
    ? options.xs.map((_, n) => bars.reduce((sum, one) => sum + (one.values[n] ?? 0), 0))
    : [];
  const values = options.series
    .filter((one) => one.kind !== "bar")
    .flatMap((one) => one.values)
    .filter((value) => value !== null);
  const highest = Math.max(0, ...stacked, ...values, options.threshold?.value ?? 0);
  const lowest = Math.min(0, ...values);
  const ticks = niceTicks(lowest, highest || 1);
  return [ticks[0], ticks.at(-1), ticks];
}

/** Three to six round numbers from at or below `low` to at or above `high`, wasting least room. */
function niceTicks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 6));
  const choices = [1, 2, 2.5, 5, 10, 20].map((factor) => {
    const step = factor * power;
    const first = Math.floor(low / step + 1e-9);
    const n = Math.ceil(high / step - 1e-9) - first + 1;
    return { n, ticks: Array.from({ length: Math.min(n, 7) }, (_, index) => (first + index) * step) };
  });
  const fitting = choices.filter(({ n }) => n >= 3 && n <= 6);
  return fitting.reduce((best, one) => (extent(one.ticks) < extent(best.ticks) ? one : best)).ticks;
}

const extent = (ticks) => ticks.at(-1) - ticks[0];

function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((candidate) => (to - from) / candidate <= most) ?? TIME_STEPS.at(-1);
  const offset = new Date(from).getTimezoneOffset() * MINUTE;
  const ticks = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at < to; at += step) {
    const isMidnight = new Date(at).getHours() === 0 && new Date(at).getMinutes() === 0;
    ticks.push({ at, text: step >= 1440 * MINUTE || isMidnight ? day(at) : time(at) });
  }
  return ticks;
}

function drawBars(bars, xs, stepMs, x, y) {
  const nodes = [];
  xs.forEach((at, n) => {
    let base = 0;
    const [begin, end] = [x(at), x(at + stepMs)];
    const gap = end - begin > 4 ? 1.5 : 0.4;
    const isOpen = n === xs.length - 1;
    for (const one of bars) {
      const value = one.values[n] ?? 0;
      if (!value) continue;
      // One error among thousands of calls is still to be seen.
      const size = Math.max(1.5, y(base) - y(base + value));
      nodes.push(
        s("rect", {
          class: `bar fill-${one.color}${isOpen ? " open" : ""}`,
          x: begin + gap / 2,
          width: Math.max(0.6, end - begin - gap),
          y: y(base) - size,
          height: size,
        }),
      );
      base += value;
    }
  });
  return nodes;
}

function drawThreshold({ value, label }, left, right, y) {
  return [
    s("line", { class: "threshold", x1: left, x2: right, y1: y(value), y2: y(value) }),
    s("text", { class: "threshold-label", x: left + 4, y: y(value) - 5 }, label),
  ];
}

function drawMark({ label }, at, top, bottom) {
  return [
    s("line", { class: "mark", x1: at, x2: at, y1: top, y2: bottom }),
    s("path", { class: "mark-head", d: `M${at - 5} ${top}h10l-5 8z` }, s("title", null, label)),
  ];
}

function linePath(points) {
  let path = "";
  let pen = "M";
  for (const point of points) {
    if (point === null) pen = "M";
    else {
      path += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      pen = "L";
    }
  }
  return path;
}

function areaPath(points, bottom) {
  return runs(points)
    .map((run) => `${linePath(run)}L${run.at(-1)[0].toFixed(1)} ${bottom}L${run[0][0].toFixed(1)} ${bottom}Z`)
    .join("");
}

function lonePoints(points, color) {
  return runs(points)
    .filter((run) => run.length === 1)
    .map(([[cx, cy]]) => s("circle", { class: `fill-${color}`, cx, cy, r: 2 }));
}

/** Cut points into stretches without gaps. */
function runs(points) {
  const found = [];
  points.forEach((point, n) => {
    if (point === null) return;
    if (n === 0 || points[n - 1] === null) found.push([]);
    found.at(-1).push(point);
  });
  return found;
}

function summary({ label, series, format }) {
  const parts = series.map((one) => {
    const known = one.values.filter((value) => value !== null);
    if (!known.length) return `${one.name}: no values`;
    return `${one.name}: last ${format(known.at(-1))}, lowest ${format(Math.min(...known))}, highest ${format(Math.max(...known))}`;
  });
  return `${label}. ${parts.join("; ")}.`;
}

function addPointing(root, tooltip, options, drawn) {
  const { xs, stepMs = 0 } = options;
  let index = -1;
  let dragFrom = null;

  const show = (next) => {
    if (!drawn() || !xs.length) return;
    index = Math.min(xs.length - 1, Math.max(0, next));
    const at = drawn().x(xs[index] + stepMs / 2);
    drawn().cursor.setAttribute("transform", `translate(${at})`);
    drawn().cursor.setAttribute("visibility", "visible");
    fillTooltip(tooltip, options, index);
    const isLeft = at > root.clientWidth * 0.6;
    tooltip.style.setProperty(
      "transform",
      `translate(calc(${Math.round(at)}px ${isLeft ? "- 100% - 12px" : "+ 12px"}), 8px)`,
    );
  };
  const hide = () => {
    tooltip.hidden = true;
    drawn()?.cursor.setAttribute("visibility", "hidden");
    drawn()?.brush.setAttribute("visibility", "hidden");
    index = -1;
    dragFrom = null;
  };
  const pixel = (event) => event.clientX - root.getBoundingClientRect().left;

  root.addEventListener("pointermove", (event) => {
    if (!drawn()) return;
    show(nearest(xs, drawn().toTime(pixel(event)) - stepMs / 2));
    if (dragFrom === null) return;
    const [begin, end] = [dragFrom, pixel(event)].sort((a, b) => a - b);
    drawn().brush.setAttribute("x", begin);
    drawn().brush.setAttribute("width", end - begin);
    drawn().brush.setAttribute("visibility", "visible");
  });
  root.addEventListener("pointerdown", (event) => {
    if (options.onZoom && event.pointerType === "mouse") dragFrom = pixel(event);
  });
  root.addEventListener("pointerup", (event) => {
    if (dragFrom === null) return;
    const [begin, end] = [dragFrom, pixel(event)].sort((a, b) => a - b);
    const range = [drawn().toTime(begin), drawn().toTime(end)];
    hide();
    if (end - begin > 6 && range[1] - range[0] >= MINUTE) options.onZoom(...range.map(Math.round));
  });
  root.addEventListener("pointerleave", hide);
  root.addEventListener("blur", hide);
  root.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(index + 1);
    else if (event.key === "ArrowLeft") show(index < 0 ? xs.length - 1 : index - 1);
    else if (event.key === "Escape") hide();
    else return;
    event.preventDefault();
  });
}

function fillTooltip(tooltip, { xs, series, format, stepMs = 0 }, index) {
  const isOpen = stepMs > 0 && index === xs.length - 1;
  const rows = series.map((one) =>
    h(
      "div",
      { class: "tooltip-row" },
      swatch(one),
      h("span", null, one.name),
      h("b", null, one.values[index] === null ? "–" : format(one.values[index])),
    ),
  );
  tooltip.replaceChildren(
    h("div", { class: "tooltip-head" }, dateTime(xs[index]), isOpen ? " (not over yet)" : ""),
    ...rows,
  );
  tooltip.hidden = false;
}

function nearest(xs, value) {
  let best = 0;
  xs.forEach((at, n) => {
    if (Math.abs(at - value) < Math.abs(xs[best] - value)) best = n;
  });
  return best;
}
