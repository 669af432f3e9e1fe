"use strict";
// Two to four rows side by side. What each of them solved is loaded when it is asked for: by a
// script element, since a page opened from a file may not fetch.
(() => {
  const app = window.treegrpo;
  const { el, svg } = app;
  const LETTERS = "ABCD";
  const UNITS = { tool_calls: "tool calls", sampled_tokens: "sampled tokens", dollars: "dollars", turns: "turns" };
  const runs = new Map(); // digest -> outcomes, or null where the file is missing

  app.loaded = (digest, outcomes) => { runs.set(digest, outcomes); };
  const load = (row) => app.load(`../data/${row.digest}.js`, () => {
    if (!runs.has(row.digest)) runs.set(row.digest, null);
    if (app.state.view === "compare") app.drawCompare();
  });

  const sign = (share) => {
    const text = (100 * share).toFixed(1);
    return Number(text) > 0 ? `+${text}` : text.replace("-", "\u2212");
  };
  const letter = (i) => el("span", { class: `letter s${i}` }, LETTERS[i]);

  const chosenTable = (rows) => el("table", { class: "data" },
    el("thead", {}, el("tr", {}, ...["", "Agent", "Success, %", "95 % interval", "Tokens", "Calls", "Dollars", ""].map((title, i) =>
      el("th", { scope: "col", class: i === 1 ? "text" : null }, title || el("span", { class: "sr" }, i ? "Remove" : "Letter"))))),
    el("tbody", {}, ...rows.map((row, i) => {
      const number = (value, show) => el("td", {}, value === null ? app.missing() : show(value));
      const span = row.success_low === null ? "none" : `${app.format.percent(row.success_low)}\u2013${app.format.percent(row.success_high)}`;
      return el("tr", {}, el("td", {}, letter(i)),
        el("th", { scope: "row", class: "text" }, el("a", { href: app.page(row) }, row.agent), row.model ? el("span", { class: "under" }, row.model) : null,
          row.isTwin ? el("span", { class: "under" }, app.digits(row)) : null),
        number(row.success, app.format.percent), el("td", {}, span),
        number(row.tokens, app.format.fixed(0)), number(row.tool_calls, app.format.fixed(1)), number(row.dollars, app.format.dollars),
        el("td", {}, el("button", { type: "button", class: "quiet", "aria-label": `Remove ${app.label(row)}`, click: () => app.choose(row, false) }, "Remove")));
    })));

  const differenceBar = (found, reach) => {
    const at = (value) => (50 + (46 * value) / reach).toFixed(1);
    return svg("svg", { class: "bar wide", viewBox: "0 0 100 14", "aria-hidden": "true" },
      svg("line", { class: "bar-line", x1: 4, x2: 96, y1: 7, y2: 7 }),
      svg("line", { class: "bar-zero", x1: 50, x2: 50, y1: 1, y2: 13 }),
      found.low === null ? null : svg("line", { class: "bar-span", x1: at(found.low), x2: at(found.high), y1: 7, y2: 7 }),
      svg("circle", { class: "bar-mean", cx: at(found.mean), cy: 7, r: 3 }));
  };

  const pairTable = (rows) => {
    const pairs = rows.flatMap((_, i) => rows.slice(i + 1).map((_, j) => [i, i + 1 + j]));
    const found = pairs.map(([i, j]) => app.paired(runs.get(rows[i].digest), runs.get(rows[j].digest), app.data.t));
    // One scale for all pairs, in steps of ten points.
    const ends = found.flatMap((one) => (one && one.low !== null ? [-one.low, one.high] : [0]));
    const reach = Math.min(1, Math.ceil(10 * Math.max(...ends) + 1e-9) / 10 || 0.1);
    const adjusted = app.holm(found.map((one) => (one ? one.p : null)));
    const line = ([i, j], place) => {
      const one = found[place];
      const head = el("th", { scope: "row", class: "text" }, letter(j), " \u2212 ", letter(i));
      if (!one) return el("tr", {}, head, el("td", { class: "text soft", colspan: 5 }, "These two were not taken on the same tasks, so they cannot be paired."));
      const p = adjusted[place];
      const verdict = one.low === null || p === null ? "" : one.low > 0 && p <= 0.05 ? `${LETTERS[j]} is better` : one.high < 0 && p <= 0.05 ? `${LETTERS[i]} is better` : "no clear difference";
      return el("tr", {}, head, el("td", { class: "difference" }, sign(one.mean)), el("td", { class: "text" }, differenceBar(one, reach),
        el("span", { class: "span" }, one.low === null ? "none" : `${sign(one.low)} to ${sign(one.high)}`)),
        el("td", { class: "p" }, p === null ? app.missing() : p < 0.001 ? "< 0.001" : p.toFixed(3)),
        el("td", {}, `${one.wins} / ${one.tasks - one.wins - one.losses} / ${one.losses}`), el("td", { class: "text" }, verdict));
    };
    return el("table", { class: "data", id: "pairs" },
      el("thead", {}, el("tr", {}, ...["Pair", "Difference, points", `95 % interval, on \u00b1${(100 * reach).toFixed(0)}`, "p, Holm", "Won / tied / lost", ""].map((title, i) =>
        el("th", { scope: "col", class: [0, 2, 5].includes(i) ? "text" : null }, title || el("span", { class: "sr" }, "Verdict"))))),
      el("tbody", {}, ...pairs.map(line)));
  };

  // Pairs are tasks, not (task, seed): where seeds differ, so do the worlds drawn for a task.
  const seedNote = (rows) => {
    const seeds = rows.map((row) => runs.get(row.digest).seed);
    if (new Set(seeds).size < 2) return null;
    const named = seeds.map((seed, i) => `${LETTERS[i]} ${seed ?? "not stated"}`).join(", ");
    return el("p", { class: "soft", id: "seeds" }, `The evaluation seeds differ (${named}): the tasks are the same, what is drawn at random within them is not. Pairing takes out how hard a task is, and no more.`);
  };

  // Who solved what: one column a task, filled from below by the share of its trials.
  const matrix = (rows) => {
    const found = rows.map((row) => runs.get(row.digest));
    const tasks = found[0].tasks.map((task, i) => ({ task, level: found[0].difficulty[i], shares: found.map((one) => {
      const at = one.tasks.indexOf(task);
      return at < 0 ? null : one.solved[at] / one.trials[at];
    }) }));
    const total = (one) => one.shares.reduce((sum, share) => sum + (share ?? 0), 0);
    tasks.sort((a, b) => (a.level ?? 0) - (b.level ?? 0) || total(b) - total(a));
    const columns = 50, size = 15, left = 22;
    const blocks = [];
    for (let start = 0; start < tasks.length; start += columns) {
      const some = tasks.slice(start, start + columns);
      const root = svg("svg", { class: "matrix", viewBox: `0 0 ${left + Math.max(some.length, 24) * size} ${rows.length * size + 20}`, role: "img", "aria-label": `Tasks ${start + 1} to ${start + some.length} by level, one line per agent` });
      some.forEach((one, x) => {
        if (x === 0 || one.level !== some[x - 1].level) {
          root.append(svg("text", { class: "level", x: left + x * size, y: 11 }, one.level === null ? "" : `level ${one.level}`));
        }
        one.shares.forEach((share, y) => {
          const [px, py] = [left + x * size, 18 + y * size];
          const words = `task ${one.task.split(":")[0]}, ${app.label(rows[y])}: ${share === null ? "not tried" : `${Math.round(100 * share)} %`}`;
          root.append(svg("g", {}, svg("title", {}, words),
            svg("rect", { class: share === null ? "cell absent" : "cell", x: px, y: py, width: size - 2, height: size - 2 }),
            share ? svg("rect", { class: `fill s${y}`, x: px, y: py + (size - 2) * (1 - share), width: size - 2, height: (size - 2) * share }) : null));
        });
      });
      rows.forEach((_, y) => root.append(svg("text", { class: `line s${y}`, x: 4, y: 18 + y * size + 11 }, LETTERS[y])));
      blocks.push(root);
    }
    const always = (share) => share === 1;
    const words = [
      `${tasks.filter((one) => one.shares.every(always)).length} of ${tasks.length} tasks are solved in every trial by all,`,
      ...rows.map((_, y) => `${tasks.filter((one) => one.shares[y] > 0 && one.shares.every((share, i) => i === y || share === 0)).length} by ${LETTERS[y]} alone,`),
      `${tasks.filter((one) => one.shares.every((share) => share === 0)).length} by none.`,
    ].join(" ");
    return [el("p", { class: "soft small" }, words), ...blocks];
  };

  // Labels at the right end, moved apart where they would cover one another.
  const labelPlaces = (wanted) => {
    const places = [...wanted];
    const order = wanted.map((_, i) => i).filter((i) => wanted[i] !== null).sort((a, b) => wanted[a] - wanted[b]);
    order.forEach((i, place) => {
      if (place) places[i] = Math.max(places[i], places[order[place - 1]] + 15);
    });
    return places;
  };

  const curves = (rows) => {
    if (!Object.hasOwn(UNITS, app.state.unit)) app.state.unit = "tool_calls";
    const unit = app.state.unit;
    const found = rows.map((row) => runs.get(row.digest).curves[unit] || null);
    const buttons = el("div", { class: "choices", role: "group", "aria-label": "Budget counted in" }, ...Object.keys(UNITS).map((name) =>
      el("button", { type: "button", value: name, "aria-pressed": String(name === unit), click: () => app.set({ unit: name }) }, UNITS[name])));
    const missing = rows.filter((_, i) => !found[i]).map(app.label);
    const note = missing.length ? el("p", { class: "soft", id: "no-curve" }, `Not drawn, since nobody counted ${UNITS[unit]}: ${missing.join(", ")}`) : null;
    const high = Math.max(0, ...found.flatMap((curve) => (curve ? [curve.at(-1)[0]] : []))) * 1.05;
    if (!high) return [buttons, note || el("p", { class: "soft" }, `No episode cost any ${UNITS[unit]}.`)];
    const chart = app.chart({ width: app.chartWidth(document.getElementById("comparison")) - 40, height: 380, low: 0, high, isLog: false, zero: false, label: `At most so many ${UNITS[unit]} per episode`, title: `Success within a budget of ${UNITS[unit]}` });
    const places = labelPlaces(found.map((curve) => (curve ? chart.y(curve.at(-1)[1]) - 6 : null)));
    found.forEach((curve, i) => {
      if (!curve) return;
      const points = curve.map(([budget, score]) => `H${chart.x(budget).toFixed(1)}V${chart.y(score).toFixed(1)}`);
      const upper = curve.flatMap(([budget, , , top]) => [`H${chart.x(budget).toFixed(1)}`, `V${chart.y(top ?? 0).toFixed(1)}`]);
      const lower = [...curve].reverse().flatMap(([budget, , bottom]) => [`V${chart.y(bottom ?? 0).toFixed(1)}`, `H${chart.x(budget).toFixed(1)}`]).concat(`V${chart.y(0)}`);
      const end = curve.at(-1);
      if (end[2] !== null) chart.root.append(svg("path", { class: `band s${i}`, d: `M${chart.x(0)} ${chart.y(0)}${upper.join("")}H${chart.right}${lower.join("")}Z` }));
      chart.root.append(
        svg("path", { class: `curve s${i}`, d: `M${chart.x(0)} ${chart.y(0)}${points.join("")}H${chart.right}` }),
        svg("text", { class: `name to-left s${i}`, x: chart.right, y: places[i] }, `${LETTERS[i]} ${app.format.percent(end[1])}`));
    });
    return [buttons, el("div", { class: "scroll" }, chart.root), note].filter(Boolean);
  };

  const section = (title, hint, ...content) => el("section", { class: "card" }, el("h2", {}, title), hint ? el("p", { class: "soft" }, hint) : null, ...content);

  app.drawCompare = () => {
    const names = app.chosen();
    const rows = names.map((name) => app.data.all.find((row) => row.digest.startsWith(name))).filter((row) => row && row.tier > 0).slice(0, 4);
    const target = document.getElementById("comparison");
    if (rows.length < 2) {
      target.replaceChildren(el("p", { class: "card empty" }, rows.length ? `${app.label(rows[0])} is chosen; choose one more row in the table.` : "Choose two to four rows in the table."));
      return;
    }
    rows.forEach(load);
    const parts = [section("Chosen rows", null, el("div", { class: "scroll" }, chosenTable(rows)))];
    if (rows.some((row) => !runs.has(row.digest))) parts.push(el("p", { class: "card empty" }, "Loading\u2026"));
    else if (rows.some((row) => runs.get(row.digest) === null)) {
      const lost = rows.filter((row) => runs.get(row.digest) === null).map(app.label).join(", ");
      parts.push(el("p", { class: "card empty" }, `The outcomes of ${lost} are not beside this page: the file in data/ is missing.`));
    } else {
      parts.push(
        section("Paired difference", "Each task is compared with itself. The interval is over tasks; p is that of the exact sign flips, adjusted for the number of pairs.", el("div", { class: "scroll" }, pairTable(rows)), seedNote(rows)),
        section("Within a budget", "Success if every episode were cut off at that cost. Bands are 95 % intervals over tasks.", ...curves(rows)),
        section("Who solved what", null, el("div", { class: "scroll" }, ...matrix(rows))));
    }
    target.replaceChildren(...parts);
  };
})();
