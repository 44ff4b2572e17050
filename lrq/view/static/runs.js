// All runs of the ledger.

import { chip, h } from "./dom.js";
import { count, money, when } from "./format.js";
import { hashOf, listKeys } from "./routes.js";
import { load } from "./source.js";
import { t } from "./strings.js";

export async function showRuns(route, keys) {
  const runs = await load("runs");
  if (!runs.length) return h("div", { class: "card" }, h("h1", {}, t("Runs")), h("p", {}, t("There is no run yet: `lrq run FILE` makes one.")));
  const cards = runs.map(runCard);
  listKeys(keys, cards.map((card) => card.querySelector("a")));
  return h("div", {}, h("h1", {}, t("Runs")), h("div", { class: "run-cards" }, cards));
}

function runCard(run) {
  const all = Object.values(run.items).reduce((sum, number) => sum + number, 0);
  const done = run.items.done || 0;
  const facts = [
    [t("items"), `${count(done)} / ${count(all)}`],
    [t("rows"), count(run.pairs)],
    [t("calls"), count(run.calls)],
    [t("money"), money(run.spent)],
  ];
  return h("article", { class: "card run-card" },
    h("h2", {}, h("a", { href: hashOf({ run: run.run }) }, run.run)),
    h("p", { class: "note" }, chip(t(run.state), run.state), " ", run.recipe, " · ", when(run.created_at)),
    h("div", { class: "progress", role: "img", "aria-label": t("{0} of {1} items", count(done), count(all)) }, h("span", { "--v": (all ? done / all : 0).toFixed(4) })),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    run.reason ? h("p", { class: "note" }, run.reason) : null);
}
