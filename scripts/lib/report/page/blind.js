// The blind mode: two pictures or two answers without names, in an order that was drawn; which is the
// better one?
(() => {
  "use strict";
  const page = (window.page ??= {});
  const KINDS = { pictures: "Pictures", answers: "Answers" };
  let shown = null; // {kind, row, sides}

  // The prompts of a kind in the order in which they are drawn.
  function drawn(kind) {
    const place = kind === "pictures" ? "compared" : "draw";
    const rows = page.data.prompts.filter((row) => row[place] !== null);
    return rows.sort((one, other) => one[place] - other[place]);
  }

  const isJudged = (kind, row) => page.reviews.verdict(kind, row) !== null;

  // What is seen: two sides ({name, nodes}), in the order that was drawn.
  function sidesOf(kind, row, details) {
    const { make, picture } = page.elements;
    const sides =
      kind === "pictures"
        ? details.comparison.names.map((name, place) => {
            const candidate = details.candidates[details.comparison.candidates[place]];
            return { name, node: () => picture(candidate.picture, "", true) };
          })
        : ["chosen", "rejected"].map((name) => {
            const box = () => make("div", { class: "answer", dir: "auto" });
            return { name, node: () => page.text.fillPlain(box(), details.pair[name].text) };
          });
    return row.turned.includes(kind) ? sides.reverse() : sides;
  }

  function ask(kind, row, details) {
    const { make, picture } = page.elements;
    const picked = details.candidates.find((each) => each.isPicked);
    const question =
      kind === "pictures"
        ? ["Which picture shows this better?", row.prompt]
        : ["Which answer is better?", row.instruction];
    const side = (each, words) =>
      make("article", { class: "side" }, make("h2", {}, words), each.node());
    const button = (words, key, verdict) =>
      make("button", { type: "button", "aria-keyshortcuts": key, onclick: () => say(verdict) }, `${words} (${key})`);
    const [left, right] = shown.sides;
    return make(
      "section",
      { id: "question" },
      make("p", {}, question[0]),
      make("p", { class: "answer asked-text", dir: "auto" }, question[1]),
      kind === "answers" && picked && make("div", { class: "seen" }, picture(picked.picture, "The picture that is asked about", true)),
      make("div", { class: "review" },
        button("Left", "1", left.name), button("Right", "2", right.name), button("Neither is better", "0", "tie")),
      make("div", { class: "sides" }, side(left, "Left"), side(right, "Right")),
    );
  }

  function say(verdict) {
    const { kind, row, sides } = shown;
    const [first, second] = sides.map((side) => side.name);
    page.reviews.judge(kind, row, { first, second, verdict });
    page.elements.say("Noted.");
    draw(null, kind);
  }

  function heading(kind, rows) {
    const { make } = page.elements;
    const judged = rows.filter((row) => isJudged(kind, row)).length;
    const links = Object.entries(KINDS).map(([name, words]) =>
      make("a", { href: `#blind/${name}`, class: "button", "aria-current": name === kind ? "page" : null }, words));
    const download = () => page.reviews.download("verdicts.csv", page.reviews.verdictsCsv());
    return [
      make("h1", {}, "Blind comparison"),
      make("p", { class: "hint" }, "Names are hidden and sides are drawn. Put verdicts.csv into the project's folder of reviews: in the next run it makes Table 5 with people as judges, and tells how often each reward agrees with them."),
      make("nav", { class: "pager", "aria-label": "Kinds" }, links,
        make("span", { id: "judged" }, `${judged} of ${rows.length} judged`),
        make("button", { type: "button", id: "download-verdicts", onclick: download }, "Download verdicts.csv")),
    ];
  }

  async function draw(_, item) {
    const { make } = page.elements;
    const kind = Object.hasOwn(KINDS, item ?? "") ? item : "pictures";
    const rows = drawn(kind);
    const row = rows.find((each) => !isJudged(kind, each));
    const main = document.getElementById("content");
    shown = null;
    if (!row) {
      const words = rows.length ? "All of them are judged. Thank you." : "There is nothing to compare: the scorers pick the same, or there is no pair.";
      main.replaceChildren(...heading(kind, rows), make("p", { id: "question" }, words));
      return;
    }
    const details = await page.data.details(row);
    shown = { kind, row, sides: sidesOf(kind, row, details) };
    main.replaceChildren(...heading(kind, rows), ask(kind, row, details));
  }

  // Whether a key did something here.
  function pressed(key) {
    if (!shown || !["1", "2", "0"].includes(key)) return false;
    say(key === "0" ? "tie" : shown.sides[key - 1].name);
    return true;
  }

  page.blind = { draw, pressed, leave: () => (shown = null) };
})();
