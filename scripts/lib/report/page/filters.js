// Which prompts are shown, and in which order: all of it stands in the page's address, so that a
// link shows the same to a colleague.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const RANGES = {
    margin: "Margin",
    score: "Reward of the chosen",
    image: "Image reward",
    against: "Share of the rewards against the pair",
    spread: "Spread of the rewards",
  };
  const ORDERS = {
    id: ["As in the files", (row) => row.place],
    ...Object.fromEntries(Object.entries(RANGES).map(([name, words]) => [name, [words, (row) => row[name]]])),
    longer: ["Characters that the chosen has more", (row) => row.longer],
    prompt: ["Prompt", (row) => row.prompt.toLowerCase()],
  };

  // The state of an address: "#gallery?topic=art&sort=margin" -> its page, name and filters.
  function read(hash) {
    const [path, ...queries] = hash.replace(/^#/, "").split("?");
    const query = queries.join("?"); // somebody may type one
    const [name, ...rest] = path.split("/");
    let item = "";
    try {
      item = decodeURIComponent(rest.join("/"));
    } catch {
      // A link that was cut names nothing.
    }
    return { page: name || "overview", item, filters: new URLSearchParams(query) };
  }

  function address(name, item, filters) {
    const query = filters?.toString();
    return `#${name}${item ? `/${encodeURIComponent(page.text.wellFormed(item))}` : ""}${query ? `?${query}` : ""}`;
  }

  function isWithin(value, low, high) {
    if (low === null && high === null) return true;
    if (value === null || value === undefined) return false;
    return (low === null || value >= low) && (high === null || value <= high);
  }

  const asNumber = (text) => (text === null || text.trim() === "" || isNaN(text) ? null : +text);

  function reviewState(row) {
    return page.reviews.of(row)?.verdict || "none";
  }

  // A test for each filter that is set.
  function tests(filters) {
    const found = [];
    const one = (name, of) => {
      const wanted = filters.get(name);
      if (wanted) found.push((row) => of(row) === wanted);
    };
    one("topic", (row) => row.topic);
    one("outcome", (row) => row.outcome);
    one("chosen", (row) => row.chosen);
    one("rejected", (row) => row.rejected);
    one("review", reviewState);
    if (filters.get("disagree")) found.push((row) => row.picks > 1);
    if (filters.get("rewards")) found.push((row) => row.against > 0);
    for (const name of Object.keys(RANGES)) {
      const [low, high] = [asNumber(filters.get(`${name}-from`)), asNumber(filters.get(`${name}-to`))];
      if (low !== null || high !== null) found.push((row) => isWithin(row[name], low, high));
    }
    const sample = asNumber(filters.get("sample"));
    if (sample !== null) found.push((row) => row.draw !== null && row.draw < sample);
    const words = (filters.get("text") ?? "").toLowerCase().trim();
    if (words) {
      found.push((row) => row.words.includes(words) || page.data.answersOf(row.id).includes(words));
    }
    return found;
  }

  function compare(order, isDown) {
    const [, of] = ORDERS[order] ?? ORDERS.id;
    const sign = isDown ? -1 : 1;
    return (one, other) => {
      const [left, right] = [of(one), of(other)];
      const [noLeft, noRight] = [left === null, right === null];
      if (noLeft || noRight) return noLeft - noRight || one.place - other.place;
      return sign * ((left > right) - (left < right)) || one.place - other.place;
    };
  }

  let last = { query: null, rows: [] };

  // The prompts that the filters leave, in their order.
  function apply(filters) {
    const asked = new URLSearchParams(filters);
    asked.delete("page");
    const query = asked.toString();
    // What depends on marks or on words that are still being read changes under the same filters.
    if (query === last.query && !asked.has("review") && !asked.has("text")) return last.rows;
    const checks = tests(asked);
    const rows = page.data.prompts.filter((row) => checks.every((check) => check(row)));
    const order = asked.get("sort") ?? "id";
    if (order !== "id" || asked.has("down")) rows.sort(compare(order, asked.has("down")));
    last = { query, rows };
    return rows;
  }

  page.filters = { read, address, apply, RANGES, ORDERS };
})();
