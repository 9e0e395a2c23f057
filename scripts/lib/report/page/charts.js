// Charts as SVG: histograms, curves and dots. Each says in words what it shows, for who does not see
// it, and shows its numbers in a table where they are few.
(() => {
  "use strict";
  const page = (window.page ??= {});
  const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [420, 200, 60, 28, 8];
  const COLOURS = 6; // classes colour-0 to colour-5 of the style sheet

  function scale([low, high], from, to) {
    const span = high - low || 1;
    return (value) => from + ((value - low) / span) * (to - from);
  }

  const extent = (values) => values.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);

  function frame(title, [lowX, highX], [lowY, highY], children) {
    const { svg, number } = page.elements;
    const label = (at, to, words, anchor) =>
      svg("text", { x: at, y: to, "text-anchor": anchor, class: "tick" }, words);
    return svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": page.text.plain(title), class: "chart" },
      svg("line", { x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH, y2: HEIGHT - BOTTOM, class: "axis" }),
      svg("line", { x1: LEFT, y1: TOP, x2: LEFT, y2: HEIGHT - BOTTOM, class: "axis" }),
      children,
      label(LEFT, HEIGHT - 10, number(lowX), "start"),
      label(WIDTH - 2, HEIGHT - 10, number(highX), "end"),
      label(LEFT - 4, HEIGHT - BOTTOM, number(lowY), "end"),
      label(LEFT - 4, TOP + 8, number(highY), "end"),
    );
  }

  function legend(names) {
    const { make } = page.elements;
    const entry = (name, place) =>
      make("li", {}, make("span", { class: `dot colour-${place % COLOURS}` }), " ", name);
    return make("ul", { class: "legend" }, names.map(entry));
  }

  function figure(title, chart, names) {
    const { make } = page.elements;
    return make("figure", {}, make("figcaption", {}, title), chart, names.length > 1 && legend(names));
  }

  // Lines through [x, y] of each name.
  function curves(title, lines) {
    const { svg } = page.elements;
    const shown = lines.filter(([, points]) => points.length);
    const all = shown.flatMap(([, points]) => points);
    if (!all.length) return null;
    const [across, upwards] = [extent(all.map(([x]) => x)), extent(all.map(([, y]) => y))];
    const x = scale(across, LEFT, WIDTH - 4);
    const y = scale(upwards, HEIGHT - BOTTOM, TOP);
    const path = ([, points], place) => {
      const d = points.map(([at, to], number) => `${number ? "L" : "M"}${x(at).toFixed(1)} ${y(to).toFixed(1)}`).join("");
      return svg("path", { d, class: `curve stroke-${place % COLOURS}` });
    };
    const chart = frame(title, across, upwards, shown.map(path));
    return figure(title, chart, shown.map(([name]) => name));
  }

  // A histogram as one line of steps for each group.
  function histogram(told) {
    const groups = Object.entries(told.groups);
    if (!groups.length) return null;
    const steps = groups.map(([name, counts]) => {
      const points = counts.flatMap((count, place) => [
        [told.edges[place], count],
        [told.edges[place + 1], count],
      ]);
      return [name, points];
    });
    return curves(told.title, steps);
  }

  // Dots of [x, y, name].
  function dots(title, points) {
    const { svg } = page.elements;
    if (!points.length) return null;
    const names = [...new Set(points.map(([, , name]) => name))].sort();
    const [across, upwards] = [extent(points.map(([x]) => x)), extent(points.map(([, y]) => y))];
    const x = scale(across, LEFT + 4, WIDTH - 6);
    const y = scale(upwards, HEIGHT - BOTTOM - 4, TOP + 4);
    const one = ([at, to, name]) =>
      svg("circle", { cx: x(at).toFixed(1), cy: y(to).toFixed(1), r: 2, class: `fill-${names.indexOf(name) % COLOURS}` });
    return figure(title, frame(title, across, upwards, points.map(one)), names);
  }

  page.charts = { curves, histogram, dots };
})();
