// The frame of all pages: the way by hash, keys, theme and language.

import { h } from "./dom.js";
import { showItem } from "./item.js";
import { showItems } from "./items.js";
import { showLabels } from "./label.js";
import { showOverview } from "./overview.js";
import { hashOf, readHash } from "./routes.js";
import { showRuns } from "./runs.js";
import { isFile, load } from "./source.js";
import { language, setLanguage, t } from "./strings.js";

const PAGES = { runs: showRuns, overview: showOverview, items: showItems, item: showItem, label: showLabels };
const THEMES = ["auto", "light", "dark"];

let keys = {}; // of the page that is shown: key → action
let shown = 0; // counts pages, so that one that was left is not drawn late
let about = { who: "" };

function recall(name, otherwise) {
  try {
    return localStorage.getItem(`lrq.${name}`) || otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`lrq.${name}`, value);
  } catch {
    // a page from a file may have no storage: the choice holds until it is closed
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  keep("theme", theme);
}

function nextTheme() {
  const at = THEMES.indexOf(document.documentElement.dataset.theme);
  setTheme(THEMES[(at + 1) % THEMES.length]);
  return show();
}

function nextLanguage() {
  setLanguage(language() === "zh" ? "en" : "zh");
  keep("language", language());
  return show();
}

function header(route) {
  const link = (page, words) => {
    const current = route.page === page || (page === "items" && route.page === "item");
    return h("a", { href: hashOf({ run: route.run, page }), "aria-current": current ? "page" : null }, words);
  };
  const way = route.run
    ? [h("span", { class: "run-name", title: route.run }, route.run), link("overview", t("Overview")), link("items", t("Items")), about.who ? link("label", t("Label")) : null]
    : [];
  const theme = document.documentElement.dataset.theme;
  return h("header", { class: "top" },
    h("a", { class: "brand", href: "#/", "aria-label": t("All runs") }, "lrq"),
    h("nav", { "aria-label": t("Pages of the run") }, way),
    h("div", { class: "tools" },
      h("button", { type: "button", onclick: nextLanguage, title: t("language") + " (l)" }, language() === "zh" ? "English" : "中文"),
      h("button", { type: "button", onclick: nextTheme, title: t("light or dark") + " (t)" }, { auto: "◐", light: "☀", dark: "☾" }[theme], h("span", { class: "hidden" }, t("light or dark"))),
      h("button", { type: "button", onclick: showHelp, title: t("keys") + " (?)" }, "?", h("span", { class: "hidden" }, t("keys")))));
}

// `inPlace`: the same page with newer figures; it stays where it is.
async function show(inPlace = false) {
  const number = ++shown;
  const route = readHash(location.hash);
  const main = h("main", { id: "main", tabindex: -1 }, h("p", { class: "note", role: "status" }, t("Loading …")));
  const app = document.getElementById("app");
  document.documentElement.lang = language();
  document.title = [route.run, "lrq"].filter(Boolean).join(" · ");
  const nextKeys = {};
  const late = inPlace ? 0 : setTimeout(() => app.replaceChildren(header(route), main), app.childElementCount ? 150 : 0);
  let content;
  try {
    content = await PAGES[route.page](route, nextKeys, about);
  } catch (error) {
    if (inPlace) return; // the next look may find the server again
    content = h("div", { class: "card error", role: "alert" }, h("h1", {}, t("This page cannot be shown")), h("p", {}, error.message));
  }
  clearTimeout(late);
  if (number !== shown || (inPlace && isBusy())) return;
  const height = scrollY;
  keys = nextKeys;
  main.replaceChildren(content);
  app.replaceChildren(header(route), main);
  window.scrollTo(0, inPlace ? height : 0);
  document.documentElement.dataset.ready = String(number);
}

// ----- newer figures while runs work

const LIVE = ["runs", "overview", "items"];
const LOOK_EVERY = 3_000; // milliseconds
let seen = { run: null, stamp: "" };

// A reader who selects, types or has something open is not disturbed.
function isBusy() {
  const at = document.activeElement;
  return String(getSelection()) !== "" || document.querySelector("dialog[open]") !== null || (at !== null && at.matches("input, textarea, select, tr, tbody a"));
}

async function look() {
  const route = readHash(location.hash);
  if (document.hidden || !LIVE.includes(route.page)) return;
  const run = route.run || "";
  const { stamp } = await load("stamp", { run }).catch(() => seen);
  const isNewer = seen.run === run && seen.stamp !== stamp;
  if (isNewer && isBusy()) return;
  seen = { run, stamp };
  if (isNewer) await show(true);
}

// ----- keys

const COMMON = { "?": showHelp, t: nextTheme, l: nextLanguage };

function onKey(event) {
  const inField = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && inField) return inField.blur();
  if (inField || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return undefined;
  if (event.key === " " && event.target.closest("button, a, summary")) return undefined;
  const digit = /^Digit(\d)$/.exec(event.code);
  const name = digit && event.shiftKey ? `shift ${digit[1]}` : event.key;
  const action = keys[name] || COMMON[name];
  if (!action) return undefined;
  event.preventDefault();
  return action();
}

const HELP = [
  ["j, k", "next and previous"],
  ["Enter", "open"],
  ["/", "search"],
  ["1 – 9", "put this response on the right; with Shift on the left"],
  ["d", "document"],
  ["o, i", "overview, items"],
  ["Esc", "one level up"],
  ["t, l", "theme, language"],
];
const LABEL_HELP = [
  ["1, 2", "the left, the right one is better"],
  ["0", "a tie"],
  ["Space", "skip"],
  ["u", "take the last label back"],
];

function showHelp() {
  const rows = readHash(location.hash).page === "label" ? [...LABEL_HELP, ...HELP.slice(4)] : HELP;
  const list = rows.map(([key, words]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, t(words))));
  const close = h("button", { type: "button", autofocus: true, onclick: () => box.close() }, t("Close"));
  const box = h("dialog", { class: "help", "aria-label": t("keys"), onclose: () => box.remove() }, h("h2", {}, t("Keys")), h("dl", {}, list), close);
  document.body.append(box);
  box.showModal();
}

async function start() {
  setTheme(recall("theme", "auto"));
  setLanguage(recall("language", navigator.language.startsWith("zh") ? "zh" : "en"));
  addEventListener("hashchange", () => show());
  addEventListener("keydown", onKey);
  about = await load("about").catch(() => about);
  await show();
  if (!isFile()) setInterval(look, LOOK_EVERY);
}

start();
