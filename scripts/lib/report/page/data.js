// The data: files in data/ that call `pageData` with their name and their JSON, since a page that is
// opened from disk can read no others. Those that all pages need are read at the start, the rest
// when it is asked for.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const NAME = /^[a-z]+(-\d{3,5})?$/;
  const waiting = new Map(); // name -> {promise, resolve, reject}

  function address(name) {
    if (!NAME.test(name)) throw new Error(`no data have the name ${name}`);
    return `data/${name}.js`;
  }

  // The one place that makes the address of a script, as the Content-Security-Policy demands.
  const policy = window.trustedTypes?.createPolicy("report-data", { createScriptURL: address });

  window.pageData = (name, text) => waiting.get(name)?.resolve(JSON.parse(text));

  // The data of a name, read once.
  function load(name) {
    if (waiting.has(name)) return waiting.get(name).promise;
    const entry = {};
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    waiting.set(name, entry);
    const script = document.createElement("script");
    script.src = policy ? policy.createScriptURL(name) : address(name);
    script.addEventListener("error", () => {
      entry.reject(new Error(`data/${name}.js cannot be read. Is the folder whole?`));
    });
    script.addEventListener("load", () => script.remove());
    document.head.append(script);
    return entry.promise;
  }

  const numbered = (name, number) => `${name}-${String(number).padStart(3, "0")}`;

  const prompts = []; // one entry a prompt, in the report's order
  const byId = new Map();

  async function loadPrompts(count) {
    const chunks = Array.from({ length: count }, (_, number) => load(numbered("prompts", number)));
    for (const rows of await Promise.all(chunks)) {
      for (const row of rows) {
        row.words = `${row.id}\n${row.prompt}\n${row.instruction}`.toLowerCase();
        prompts.push(row);
        byId.set(row.id, row);
      }
    }
  }

  // What is known of one prompt beside its entry: candidates, responses, pair.
  async function details(row) {
    const rows = await load(numbered("details", row.chunk));
    return rows.find((each) => each.id === row.id);
  }

  // The words of all answers, by prompt: read when one looks for words in them.
  let answers = null;
  async function loadAnswers(count) {
    if (answers) return answers;
    const found = new Map();
    for (let number = 0; number < count; number += 1) {
      for (const row of await load(numbered("details", number))) {
        const texts = row.responses.map((each) => each.text ?? "");
        found.set(row.id, texts.join("\n").toLowerCase());
      }
    }
    answers = found;
    return found;
  }

  page.data = {
    load,
    numbered,
    loadPrompts,
    details,
    loadAnswers,
    answersOf: (id) => answers?.get(id) ?? "",
    prompts,
    byId,
  };
})();
