// The document with passages marked. Offsets are of Unicode code points, as Python counts them.

import { h } from "./dom.js";
import { count } from "./format.js";
import { load } from "./source.js";
import { t } from "./strings.js";

const WINDOW = 60_000; // code points shown at once

export class Reader {
  constructor(item, spans) {
    this.item = item;
    this.spans = spans; // [[start, end], …] that evidence names
    this.start = 0;
    this.focus = null;
    this.words = null; // of the finding whose passages are shown
    this.body = h("div", { class: "prose document", tabindex: 0, role: "region", "aria-label": t("document") });
    this.element = h("aside", { class: "reader", "aria-label": t("document"), hidden: true },
      h("div", { class: "reader-head" }, h("h2", {}, t("Document")), h("span", { class: "note" }, t("{0} characters", count(item.context_chars))),
        h("button", { type: "button", onclick: () => this.toggle(false) }, t("Close"))),
      this.body);
  }

  async toggle(isOpen = this.element.hidden) {
    this.element.hidden = !isOpen;
    if (isOpen && !this.body.childNodes.length) await this.draw();
  }

  // Opens the document where a passage is; `group`: all passages of the finding, `text`: what it says.
  async open(span, group, text) {
    [this.focus, this.spans, this.words] = [span, group, wordsOf(text)];
    if (!(span[0] >= this.start && span[1] <= this.start + WINDOW)) this.start = Math.max(0, span[0] - WINDOW / 4);
    this.element.hidden = false;
    await this.draw();
    const mark = this.body.querySelector("mark.focus");
    if (mark) mark.scrollIntoView({ block: "center" });
  }

  async draw() {
    const { number: id, document: hash } = this.item;
    const part = await load("document", { id, hash, start: this.start, end: this.start + WINDOW });
    if (part.missing) {
      this.body.replaceChildren(h("p", { class: "note" }, t("The document is too long for this file; passages stand with the evidence.")));
      return;
    }
    const turn = (to, words) => h("button", { type: "button", onclick: () => ((this.start = Math.max(0, to)), this.draw()) }, words);
    const end = this.start + WINDOW;
    this.body.replaceChildren(
      ...(this.start > 0 ? [turn(this.start - WINDOW, t("↑ earlier"))] : []),
      ...markedText(part.text, part.start, this),
      ...(end < part.length ? [turn(end, t("↓ later"))] : []));
  }
}

// The words by which a passage may bear a statement out; short ones are in every passage.
function wordsOf(text) {
  const words = [...new Set((text || "").match(/[\p{L}\p{N}]{4,}|\p{N}+|\p{Script=Han}{2,4}/gu) || [])];
  return words.length ? new RegExp(`(${words.map((word) => word.replace(/[^\p{L}\p{N}]/gu, "")).join("|")})`, "giu") : null;
}

function stressed(text, words) {
  return words ? text.split(words).map((part, n) => (n % 2 ? h("b", {}, part) : part)) : text;
}

function markedText(text, start, { spans, focus, words: stress }) {
  const points = /[\ud800-\udfff]/.test(text) ? Array.from(text) : null;
  const length = points ? points.length : text.length;
  const slice = (a, b) => (points ? points.slice(a, b).join("") : text.slice(a, b));
  const all = (focus ? [...spans, focus] : spans).map(([a, b]) => [a - start, b - start]);
  const inside = all.filter(([a, b]) => b > 0 && a < length);
  const cuts = [...new Set([0, length, ...inside.flat().filter((at) => at > 0 && at < length)])].sort((a, b) => a - b);
  const isFocus = (a, b) => focus && a >= focus[0] - start && b <= focus[1] - start;
  return cuts.slice(0, -1).map((a, n) => {
    const b = cuts[n + 1];
    const words = slice(a, b);
    const isInside = inside.some(([from, to]) => from <= a && to >= b);
    return isInside ? h("mark", { class: isFocus(a, b) ? "focus" : "" }, stressed(words, stress)) : words;
  });
}
