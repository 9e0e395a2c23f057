// The gallery: the prompts that the filters leave, a card each.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const A_PAGE = 24;

  const unique = (name) =>
    [...new Set(page.data.prompts.map((row) => row[name]).filter(Boolean))].sort();

  // Whether any prompt has a number of this name: those of an ensemble of rewards are not in all runs.
  const isTold = (name) => page.data.prompts.some((row) => row[name] !== null);

  // Sets one filter beside those that the address has.
  function set(name, value) {
    const { filters } = page.filters.read(location.hash);
    if (value) filters.set(name, value);
    else filters.delete(name);
    filters.delete("page");
    location.hash = page.filters.address("gallery", "", filters);
  }

  const setsValue = (event) => set(event.target.name, event.target.value);
  const setsCheck = (event) => set(event.target.name, event.target.checked ? "1" : "");

  function choice(label, name, options) {
    const { make } = page.elements;
    const all = make("option", { value: "" }, "all");
    const others = options.map(([value, text]) => make("option", { value }, page.text.plain(text)));
    const select = make("select", { name, onchange: setsValue }, all, others);
    return make("label", {}, make("span", {}, label), select);
  }

  function check(label, name) {
    const { make } = page.elements;
    const box = make("input", { type: "checkbox", name, onchange: setsCheck });
    return make("label", { class: "check" }, box, make("span", {}, label));
  }

  function range(name) {
    const { make } = page.elements;
    const words = page.filters.RANGES[name];
    const end = (which) =>
      make("input", {
        type: "number",
        step: "any",
        name: `${name}-${which}`,
        "aria-label": `${words} ${which}`,
        placeholder: which,
        onchange: setsValue,
      });
    return make("fieldset", { class: "range" }, make("legend", {}, words), end("from"), end("to"));
  }

  function textField() {
    const { make } = page.elements;
    let timer;
    const later = (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => setsValue(event), 150);
    };
    const field = make("input", {
      type: "search",
      name: "text",
      id: "search",
      onfocus: readAnswers,
      oninput: later,
    });
    const label = "Words in prompt, instruction or answers";
    return make("label", { class: "wide" }, make("span", {}, label), field);
  }

  // Answers are many, so their words are read when one begins to look for some.
  let isReading = false;
  async function readAnswers() {
    if (isReading) return;
    isReading = true;
    await page.data.loadAnswers(page.overview.facts().chunks.details);
    const state = page.filters.read(location.hash);
    if (state.page === "gallery" && state.filters.get("text")) draw(state.filters);
  }

  function orders() {
    const { make } = page.elements;
    const told = Object.entries(page.filters.ORDERS).filter(([, [, of]]) => page.data.prompts.some((row) => of(row) !== null));
    const options = told.map(([value, [text]]) =>
      make("option", { value: value === "id" ? "" : value }, text),
    );
    const select = make("select", { name: "sort", onchange: setsValue }, options);
    return [make("label", {}, make("span", {}, "Order"), select), check("largest first", "down")];
  }

  function controls() {
    const { make } = page.elements;
    const named = (name) => unique(name).map((each) => [each, each]);
    const sample = make("input", { type: "number", min: "1", name: "sample", onchange: setsValue });
    const verdicts = Object.entries(page.reviews.VERDICTS);
    return make(
      "form",
      { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      textField(),
      choice("Topic", "topic", named("topic")),
      choice("What became of it", "outcome", named("outcome")),
      choice("Chosen model", "chosen", named("chosen")),
      choice("Rejected model", "rejected", named("rejected")),
      choice("My review", "review", [...verdicts, ["none", "not yet reviewed"]]),
      Object.keys(page.filters.RANGES).filter(isTold).map(range),
      check("image scorers disagree", "disagree"),
      isTold("against") && check("rewards disagree", "rewards"),
      make("label", {}, make("span", {}, "Drawn sample of pairs"), sample),
      orders(),
      make("a", { href: "#gallery", class: "button" }, "Clear"),
    );
  }

  // Shows in the controls what the address says; not in the field that one types into.
  function show(form, filters) {
    for (const control of form.elements) {
      if (!control.name || (control === document.activeElement && control.id === "search")) continue;
      if (control.type === "checkbox") control.checked = filters.has(control.name);
      else control.value = filters.get(control.name) ?? "";
    }
  }

  function card(row, filters) {
    const { make, picture, number } = page.elements;
    const mark = page.reviews.of(row);
    const said = row.outcome === "pair" ? `margin ${number(row.margin)}` : row.outcome;
    return make(
      "li",
      { class: `card ${mark?.verdict ?? ""}` },
      make(
        "a",
        { href: page.filters.address("prompt", row.id, filters) },
        picture(row.picture, `Picked picture: ${row.prompt}`),
        make("span", { class: "card-prompt", dir: "auto" }, row.prompt),
        make("span", { class: "card-said" }, `${row.topic} · ${said}`),
        mark?.verdict && make("span", { class: "badge" }, page.reviews.VERDICTS[mark.verdict]),
        row.reviewed && make("span", { class: "badge applied" }, `counted: ${row.reviewed}`),
      ),
    );
  }

  function pager(count, at, filters) {
    const { make } = page.elements;
    const pages = Math.max(1, Math.ceil(count / A_PAGE));
    const step = (to, words) => {
      const next = new URLSearchParams(filters);
      next.set("page", to);
      return to >= 1 && to <= pages
        ? make("a", { class: "button", href: page.filters.address("gallery", "", next) }, words)
        : make("span", { class: "button off" }, words);
    };
    return make(
      "nav",
      { class: "pager", "aria-label": "Pages of the gallery" },
      step(at - 1, "Previous page"),
      make("span", {}, `Page ${at} of ${pages}`),
      step(at + 1, "Next page"),
    );
  }

  // The part that changes with the filters.
  function results(filters) {
    const { make, say } = page.elements;
    const rows = page.filters.apply(filters);
    const at = Math.max(1, Number(filters.get("page") ?? 1) || 1);
    const shown = rows.slice((at - 1) * A_PAGE, at * A_PAGE);
    const told = `${rows.length.toLocaleString("en")} of ${page.data.prompts.length.toLocaleString("en")} prompts`;
    say(told);
    return make(
      "section",
      { id: "results", "aria-label": "Prompts" },
      make("p", { class: "count" }, told),
      make("ul", { class: "cards" }, shown.map((row) => card(row, filters))),
      pager(rows.length, at, filters),
    );
  }

  function draw(filters) {
    const { make } = page.elements;
    if (!document.getElementById("gallery")) {
      const wide = window.innerWidth > 700;
      const box = make("summary", {}, "Filters and order");
      document.getElementById("content").replaceChildren(
        make(
          "section",
          { id: "gallery" },
          make("h1", {}, "Gallery"),
          make("details", { class: "filter-box", open: wide }, box, controls()),
          make("section", { id: "results" }),
        ),
      );
      if (filters.get("text")) readAnswers();
    }
    show(document.querySelector("#gallery form"), filters);
    document.getElementById("results").replaceWith(results(filters));
  }

  page.gallery = { draw };
})();
