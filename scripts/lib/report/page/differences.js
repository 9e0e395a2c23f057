// Which words two answers do not share: what a longest common subsequence of their words leaves out.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const CELLS = 4e6; // of the table; beyond that a word is marked where the other has it nowhere

  const wordsOf = (text) => text.match(/\s+|\S+/gu) ?? [];

  // For each list whether each word is common, by their longest common subsequence.
  function common(left, right) {
    const width = right.length + 1;
    const lengths = new Uint16Array((left.length + 1) * width);
    for (let i = left.length - 1; i >= 0; i -= 1) {
      for (let j = right.length - 1; j >= 0; j -= 1) {
        lengths[i * width + j] =
          left[i] === right[j]
            ? lengths[(i + 1) * width + j + 1] + 1
            : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
      }
    }
    const inLeft = new Array(left.length).fill(false);
    const inRight = new Array(right.length).fill(false);
    for (let i = 0, j = 0; i < left.length && j < right.length; ) {
      if (left[i] === right[j]) {
        inLeft[i] = inRight[j] = true;
        i += 1;
        j += 1;
      } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
      else j += 1;
    }
    return [inLeft, inRight];
  }

  function shared(left, right) {
    if (left.length * right.length <= CELLS) return common(left, right);
    const [there, here] = [new Set(right), new Set(left)];
    return [left.map((word) => there.has(word)), right.map((word) => here.has(word))];
  }

  // Blanks between two marked words are marked with them.
  function parts(all, isWord, isCommon) {
    const made = [];
    let place = 0;
    for (const text of all) {
      const isMarked = isWord(text)
        ? !isCommon[place]
        : place > 0 && !isCommon[place - 1] && isCommon[place] === false;
      if (isWord(text)) place += 1;
      const last = made.at(-1);
      if (last && last.isMarked === isMarked) last.text += text;
      else made.push({ text, isMarked });
    }
    return made;
  }

  // The parts ({text, isMarked}) of two texts.
  function mark(left, right) {
    const isWord = (text) => /\S/u.test(text);
    const [all, others] = [wordsOf(left), wordsOf(right)];
    const [inLeft, inRight] = shared(all.filter(isWord), others.filter(isWord));
    return [parts(all, isWord, inLeft), parts(others, isWord, inRight)];
  }

  page.differences = { mark };
})();
