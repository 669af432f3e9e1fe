"use strict";
// The table of a board: sorting, filters, columns, and what is downloaded.
(() => {
  const app = window.treegrpo;
  const { el, svg } = app;
  const made = new Map(); // digest -> the row's element, for the columns shown at present
  let madeFor = "";

  const shown = () => {
    const ids = app.state.cols ? app.state.cols.split(",") : null;
    return app.columns.filter((column) => column.id === "agent" || (ids ? ids.includes(column.id) : column.on));
  };

  const bar = (row) => {
    const at = (share) => (4 + 92 * Math.max(0, Math.min(1, share))).toFixed(1);
    const low = row.success_low ?? row.success;
    const high = row.success_high ?? row.success;
    return svg("svg", { class: "bar", viewBox: "0 0 100 14", "aria-hidden": "true", focusable: "false" },
      svg("line", { class: "bar-line", x1: 4, x2: 96, y1: 7, y2: 7 }),
      svg("line", { class: "bar-span", x1: at(low), x2: at(high), y1: 7, y2: 7 }),
      svg("circle", { class: "bar-mean", cx: at(row.success), cy: 7, r: 3 }));
  };

  const rank = (row) => {
    if (row.pinned) return [el("span", { class: "soft" }, row.pinned === "oracle" ? "ceiling" : "floor")];
    if (row.rank === null) return [el("span", { class: "missing", title: "not ranked" }, "\u2013")];
    const range = row.rank_low === null ? "" : `${row.rank_low}\u2013${row.rank_high}`;
    return [el("strong", {}, row.rank), " ", el("span", { class: "range", title: "95 % rank range" }, range)];
  };

  const interval = (row) => {
    if (row.success_low === null || row.success_high === null) return [bar(row), el("span", { class: "span" }, "none")];
    const { score } = app.format;
    return [bar(row), el("span", { class: "span" }, `${score(row.success_low, row)}\u2013${score(row.success_high, row)}`), app.word(row, "interval")];
  };

  const agent = (row, columns) => {
    const model = columns.some((column) => column.id === "model") ? null : row.model;
    return [
      el("a", { href: app.page(row), class: "agent" }, row.agent),
      model ? el("span", { class: "under" }, model) : null,
      row.isTwin ? el("span", { class: "under" }, app.digits(row)) : null,
      row.outdated ? el("span", { class: "tag", title: "the environment's source has changed since" }, "outdated") : null,
    ];
  };

  const cell = (row, column, columns) => {
    if (column.id === "rank") return rank(row);
    if (column.id === "agent") return agent(row, columns);
    if (column.id === "interval") return interval(row);
    if (column.id === "num_tasks") return row.num_tasks === null ? [app.missing()] : [`${app.format.fixed(0)(row.num_tasks)} \u00d7 ${row.trials ?? "?"}`];
    if (column.id === "tier") return [el("span", { class: `tier tier-${row.tier}` }, app.tier(row))];
    const value = row[column.id];
    if (value === null) return [app.missing()];
    if (column.text) return [value];
    const shown = column.show(value, row);
    return [shown, column.word ? app.word(row, column.word) : null, column.pad ? column.pad(shown) : null];
  };

  const rowOf = (row, columns) => {
    if (made.has(row.digest)) return made.get(row.digest);
    const box = el("input", {
      type: "checkbox", "aria-label": `Compare ${app.label(row)}`,
      change: (event) => app.choose(row, event.target.checked),
    });
    const cells = columns.map((column) =>
      el(column.id === "agent" ? "th" : "td", { class: `c-${column.id}${column.text || column.id === "agent" ? " text" : ""}`, scope: column.id === "agent" ? "row" : null },
        ...cell(row, column, columns)));
    const line = el("tr", { class: [row.pinned ? "pinned-row" : "", row.outdated ? "outdated" : ""].join(" ").trim() || null },
      el("td", { class: "pick" }, row.tier > 0 ? box : null), ...cells);
    made.set(row.digest, line);
    return line;
  };

  const order = () => {
    const isFalling = app.state.sort.startsWith("-");
    const id = app.state.sort.replace(/^-/, "");
    const column = Object.hasOwn(app.column, id) ? app.column[id] : app.column.rank;
    const field = column.sort || column.id;
    const way = isFalling ? -1 : 1;
    return (a, b) => {
      const [x, y] = [a[field], b[field]];
      if (x === y) return a.place - b.place;
      if (x === null) return 1; // what nobody counted stands last, whichever way
      if (y === null) return -1;
      return way * (typeof x === "string" ? x.localeCompare(y) : x - y);
    };
  };

  app.visibleRows = () => app.data.ranked.filter(app.matches).sort(order());

  const header = (columns) => {
    const isFalling = app.state.sort.startsWith("-");
    const sorted = app.state.sort.replace(/^-/, "");
    const cells = columns.map((column) => {
      const isSorted = column.id === sorted;
      const next = isSorted ? (isFalling ? "" : "-") : column.best === -1 ? "-" : "";
      const arrow = el("span", { class: "arrow", "aria-hidden": "true" }, isSorted ? (isFalling ? "\u2193" : "\u2191") : "");
      return el("th", { scope: "col", class: `c-${column.id}${column.text || column.id === "agent" ? " text" : ""}`, "aria-sort": isSorted ? (isFalling ? "descending" : "ascending") : "none" },
        el("button", { type: "button", title: column.hint, "data-column": column.id, click: () => sort(next + column.id) }, column.title, arrow));
    });
    return el("tr", {}, el("th", { class: "pick" }, el("span", { class: "sr" }, "Compare")), ...cells);
  };
  // The header is drawn anew when the order changes, so the focus goes back to its button.
  const sort = (value) => {
    app.set({ sort: value });
    document.querySelector(`#rows [data-column="${value.replace(/^-/, "")}"]`).focus();
  };

  app.drawTable = () => {
    const columns = shown();
    const wanted = columns.map((column) => column.id).join();
    if (wanted !== madeFor) made.clear();
    madeFor = wanted;
    const table = document.getElementById("rows");
    const rows = app.visibleRows();
    const pinned = app.pinnedRows();
    table.tHead.replaceChildren(header(columns));
    table.tBodies[0].replaceChildren(...pinned.map((row) => rowOf(row, columns)));
    table.tBodies[1].replaceChildren(...rows.map((row) => rowOf(row, columns)));
    const none = document.getElementById("no-rows");
    none.hidden = rows.length > 0 || (app.data.ranked.length > 0 && pinned.length > 0);
    none.textContent = app.data.ranked.length ? "No row matches these filters." : "No agent has been ranked here yet.";
    const names = app.chosen();
    for (const row of app.data.all) {
      const line = made.get(row.digest);
      const box = line && line.querySelector("input");
      if (box) {
        box.checked = names.includes(app.name(row));
        box.disabled = !box.checked && names.length >= 4;
      }
    }
  };

  const save = (name, type, text) => {
    const url = URL.createObjectURL(new Blob([text], { type }));
    el("a", { href: url, download: name }).click();
    window.setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  const chooser = () => app.columns.filter((column) => column.id !== "agent").map((column) => {
    const toggle = (event) => {
      const ids = new Set(shown().map((one) => one.id));
      if (event.target.checked) ids.add(column.id); else ids.delete(column.id);
      const usual = app.columns.filter((one) => one.on).map((one) => one.id).join();
      const cols = app.columns.map((one) => one.id).filter((id) => ids.has(id)).join();
      app.set({ cols: cols === usual ? "" : cols });
    };
    return el("label", {}, el("input", { type: "checkbox", "data-column": column.id, change: toggle }), column.title);
  });

  app.startTable = () => {
    document.querySelector("#columns .menu").append(...chooser());
    document.getElementById("csv").addEventListener("click", () => {
      save(`${app.data.id}.csv`, "text/csv", app.csv(app.data, [...app.pinnedRows(), ...app.visibleRows()]));
    });
  };
  app.drawChooser = () => {
    const ids = shown().map((column) => column.id);
    for (const box of document.querySelectorAll("#columns input")) box.checked = ids.includes(box.dataset.column);
  };
})();
