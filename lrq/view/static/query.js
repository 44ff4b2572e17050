// What is typed into the search box: words, and figures with their bounds.
//   ship colour margin<0.5 faithfulness>=8 state:done reason:"cut off"
// A bound is on the item's mean; faithfulness:3..4 finds items of which some response has a value there.

const TOKEN = /(?:(state|reason):)?("[^"]*"|\S+)/gu;
const RANGE = /^([\p{L}\p{N}_./-]+):(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)$/u;
const FIGURE = /^([\p{L}\p{N}_./-]+)(<=|>=|<|>|=)(-?\d+(?:\.\d+)?)$/u;

export function parseQuery(text) {
  const query = { text: "", state: "", reason: "", where: [], ranges: [] };
  const words = [];
  for (const [, field, word] of text.matchAll(TOKEN)) {
    const plain = word.replace(/^"|"$/g, "");
    const figure = FIGURE.exec(word);
    const range = RANGE.exec(word);
    if (range) query.ranges.push([range[1], Number(range[2]), Number(range[3])]);
    else if (field) query[field] = plain;
    else if (figure) query.where.push([figure[1], figure[2], Number(figure[3])]);
    else words.push(plain);
  }
  query.text = words.join(" ");
  return query;
}

const COMPARISONS = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
};

export function figureOf(item, name) {
  const value = item[name];
  if (typeof value === "number") return value;
  const dimension = item.dimensions[name];
  return typeof dimension === "number" ? dimension : null;
}

// The same as the server's, for lists that lie within the page.
export function matches(item, query) {
  const has = (text, part) => text.toLowerCase().includes(part.toLowerCase());
  const reasons = [item.reason, ...(item.reasons || [])].join("\n");
  if (query.text && !has(`${item.id}\n${item.question}`, query.text)) return false;
  if (query.state && item.state !== query.state) return false;
  if (query.reason && !has(reasons, query.reason)) return false;
  const isWithin = ([name, low, high]) => (item.values[name] || []).some((value) => value >= low && value <= high);
  return query.ranges.every(isWithin) && query.where.every(([name, operator, bound]) => {
    const value = figureOf(item, name);
    return value !== null && COMPARISONS[operator](value, bound);
  });
}

export function compareBy(name, descending) {
  return (one, other) => {
    const [a, b] = [figureOf(one, name), figureOf(other, name)];
    if (a === null || b === null) return (a === null) - (b === null);
    return descending ? b - a : a - b;
  };
}
