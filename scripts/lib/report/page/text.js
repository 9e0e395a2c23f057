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

  // Fills an element with parts of a text ({text, isMarked}); what is long is cut until one asks.
  function fill(element, parts) {
    element.replaceChildren();
    let left = LONG;
    let length = 0;
    for (const part of parts) {
      length += part.text.length;
      const shown = part.text.slice(0, Math.max(left, 0));
      left -= part.text.length;
      if (!shown) continue;
      if (part.isMarked) {
        const mark = document.createElement("mark");
        mark.append(...nodes(shown));
        element.append(mark);
      } else {
        element.append(...nodes(shown));
      }
    }
    if (left < 0) element.append(moreButton(element, parts, length));
    return element;
  }

  function moreButton(element, parts, length) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    button.textContent = `Show all ${length.toLocaleString("en")} characters`;
    button.addEventListener("click", () => {
      const all = parts.map((part) => {
        const piece = document.createElement(part.isMarked ? "mark" : "span");
        piece.append(...nodes(part.text));
        return piece;
      });
      element.replaceChildren(...all);
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
