// What a reviewer says of pairs: kept in this browser until it is downloaded as reviews.csv.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const VERDICTS = { accept: "accepted", reject: "rejected", swap: "swapped" };
  const COLUMNS = ["run", "prompt_id", "pair", "verdict", "note", "reviewer", "sample", "reviewed_at"];
  const VERDICT_COLUMNS = ["run", "kind", "prompt_id", "shown", "first", "second", "verdict", "reviewer", "judged_at"];
  let run = "";
  let kept = { reviewer: "", marks: {}, verdicts: {} };
  let isKept = true;

  const place = () => `pds-dpo reviews of ${run}`;

  function begin(name) {
    run = name;
    try {
      const there = JSON.parse(localStorage.getItem(place()) ?? "null");
      if (there?.marks) kept = { ...kept, ...there };
    } catch {
      isKept = false; // a browser that keeps nothing
    }
  }

  function keep() {
    try {
      localStorage.setItem(place(), JSON.stringify(kept));
    } catch {
      isKept = false;
    }
  }

  // The mark of a prompt's pair; one of an earlier pair of this prompt is none.
  function of(row) {
    const mark = Object.hasOwn(kept.marks, row.id) ? kept.marks[row.id] : null;
    return mark && mark.pair === row.pair ? mark : null;
  }

  function change(row, values) {
    const before = of(row) ?? { pair: row.pair, verdict: "", note: "", sample: "" };
    const mark = { ...before, ...values, at: new Date().toISOString() };
    if (mark.verdict || mark.note) kept.marks[row.id] = mark;
    else delete kept.marks[row.id];
    keep();
  }

  function quoted(value) {
    const text = page.text.wellFormed(String(value));
    // A spreadsheet would take it for a formula.
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  // The file's text: a line for each mark of a pair that is still there.
  function csv() {
    const lines = page.data.prompts
      .map((row) => [row, of(row)])
      .filter(([, mark]) => mark?.verdict)
      .map(([row, mark]) => [
        ...[run, row.id, mark.pair, mark.verdict, mark.note],
        ...[kept.reviewer, mark.sample, mark.at],
      ]);
    return linesOf([COLUMNS, ...lines]);
  }

  const linesOf = (lines) => lines.map((line) => `${line.map(quoted).join(",")}\r\n`).join("");

  // What is shown of a prompt in the blind mode is known by this.
  const shownOf = (kind, row) => (kind === "pictures" ? row.pictures : row.pair);

  // What was said of two pictures or answers of a prompt; null where nothing was said of these two.
  function verdict(kind, row) {
    const name = `${kind}/${row.id}`;
    const said = Object.hasOwn(kept.verdicts, name) ? kept.verdicts[name] : null;
    return said && said.shown === shownOf(kind, row) ? said : null;
  }

  function judge(kind, row, said) {
    const at = new Date().toISOString();
    kept.verdicts[`${kind}/${row.id}`] = { ...said, shown: shownOf(kind, row), at };
    keep();
  }

  function verdictsCsv() {
    const lines = ["pictures", "answers"].flatMap((kind) =>
      page.data.prompts
        .map((row) => [row, verdict(kind, row)])
        .filter(([, said]) => said)
        .map(([row, said]) => [
          ...[run, kind, row.id, said.shown, said.first, said.second, said.verdict],
          ...[kept.reviewer, said.at],
        ]),
    );
    return linesOf([VERDICT_COLUMNS, ...lines]);
  }

  function download(name, text) {
    const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    page.elements.make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // How many marks there are of each verdict; of "", notes alone.
  function counts() {
    const found = { accept: 0, reject: 0, swap: 0, "": 0 };
    for (const row of page.data.prompts) {
      const mark = of(row);
      if (mark) found[mark.verdict] += 1;
    }
    return found;
  }

  page.reviews = {
    VERDICTS,
    begin,
    of,
    change,
    csv,
    verdict,
    judge,
    verdictsCsv,
    download,
    counts,
    isKept: () => isKept,
    reviewer: () => kept.reviewer,
    setReviewer: (name) => {
      kept.reviewer = name.trim();
      keep();
    },
  };
})();
