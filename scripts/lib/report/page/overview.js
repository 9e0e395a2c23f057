// What the run is, and what became of its prompts.
(() => {
  "use strict";
  const page = (window.page ??= {});
  let known = null;

  function flow() {
    const { make, table } = page.elements;
    const outcomes = new Set(page.data.prompts.map((row) => row.outcome));
    const rows = known.flow.map((step) => [
      step.step,
      step.count,
      make("ul", { class: "reasons" }, step.left_out.map(([reason, count]) => {
        const words = `${reason}: ${count}`;
        // What is counted of candidates or responses is no outcome of a prompt.
        if (!outcomes.has(reason)) return make("li", {}, words);
        const filters = new URLSearchParams({ outcome: reason });
        return make("li", {}, make("a", { href: page.filters.address("gallery", "", filters) }, words));
      })),
    ]);
    return table("From prompts to pairs", ["Step", "Number", "Left out here"], rows);
  }

  function models() {
    const { make, table } = page.elements;
    const rows = known.models.map((each) => [
      each.does,
      each.model,
      make("code", {}, each.revision),
      each.terms ? make("a", { href: each.address, rel: "noreferrer" }, each.terms) : "not known here",
    ]);
    return table("Models", ["Does what", "Model", "Revision", "Terms"], rows);
  }

  async function time() {
    const { table } = page.elements;
    const used = await page.data.load("used");
    const columns = { rule: "Rule", jobs: "Jobs", computed: "Computed", reused: "Reused" };
    Object.assign(columns, { failed: "Failed", hours: "Hours" });
    if (used.rules.some((each) => "planned" in each)) {
      Object.assign(columns, { planned: "Planned hours", gpu_hours: "GPU-hours", planned_gpu_hours: "Planned GPU-hours" });
    }
    const rows = used.rules.map((each) => Object.keys(columns).map((name) => each[name] ?? "–"));
    return table("Time by rule", Object.values(columns), rows);
  }

  function reviewing() {
    const { make, table } = page.elements;
    const found = page.reviews.counts();
    const reviewer = make("input", { type: "text", maxlength: "200", value: page.reviews.reviewer(), onchange: (event) => page.reviews.setReviewer(event.target.value) });
    const counted = known.reviews;
    return make(
      "section",
      { "aria-label": "Reviews" },
      make("h2", {}, "Reviews"),
      make("p", {}, `In this browser: ${found.accept} accepted, ${found.reject} rejected, ${found.swap} swapped. They count in the next run once reviews.csv lies in the project's folder ${known.reviews_folder}/.`),
      found[""] > 0 && make("p", { class: "warning" }, `Notes without a verdict: ${found[""]}. They are not in reviews.csv.`),
      !page.reviews.isKept() && make("p", { class: "warning" }, "This browser keeps nothing: download before you close the page."),
      make("div", { class: "review" },
        make("label", {}, make("span", {}, "Reviewer"), reviewer),
        make("button", { type: "button", id: "download", onclick: () => page.reviews.download("reviews.csv", page.reviews.csv()) }, "Download reviews.csv")),
      counted.lines.map((line) => make("p", {}, line)),
      counted.disagreements.length
        ? table("Pairs that reviewers disagree about", ["Prompt", "Verdicts"], counted.disagreements.map(([id, verdicts]) => [make("a", { href: page.filters.address("prompt", id) }, id), verdicts]))
        : null,
    );
  }

  function tableOf(each) {
    const { make, table } = page.elements;
    return make("section", {}, table(each.title, each.header, each.rows), each.notes.map((note) => make("p", { class: "hint" }, note)));
  }

  function figureOf(each) {
    const { make } = page.elements;
    return make("figure", {}, make("img", { src: `figures/${each.file}`, alt: each.title, loading: "lazy" }), make("figcaption", {}, each.title));
  }

  async function draw() {
    const { make } = page.elements;
    const main = document.getElementById("content");
    const used = await time();
    main.replaceChildren(
      make("h1", {}, `Run ${known.run}`),
      known.label === "demo" ? make("p", { class: "warning" }, "A demonstration: tiny models made this data. It shows how the workflow works, not what a method reaches.") : "",
      ...known.warnings.map((words) => make("p", { class: "warning" }, words)),
      make("section", {}, make("h2", {}, "The flow"), flow()),
      reviewing(),
      make("section", {}, make("h2", {}, "Tables"), known.tables.length ? known.tables.map(tableOf) : make("p", {}, "No table is there yet.")),
      make("section", {}, make("h2", {}, "Figures"), known.figures.length ? known.figures.map(figureOf) : make("p", {}, "No figure is there yet.")),
      make("section", {}, make("h2", {}, "Models"), models()),
      make("section", {}, make("h2", {}, "Time"), used),
      make("section", {}, make("h2", {}, "Configuration"), make("details", {}, make("summary", {}, "YAML"), make("pre", { tabindex: "0" }, known.configuration))),
    );
  }

  async function begin() {
    known = await page.data.load("overview");
    return known;
  }

  page.overview = { begin, draw, facts: () => known };
})();
