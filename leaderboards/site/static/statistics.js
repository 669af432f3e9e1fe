"use strict";
// The paired comparison of leaderboards/stats/paired.py for pairs that a reader chooses.
// The sign-flip p-value here is exact for any number of tasks: all sums are counted at once.
(() => {
  const app = window.treegrpo;
  const Z = 1.959964;
  const MAX_SUM = 200000; // larger sums would take seconds; then no p-value is shown

  // The 97.5 % quantile of Student's t: a table, then two terms of Cornish and Fisher.
  const quantile = (degrees, table) => {
    if (degrees <= table.length) return table[degrees - 1];
    const first = (Z ** 3 + Z) / 4;
    const second = (5 * Z ** 5 + 16 * Z ** 3 + 3 * Z) / 96;
    return Z + first / degrees + second / degrees ** 2;
  };

  const interval = (changes, mean, table) => {
    const count = changes.length;
    if (count < 2) return [null, null];
    const variance = changes.reduce((sum, change) => sum + (change - mean) ** 2, 0) / (count - 1);
    const error = Math.sqrt(variance / count);
    if (error * Math.sqrt(count) > 1e-12) {
      const half = quantile(count - 1, table) * error;
      return [Math.max(-1, mean - half), Math.min(1, mean + half)];
    }
    // All tasks differ by the same: Wilson's interval with each task as one trial, on -1 to 1.
    const [rate, weight] = [(mean + 1) / 2, Z ** 2 / count];
    const centre = (rate + weight / 2) / (1 + weight);
    const half = Math.sqrt(weight * rate * (1 - rate) + weight ** 2 / 4) / (1 + weight);
    return [2 * Math.max(0, Math.min(centre - half, rate)) - 1, 2 * Math.min(1, Math.max(centre + half, rate)) - 1];
  };

  const divisor = (a, b) => (b ? divisor(b, a % b) : a);

  // Share of the sign patterns with a sum at least as far from 0; `changes` are integers.
  app.signFlips = (changes) => {
    const moved = changes.map(Math.abs).filter((change) => change > 0);
    const reach = Math.abs(changes.reduce((sum, change) => sum + change, 0));
    const total = moved.reduce((sum, change) => sum + change, 0);
    if (total > MAX_SUM || total * moved.length > 5e7) return null;
    let chances = new Float64Array(2 * total + 1);
    chances[total] = 1;
    let spread = 0;
    for (const change of moved) {
      const next = new Float64Array(2 * total + 1);
      for (let at = total - spread; at <= total + spread; at += 1) {
        if (chances[at] === 0) continue;
        next[at - change] += chances[at] / 2;
        next[at + change] += chances[at] / 2;
      }
      spread += change;
      chances = next;
    }
    let found = 0;
    chances.forEach((chance, at) => { if (Math.abs(at - total) >= reach) found += chance; });
    return Math.min(1, found);
  };

  // Second minus first over the tasks that both have; null where fewer than two are the same.
  app.paired = (first, second, table) => {
    const places = new Map(first.tasks.map((task, i) => [task, i]));
    const pairs = second.tasks.map((task, i) => [places.get(task), i]).filter(([i]) => i !== undefined);
    if (pairs.length < 2) return null;
    const changes = [];
    let scale = 1;
    for (const [i, j] of pairs) {
      changes.push(second.solved[j] / second.trials[j] - first.solved[i] / first.trials[i]);
      for (const trials of [first.trials[i], second.trials[j]]) {
        scale = Math.min(1e9, (scale * trials) / divisor(scale, trials));
      }
    }
    const mean = changes.reduce((sum, change) => sum + change, 0) / changes.length;
    const [low, high] = interval(changes, mean, table);
    return {
      mean, low, high, tasks: pairs.length,
      p: app.signFlips(changes.map((change) => Math.round(change * scale))),
      wins: changes.filter((change) => change > 1e-12).length,
      losses: changes.filter((change) => change < -1e-12).length,
    };
  };

  // Holm's adjusted p-values, in the order given; null stays null.
  app.holm = (values) => {
    const order = values.map((value, i) => [value, i]).filter(([value]) => value !== null).sort((a, b) => a[0] - b[0]);
    const adjusted = values.map(() => null);
    let least = 0;
    order.forEach(([value, i], place) => {
      least = Math.max(least, Math.min(1, value * (order.length - place)));
      adjusted[i] = least;
    });
    return adjusted;
  };
})();
