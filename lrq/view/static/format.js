// Numbers for people, in the language of the page.

import { language, t } from "./strings.js";

const formats = new Map();

function number(value, digits, least = 0) {
  const key = `${language()} ${digits} ${least}`;
  if (!formats.has(key)) {
    const options = { maximumFractionDigits: digits, minimumFractionDigits: least };
    formats.set(key, new Intl.NumberFormat(language(), options));
  }
  return formats.get(key).format(value);
}

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const count = (value) => (isNumber(value) ? number(value, 0) : "–");
export const figure = (value) => (isNumber(value) ? number(value, 2, 2) : "–");
export const percent = (value) => (isNumber(value) ? `${number(100 * value, 0)} %` : "–");
export const short = (value) => (Math.abs(value) >= 1e-3 || value === 0 ? number(value, 4) : value.toExponential(2));

export function money(value) {
  if (!isNumber(value)) return t("unpriced");
  return number(value, value !== 0 && Math.abs(value) < 0.01 ? 6 : 4, 2);
}

export function duration(value) {
  if (!isNumber(value)) return "–";
  if (value < 1) return `${number(1000 * value, 0)} ms`;
  if (value < 90) return `${number(value, 1)} s`;
  return value < 5400 ? `${number(value / 60, 1)} min` : `${number(value / 3600, 1)} h`;
}

export function when(seconds) {
  const options = { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(language(), options).format(new Date(1000 * seconds));
}
