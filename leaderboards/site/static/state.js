"use strict";
// What a reader has set, kept in the address after "#": a link shows others the same.
(() => {
  const app = window.treegrpo;
  const USUAL = { view: "table", sort: "rank", q: "", tier: "0", training: "", provider: "", old: "", cols: "", x: "", unit: "tool_calls", rows: "" };
  app.state = { ...USUAL };

  const parse = () => {
    const found = new URLSearchParams(window.location.hash.slice(1));
    for (const name of Object.keys(USUAL)) app.state[name] = found.get(name) ?? USUAL[name];
  };
  app.hash = (changes) => {
    const wanted = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...app.state, ...changes })) {
      if (value !== USUAL[name]) wanted.set(name, value);
    }
    return "#" + wanted.toString().replaceAll("%2C", ",");
  };

  // Changing a view makes an entry in the history; typing and sorting do not.
  app.set = (changes, isStep = false) => {
    const hash = app.hash(changes);
    Object.assign(app.state, changes);
    window.history[isStep ? "pushState" : "replaceState"](null, "", hash);
    app.draw(changes);
  };

  app.chosen = () => app.state.rows.split(",").filter((name) => name !== "");
  app.name = (row) => row.digest.slice(0, 12);
  app.choose = (row, isChosen) => {
    const rest = app.chosen().filter((name) => name !== app.name(row));
    app.set({ rows: [...rest, ...(isChosen ? [app.name(row)] : [])].join(",") });
  };

  const isFound = (row) => {
    const text = [app.label(row), row.model, row.provider, row.training, row.signer].join(" ").toLowerCase();
    return app.state.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  };
  app.matches = (row) => {
    const state = app.state;
    return isFound(row)
      && row.tier >= Number(state.tier)
      && (state.training === "" || (row.training ?? "unknown") === state.training)
      && (state.provider === "" || (row.provider ?? "unknown") === state.provider)
      && !(state.old === "0" && row.outdated);
  };

  // Ceiling and floors give way to a search alone: beside filtered rows they are still the scale.
  app.pinnedRows = () => app.data.pinned.filter(isFound);

  app.start = () => {
    parse();
    const again = () => { parse(); app.draw({}); };
    window.addEventListener("popstate", again);
    window.addEventListener("hashchange", again);
  };
})();
