// One run in charts and tables.

import { card, heatTable, histogram, lines, scatter } from "./charts.js";
import { chip, h } from "./dom.js";
import { count, duration, figure, money, percent } from "./format.js";
import { goTo, hashOf, runKeys } from "./routes.js";
import { isFile, load } from "./source.js";
import { t } from "./strings.js";

const CURVES = { loss: "loss", margin: "margin", accuracy: "accuracy", reward_chosen: "reward of chosen", reward_rejected: "reward of rejected", grad_norm: "gradient norm", learning_rate: "learning rate", tokens_per_second: "tokens a second" };

const PATIENCE = 1_500; // milliseconds

export async function showOverview(route, keys) {
  const { run } = route;
  runKeys(keys, run, {});
  keys["/"] = () => goTo({ run, page: "items", find: "1" });
  const [charts, agreement] = await Promise.all([load("charts", { run }), load("agreement", { run })]);
  const sums = load("run", { run }); // of a large run these take long: charts do not wait for them
  const soon = await Promise.race([sums, new Promise((resolve) => setTimeout(resolve, PATIENCE, null))]);
  const page = h("div", { class: "overview" }, draw(run, soon || null, charts, agreement));
  if (!soon) sums.then((facts) => page.replaceChildren(draw(run, facts, charts, agreement)), (error) => page.append(h("p", { class: "card error", role: "alert" }, error.message)));
  return page;
}

function draw(run, facts, charts, agreement) {
  if (!facts) {
    return h("div", {}, h("h1", {}, run), h("p", { class: "note", role: "status" }, t("Summing up …")), distributions(run, charts, { dimensions: {} }), relations(run, charts));
  }
  return h("div", {},
    h("div", { class: "heading" }, h("h1", {}, run), chip(t(facts.state), facts.state), h("span", { class: "note" }, facts.recipe), isFile() ? null : h("button", { type: "button", onclick: () => print() }, t("Print"))),
    facts.reason ? h("p", { class: "note" }, facts.reason) : null,
    headline(run, facts),
    charts.items < charts.of ? h("p", { class: "note" }, t("Charts show {0} of {1} items, spread evenly over the run.", count(charts.items), count(charts.of))) : null,
    distributions(run, charts, facts),
    relations(run, charts),
    labelled(agreement),
    training(charts.curves, facts.trainings),
    evaluations(facts.before_after || []),
    stages(charts, facts),
    troubles(run, facts));
}

function headline(run, facts) {
  const all = Object.values(facts.items).reduce((sum, number) => sum + number, 0);
  const cells = [
    [t("items"), `${count(facts.items.done || 0)} / ${count(all)}`],
    [t("responses"), count(facts.responses)],
    [t("mean reward"), figure(facts.reward.mean)],
    [t("rows"), count(facts.pairs.count)],
    [t("mean margin"), figure(facts.pairs.margin)],
    [t("calls"), count(facts.calls.calls)],
    [t("cached tokens"), percent(facts.calls.cache_hit_rate)],
    [t("money"), facts.money.unpriced_calls && !facts.money.spent ? t("unpriced") : money(facts.money.spent)],
  ];
  return h("dl", { class: "headline" }, cells.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function section(title, ...content) {
  return h("section", {}, h("h2", {}, title), ...content);
}

const rounded = (value) => String(Math.round(1000 * value) / 1000);

function distributions(run, charts, facts) {
  const pick = (name) => (low, high) => goTo({ run, page: "items", q: `${name}:${rounded(low)}..${rounded(high)}` });
  const note = (data) => t("mean {0}, median {1}, {2} values", figure(data.mean), figure(data.quartiles[1]), count(data.values));
  const states = (name) => {
    const one = facts.dimensions[name] || {};
    const parts = [one.unscored ? t("{0} unscored", count(one.unscored)) : "", one.not_applicable ? t("{0} not applicable", count(one.not_applicable)) : ""];
    return parts.filter(Boolean).map((words) => ` · ${words}`).join("");
  };
  const shown = Object.entries(charts.dimensions).filter(([, data]) => data);
  const cards = [
    ...(charts.reward ? [card(t("reward"), note(charts.reward), histogram(t("reward"), charts.reward, pick("reward")))] : []),
    ...shown.map(([name, data]) => card(name, note(data) + states(name), histogram(name, data, pick(name)))),
    ...(charts.margin ? [card(t("margin of chosen over rejected"), note(charts.margin), histogram(t("margin"), charts.margin, pick("margin")))] : []),
  ];
  if (!cards.length) return section(t("Scores"), h("p", { class: "note" }, t("Nothing is scored yet.")));
  return section(t("Scores"), h("p", { class: "note" }, t("Each bar counts responses, and opens the items that they belong to.")), h("div", { class: "grid" }, cards));
}

function relations(run, charts) {
  const { names, matrix } = charts.agreement;
  const cards = [];
  if (charts.length.points.length) {
    const words = t("Correlation {0}. Near 1, the reward may pay for length.", figure(charts.length.correlation));
    const pick = (point) => goTo({ run, page: "item", item: point[2], b: `${point[3]}.${point[4]}` });
    cards.push(card(t("Reward against length"), words, scatter(t("Reward against characters of the response"), charts.length.points, pick), h("p", { class: "axis-name" }, t("characters of the response →"))));
  }
  if (names.length > 2) {
    cards.push(card(t("How dimensions agree"), t("Pearson's correlation over responses."), heatTable(names, names, matrix, { isSigned: true })));
  }
  return cards.length ? section(t("Relations"), h("div", { class: "grid wide" }, cards)) : null;
}

function labelled(agreement) {
  if (!agreement || !agreement.labels) return null;
  const row = (name, one) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, percent(one.agree)), h("td", {}, one.interval ? `${percent(one.interval[0])} – ${percent(one.interval[1])}` : "–"), h("td", {}, count(one.decided)));
  const rows = [
    row(t("reward"), agreement),
    ...agreement.by_margin.map((part) => row(t("margins {0} to {1}", figure(part.low), figure(part.high)), part)),
    ...Object.entries(agreement.dimensions).map(([name, one]) => row(name, one)),
  ];
  return section(t("Agreement with people"),
    h("p", { class: "note" }, t("{0} labels, {1} of them ties.", count(agreement.labels), count(agreement.ties))),
    table([t("by"), t("agree"), t("95 % interval"), t("labels")], rows));
}

function table(names, rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("table") }, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)));
}

function training(curves, trainings) {
  if (!curves.length && !trainings.length) return null;
  const states = trainings.map((one) => h("p", { class: "note" }, t("Training of {0} rows in round {1}: {2}", count(one.rows), count(one.round), t(one.state)), one.reason ? ` (${one.reason})` : ""));
  const names = Object.keys(CURVES).filter((name) => curves.some((one) => (one.metrics[name] || []).length > 1));
  const cards = names.map((name) => {
    const series = Object.fromEntries(curves.filter((one) => (one.metrics[name] || []).length).map((one) => [t("round {0}, training {1}", one.round, one.window + 1), one.metrics[name]]));
    const [first] = Object.values(series);
    const words = `${figureOrShort(first[0][1])} → ${figureOrShort(first[first.length - 1][1])}`;
    return card(t(CURVES[name]), words, lines(t(CURVES[name]), series));
  });
  return section(t("Training"), ...states, h("div", { class: "grid" }, cards));
}

function evaluations(found) {
  if (!found.length) return null;
  const rows = found.map((one) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: hashOf({ run: one.before }) }, one.before), " → ", h("a", { href: hashOf({ run: one.after }) }, one.after)),
    h("td", {}, count(one.round)), h("td", {}, figure(one.mean_before)), h("td", {}, figure(one.mean_after)), h("td", {}, figure(one.difference)),
    h("td", {}, one.interval ? `${figure(one.interval[0])} – ${figure(one.interval[1])}` : "–"),
    h("td", {}, count(one.better)), h("td", {}, count(one.worse)), h("td", {}, count(one.items))));
  const names = [t("evaluations"), t("round"), t("before"), t("after"), t("difference"), t("95 % interval"), t("better"), t("worse"), t("items")];
  return section(t("Before and after training"), h("p", { class: "note" }, t("Mean rewards of held-out items, by `lrq evaluate`.")), table(names, rows));
}

const figureOrShort = (value) => (Math.abs(value) < 0.01 && value !== 0 ? value.toExponential(1) : figure(value));

function stages(charts, facts) {
  if (!charts.kinds.length) return null;
  const most = Math.max(...charts.kinds.map((one) => one.cost || 0), 1e-12);
  const longest = Math.max(...charts.kinds.map((one) => one.seconds), 1e-12);
  const bar = (value, words) => h("td", { class: "bar-cell", "--v": value.toFixed(4) }, words);
  const rows = charts.kinds.map((one) =>
    h("tr", {},
      h("th", { scope: "row" }, [one.step || one.role, one.kind].filter(Boolean).join(" · ")),
      h("td", {}, count(one.calls)), h("td", {}, count(one.reasks)), h("td", {}, count(one.failed)),
      bar((one.cost || 0) / most, money(one.cost)), bar(one.seconds / longest, duration(one.seconds)),
      h("td", {}, duration(one.p50)), h("td", {}, duration(one.p95))));
  const saved = facts.money.saved_by_caches ? t("Prompt caches saved {0}.", money(facts.money.saved_by_caches)) : "";
  const names = [t("stage"), t("calls"), t("re-asks"), t("failed"), t("money"), t("waited in all"), t("median"), t("95th percentile")];
  return section(t("Cost and time by stage"), saved ? h("p", { class: "note" }, saved) : null, table(names, rows));
}

function troubles(run, facts) {
  const kinds = [
    ["unscored", t("unscored"), true],
    ["failed", t("failed items"), true],
    ["no_pair", t("no row"), true],
    ["rejected", t("rejected lines"), false],
  ];
  const rows = kinds.flatMap(([name, words, isLinked]) =>
    Object.entries(facts[name] || {}).map(([reason, number]) => {
      const plain = reason.replaceAll('"', "").slice(0, 80);
      const cell = isLinked && plain ? h("a", { href: hashOf({ run, page: "items", q: `reason:"${plain}"` }) }, reason) : reason;
      return h("tr", {}, h("th", { scope: "row" }, words), h("td", {}, count(number)), h("td", { class: "reason" }, cell));
    }));
  return section(t("Errors"), rows.length ? table([t("what"), t("how many"), t("why")], rows) : h("p", { class: "note" }, t("None: every line was used and every score was given.")));
}
