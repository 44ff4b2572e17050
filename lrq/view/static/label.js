// Pairs for a person to compare, one after the other; one key each.

import { h, prose } from "./dom.js";
import { diffTexts } from "./diff.js";
import { count } from "./format.js";
import { Reader } from "./reader.js";
import { runKeys } from "./routes.js";
import { load, send } from "./source.js";
import { t } from "./strings.js";

const CHOICES = { 1: "left", 2: "right", 0: "tie" };

export async function showLabels(route, keys, about) {
  const { run } = route;
  runKeys(keys, run, { run, page: "overview" });
  if (!about.who) return h("div", { class: "card" }, h("h1", {}, t("Label")), h("p", {}, t("This viewer only reads; `lrq label RUN` takes labels.")));
  const session = { run, keys, skipped: [], last: null, box: h("div", {}), isBusy: false };
  await nextOne(session);
  return session.box;
}

async function nextOne(session) {
  const facts = await load("label", { run: session.run, skipped: session.skipped.join(",") });
  const { pair } = facts;
  for (const key of ["1", "2", "0", " ", "d"]) delete session.keys[key];
  session.keys.u = () => takeBack(session);
  const status = h("p", { class: "note", role: "status" }, t("{0}: {1} labelled, {2} to go", facts.who, count(facts.labelled), count(facts.left)));
  if (!pair) {
    session.box.replaceChildren(h("h1", {}, t("Label")), status, h("p", { class: "card" }, t("There is no pair left to compare.")));
    return;
  }
  for (const [key, choice] of Object.entries(CHOICES)) session.keys[key] = () => give(session, pair, choice);
  session.keys[" "] = () => skip(session, pair);
  const reader = new Reader({ number: pair.item, document: "", context_chars: pair.context_chars }, []);
  session.keys.d = () => reader.toggle();
  const [left, right] = diffTexts(pair.left.text, pair.right.text);
  const side = (name, parts, key, choice) =>
    h("article", { class: "card column" }, h("h2", { class: "label" }, name), h("div", { class: "prose answer", dir: "auto" }, parts.map(([words, only]) => (only ? h("mark", { class: "only" }, words) : words))),
      h("button", { type: "button", class: "choice", onclick: () => give(session, pair, choice) }, h("kbd", {}, key), " ", t("this one is better")));
  session.box.replaceChildren(h("div", { class: "with-reader" },
    h("div", { class: "item labelling" },
      h("div", { class: "heading" }, h("h1", {}, t("Which answer is better?")), status),
      h("section", { class: "card question-card" }, h("h2", { class: "label" }, t("Question"), " · ", pair.id), prose(pair.question, "asked"),
        pair.context_chars ? h("button", { type: "button", onclick: () => reader.toggle() }, t("Document, {0} characters (d)", count(pair.context_chars))) : null),
      h("div", { class: "columns" }, side(t("Left"), left, "1", "left"), side(t("Right"), right, "2", "right")),
      h("div", { class: "choices" },
        h("button", { type: "button", onclick: () => give(session, pair, "tie") }, h("kbd", {}, "0"), " ", t("a tie")),
        h("button", { type: "button", onclick: () => skip(session, pair) }, h("kbd", {}, t("Space")), " ", t("skip")),
        session.last ? h("button", { type: "button", onclick: () => takeBack(session) }, h("kbd", {}, "u"), " ", t("take the last label back")) : null)),
    reader.element));
  document.documentElement.classList.remove("reading");
  document.documentElement.dataset.pair = pair.name;
}

const bodyOf = (pair, choice) => ({ item: pair.item, round: pair.round, prompt: pair.prompt, left: pair.left.k, right: pair.right.k, choice });

async function give(session, pair, choice) {
  if (session.isBusy) return;
  session.isBusy = true;
  try {
    session.last = bodyOf(pair, choice);
    await send("POST", "label", { run: session.run }, session.last);
    await nextOne(session);
  } catch (error) {
    session.box.prepend(h("p", { class: "card error", role: "alert" }, error.message));
  } finally {
    session.isBusy = false;
  }
}

function skip(session, pair) {
  session.skipped.push(pair.name);
  return nextOne(session);
}

async function takeBack(session) {
  if (!session.last) return;
  await send("DELETE", "label", { run: session.run }, session.last);
  session.last = null;
  await nextOne(session);
}
