// One item: its question, responses side by side, and all that led to their scores.

import { chip, h, prose } from "./dom.js";
import { diffTexts } from "./diff.js";
import { drawEvidence } from "./evidence.js";
import { count, duration, figure, money } from "./format.js";
import { listOf } from "./items.js";
import { Reader } from "./reader.js";
import { goTo, hashOf, runKeys } from "./routes.js";
import { load } from "./source.js";
import { t } from "./strings.js";

const nameOf = (response) => `${response.prompt}.${response.k}`;
const isRef = (value) => Array.isArray(value);

export async function showItem(route, keys) {
  const { run, parameters } = route;
  const item = await load("item", { id: route.item });
  const rows = item.rows;
  const turns = rows.flatMap((row) => row.turns);
  const roles = rolesOf(turns);
  const ordered = [...item.responses].sort((a, b) => a.prompt - b.prompt || rewardOf(b) - rewardOf(a) || a.k - b.k);
  const sides = pickSides(item.responses, ordered, roles, parameters);
  const spans = item.excerpts.map(({ start, end }) => [start, end]);
  const reader = new Reader(item, spans);
  const scene = {
    calls: new Map(item.calls.map((call) => [call.key, call])),
    excerpts: new Map(item.excerpts.map((one) => [`${one.start}-${one.end}`, one.text])),
    reader,
  };
  const choose = (side, name) => goTo({ run, page: "item", item: route.item, ...parameters, a: sides.a && nameOf(sides.a), b: sides.b && nameOf(sides.b), [side]: name });
  itemKeys(keys, route, ordered, choose, reader);
  const steps = await neighbours(route);
  return h("div", { class: "with-reader" },
    h("div", { class: "item" },
      heading(run, parameters, item, steps),
      question(item, reader),
      table(item, ordered, roles, sides, choose),
      compare(item, sides, roles, scene, parameters, choose),
      shared(item, scene),
      callTable(item)),
    reader.element);
}

const rewardOf = (response) => (response.reward && response.reward.value !== null ? response.reward.value : -Infinity);

function rolesOf(turns) {
  const roles = new Map();
  for (const turn of turns) {
    if (isRef(turn.chosen)) roles.set(turn.chosen.join("."), "chosen");
    if (isRef(turn.rejected)) roles.set(turn.rejected.join("."), "rejected");
  }
  return roles;
}

// Left the chosen, right the rejected response, unless the address names others.
function pickSides(responses, ordered, roles, parameters) {
  const byName = new Map(responses.map((response) => [nameOf(response), response]));
  const byRole = (role) => byName.get([...roles].find(([name, its]) => its === role && byName.has(name))?.[0]);
  const a = byName.get(parameters.a) || byRole("chosen") || ordered[0];
  const b = byName.get(parameters.b) || byRole("rejected") || ordered.filter((one) => one !== a).at(-1);
  return { a, b: b === a ? undefined : b };
}

function itemKeys(keys, route, ordered, choose, reader) {
  const { run, parameters } = route;
  const { q, sort, down } = parameters;
  runKeys(keys, run, { run, page: "items", q, sort, down, from: Math.floor(Number(parameters.at || 0) / 50) * 50 || "" });
  ordered.slice(0, 9).forEach((response, n) => {
    keys[String(n + 1)] = () => choose("b", nameOf(response));
    keys[`shift ${n + 1}`] = () => choose("a", nameOf(response));
  });
  keys.d = () => reader.toggle();
  keys["/"] = () => goTo({ run, page: "items", q, sort, down, find: "1" });
  const step = (by) => async () => {
    const to = (await neighbours(route))[by];
    if (to) location.hash = to;
  };
  keys.j = step("next");
  keys.k = step("previous");
}

// The addresses of the items before and after this one in the list that it was opened from.
async function neighbours(route) {
  const { run, parameters } = route;
  if (parameters.at === undefined) return {};
  const at = Number(parameters.at);
  const offset = Math.max(0, at - 1);
  const { q, sort, down } = parameters;
  const list = await load("items", { run, ...listOf(parameters), offset, limit: 3 });
  const address = (n) => (list.items[n - offset] ? hashOf({ run, page: "item", item: list.items[n - offset].number, q, sort, down, at: n }) : null);
  return { previous: at > 0 ? address(at - 1) : null, next: address(at + 1), total: list.total };
}

function heading(run, parameters, item, steps) {
  const margins = item.rows.filter((row) => row.margin !== null).map((row) => figure(row.margin));
  const step = (href, words, key) => (href ? h("a", { href, class: "step", title: `${words} (${key})` }, words) : null);
  return h("div", { class: "heading" },
    h("h1", {}, item.id), chip(t(item.state), item.state),
    margins.length ? h("span", { class: "note" }, t("margin {0}", margins.join(", "))) : null,
    item.reason ? h("span", { class: "note" }, item.reason) : null,
    (item.tasks || []).length ? h("span", { class: "note" }, `${t("Tasks at work")}: `, item.tasks.map((task) => [" ", h("a", { href: task.href }, task.step)])) : null,
    h("nav", { class: "steps", "aria-label": t("Items beside") }, step(steps.previous, t("← previous"), "k"),
      steps.total ? h("span", { class: "note" }, t("{0} of {1}", count(Number(parameters.at) + 1), count(steps.total))) : null,
      step(steps.next, t("next →"), "j")));
}

function question(item, reader) {
  const more = Object.entries(item.fields).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length));
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
  const fold = (name, text) => h("details", {}, h("summary", {}, name), prose(text));
  return h("section", { class: "card question-card" },
    h("h2", { class: "label" }, t("Question")),
    item.question ? prose(item.question, "asked") : h("p", { class: "note" }, t("This item has no question.")),
    item.context_chars ? h("button", { type: "button", onclick: () => reader.toggle() }, t("Document, {0} characters (d)", count(item.context_chars))) : null,
    item.answer ? fold(t("reference answer"), item.answer) : null,
    item.prompts.map((prompt, n) => (item.prompts.length > 1 || prompt.name ? fold(t("prompt {0} {1}", n, prompt.name), prompt.messages.map((m) => `${m.role}: ${m.content.replace("\ufffc", `[${t("document")}]`)}`).join("\n\n")) : null)),
    more.map(([name, value]) => fold(name, plain(value))));
}

// All responses with their scores; keys and clicks put one beside another.
function table(item, ordered, roles, sides, choose) {
  const names = [...new Set(item.responses.flatMap((one) => one.scores.map((score) => score.dimension)))].sort();
  const values = item.responses.flatMap((one) => one.scores.map((score) => score.value)).filter((value) => value !== null);
  const top = values.some((value) => value > 5) ? 10 : values.some((value) => value > 1) ? 5 : 1;
  const many = new Set(item.responses.map((one) => one.prompt)).size > 1;
  const cell = (score) => {
    if (!score) return h("td", { class: "heat none" }, "–");
    if (score.value === null) return h("td", { class: "heat none", title: score.reason }, score.state === "unscored" ? chip(t("unscored"), "bad") : t("n/a"));
    return h("td", { class: "heat", "--v": (score.value / top).toFixed(3) }, figure(score.value));
  };
  const place = (response, side) => h("button", { type: "button", class: `place ${sides[side] === response ? "here" : ""}`, "aria-pressed": String(sides[side] === response), onclick: () => choose(side, nameOf(response)) }, side === "a" ? "◧" : "◨", h("span", { class: "hidden" }, side === "a" ? t("show on the left") : t("show on the right")));
  const rows = ordered.map((response, n) => {
    const role = roles.get(nameOf(response));
    const reward = response.reward;
    return h("tr", { class: role || "" },
      h("th", { scope: "row" }, n < 9 ? h("kbd", {}, n + 1) : null, " ", many ? `${response.prompt}.` : "", response.k, " ", role ? chip(t(role), role) : null, response.is_cut ? chip(t("cut"), "half", t("by max_new_tokens")) : null),
      h("td", { class: "reward", title: reward ? reward.reason : null }, reward ? figure(reward.value) : "–"),
      names.map((name) => cell(response.scores.find((score) => score.dimension === name))),
      h("td", {}, response.text === null ? chip(t("no text"), "bad", response.reason) : count(response.text.length)),
      h("td", { class: "places" }, place(response, "a"), place(response, "b")));
  });
  const heads = [t("response"), t("reward"), ...names, t("characters"), t("show")];
  return h("section", {}, h("h2", {}, t("Responses")),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("Responses") }, h("table", { class: "responses" }, h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))));
}

function compare(item, sides, roles, scene, parameters, choose) {
  if (!sides.a) return h("p", { class: "card" }, t("There is no response yet."));
  const isAll = parameters.all === "1";
  const toggle = h("button", { type: "button", "aria-pressed": String(isAll), onclick: () => choose("all", isAll ? "" : "1") }, t("all beside each other"));
  const reference = sides.a;
  const others = isAll ? item.responses.filter((one) => one !== reference) : sides.b ? [sides.b] : [];
  const [left] = others.length === 1 ? diffTexts(reference.text || "", others[0].text || "") : [[[reference.text || "", false]]];
  const columns = [
    column(reference, left, roles, scene),
    ...others.map((other) => column(other, diffTexts(reference.text || "", other.text || "")[1], roles, scene)),
  ];
  return h("section", {},
    h("div", { class: "heading" }, h("h2", {}, t("Side by side")), h("span", { class: "note" }, t("what only one of them says is marked")), item.responses.length > 2 ? toggle : null),
    h("div", { class: isAll ? "columns all" : "columns", tabindex: isAll ? 0 : null }, columns));
}

function column(response, parts, roles, scene) {
  const role = roles.get(nameOf(response));
  const text = response.text === null ? h("p", { class: "note" }, t("no text"), ": ", response.reason) : h("div", { class: "prose answer", dir: "auto" }, parts.map(([words, only]) => (only ? h("mark", { class: "only" }, words) : words)));
  const missing = response.missing_points.length
    ? h("div", { class: "part missing" }, h("h4", {}, t("points it hardly mentions")), h("ul", {}, response.missing_points.map((point) => h("li", { dir: "auto" }, point))), h("p", { class: "note" }, t("Found by comparing words, not by the judge.")))
    : null;
  const written = response.written ? h("details", {}, h("summary", {}, t("all that was written")), prose(response.written, "judge")) : null;
  return h("article", { class: `card column ${role || ""}` },
    h("h3", {}, t("response {0}", response.k), " ", role ? chip(t(role), role) : null, h("span", { class: "big" }, response.reward ? figure(response.reward.value) : "–")),
    text, written, missing, response.scores.map((score) => scoreBlock(score, scene)));
}

function scoreBlock(score, scene) {
  const value = score.value === null ? chip(t(score.state.replace("_", " ")), score.state === "unscored" ? "bad" : "") : h("strong", {}, figure(score.value));
  return h("section", { class: "score" },
    h("h4", {}, score.dimension, " ", value),
    score.reason ? h("p", { class: "note" }, score.reason) : null,
    drawEvidence(score.evidence, scene));
}

// What belongs to all responses alike: an extraction, a tournament.
function shared(item, scene) {
  if (!item.shared.length && !item.extraction.length) return null;
  return h("section", {}, h("h2", {}, t("For all responses")),
    h("div", { class: "grid wide" }, item.shared.map((one) =>
      h("section", { class: "card" }, h("h3", {}, one.dimension, item.prompts.length > 1 ? ` · ${t("prompt {0}", one.prompt)}` : ""), drawEvidence(one.evidence, scene)))));
}

function callTable(item) {
  const cost = item.calls.reduce((sum, call) => sum + (call.cost || 0), 0);
  const isPriced = item.calls.some((call) => call.cost !== null);
  const again = item.calls.filter((call) => call.attempt > 0).length;
  const rows = item.calls.map((call) =>
    h("tr", { id: `call-${call.key}`, tabindex: -1 },
      h("th", { scope: "row" }, h("code", {}, call.key.slice(0, 6))),
      h("td", {}, [call.dimension || call.step || call.role, call.kind].filter(Boolean).join(" · ")), h("td", {}, call.model),
      h("td", {}, chip(t(call.state), call.state === "done" ? "" : "bad", call.reason), call.attempt ? chip(t("re-ask {0}", call.attempt), "half") : null),
      h("td", {}, count(call.tokens[0])), h("td", {}, count(call.cached_tokens)), h("td", {}, count(call.tokens[1])),
      h("td", {}, money(call.cost)), h("td", {}, duration(call.seconds)),
      h("td", { class: "reply" }, h("details", {}, h("summary", {}, (call.reply[0] || call.reason || "–").slice(0, 60)), prose(call.reply.join("\n") || call.reason, "judge")))));
  const heads = [t("call"), t("for"), t("model"), t("state"), t("prompt"), t("cached"), t("reply"), t("money"), t("seconds"), t("words")];
  const summary = t("{0} calls, {1} asked again, {2}", count(item.calls.length), count(again), isPriced ? money(cost) : t("unpriced"));
  return h("section", {}, h("h2", {}, t("Calls")),
    h("details", { class: "calls" }, h("summary", {}, summary),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("Calls") }, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)))));
}
