"use strict";
// Axes and a frame for the two drawings: the cost plot and the budget curves.
(() => {
  const app = window.treegrpo;
  const { svg } = app;
  const LEFT = 46, RIGHT = 16, TOP = 14, BOTTOM = 44;

  // 1, 2, 5 times powers of ten inside [low, high]; where they are few decades, else 1 alone.
  const logTicks = (low, high) => {
    const decades = Math.log10(high / low);
    const steps = decades > 3.2 ? [1] : decades > 1.6 ? [1, 3] : [1, 2, 5];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const step of steps) {
        const value = Number((step * 10 ** power).toPrecision(6));
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    return found;
  };
  const evenTicks = (high) => {
    const rough = high / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((s) => s * power >= rough);
    return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
  };

  app.tickText = (value) => {
    if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
    if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
    return value >= 1000 ? app.format.fixed(0)(value) : String(Number(value.toPrecision(3)));
  };

  // As wide as its place, so that its text has the page's size.
  app.chartWidth = (place) => Math.max(280, Math.floor(place.clientWidth));

  // A frame whose y axis is success from 0 to 100 %. With `zero` a gutter left of a logarithmic
  // axis holds what costs nothing, for which a logarithm has no place.
  app.chart = ({ width, height, low, high, isLog, zero, label, title }) => {
    const gutter = zero ? 34 : 0;
    const span = width - LEFT - RIGHT - gutter;
    const place = isLog
      ? (value) => Math.log(value / low) / Math.log(high / low)
      : (value) => value / high;
    const x = (value) => (isLog && value <= 0 ? LEFT + 12 : LEFT + gutter + span * place(value));
    const y = (share) => height - BOTTOM - (height - TOP - BOTTOM) * share;
    const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
    const text = (className, atX, atY, value) => svg("text", { class: className, x: atX, y: atY }, value);
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      root.append(
        svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(share), y2: y(share) }),
        text("tick-y", LEFT - 8, y(share) + 4, `${100 * share}${share === 1 ? " %" : ""}`));
    }
    let last = -Infinity; // numbers that would touch are left out
    for (const value of isLog ? logTicks(low, high) : evenTicks(high)) {
      if (x(value) - last < 36) continue;
      last = x(value);
      root.append(
        svg("line", { class: "tick", x1: x(value), x2: x(value), y1: y(0), y2: y(0) + 5 }),
        text("tick-x", x(value), y(0) + 19, app.tickText(value)));
    }
    if (zero) {
      root.append(
        svg("line", { class: "tick", x1: x(0), x2: x(0), y1: y(0), y2: y(0) + 5 }),
        text("tick-x", x(0), y(0) + 19, "0"));
    }
    root.append(text("axis-x", (LEFT + width - RIGHT) / 2, height - 6, label));
    return { root, x, y, left: LEFT, right: width - RIGHT };
  };

  // Shapes tell rows apart for those to whom colours do not.
  const SHAPES = [
    (x, y) => svg("circle", { cx: x, cy: y, r: 4.5 }),
    (x, y) => svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8 }),
    (x, y) => svg("path", { d: `M${x} ${y - 5.5}l5.5 9.5h-11z` }),
    (x, y) => svg("path", { d: `M${x} ${y - 6}l5.5 6-5.5 6-5.5-6z` }),
  ];
  app.shape = (number, x, y) => SHAPES[number % 4](x, y);
})();
