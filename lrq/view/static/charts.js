// Small charts as SVG, drawn by hand: a histogram, points, lines.

import { h, svg } from "./dom.js";
import { count, figure, short } from "./format.js";
import { t } from "./strings.js";

const NARROW = { width: 320, height: 128 };
const WIDE = { width: 560, height: 236 };
const FRAME = { left: 34, right: 8, top: 8, bottom: 22 };

function frame(label, size, ...children) {
  return svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, class: "chart", role: "img", "aria-label": label }, ...children);
}

function scales(low, high, bottom, top, size = NARROW) {
  const [wide, tall] = [size.width - FRAME.left - FRAME.right, size.height - FRAME.top - FRAME.bottom];
  return {
    size,
    x: (value) => FRAME.left + (wide * (value - low)) / (high - low || 1),
    y: (value) => size.height - FRAME.bottom - (tall * (value - bottom)) / (top - bottom || 1),
  };
}

function axes(scale, [low, high], [bottom, top], words = short) {
  const across = [low, (low + high) / 2, high].map((value, n) =>
    svg("text", { x: scale.x(value), y: scale.size.height - 6, class: "tick", "text-anchor": ["start", "middle", "end"][n] }, words(value)),
  );
  const up = [bottom, top].map((value) =>
    svg("text", { x: FRAME.left - 5, y: scale.y(value) + 4, class: "tick", "text-anchor": "end" }, compact(value)),
  );
  const base = svg("line", { x1: FRAME.left, x2: scale.size.width - FRAME.right, y1: scale.y(bottom), y2: scale.y(bottom), class: "axis" });
  return [base, ...across, ...up];
}

function compact(value) {
  if (Math.abs(value) >= 1_000) return `${short(Math.round(value / 100) / 10)}k`;
  return Math.abs(value) > 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : short(Math.round(100 * value) / 100);
}

// `data` as of lrq.reports.charts.histogram; `pick(low, high)` is called for the bar that was chosen.
export function histogram(name, data, pick = null) {
  const top = Math.max(...data.counts, 1);
  const scale = scales(data.low, data.high, 0, top);
  const width = (data.high - data.low) / data.counts.length;
  const bars = data.counts.map((number, n) => {
    const [low, high] = [data.low + n * width, data.low + (n + 1) * width];
    const tall = scale.y(0) - scale.y(number);
    const bar = { x: scale.x(low) + 0.75, y: scale.y(number), width: scale.x(high) - scale.x(low) - 1.5, height: tall, rx: 1.5 };
    const title = svg("title", {}, `${figure(low)} – ${figure(high)}: ${count(number)}`);
    const space = { x: bar.x, y: FRAME.top, width: bar.width, height: scale.y(0) - FRAME.top, class: "hit" };
    const click = pick && number ? { onclick: () => pick(low, high), class: "bar picks" } : { class: "bar" };
    return svg("g", click, svg("rect", space), svg("rect", bar), title);
  });
  const mean = scale.x(data.mean);
  const line = svg("line", { x1: mean, x2: mean, y1: FRAME.top - 4, y2: scale.y(0), class: "mean" });
  const [first, middle, third] = data.quartiles;
  const box = svg("line", { x1: scale.x(first), x2: scale.x(third), y1: scale.y(0) + 3, y2: scale.y(0) + 3, class: "quartiles" });
  const words = t("{0}: mean {1}, median {2}, {3} values", name, figure(data.mean), figure(middle), count(data.values));
  return frame(words, NARROW, ...bars, line, box, ...axes(scale, [data.low, data.high], [0, top]));
}

// Points as [x, y, …]; `pick(point)` for the one that was chosen.
export function scatter(label, points, pick) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const [bottom, top] = [Math.min(0, ...ys), Math.max(...ys)];
  const scale = scales(low, high, bottom, top, WIDE);
  const dots = points.map((point) =>
    svg("circle", { cx: scale.x(point[0]), cy: scale.y(point[1]), r: 2.6, class: "dot", onclick: () => pick(point) },
      svg("title", {}, `${count(point[0])} · ${figure(point[1])}`)),
  );
  return frame(label, WIDE, ...axes(scale, [low, high], [bottom, top], count), ...dots);
}

// Lines as {name: [[x, y], …]}.
export function lines(label, series) {
  const all = Object.values(series).flat().filter(([, y]) => Number.isFinite(y));
  const [low, high] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
  const [bottom, top] = [Math.min(...all.map(([, y]) => y)), Math.max(...all.map(([, y]) => y))];
  const scale = scales(low, high, bottom, top);
  const paths = Object.entries(series).map(([name, points], n) => {
    const path = points.map(([x, y], at) => `${at ? "L" : "M"}${scale.x(x).toFixed(1)} ${scale.y(y).toFixed(1)}`).join("");
    const last = points[points.length - 1];
    const end = svg("circle", { cx: scale.x(last[0]), cy: scale.y(last[1]), r: 2.6, class: `end line-${n % 4}` });
    return svg("g", {}, svg("path", { d: path, class: `line line-${n % 4}` }), end, svg("title", {}, `${name}: ${short(last[1])}`));
  });
  return frame(label, NARROW, ...axes(scale, [low, high], [bottom, top], count), ...paths);
}

// A table of numbers between `low` and `high`, tinted; below the middle in another colour where `isSigned`.
export function heatTable(rowNames, columnNames, matrix, { low = 0, high = 1, words = figure, isSigned = false, corner = "" } = {}) {
  const cell = (value) => {
    if (value === null || value === undefined) return h("td", { class: "heat none" }, "–");
    const share = isSigned ? Math.abs(value) / high : (value - low) / (high - low || 1);
    return h("td", { class: `heat ${isSigned && value < 0 ? "negative" : ""}`, "--v": share.toFixed(3) }, words(value));
  };
  const head = h("tr", {}, h("th", { scope: "col" }, corner || h("span", { class: "hidden" }, t("name"))), columnNames.map((name) => h("th", { scope: "col" }, name)));
  const body = matrix.map((row, n) => h("tr", {}, h("th", { scope: "row" }, rowNames[n]), row.map(cell)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("table") }, h("table", { class: "heat-table" }, h("thead", {}, head), h("tbody", {}, body)));
}

export function card(title, note, ...content) {
  return h("section", { class: "card" }, h("h3", {}, title), note ? h("p", { class: "note" }, note) : null, ...content);
}
