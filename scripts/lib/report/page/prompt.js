// One prompt: its candidates, its responses, its pair side by side, and what the reviewer says of it.
(() => {
  "use strict";
  const page = (window.page ??= {});
  let shown = null; // {row, filters, rows: those that the filters left when it was drawn}

  function neighbour(step) {
    // A mark may take the prompt out of what the filters leave; those beside it stay the same.
    const { rows, row } = shown;
    const place = rows.indexOf(row);
    return place < 0 ? (step > 0 ? rows[0] : rows.at(-1)) : rows[place + step];
  }

  function go(step) {
    const row = neighbour(step);
    if (row) location.hash = page.filters.address("prompt", row.id, shown.filters);
    else page.elements.say(step > 0 ? "This is the last prompt." : "This is the first prompt.");
  }

  function link(step, words, key) {
    const { make } = page.elements;
    const row = neighbour(step);
    if (!row) return make("span", { class: "button off" }, words);
    const href = page.filters.address("prompt", row.id, shown.filters);
    return make("a", { class: "button", href, "aria-keyshortcuts": key }, words);
  }

  function scoresOf(candidate) {
    const { make, number } = page.elements;
    return candidate.scores.map(([name, score, isPick]) =>
      make("li", { class: isPick ? "pick" : "" }, `${name} ${number(score)}${isPick ? " ✓" : ""}`),
    );
  }

  function enlarge(candidate, words) {
    const { make } = page.elements;
    const close = () => dialog.close();
    const { file } = candidate; // those of own pairs stand in their data set's files
    const image = file ? make("img", { src: `../${file}`, alt: page.text.plain(words) }) : page.elements.picture(candidate.picture, words, true);
    const said = make("p", {}, file ? "" : "The picture itself is in its data set; this is its thumbnail.");
    image.addEventListener("error", () => {
      image.replaceWith(page.elements.picture(candidate.picture, words, true));
      said.textContent = "The picture itself is not beside this report; this is its thumbnail.";
    });
    const dialog = make("dialog", { onclose: () => dialog.remove(), "aria-label": "Picture" }, image, said,
      make("button", { type: "button", onclick: close }, "Close"));
    document.body.append(dialog);
    dialog.showModal();
  }

  function pictureButton(candidate, words) {
    const { make, picture } = page.elements;
    const open = () => enlarge(candidate, words);
    return make("button", { type: "button", class: "picture", onclick: open }, picture(candidate.picture, words, true));
  }

  function candidateOf(candidate, row) {
    const { make } = page.elements;
    const words = `Candidate, ${candidate.of}: ${row.prompt}`;
    return make(
      "li",
      { class: `candidate ${candidate.isPicked ? "picked" : ""}` },
      pictureButton(candidate, words),
      make("p", {}, candidate.seed === null ? candidate.of : `${candidate.of}, seed ${candidate.seed}`),
      candidate.isPicked && make("p", { class: "badge" }, "picked"),
      candidate.blank && make("p", { class: "badge bad" }, "one colour only"),
      make("ul", { class: "scores" }, scoresOf(candidate)),
    );
  }

  function side(kind, name, told, parts) {
    const { make, answer } = page.elements;
    return answer(kind, make("h3", {}, name, " ", make("small", {}, told)), parts);
  }

  // The pair beside what it is about: the picked picture, and what was asked.
  function asked(details, row) {
    const { make } = page.elements;
    const picked = details.candidates.find((each) => each.isPicked);
    return make(
      "section",
      { class: "asked", "aria-label": "Picture, instruction and pair" },
      picked && pictureButton(picked, `Picked picture: ${row.prompt}`),
      make("div", {}, make("h2", {}, "Instruction"), make("p", { class: "answer", dir: "auto" }, row.instruction || "–"), pairOf(details)),
    );
  }

  // A pair that an experiment brings: nobody scored it, and it is changed in its own file.
  function ownPairOf(details) {
    const { make } = page.elements;
    const [chosen, rejected] = details.responses;
    const [left, right] = page.differences.mark(chosen.text, rejected.text);
    return make(
      "section",
      {},
      make("h2", {}, "Pair"),
      make("p", { class: "hint" }, `From ${details.own}. Marked: words that the other answer does not have.`),
      make("div", { class: "sides" }, side("chosen", "Chosen", "", left), side("rejected", "Rejected", "", right)),
    );
  }

  function pairOf(details) {
    const { make, number } = page.elements;
    if (details.own) return ownPairOf(details);
    const pair = details.pair;
    const why = make("p", { class: "warning" }, `No pair: ${details.why}`);
    if (!pair) return make("section", {}, make("h2", {}, "Pair"), why);
    const { chosen, rejected } = pair;
    const [left, right] = page.differences.mark(chosen.text, rejected.text);
    const told = ({ policy, score }) => `${policy} · reward ${number(score)}`;
    return make(
      "section",
      {},
      make("h2", {}, "Pair ", make("small", {}, `margin ${number(pair.margin)}`)),
      pair.disagreement > 0 && make("p", { class: "hint" }, `Of the rewards, by weight, ${Math.round(100 * pair.disagreement)} % would have it the other way round.`),
      details.why && why,
      details.review && make("p", { class: "warning" }, details.review),
      make("p", { class: "hint" }, "Marked: words that the other answer does not have."),
      make("div", { class: "sides" },
        side("chosen", "Chosen", told(chosen), left),
        side("rejected", "Rejected", told(rejected), right)),
    );
  }

  function responseOf(response) {
    const { make, number } = page.elements;
    const parts = response.parts.map(([name, values]) =>
      make(
        "details",
        {},
        make("summary", {}, name),
        make("ul", { class: "scores" }, values.map(([part, value]) => make("li", {}, `${part} ${typeof value === "number" ? number(value) : value}`))),
      ),
    );
    const spread = response.spread === undefined ? "" : `, ${number(response.spread)} between the rewards`;
    const said = response.invalid ? `not ranked: ${response.invalid}` : `reward ${number(response.score)}${spread}`;
    return make(
      "article",
      { class: "response" },
      make("h3", {}, response.name, " ", make("small", {}, said)),
      response.detail && make("p", { class: "warning" }, response.detail),
      page.text.fillPlain(make("div", { class: "answer", dir: "auto" }), response.text ?? ""),
      parts,
    );
  }

  // What the run's stages made of the prompt.
  function stages(details, row) {
    const { make } = page.elements;
    return [
      make("section", {}, make("h2", {}, "Candidates"), make("ul", { class: "candidates" }, details.candidates.map((each) => candidateOf(each, row)))),
      make("section", {}, make("h2", {}, "Responses"), details.responses.map(responseOf)),
    ];
  }

  // The reviewer's buttons, drawn anew with each mark.
  function review(row) {
    const { make } = page.elements;
    if (!row.pair) return null;
    const mark = page.reviews.of(row);
    const button = (verdict, words, key) =>
      make(
        "button",
        {
          type: "button",
          class: verdict,
          "aria-pressed": String(mark?.verdict === verdict),
          "aria-keyshortcuts": key,
          onclick: () => say(verdict),
        },
        `${words} (${key})`,
      );
    const note = make("input", {
      type: "text",
      id: "note",
      maxlength: "2000",
      value: mark?.note,
      onchange: (event) => page.reviews.change(row, { note: event.target.value }),
    });
    return make(
      "section",
      { id: "review", class: "review", "aria-label": "Review" },
      button("accept", "Accept", "a"),
      button("reject", "Reject", "r"),
      button("swap", "Swap", "s"),
      make("label", {}, make("span", {}, "Note (o)"), note),
    );
  }

  // Marks the pair that is shown; the same verdict again takes it back.
  function say(verdict) {
    const { row, filters } = shown;
    if (!row.pair) return;
    const before = page.reviews.of(row)?.verdict;
    const sample = filters.get("sample") ?? "";
    page.reviews.change(row, { verdict: before === verdict ? "" : verdict, sample });
    document.getElementById("review").replaceWith(review(row));
    const now = page.reviews.of(row)?.verdict;
    page.elements.say(now ? `Pair ${page.reviews.VERDICTS[now]}.` : "Mark taken back.");
  }

  async function draw(id, filters) {
    const { make } = page.elements;
    const main = document.getElementById("content");
    const row = page.data.byId.get(id);
    if (!row) {
      shown = null;
      main.replaceChildren(make("h1", {}, "Prompt"), make("p", { class: "warning" }, `This report has no prompt ${id}. It may be of another run, or the prompt was edited since the link was made.`));
      return;
    }
    const rows = page.filters.apply(filters);
    shown = { row, filters, rows };
    const details = await page.data.details(row);
    if (shown.row !== row) return; // another was asked for meanwhile
    const place = rows.indexOf(row) + 1;
    main.replaceChildren(
      make(
        "nav",
        { class: "pager", "aria-label": "Prompts" },
        link(-1, "Previous (k)", "k"),
        make("a", { class: "button", href: page.filters.address("gallery", "", filters) }, place ? `${place} of ${rows.length}` : "Gallery"),
        link(1, "Next (j)", "j"),
      ),
      make("h1", { dir: "auto" }, row.prompt),
      make("p", { class: "hint" }, `${row.topic} · `, make("a", { href: page.filters.address("prompt", row.id) }, row.id)),
      review(row) ?? "",
      asked(details, row),
      ...(details.own ? [] : stages(details, row)),
    );
    window.scrollTo(0, 0);
    page.elements.say(`${page.text.plain(row.prompt)}, ${place} of ${rows.length}`);
  }

  const KEYS = {
    j: () => go(1),
    ArrowRight: () => go(1),
    k: () => go(-1),
    ArrowLeft: () => go(-1),
    a: () => say("accept"),
    r: () => say("reject"),
    s: () => say("swap"),
    o: () => document.getElementById("note")?.focus(),
    Escape: () => {
      location.hash = page.filters.address("gallery", "", shown.filters);
    },
  };

  // Whether a key did something here.
  function pressed(key) {
    if (!shown || !Object.hasOwn(KEYS, key)) return false;
    KEYS[key]();
    return true;
  }

  page.prompt = { draw, pressed, leave: () => (shown = null) };
})();
