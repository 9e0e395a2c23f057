// Trainings and scores: curves, scores with their intervals, and base against trained by question.
(() => {
  "use strict";
  const page = (window.page ??= {});

  function trainingOf(training) {
    const { make } = page.elements;
    const charts = training.curves.map((curve) =>
      page.charts.curves(curve.title, [["training pairs", curve.training], ["held-out pairs", curve.held_out]]));
    return make("section", {}, make("h3", {}, training.name), make("div", { class: "charts" }, charts));
  }

  function scoresOf(benchmark) {
    const { table, number } = page.elements;
    const models = [...new Set(benchmark.scores.flatMap((line) => line.models.map(([model]) => model)))];
    const cell = (line, model) => {
      const found = line.models.find(([name]) => name === model);
      if (!found) return "–";
      const [, value, low, high] = found;
      return low === null ? number(value) : `${number(value)} (${number(low)} to ${number(high)})`;
    };
    const rows = benchmark.scores.map((line) => [line.score, ...models.map((model) => cell(line, model))]);
    return table(`${benchmark.benchmark}: scores, with their 95 % intervals`, ["Score", ...models], rows);
  }

  function tested(compared) {
    const { number } = page.elements;
    return "p" in compared
      ? `p = ${number(compared.p)} (McNemar's exact test)`
      : `95 % interval of the difference ${number(compared.low)} to ${number(compared.high)} (bootstrap, by picture)`;
  }

  function changeOf(change) {
    const { make, picture, answer } = page.elements;
    const [before, after] = page.differences.mark(change.before, change.after);
    return make(
      "li",
      { class: "change" },
      change.difference > 0 ? make("p", { class: "badge" }, "better") : make("p", { class: "badge bad" }, "worse"),
      change.picture && picture(change.picture, change.question),
      make("div", {},
        page.text.fillPlain(make("p", { class: "answer", dir: "auto" }), change.question),
        change.target && make("p", { class: "hint" }, `Right, or there: ${change.target}`)),
      make("div", { class: "sides" }, answer("", make("h4", {}, "Base"), before), answer("", make("h4", {}, "Trained"), after)),
    );
  }

  // The questions are read when one asks for them.
  function changesOf(compared) {
    const { make } = page.elements;
    const name = page.data.numbered("questions", compared.file);
    const box = make("details", {}, make("summary", {}, `${compared.listed} questions whose score changed, those that changed most first`));
    box.addEventListener("toggle", async () => {
      if (box.children.length > 1) return;
      const list = make("ul", { class: "changes" });
      box.append(list);
      list.append(...(await page.data.load(name)).map(changeOf));
    });
    return box;
  }

  function comparedOf(compared) {
    const { make, number } = page.elements;
    return make(
      "section",
      {},
      make("h4", {}, `base against ${compared.model}`),
      make("p", {}, `Of ${compared.questions.toLocaleString("en")} questions, ${compared.better} got better and ${compared.worse} worse; mean difference ${number(compared.difference)}; ${tested(compared)}.`),
      compared.listed ? changesOf(compared) : null,
    );
  }

  function benchmarkOf(benchmark) {
    const { make } = page.elements;
    const unscored = benchmark.compared.length === 0 &&
      make("p", { class: "hint" }, "No comparison by question: the scorer says no score of each answer.");
    return make("section", {}, make("h3", {}, benchmark.benchmark),
      benchmark.scores.length ? scoresOf(benchmark) : make("p", {}, "No scores are there yet."),
      benchmark.compared.map(comparedOf), benchmark.scores.length > 0 && unscored);
  }

  // All comparisons in one table.
  function summary(benchmarks) {
    const { table, number } = page.elements;
    const rows = benchmarks.flatMap((benchmark) =>
      benchmark.compared.map((each) => [
        benchmark.benchmark,
        each.model,
        each.questions,
        each.better,
        each.worse,
        each.difference,
        "p" in each ? number(each.p) : "–",
        "low" in each ? `${number(each.low)} to ${number(each.high)}` : "–",
      ]),
    );
    const header = ["Benchmark", "Model", "Questions", "Better", "Worse", "Mean difference"];
    return rows.length
      ? table("Base against trained, question by question", [...header, "p (McNemar, exact)", "95 % interval (bootstrap)"], rows)
      : null;
  }

  async function draw() {
    const { make } = page.elements;
    const told = await page.data.load("models");
    document.getElementById("content").replaceChildren(
      make("h1", {}, "Training and evaluation"),
      make("section", {}, make("h2", {}, "Trainings"),
        told.trainings.length ? told.trainings.map(trainingOf) : make("p", {}, "No training is there yet.")),
      make("section", {}, make("h2", {}, "Benchmarks"), summary(told.benchmarks), told.benchmarks.map(benchmarkOf)),
    );
  }

  page.models = { draw };
})();
