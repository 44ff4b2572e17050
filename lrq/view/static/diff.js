// Words of one text that another lacks, by their longest common subsequence.

const WORDS = /\s+|\p{Script=Han}|[\p{L}\p{N}_]+|[^\s]/gu;
const MOST_CELLS = 4_000_000; // of the table; longer texts are compared as sets of words

export function splitWords(text) {
  return text.match(WORDS) || [];
}

// Parts of both texts as [text, is it only here].
export function diffTexts(one, other) {
  const [a, b] = [splitWords(one), splitWords(other)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const [left, right] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const [keptLeft, keptRight] = left.length * right.length > MOST_CELLS ? sharedWords(left, right) : common(left, right);
  const flags = (words, kept) => words.map((_, n) => n >= start && n < words.length - end && !kept.has(n - start));
  return [join(a, flags(a, keptLeft)), join(b, flags(b, keptRight))];
}

function common(left, right) {
  const width = right.length + 1;
  const lengths = new Uint32Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      lengths[at] = left[i] === right[j] ? lengths[at + width + 1] + 1 : Math.max(lengths[at + width], lengths[at + 1]);
    }
  }
  const kept = [new Set(), new Set()];
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    if (left[i] === right[j]) {
      kept[0].add(i++);
      kept[1].add(j++);
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return kept;
}

function sharedWords(left, right) {
  const kept = (words, others) => {
    const known = new Set(others);
    return new Set([...words.keys()].filter((n) => known.has(words[n])));
  };
  return [kept(left, right), kept(right, left)];
}

function join(words, flags) {
  const parts = [];
  words.forEach((word, n) => {
    const isBlank = /^\s+$/.test(word);
    const only = flags[n] && !(isBlank && !flags[n - 1]);
    if (parts.length && parts[parts.length - 1][1] === only) parts[parts.length - 1][0] += word;
    else parts.push([word, only]);
  });
  return parts;
}
