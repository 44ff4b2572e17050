"use strict";
// The page Judge usage. Elements stay and their texts change, so that scroll, selection and focus are kept.

(() => {
  const EVERY = 2000; // milliseconds between two looks
  const page = document.getElementById("judge-usage");
  const byId = (name) => document.getElementById(`judge-${name}`);
  const mayChange = page.dataset.author !== "";
  let shown = null; // the last picture
  let lastAnswer = null; // when it came

  const count = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US"));
  const money = (value) =>
    value === null || value === undefined ? "unpriced" : value.toLocaleString("en-US", { minimumFractionDigits: 4, maximumFractionDigits: 4 });
  const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
  const share = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
  const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] || 0), 0);
  const span = (seconds) => (seconds < 90 ? `${Math.max(0, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);

  function create(tag, properties = {}) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) element[name] = value;
    return element;
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  // A cell is a text, or {text, href, title, buttons: {name: function}}.
  function fillCell(cell, content) {
    const { text = "", href = "", title = "", buttons = null } = typeof content === "string" ? { text: content } : content;
    if (title !== cell.title) cell.title = title;
    if (buttons) {
      const names = Object.keys(buttons).join();
      if (cell.dataset.buttons !== names) {
        cell.dataset.buttons = names;
        cell.replaceChildren(...Object.keys(buttons).map((name) => create("button", { type: "button", className: "btn btn-outline-secondary", textContent: name })));
      }
      [...cell.children].forEach((button) => { button.onclick = buttons[button.textContent]; });
    } else if (href) {
      const link = cell.firstElementChild || cell.appendChild(create("a"));
      if (link.getAttribute("href") !== href) link.setAttribute("href", href);
      setText(link, text);
    } else setText(cell, text);
  }

  function fillTable(name, rows, empty) {
    const table = byId(name);
    const numbers = [...table.tHead.rows[0].cells].map((cell) => cell.className);
    const body = table.tBodies[0];
    const lines = new Map([...body.rows].map((line) => [line.dataset.key, line]));
    const wanted = rows.length ? rows : [{ key: "", empty }];
    wanted.forEach((row, place) => {
      let line = lines.get(row.key);
      lines.delete(row.key);
      if (!line) {
        line = create("tr");
        line.dataset.key = row.key;
        const cells = row.empty ? [create("td", { colSpan: numbers.length, className: "judge-empty" })] : numbers.map((className) => create("td", { className }));
        line.append(...cells);
      }
      if (body.rows[place] !== line) body.insertBefore(line, body.rows[place] || null);
      (row.empty ? [row.empty] : row.cells).forEach((content, at) => fillCell(line.cells[at], content));
    });
    lines.forEach((line) => line.remove());
  }

  function fillTotals(picture) {
    const rows = picture.usage;
    const calls = sum(rows, "calls");
    const isPriced = rows.some((row) => row.cost !== null);
    const prompt = sum(rows, "prompt_tokens");
    const latest = picture.curves.points.at(-1);
    const totals = {
      "Calls per minute": count(sum(rows, "calls_per_minute")),
      Bought: count(calls),
      Reused: count(sum(rows, "reused")),
      Failed: count(sum(rows, "failed") + sum(rows, "unknown")),
      "429s per minute": latest ? count(latest.throttled) : "–",
      "From prompt caches": prompt ? share(sum(rows, "cached_tokens") / prompt) : "–",
      Money: isPriced || !rows.length ? money(sum(rows, "cost")) : "unpriced",
    };
    const place = byId("totals");
    if (!place.children.length) {
      for (const name of Object.keys(totals)) {
        const card = create("article", { className: "metric-card" });
        card.append(create("p", { className: "metric-label", textContent: name }), create("p", { className: "metric-value" }));
        place.append(card);
      }
    }
    Object.values(totals).forEach((text, at) => setText(place.children[at].lastChild, text));
  }

  const CURVES = [
    ["Calls a minute", "calls", count, "rpm"],
    ["Tokens a minute", "tokens", count, "tpm"],
    ["Money a minute", "cost", money, null],
    ["Latency, ms", "latency_ms", count, null],
    ["429s a minute", "throttled", count, null],
    ["Failures a minute", "failed", count, null],
    ["Re-asks a minute", "reasks", count, null],
    ["Replies reused a minute", "reused", count, null],
    ["Prompt from caches", "cached", share, null],
  ];

  function fillCurves(picture) {
    const place = byId("curves");
    const { seconds, points } = picture.curves;
    for (const [name, field, words, limit] of CURVES) {
      let figure = place.querySelector(`[data-curve="${field}"]`);
      if (!figure) {
        figure = create("figure", { className: "judge-curve" });
        figure.dataset.curve = field;
        const caption = create("figcaption");
        caption.append(create("span", { textContent: name }), create("b"));
        const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        svg.setAttribute("viewBox", "0 0 180 60");
        svg.setAttribute("preserveAspectRatio", "none");
        svg.setAttribute("role", "img");
        for (const className of ["limit", "line"]) svg.appendChild(document.createElementNS(svg.namespaceURI, "path")).setAttribute("class", className);
        figure.append(caption, svg);
        place.append(figure);
      }
      const values = points.map((point) => point[field]);
      const known = values.filter((value) => value !== null);
      const limits = picture.endpoints.map((each) => (limit ? each[limit] : null));
      const bound = limit && limits.length && limits.every((each) => each) ? sum(picture.endpoints, limit) : null;
      const highest = Math.max(...known, 0);
      // A limit far above what happens would press the curve flat: then it is told, not drawn.
      const isDrawn = bound !== null && bound <= 4 * highest;
      const top = Math.max(highest, isDrawn ? bound : 0) || 1;
      const y = (value) => (58 - (56 * value) / top).toFixed(1);
      let path = "";
      values.forEach((value, at) => {
        if (value === null) return;
        const x = (180 - (180 * (values.length - 1 - at)) / Math.max(values.length - 1, 59)).toFixed(1); // five minutes at least
        path += `${path && values[at - 1] !== null ? "L" : "M"}${x} ${y(value)}`;
      });
      figure.querySelector(".line").setAttribute("d", path);
      figure.querySelector(".limit").setAttribute("d", isDrawn ? `M0 ${y(bound)}L180 ${y(bound)}` : "");
      const latest = known.length ? words(values.at(-1) === undefined ? null : values.at(-1)) : "–";
      setText(figure.querySelector("b"), bound === null ? latest : `${latest} of ${count(bound)}`);
      figure.querySelector("svg").setAttribute("aria-label", `${name}: ${latest} now, ${words(highest)} at most in the last ${span(seconds * points.length)}`);
    }
  }

  const viewer = (run, item) => {
    if (!page.dataset.viewer) return "";
    return `${page.dataset.viewer}/#/run/${encodeURIComponent(run)}${item ? `/item/${item}` : ""}`;
  };

  function runRow(row) {
    const buttons = {};
    if (mayChange && row.state === "active") buttons.Pause = () => ask(`Pause run ${row.run}`, { what: "pause", run: row.run });
    if (mayChange && ["paused", "stopped"].includes(row.state)) buttons.Resume = () => ask(`Resume run ${row.run}`, { what: "resume", run: row.run });
    if (mayChange && row.state !== "done") {
      const fields = { max_cost: ["Money", row.max_cost], max_tokens: ["Tokens", row.max_tokens] };
      buttons.Budget = () => ask(`Budget of run ${row.run}`, { what: "budget", run: row.run }, fields);
    }
    const items = row.items ? `${count(row.ended)} of ${count(row.items)}${row.failed ? `, ${count(row.failed)} failed` : ""}` : "–";
    return {
      key: row.run,
      cells: [
        { text: row.run, href: viewer(row.run) }, row.state + (row.reason ? `: ${row.reason}` : ""), items,
        money(row.spent), money(row.reserved), row.max_cost === null ? "–" : money(row.max_cost),
        count(row.spent_tokens), count(row.max_tokens), { buttons },
      ],
    };
  }

  function endpointRow(row) {
    const state = row.probing ? "only fails; one call at a time is tried"
      : row.paused ? `paused for ${row.paused} s` : row.learned ? "limit learned from 429s" : Object.keys(row.changed).length ? "limits changed here" : "";
    const fields = Object.fromEntries(["rpm", "tpm", "concurrency"].map((name) => [name, [`${name} (empty: as the settings say)`, row.changed[name]]]));
    const buttons = mayChange ? { Limits: () => ask(`Limits of ${row.lane}`, { what: "limits", lane: row.lane }, fields) } : {};
    const of = (used, limit) => `${count(used)} of ${limit === null ? "∞" : count(limit)}`;
    return {
      key: row.lane,
      cells: [
        row.lane, of(row.calls_per_minute, row.rpm), of(row.tokens_per_minute, row.tpm),
        of(row.in_flight, row.concurrency), count(row.waiting), state, { buttons },
      ],
    };
  }

  function usageRow(row) {
    const names = [row.run, row.role, row.endpoint, row.model, row.dimension];
    const cost = row.cost !== null && row.unpriced ? `${money(row.cost)} + ${count(row.unpriced)} unpriced` : money(row.cost);
    return {
      key: JSON.stringify(names),
      cells: [
        row.run, `${row.role} ${row.endpoint} ${row.model}`, row.dimension || "–", count(row.calls), count(row.reused),
        count(row.failed + row.unknown), count(row.calls_per_minute), count(row.prompt_tokens),
        row.prompt_tokens ? share(row.cached_tokens / row.prompt_tokens) : "–", count(row.completion_tokens), cost, count(row.mean_latency_ms),
      ],
    };
  }

  function taskRow(task, now) {
    return {
      key: task.id,
      cells: [
        { text: task.key || "the whole run", href: task.key ? viewer(task.run, task.item) : "" }, task.run, task.step,
        task.sent_at ? span(now - task.sent_at) : "–", { text: task.id, href: page.dataset.task.replace("TASK", encodeURIComponent(task.id)) },
      ],
    };
  }

  function changeRow(change) {
    const values = Object.entries(change.values).map(([name, value]) => `${name} ${value === null ? "as set" : value}`).join(", ");
    return {
      key: `${change.at} ${change.who} ${change.what} ${change.subject}`,
      cells: [`${new Date(change.at * 1000).toISOString().slice(0, 10)} ${clock(change.at)}`, change.who, change.what, change.subject, values, change.reason],
    };
  }

  function fillFilter(picture) {
    const select = byId("run");
    const names = picture.runs.map((row) => row.run);
    const known = [...select.options].slice(1).map((option) => option.value);
    if (names.join("\n") !== known.join("\n")) {
      const before = select.value || new URLSearchParams(location.search).get("run") || "";
      select.replaceChildren(select.options[0], ...names.map((name) => create("option", { value: name, textContent: name })));
      select.value = names.includes(before) ? before : "";
    }
  }

  function draw(picture) {
    shown = picture;
    fillFilter(picture);
    const run = byId("run").value;
    fillTotals(picture);
    fillCurves(picture);
    fillTable("runs", picture.runs.filter((row) => !run || row.run === run).map(runRow), "No run yet.");
    fillTable("endpoints", picture.endpoints.map(endpointRow), "No endpoint is set; name one with LRQ_JUDGE_URL.");
    fillTable("tasks", picture.tasks.map((task) => taskRow(task, picture.at)), "Nothing is at work.");
    fillTable("rows", picture.usage.map(usageRow), "No call yet.");
    fillTable("changes", picture.changes.map(changeRow), mayChange ? "No change yet." : "No change yet. To make some here, start Flower with FLOWER_BASIC_AUTH=user:password.");
    setText(byId("at"), picture.at ? `as of ${clock(picture.at)} UTC` : "");
    page.dataset.drawn = String(Number(page.dataset.drawn || 0) + 1);
  }

  function sayAway(text) {
    byId("away").hidden = !text;
    setText(byId("away"), text);
  }

  async function look() {
    const run = byId("run").value || new URLSearchParams(location.search).get("run") || "";
    try {
      const answer = await fetch(`${page.dataset.api}?run=${encodeURIComponent(run)}`, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      draw(await answer.json());
      lastAnswer = Date.now() / 1000;
      sayAway(shown.error);
    } catch (error) {
      const since = lastAnswer === null ? "" : `; the figures are of ${clock(lastAnswer)} UTC`;
      sayAway(`Flower does not answer (${error.message})${since}.`);
    }
  }

  function ask(title, change, fields = {}) {
    const dialog = byId("dialog");
    const form = dialog.querySelector("form");
    setText(byId("dialog-title"), title);
    setText(byId("refused"), "");
    byId("fields").replaceChildren(...Object.entries(fields).map(([name, [words, value]]) => {
      const label = create("label", { textContent: words });
      label.append(create("input", { name, value: value ?? "", inputMode: "decimal", autocomplete: "off" }));
      return label;
    }));
    form.reason.value = "";
    form.onsubmit = async (event) => {
      event.preventDefault();
      const given = Object.fromEntries(Object.keys(fields).map((name) => [name, form[name].value.trim() || null]));
      const refused = await send({ ...change, ...given, reason: form.reason.value });
      if (refused) setText(byId("refused"), refused);
      else {
        dialog.close();
        await look();
      }
    };
    byId("cancel").onclick = () => dialog.close();
    dialog.showModal();
  }

  // Returns why a change was refused; empty where it was made.
  async function send(change) {
    try {
      const headers = { "Content-Type": "application/json", "X-XSRFToken": page.dataset.xsrf };
      const answer = await fetch(page.dataset.change, { method: "POST", headers, body: JSON.stringify(change) });
      const said = await answer.json();
      return answer.ok ? "" : said.error;
    } catch (error) {
      return `Flower does not answer (${error.message})`;
    }
  }

  byId("run").onchange = (event) => {
    const run = event.target.value;
    history.replaceState(null, "", run ? `?run=${encodeURIComponent(run)}` : location.pathname);
    look();
  };
  look();
  setInterval(() => { if (!document.hidden) look(); }, EVERY);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
})();
