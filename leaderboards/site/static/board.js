"use strict";
// A board's page: three views of the same rows, drawn from what the address says.
(() => {
  const app = window.treegrpo;
  const { el } = app;
  const byId = (id) => document.getElementById(id);

  // Only scripts of this site can be loaded, whatever stands in the page's data.
  const allowed = (url) => {
    if (!/^\.\.\/(data\/[0-9a-f]{32}|static\/(compare|statistics))\.js$/.test(url)) throw new TypeError(`no script of this site: ${url}`);
    return url;
  };
  const policy = window.trustedTypes
    ? window.trustedTypes.createPolicy("treegrpo", { createScriptURL: allowed })
    : { createScriptURL: allowed };
  const asked = new Set();
  // Calls `done` once the script has run or has failed; each is asked for once.
  app.load = (url, done) => {
    if (asked.has(url)) return;
    asked.add(url);
    const script = el("script", { load: done, error: done });
    script.src = policy.createScriptURL(url);
    document.head.append(script);
  };

  // The comparison's code comes when it is first wanted: few readers of a table need it.
  const compare = () => {
    if (app.drawCompare && app.paired) app.drawCompare();
    else for (const name of ["statistics", "compare"]) app.load(`../static/${name}.js`, () => app.draw());
  };
  const VIEWS = { table: () => app.drawTable(), plot: () => app.drawPlot(), compare };

  const options = (select, name, words) => {
    const values = [...new Set(app.data.ranked.map((row) => row[name] ?? "unknown"))].sort();
    select.append(el("option", { value: "" }, words), ...values.map((value) => el("option", { value }, value)));
    select.closest("label").hidden = values.length < 2;
  };

  const counted = (matching, all, pinned) => {
    const number = app.format.fixed(0);
    const rows = `${matching === all ? "" : `${number(matching)} of `}${number(all)} ranked ${all === 1 ? "row" : "rows"}`;
    return pinned ? `${rows}, ${pinned} pinned` : rows;
  };

  app.draw = () => {
    const state = app.state;
    if (!Object.hasOwn(VIEWS, state.view)) state.view = "table";
    const chosen = app.chosen().length;
    for (const link of document.querySelectorAll("#views a")) {
      link.href = app.hash({ view: link.dataset.view });
      if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    for (const name of Object.keys(VIEWS)) byId(`view-${name}`).hidden = name !== state.view;
    byId("tools").hidden = state.view === "compare";
    byId("chosen-count").textContent = chosen ? ` (${chosen})` : "";
    for (const [id, name] of [["q", "q"], ["tier", "tier"], ["training", "training"], ["provider", "provider"]]) {
      if (byId(id).value !== state[name]) byId(id).value = state[name];
    }
    byId("old").checked = state.old === "0";
    const matching = app.data.ranked.filter(app.matches).length;
    byId("count").textContent = counted(matching, app.data.ranked.length, app.pinnedRows().length);
    byId("clear").hidden = !(state.q || state.tier !== "0" || state.training || state.provider || state.old);
    app.drawChooser();
    VIEWS[state.view]();
  };

  document.addEventListener("DOMContentLoaded", () => {
    app.data = app.read();
    options(byId("training"), "training", "Any training");
    options(byId("provider"), "provider", "Any provider");
    byId("old").closest("label").hidden = !app.data.ranked.some((row) => row.outdated);
    byId("q").addEventListener("input", (event) => app.set({ q: event.target.value }));
    for (const name of ["tier", "training", "provider"]) byId(name).addEventListener("change", (event) => app.set({ [name]: event.target.value }));
    byId("old").addEventListener("change", (event) => app.set({ old: event.target.checked ? "0" : "" }));
    byId("clear").addEventListener("click", () => {
      app.set({ q: "", tier: "0", training: "", provider: "", old: "" });
      byId("q").focus();
    });
    byId("views").addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      app.set({ view: link.dataset.view }, true);
    });
    byId("copy-link").addEventListener("click", (event) => app.copy(window.location.href, event.target));
    document.addEventListener("keydown", (event) => {
      const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
      if (event.key === "/" && !isTyping && !byId("tools").hidden) {
        event.preventDefault();
        byId("q").focus();
      }
      if (event.key === "Escape" && byId("columns").open) {
        byId("columns").open = false;
        byId("columns").querySelector("summary").focus();
      }
    });
    document.addEventListener("click", (event) => {
      if (!byId("columns").contains(event.target)) byId("columns").open = false;
    });
    app.startTable();
    app.startPlot();
    app.start();
    app.draw();
  });
})();
