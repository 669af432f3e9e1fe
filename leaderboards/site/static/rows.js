"use strict";
// The rows of a board out of the page's data, the columns that can be shown, and their spelling.
(() => {
  const app = window.treegrpo;
  const WORDS = { r: "replayed", c: "recomputed", d: "declared" };
  const TIERS = ["claimed", "replayed", "fresh"];

  const hex = (text) => {
    const bytes = window.atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Array.from(bytes, (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
  };

  // One decoded row per run; the encodings are those of leaderboards/site/data.py.
  const decoded = (data) => {
    const names = Object.keys(data.fields);
    const raw = (name, i) => {
      if (name in data.same) return data.same[name];
      const column = data.columns[name];
      return typeof column === "string" ? Number(column[i]) : column[i];
    };
    return Array.from({ length: data.rows }, (_, i) => {
      const row = { place: i };
      const whole = {};
      for (const name of names) {
        const [kind, base, way] = data.fields[name];
        if (kind === "digest") { row[name] = hex(data.columns[name].slice(22 * i, 22 * i + 22)); continue; }
        let value = raw(name, i);
        if (kind === "listed") value = value < 0 ? null : data.lists[name][value];
        else if (value !== null && base) value = (whole[base] || 0) + way * value;
        whole[name] = value;
        if (value !== null && kind === "share") value /= 10000;
        if (value !== null && kind === "time") value = 1000 * (data.since + 60 * value);
        row[name] = value;
      }
      const episodes = row.num_tasks * row.trials;
      row.outdated = Boolean(row.outdated);
      row.tokens = row.sampled_tokens === null ? null : row.sampled_tokens / episodes;
      row.dollars_each = row.dollars === null ? null : row.dollars / episodes;
      return row;
    });
  };

  const group = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
  const fixed = (digits) => (value) => {
    const [whole, rest] = value.toFixed(digits).split(".");
    return group(whole) + (rest ? "." + rest : "");
  };
  const percent = (value) => (Math.round(1000 * value + 1e-9) / 10).toFixed(1);
  // A claimed score is shown as it was claimed: nobody here knows its metric.
  const score = (value, row) => (row.tier > 0 ? percent(value) : String(Number(value.toPrecision(4))));
  // Dollars below a cent keep two digits that say something, all others have cents.
  const dollars = (value) => {
    if (value === 0 || value >= 1) return fixed(2)(value);
    return value < 0.01 ? Number(value.toPrecision(2)).toString() : fixed(3)(value);
  };
  // In a column spaces as wide as digits keep the decimal points under one another.
  const pad = (text) => "\u2007".repeat(Math.max(0, 4 - text.split(".")[1].length));
  const date = (value) => new Date(value).toISOString().slice(0, 10);
  app.time = (value) => new Date(value).toISOString().slice(0, 16) + "Z";

  // `word` names the number whose provenance letter stands beside it; `on` is shown at first.
  app.columns = [
    { id: "rank", title: "Rank", on: true, hint: "1 + the rows whose interval lies wholly above; beside it the range over draws of the tasks" },
    { id: "agent", title: "Agent", text: true, on: true },
    { id: "model", title: "Model", text: true },
    { id: "provider", title: "Provider", text: true },
    { id: "success", title: "Success,\u00a0%", show: score, word: "success", on: true, best: -1 },
    { id: "interval", title: "95 % interval", on: true, sort: "success_low", best: -1, hint: "over tasks" },
    { id: "reward", title: "Reward", show: fixed(3), word: "reward", best: -1 },
    { id: "num_tasks", title: "Tasks\u00a0\u00d7 trials", on: true },
    { id: "attempts", title: "Attempts", show: fixed(0), on: true, hint: "registered runs of this agent here" },
    { id: "tokens", title: "Tokens", show: fixed(0), word: "sampled_tokens", on: true, hint: "sampled tokens per episode" },
    { id: "tool_calls", title: "Calls", show: fixed(1), word: "tool_calls", on: true, hint: "tool calls per episode" },
    { id: "turns", title: "Turns", show: fixed(1), word: "turns", hint: "per episode" },
    { id: "wall_seconds", title: "Seconds", show: fixed(1), word: "wall_seconds", hint: "per episode" },
    { id: "input_tokens", title: "Input tokens", show: fixed(0), word: "sampled_tokens", hint: "of all episodes" },
    { id: "dollars", title: "Dollars", show: dollars, pad, word: "dollars", on: true, hint: "of all episodes" },
    { id: "dollars_per_success", title: "$ per success", show: dollars, pad, word: "dollars", on: true, hint: "dollars for each success" },
    { id: "agent_failures", title: "Agent failures", show: fixed(0), word: "failures" },
    { id: "infrastructure_failures", title: "Infrastructure failures", show: fixed(0), word: "failures" },
    { id: "tier", title: "Tier", on: true, best: -1, hint: "0 claimed, 1 replayed, 2 fresh" },
    { id: "training", title: "Training", text: true, on: true },
    { id: "evaluated", title: "Evaluated", show: date, on: true, best: -1 },
    { id: "submitted", title: "Submitted", show: date, best: -1 },
    { id: "signer", title: "Signed by", text: true },
  ];
  app.column = Object.fromEntries(app.columns.map((column) => [column.id, column]));

  const nameOf = (row) => JSON.stringify([row.agent, row.model]);
  app.read = () => {
    const data = JSON.parse(document.getElementById("data").textContent);
    data.all = decoded(data);
    data.ranked = data.all.filter((row) => row.pinned === null);
    data.pinned = data.all.filter((row) => row.pinned !== null);
    const named = new Map();
    for (const row of data.all) named.set(nameOf(row), (named.get(nameOf(row)) ?? 0) + 1);
    for (const row of data.all) row.isTwin = named.get(nameOf(row)) > 1;
    return data;
  };

  // Rows of one name and model are told apart by the first digits of their runs.
  app.digits = (row) => (row.isTwin ? `run ${row.digest.slice(0, 6)}` : null);
  app.label = (row) => (row.isTwin ? `${row.agent}, ${app.digits(row)}` : row.agent);

  app.tier = (row) => `${row.tier} ${TIERS[row.tier]}`;
  app.page = (row) => `../runs/${row.digest}.html`;
  app.format = { percent, score, fixed, dollars, date };

  // The small letter that says how far a number is proved.
  app.word = (row, name) => {
    const letter = row.words && row.words[name];
    return letter ? app.el("abbr", { class: "word", title: WORDS[letter] }, letter) : null;
  };
  app.missing = () => app.el("span", { class: "missing", title: "not counted" }, "\u2013");

  // A text cell may not become a formula where the file is opened.
  const quoted = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  app.csv = (data, rows) => {
    const names = Object.keys(data.fields).filter((name) => name !== "words");
    const cell = (row, name) => {
      const value = row[name];
      if (value !== null && data.fields[name][0] === "time") return app.time(value);
      return quoted(value);
    };
    const lines = rows.map((row) => [quoted(data.env), quoted(data.split), data.track, ...names.map((name) => cell(row, name))]);
    return [["env_id", "split", "track", ...names], ...lines].map((line) => line.join(",") + "\r\n").join("");
  };
})();
