// Text that people or models wrote, as nodes: never as markup. Characters that show nothing, or that
// turn the order of what stands beside them, are shown by their code points.
(() => {
  "use strict";
  const page = (window.page ??= {});

  // Controls but for tab and line feed, marks of direction, blanks without width, tags, and lone
  // surrogates.
  const HIDDEN =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]|\p{Cs}/gu;
  const LONG = 4000; // characters that are shown before one asks for the rest

  function codePoint(character) {
    const mark = document.createElement("span");
    mark.className = "code-point";
    mark.textContent = `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    return mark;
  }

  // The nodes of a text.
  function nodes(text) {
    const made = [];
    let end = 0;
    for (const found of text.matchAll(HIDDEN)) {
      if (found.index > end) made.push(document.createTextNode(text.slice(end, found.index)));
      made.push(codePoint(found[0]));
      end = found.index + found[0].length;
    }
    if (end < text.length) made.push(document.createTextNode(text.slice(end)));
    return made;
  }

  // A text on one line, for titles and labels.
  function plain(text) {
    return text.replace(HIDDEN, " ").replace(/\s+/g, " ").trim();
  }

  // A text without lone surrogates, which neither addresses nor files can hold.
  const wellFormed = (text) => text.replace(/\p{Cs}/gu, "\ufffd");

  function piece({ text, isMarked }) {
    const made = document.createElement(isMarked ? "mark" : "span");
    made.append(...nodes(text));
    return made;
  }

  // The parts of a text as far as they are shown at first. No character is cut in two.
  function beginning(parts) {
    let left = LONG;
    const shown = [];
    for (const part of parts) {
      if (left <= 0) break;
      const text = part.text.length > left ? part.text.slice(0, left).replace(/[\ud800-\udbff]$/, "") : part.text;
      shown.push({ ...part, text });
      left -= part.text.length;
    }
    return shown;
  }

  // Fills an element with parts of a text ({text, isMarked}); what is long is cut until one asks.
  function fill(element, parts) {
    const length = parts.reduce((sum, part) => sum + part.text.length, 0);
    element.replaceChildren(...beginning(parts).map(piece));
    if (length > LONG) element.append(moreButton(element, parts, length));
    return element;
  }

  function moreButton(element, parts, length) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    button.textContent = `Show all ${length.toLocaleString("en")} characters`;
    button.addEventListener("click", () => {
      element.replaceChildren(...parts.map(piece));
      element.tabIndex = -1;
      element.focus();
    });
    return button;
  }

  page.text = {
    nodes,
    plain,
    wellFormed,
    fill,
    fillPlain: (element, text) => fill(element, [{ text, isMarked: false }]),
  };
})();
