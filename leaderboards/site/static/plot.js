"use strict";
// Success against cost. A row without that cost is listed, never drawn at 0.
(() => {
  const app = window.treegrpo;
  const { el, svg } = app;
  const COSTS = {
    tokens: ["Sampled tokens per episode", (row) => row.tokens],
    calls: ["Tool calls per episode", (row) => row.tool_calls],
    dollars: ["Dollars per episode", (row) => row.dollars_each],
    turns: ["Turns per episode", (row) => row.turns],
    seconds: ["Seconds per episode", (row) => row.wall_seconds],
  };
  // What the reader chose; before that the first cost that anybody counted.
  const unit = () => {
    if (Object.hasOwn(COSTS, app.state.x)) return app.state.x;
    const isCounted = (name) => app.data.ranked.some((row) => COSTS[name][1](row) !== null);
    return Object.keys(COSTS).find(isCounted) ?? "tokens";
  };
  const HEIGHT = 460;
  const MANY = 60; // above, only the frontier has error bars, and others when pointed at

  // What nobody beats: no other row costs as little or less and succeeds as often or more.
  app.frontier = (points) => {
    const order = [...points].sort((a, b) => a.cost - b.cost || b.row.success - a.row.success);
    const best = [];
    for (const point of order) {
      if (!point.row.outdated && (!best.length || point.row.success > best.at(-1).row.success)) best.push(point);
    }
    return best;
  };

  const line = (row, chart) => {
    const y = chart.y(row.success);
    const words = `${app.label(row)} ${app.format.percent(row.success)} %`;
    return svg("g", { class: "floor" },
      svg("line", { x1: chart.left, x2: chart.right, y1: y, y2: y }),
      svg("text", { x: chart.right - 4, y: row.success > 0.95 ? y + 14 : y - 5 }, words));
  };

  const mark = (point, chart, isBest) => {
    const { row, cost } = point;
    const [x, y] = [chart.x(cost), chart.y(row.success)];
    const value = COSTS[unit()][0].toLowerCase();
    const words = `${app.label(row)}: ${app.format.percent(row.success)} %, ${app.tickText(cost)} ${value}`;
    const span = row.success_low === null ? null
      : svg("line", { class: "error", x1: x, x2: x, y1: chart.y(row.success_low), y2: chart.y(row.success_high) });
    return svg("a", { class: `mark${isBest ? " best" : ""}${row.outdated ? " outdated" : ""}`, href: app.page(row), "aria-label": words },
      svg("title", {}, words), span, app.shape(0, x, y));
  };

  // Names of the frontier, left out where they would cover one another.
  const names = (best, chart) => {
    const taken = [];
    return best.map(({ row, cost }) => {
      const words = app.label(row).slice(0, 40);
      const width = 6.6 * words.length;
      const toLeft = chart.x(cost) + 10 + width > chart.right;
      const x = chart.x(cost) + (toLeft ? -10 : 10);
      const y = chart.y(row.success) - 8;
      const [from, to] = toLeft ? [x - width, x] : [x, x + width];
      if (from < chart.left || taken.some((one) => Math.abs(one.y - y) < 14 && one.from < to && from < one.to)) return null;
      taken.push({ from, to, y });
      return svg("text", { class: `name${toLeft ? " to-left" : ""}`, x, y }, words);
    });
  };

  const steps = (best, chart) => {
    const parts = best.map(({ row, cost }, i) => {
      const [x, y] = [chart.x(cost).toFixed(1), chart.y(row.success).toFixed(1)];
      return i ? `H${x}V${y}` : `M${x} ${y}`;
    });
    return svg("path", { class: "frontier", d: `${parts.join("")}H${chart.right}` });
  };

  const summary = (best, rows) => [
    el("div", {}, el("h3", {}, "On the frontier"),
      el("p", { class: "soft" }, "Nobody else costs as little and succeeds as often."),
      el("ol", { class: "plain" }, ...best.map(({ row, cost }) =>
        el("li", {}, el("a", { href: app.page(row) }, app.label(row)), el("span", { class: "soft" },
          ` ${app.format.percent(row.success)} % at ${app.tickText(cost)}`))))),
    rows.length ? el("div", {}, el("h3", {}, `Not drawn (${rows.length})`),
      el("p", { class: "soft" }, "Nobody counted this cost."),
      el("ul", { class: "plain", id: "uncounted" }, ...rows.map((row) => el("li", {}, app.label(row))))) : null,
  ].filter(Boolean);

  app.drawPlot = () => {
    const [label, cost] = COSTS[unit()];
    for (const button of document.querySelectorAll("#costs button")) {
      button.setAttribute("aria-pressed", String(button.value === unit()));
    }
    const rows = app.data.ranked.filter(app.matches);
    const points = rows.filter((row) => cost(row) !== null).map((row) => ({ row, cost: cost(row) }));
    const costs = points.map((point) => point.cost).filter((value) => value > 0);
    const [low, high] = costs.length ? [Math.min(...costs) / 1.3, Math.max(...costs) * 1.3] : [1, 10];
    const chart = app.chart({
      width: app.chartWidth(document.getElementById("plot")), height: HEIGHT, low, high, isLog: true, zero: points.some((point) => point.cost <= 0),
      label: `${label} (logarithmic)`, title: `Success against ${label.toLowerCase()}`,
    });
    const best = app.frontier(points);
    const isBest = new Set(best);
    if (points.length > MANY) chart.root.classList.add("many");
    chart.root.append(
      ...app.pinnedRows().map((row) => line(row, chart)),
      ...(best.length ? [steps(best, chart)] : []),
      ...points.filter((point) => !isBest.has(point)).map((point) => mark(point, chart, false)),
      ...best.map((point) => mark(point, chart, true)),
      ...names(best, chart).filter(Boolean));
    document.getElementById("plot").replaceChildren(chart.root);
    document.getElementById("plot-notes").replaceChildren(...summary(best, rows.filter((row) => cost(row) === null)));
  };

  app.startPlot = () => {
    for (const button of document.querySelectorAll("#costs button")) {
      button.addEventListener("click", () => app.set({ x: button.value }));
    }
    window.addEventListener("resize", () => { if (app.state.view !== "table") app.draw(); });
  };
})();
