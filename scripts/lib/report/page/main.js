// What is shown follows the page's address: #overview, #gallery?..., #prompt/<id>?..., #quality, #models, #blind/<kind>
(() => {
  "use strict";
  const page = (window.page ??= {});
  const PAGES = {
    overview: "Overview",
    gallery: "Gallery",
    quality: "Quality",
    models: "Training and evaluation",
    blind: "Blind comparison",
  };

  function navigation(at) {
    const { make } = page.elements;
    const links = Object.entries(PAGES).map(([name, words]) =>
      make("a", { href: `#${name}`, "aria-current": at === name ? "page" : null }, words),
    );
    document.getElementById("pages").replaceChildren(...links);
  }

  async function show() {
    const state = page.filters.read(location.hash);
    const at = state.page === "prompt" ? "gallery" : state.page;
    navigation(at);
    page.prompt.leave();
    page.blind.leave();
    try {
      if (state.page === "prompt") await page.prompt.draw(state.item, state.filters);
      else if (Object.hasOwn(PAGES, state.page)) await page[state.page].draw(state.filters, state.item);
      else await page.overview.draw();
    } catch (error) {
      document
        .getElementById("content")
        .replaceChildren(page.elements.make("p", { class: "warning", role: "alert" }, error.message));
    }
  }

  function isTyping(target) {
    return target.closest("input, select, textarea, dialog") !== null;
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) {
      if (event.key === "Escape" && event.target.closest("input")) event.target.blur();
      return;
    }
    if (event.key === "/" && document.getElementById("search")) {
      document.getElementById("search").focus();
      event.preventDefault();
    } else if (page.prompt.pressed(event.key) || page.blind.pressed(event.key)) event.preventDefault();
  }

  async function begin() {
    const known = await page.overview.begin();
    document.title = `Report: ${known.run}`;
    document.getElementById("run").textContent = `Report: ${known.run}`;
    page.reviews.begin(known.run);
    await page.data.loadPrompts(known.chunks.prompts);
    document.getElementById("skip").addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById("content").focus();
    });
    window.addEventListener("hashchange", show);
    document.addEventListener("keydown", onKey);
    await show();
    document.documentElement.dataset.ready = "yes";
  }

  begin().catch((error) => {
    document.getElementById("content").textContent = error.message;
  });
})();
