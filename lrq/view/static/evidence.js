// Evidence of any recipe: nested JSON, drawn by what its parts are called and look like.
//   text or criteria with value, mark, reason → a finding with its verdict
//   passages, spans, chunk, span → quotations from the document
//   calls → the judge's words
//   a square of numbers → a table of who beats whom

import { heatTable } from "./charts.js";
import { chip, h, prose } from "./dom.js";
import { figure, isNumber } from "./format.js";
import { t } from "./strings.js";

const SPANS = new Set(["passages", "spans", "chunk", "span"]);
const TEXTS = ["text", "criteria", "statement", "question", "point"];
const QUIET = new Set(["language"]); // of no interest to a reader

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isSpan = (value) => Array.isArray(value) && value.length === 2 && value.every(Number.isInteger);
const isSquare = (value) => Array.isArray(value) && value.length > 1 && value.every((row) => Array.isArray(row) && row.length === value.length && row.every((cell) => cell === null || isNumber(cell)));
const humane = (name) => t(name.replaceAll("_", " "));

// `scene`: {calls: Map of key → call, excerpts: Map of "start-end" → text, reader}
export function drawEvidence(evidence, scene) {
  const parts = Object.entries(evidence).filter(([name]) => !QUIET.has(name));
  const [tables, others] = [parts.filter(([, value]) => isSquare(value)), parts.filter(([, value]) => !isSquare(value))];
  return [...tables, ...others].map(([name, value]) => drawPart(name, value, scene, evidence));
}

function drawPart(name, value, scene, whole = {}) {
  if (value === null || value === "" || (Array.isArray(value) && !value.length)) return null;
  if (name === "calls") return words(value, scene);
  if (SPANS.has(name)) return quotations(isSpan(value) ? [value] : value, scene);
  if (isSquare(value)) return square(name, value, whole);
  if (Array.isArray(value)) return list(name, value, scene);
  if (isObject(value)) return h("div", { class: "part" }, h("h5", {}, humane(name)), finding(value, scene));
  return h("p", { class: "pair" }, h("span", { class: "name" }, humane(name)), " ", typeof value === "number" && !Number.isInteger(value) ? figure(value) : String(value));
}

function list(name, values, scene) {
  if (!values.some((value) => typeof value === "object" && value !== null)) {
    return h("p", { class: "pair" }, h("span", { class: "name" }, humane(name)), " ", values.join(", "));
  }
  const drawn = values.map((value) => h("li", {}, isObject(value) ? finding(value, scene) : Array.isArray(value) ? value.join(", ") : String(value)));
  const many = values.length > 12;
  const isDense = values.every((value) => isObject(value) && isSpan(value.order));
  const body = h("ol", { class: isDense ? "findings dense" : "findings" }, drawn);
  const heading = `${humane(name)} (${values.length})`;
  return many ? h("details", { class: "part" }, h("summary", {}, heading), body) : h("div", { class: "part" }, h("h5", {}, heading), body);
}

// One thing that was judged: its text, the verdict on it, and what led there.
function finding(value, scene) {
  const textName = TEXTS.find((name) => typeof value[name] === "string");
  const shown = new Set([textName, "value", "mark", "reason", "found", "order"]);
  const rest = Object.fromEntries(Object.entries(value).filter(([name]) => !shown.has(name)));
  return h("div", { class: `finding ${tone(value)}` },
    h("div", { class: "finding-head" }, verdict(value), textName ? h("span", { class: "finding-text", dir: "auto" }, value[textName]) : null,
      isSpan(value.order) ? h("span", {}, t("{0} against {1}", value.order[0], value.order[1])) : null),
    value.reason ? h("p", { class: "note" }, value.reason) : null,
    drawEvidence(rest, { ...scene, text: textName ? value[textName] : "" }));
}

function verdict(value) {
  if (typeof value.mark === "string") return chip(t(value.mark), tone(value));
  if (isNumber(value.value)) return chip(figure(value.value), tone(value));
  if ("found" in value) return chip(value.found ? t("found") : t("nothing found"), value.found ? "good" : "");
  return "value" in value || value.reason ? chip(t("unscored"), "bad") : null;
}

function tone(value) {
  if (!isNumber(value.value) || value.value < 0 || value.value > 1) return "";
  return value.value > 0.99 ? "good" : value.value < 0.01 ? "bad" : "half";
}

function quotations(spans, scene) {
  const quote = ([start, end]) => {
    const text = scene.excerpts.get(`${start}-${end}`);
    if (text === undefined) return null;
    const label = t("show in the document, {0} to {1}", start, end);
    return h("li", {}, h("button", { type: "button", class: "quote", title: label, onclick: () => scene.reader.open([start, end], spans.filter(isSpan), scene.text) }, h("span", { class: "quote-text", dir: "auto" }, text.length > 600 ? `${text.slice(0, 600)}…` : text)));
  };
  const quotes = spans.filter(isSpan).map(quote);
  return h("details", { class: "part" }, h("summary", {}, t("passages ({0})", quotes.length)), h("ul", { class: "quotes" }, quotes));
}

// The judge's words that counted: those of the last attempt.
function words(keys, scene) {
  const call = scene.calls.get(keys[keys.length - 1]);
  if (!call) return null;
  const reasoning = call.reasoning.length ? h("details", {}, h("summary", {}, t("the judge's reasoning")), prose(call.reasoning.join("\n"), "judge")) : null;
  const again = keys.length > 1 ? chip(t("asked {0} times", keys.length), "half") : null;
  const isShort = call.reply.join("").length <= 280;
  return h("details", { class: "part words", open: isShort && !scene.text }, h("summary", {}, t("the judge's words"), " ", again),
    reasoning, prose(call.reply.join("\n"), "judge"),
    h("button", { type: "button", class: "call-link", onclick: () => showCall(call.key) }, t("call"), ` ${call.key.slice(0, 6)}`));
}

function showCall(key) {
  const row = document.getElementById(`call-${key}`);
  if (!row) return;
  row.closest("details").open = true;
  row.scrollIntoView({ block: "center" });
  row.focus();
}

function square(name, matrix, whole) {
  const ks = Array.isArray(whole.responses) && whole.responses.length === matrix.length ? whole.responses : matrix.map((_, n) => n);
  return h("div", { class: "part" }, h("h5", {}, humane(name)), h("p", { class: "note" }, t("How often the response of the row beats that of the column.")), heatTable(ks, ks, matrix));
}
