// Elements with their children. Strings become text, whatever stands in them.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const SVG = "http://www.w3.org/2000/svg";

  function append(element, children) {
    for (const child of children.flat()) {
      if (child === null || child === undefined || child === false) continue;
      if (child instanceof Node) element.append(child);
      else element.append(...page.text.nodes(String(child)));
    }
    return element;
  }

  // `attributes`: on<event> are listeners; true is an attribute without value, false and null none.
  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined)
        element.setAttribute(name, value);
    }
    return element;
  }

  function make(tag, attributes = {}, ...children) {
    return append(set(document.createElement(tag), attributes), children);
  }

  function svg(tag, attributes = {}, ...children) {
    return append(set(document.createElementNS(SVG, tag), attributes), children);
  }

  function number(value) {
    if (value === null || value === undefined) return "–";
    return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4);
  }

  // A table with a header line; `rows` of texts, numbers and nodes.
  function table(caption, header, rows) {
    const cell = (value) =>
      typeof value === "number"
        ? make("td", { class: "number" }, number(value))
        : make("td", {}, value);
    return make(
      "div",
      { class: "scrolls", tabindex: "0", role: "region", "aria-label": page.text.plain(caption) },
      make(
        "table",
        {},
        make("caption", {}, caption),
        make("thead", {}, make("tr", {}, header.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell)))),
      ),
    );
  }

  function picture(name, description, eager = false) {
    if (!name) return make("span", { class: "no-picture" }, "no picture");
    return make("img", {
      src: `thumbs/${name.slice(0, 2)}/${name}.webp`,
      alt: page.text.plain(description),
      loading: eager ? "eager" : "lazy",
      decoding: "async",
    });
  }

  // An answer under its heading; `parts` as page.text.fill has them.
  function answer(kind, heading, parts) {
    const text = page.text.fill(make("div", { class: "answer", dir: "auto" }), parts);
    return make("article", { class: `side ${kind}` }, heading, text);
  }

  // Says something to who hears the page.
  function say(words) {
    document.getElementById("status").textContent = words;
  }

  page.elements = { make, svg, table, picture, answer, number, say };
})();
