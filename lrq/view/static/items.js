// The items of a run: searched, filtered, sorted, paged.

import { chip, h } from "./dom.js";
import { count, figure } from "./format.js";
import { parseQuery } from "./query.js";
import { goTo, hashOf, listKeys, runKeys } from "./routes.js";
import { load } from "./source.js";
import { t } from "./strings.js";

const PAGE = 50;
const FIGURES = ["reward", "best", "worst", "margin", "disagreement"];

// The list that an address names; an item's address names it too, so that j and k go along it.
export function listOf(parameters) {
  const { q = "", sort = "line", down = "" } = parameters;
  return { query: parseQuery(q), sort, descending: down === "1" };
}

export async function showItems(route, keys, about) {
  const { run, parameters } = route;
  const offset = Math.max(0, Number(parameters.from || 0));
  const list = await load("items", { run, ...listOf(parameters), offset, limit: PAGE });
  const names = [...new Set(list.items.flatMap((item) => Object.keys(item.dimensions)))].sort();
  const search = searchForm(run, parameters, names);
  const rows = list.items.map((item, n) => itemRow(run, item, names, { q: parameters.q, sort: parameters.sort, down: parameters.down, at: offset + n }));
  runKeys(keys, run, { run, page: "overview" });
  listKeys(keys, rows.map((row) => row.querySelector("a")));
  keys["/"] = () => search.querySelector("input").focus();
  keys.n = () => offset + PAGE < list.total && goTo({ run, page: "items", ...parameters, from: offset + PAGE });
  keys.p = () => offset > 0 && goTo({ run, page: "items", ...parameters, from: Math.max(0, offset - PAGE) });
  if (parameters.find) setTimeout(keys["/"], 0);
  return h("div", {},
    h("div", { class: "heading" }, h("h1", {}, t("Items")), h("span", { class: "note", role: "status" }, t("{0} found", count(list.total)), about.items < about.of ? ` · ${t("this file holds {0} of {1} items", count(about.items), count(about.of))}` : "")),
    search,
    list.items.length ? itemTable(run, parameters, names, rows) : h("p", { class: "card" }, t("No item is like this.")),
    pager(run, parameters, offset, list.total));
}

function searchForm(run, parameters, names) {
  const input = h("input", { type: "search", name: "q", value: parameters.q || "", placeholder: t("words, or bounds like margin<0.5 faithfulness>=8"), "aria-label": t("search"), autocomplete: "off", spellcheck: "false" });
  const submit = (event) => {
    event.preventDefault();
    goTo({ run, page: "items", ...parameters, find: "", from: "", q: input.value.trim() });
  };
  const add = (words) => h("button", { type: "button", class: "hint", onclick: () => {
    input.value = `${input.value} ${words}`.trim();
    input.focus();
  } }, words);
  const hints = ["margin<0.5", "disagreement>3", "unscored>0", "state:failed", ...(names.length ? [`${names[0]}<5`] : [])];
  return h("form", { class: "search", role: "search", onsubmit: submit }, input, h("button", { type: "submit" }, t("Search")), h("div", { class: "hints" }, h("span", { class: "note" }, t("try")), hints.map(add)));
}

function itemTable(run, parameters, names, rows) {
  const { sort = "line", down = "" } = parameters;
  const head = (name, words) => {
    const isSorted = sort === name;
    const next = { sort: name, down: isSorted && !down ? "1" : "", from: "", find: "" };
    const arrow = isSorted ? (down ? " ↓" : " ↑") : "";
    const order = isSorted ? (down ? "descending" : "ascending") : null;
    return h("th", { scope: "col", "aria-sort": order }, h("a", { href: hashOf({ run, page: "items", ...parameters, ...next }) }, words + arrow));
  };
  const columns = [head("line", t("item")), ...FIGURES.map((name) => head(name, t(name))), ...names.map((name) => head(name, name)), head("unscored", t("unscored"))];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("Items") }, h("table", { class: "items" }, h("thead", {}, h("tr", {}, columns)), h("tbody", {}, rows)));
}

function itemRow(run, item, names, place) {
  const href = hashOf({ run, page: "item", item: item.number, ...place });
  const state = item.state === "done" && !item.reason ? null : chip(t(item.state), item.state, item.reason);
  const means = Object.values(item.dimensions).filter((value) => value !== null);
  const top = means.some((value) => value > 5) ? 10 : means.some((value) => value > 1) ? 5 : 1;
  const tinted = (value) => h("td", { class: value === null || value === undefined ? "heat none" : "heat", "--v": ((value || 0) / top).toFixed(3) }, figure(value));
  return h("tr", {},
    h("th", { scope: "row" }, h("div", {}, h("a", { href }, item.id), state), h("span", { class: "question", dir: "auto" }, item.question || item.reason)),
    FIGURES.map((name) => h("td", {}, figure(item[name]))),
    names.map((name) => tinted(item.dimensions[name])),
    h("td", {}, item.unscored ? chip(count(item.unscored), "failed") : "–"));
}

function pager(run, parameters, offset, total) {
  if (total <= PAGE) return null;
  const link = (from, words) => (from < 0 || from >= total ? h("span", { class: "note" }, words) : h("a", { href: hashOf({ run, page: "items", ...parameters, find: "", from }) }, words));
  const last = Math.min(offset + PAGE, total);
  return h("nav", { class: "pager", "aria-label": t("Pages of the list") },
    link(offset - PAGE, t("← previous (p)")),
    h("span", {}, t("{0} to {1} of {2}", count(offset + 1), count(last), count(total))),
    link(offset + PAGE, t("next (n) →")));
}
