// Every page has an address of its own: #/run/NAME/items?q=…

export function hashOf({ run, page = "overview", item = null, ...parameters }) {
  if (!run) return "#/";
  const parts = ["#", "run", encodeURIComponent(run)];
  if (page === "item") parts.push("item", String(item));
  else if (page !== "overview") parts.push(page);
  const told = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(told).toString();
  return parts.join("/") + (query ? `?${query}` : "");
}

export function readHash(hash) {
  const [way, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [, run, page = "overview", item] = way.split("/");
  const parameters = Object.fromEntries(new URLSearchParams(query));
  if (!run) return { page: "runs", parameters };
  const known = ["overview", "items", "item", "label"].includes(page) ? page : "overview";
  return { page: known, run: decodeURIComponent(run), item: item ? Number(item) : null, parameters };
}

export function goTo(place) {
  location.hash = hashOf(place);
}

// Keys of all pages of a run.
export function runKeys(keys, run, up) {
  keys.o = () => goTo({ run, page: "overview" });
  keys.i = () => goTo({ run, page: "items" });
  keys.Escape = () => goTo(up);
}

// Moves a mark over links: j, k, Enter.
export function listKeys(keys, links) {
  let at = -1;
  const move = (by) => () => {
    if (!links.length) return;
    at = Math.min(Math.max(at + by, 0), links.length - 1);
    links[at].focus();
    links[at].scrollIntoView({ block: "nearest" });
  };
  keys.j = move(1);
  keys.k = move(-1);
}
