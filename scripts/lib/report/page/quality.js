// How good the data are, as far as numbers tell.
(() => {
  "use strict";
  const page = (window.page ??= {});

  const link = (id, words) =>
    page.elements.make("a", { href: page.filters.address("prompt", id) }, words ?? id);
  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);

  function extremes(title, rows) {
    const shown = rows.map(([margin, id, prompt]) => [margin, link(id, prompt)]);
    return page.elements.table(title, ["Margin", "Prompt"], shown);
  }

  function lengths(told) {
    const { make, number } = page.elements;
    if (!told.responses) return make("section", {}, make("h2", {}, "Length against reward"), make("p", {}, "No response is ranked."));
    const { correlation, doubling, best_is_longer: longer } = told.length;
    const words =
      `${told.responses.toLocaleString("en")} ranked responses, of which at most 1,500 are drawn. Within a prompt the` +
      ` correlation of reward and log length is ${number(correlation)}; the reward gains` +
      ` ${number(doubling)} as the length doubles; the best response is longer than the worst in` +
      ` ${percent(longer)} of the prompts.`;
    return make("section", {}, make("h2", {}, "Length against reward"), make("p", {}, words),
      page.charts.dots("Reward (upwards) by length in characters", told.dots));
  }

  function alike(rows) {
    const shown = (id) => link(id, page.data.byId.get(id)?.prompt ?? id);
    const pairs = rows.map(([value, one, other]) => [value, shown(one), shown(other)]);
    return page.elements.table("Cosine of their words, rare ones weighing more", ["Alike", "Prompt", "Prompt"], pairs);
  }

  // Of the scorers that rank candidates, or the rewards of an ensemble, which rank responses.
  function agreement([what, rows]) {
    const { make, table } = page.elements;
    if (!rows.length) return make("p", {}, `No prompt's ${what}s are ranked by two scorers.`);
    const shown = rows.map(([one, other, count, share]) => [one, other, count, percent(share)]);
    return table(`How often two scorers find the same ${what} best`, ["Scorer", "Scorer", "Prompts", "Same"], shown);
  }

  function checkOf(each) {
    const { make } = page.elements;
    const rows = each.findings.map(([id, detail]) =>
      make("li", {}, page.data.byId.has(id) ? link(id) : id, detail && `: ${detail}`));
    return make("details", {}, make("summary", {}, `${each.check} (${each.what}): ${each.found}`), make("ul", {}, rows));
  }

  async function draw() {
    const { make, table } = page.elements;
    const told = await page.data.load("quality");
    document.getElementById("content").replaceChildren(
      make("h1", {}, "Quality"),
      make("section", {}, make("h2", {}, "Scores"),
        make("div", { class: "charts" }, told.histograms.map(page.charts.histogram))),
      make("section", {}, make("h2", {}, "Who is chosen, and who is rejected"),
        table("Responses by model", ["Model", "Ranked", "Chosen", "Rejected"], told.policies)),
      lengths(told),
      make("section", {}, make("h2", {}, "Agreement of the scorers"),
        Object.entries(told.agreement).map(agreement)),
      make("section", {}, make("h2", {}, "Largest and smallest margins"),
        make("div", { class: "charts" }, extremes("Largest", told.largest), extremes("Smallest", told.smallest))),
      make("section", {}, make("h2", {}, "Prompts that are most alike"),
        told.alike.length ? alike(told.alike) : make("p", {}, "No two share a word that is not in many.")),
      make("section", {}, make("h2", {}, "What checks found in the pairs"),
        told.checks.length ? told.checks.map(checkOf) : make("p", {}, "Nothing, or they have not been made yet (quality/pairs.json).")),
    );
  }

  page.quality = { draw };
})();
