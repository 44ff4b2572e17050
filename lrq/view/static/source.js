// Where facts come from: the server of `lrq view`, or the blocks of data within a file of `lrq report -o`.

import { matches, compareBy } from "./query.js";

export const isFile = () => document.getElementById("data") !== null;

let whole = null;

async function unpack(element) {
  const packed = Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).json();
}

async function embedded() {
  whole = whole || (await unpack(document.getElementById("data")));
  return whole;
}

async function fromFile(name, parameters) {
  const data = await embedded();
  if (name === "items") return listEmbedded(data.items, parameters);
  if (name === "item") {
    const element = document.getElementById(`item-${parameters.id}`);
    if (!element) throw new Error("this item is not in the file");
    return unpack(element);
  }
  if (name === "document") return documentEmbedded(parameters);
  return data[name];
}

function listEmbedded(items, { query, sort, descending, offset = 0, limit = 50 }) {
  const found = items.filter((item) => matches(item, query));
  if (sort && sort !== "line") found.sort(compareBy(sort, descending));
  else if (descending) found.reverse();
  return { total: found.length, offset, items: found.slice(offset, offset + limit) };
}

async function documentEmbedded({ hash, start, end }) {
  const element = document.getElementById(`document-${hash}`);
  if (!element) return { start: 0, length: 0, text: "", missing: true };
  const text = await unpack(element);
  const points = /[\ud800-\udfff]/.test(text) ? Array.from(text) : text;
  const part = points.slice(start, end);
  return { start, length: points.length, text: typeof part === "string" ? part : part.join("") };
}

async function fromServer(name, parameters, method = "GET", body = null) {
  const { query, ...plain } = parameters;
  if (query) {
    Object.assign(plain, { text: query.text, state: query.state, reason: query.reason });
    plain.where = JSON.stringify(query.where);
    plain.ranges = JSON.stringify(query.ranges);
    plain.descending = plain.descending ? "1" : "";
  }
  const options = { method, headers: { Accept: "application/json" } };
  if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const answer = await fetch(`api/${name}?${new URLSearchParams(plain)}`, options);
  if (!answer.headers.get("Content-Type").startsWith("application/json")) throw new Error(await answer.text());
  const facts = await answer.json();
  if (!answer.ok) throw new Error(facts.error);
  return facts;
}

export function load(name, parameters = {}) {
  return isFile() ? fromFile(name, parameters) : fromServer(name, parameters);
}

export function send(method, name, parameters, body) {
  return fromServer(name, parameters, method, body);
}
