// The detail of one step. Everything that others wrote goes in as text, never as markup.

Viewer.number = function (value) {
  if (Number.isInteger(value)) return value.toLocaleString("en-GB").replaceAll(",", "\u202f");
  return String(Number(value.toPrecision(6))).replace("-", "\u2212");
};

Viewer.plural = function (count, word, words = `${word}s`) {
  return `${Viewer.number(count)} ${count === 1 ? word : words}`;
};

// Returns a heading and what stands below it, as one section; null without content.
Viewer.section = function (title, content) {
  if (!content.length) return null;
  return Viewer.make("section", "", [Viewer.make("h3", "", title), ...content]);
};

// Returns a text in its own lines, and below it what was cut and where it is.
Viewer.prose = function (text, cut, source, className = "") {
  const parts = text ? [Viewer.make("pre", className, text)] : [];
  if (text && (text.length > 400 || text.split("\n").length > 8)) {
    parts[0].tabIndex = 0; // long texts scroll, also by keyboard
  }
  if (cut) {
    const note = `${Viewer.plural(cut, "more character")} in ${source}`;
    parts.push(Viewer.make("p", "cut-note", note));
  }
  return parts;
};

// Returns the arguments of a call, one name a line, as terms and values.
Viewer.call = function ([name, args]) {
  const parts = [Viewer.make("b", "tool", name)];
  if (args) parts.push(Viewer.make("pre", "args", args));
  return Viewer.make("div", "call", parts);
};

// Returns the path through a step as a row of numbered buttons, tinted by credit.
Viewer.timeline = function (tree, index, scale, select) {
  const path = Viewer.path(tree, index);
  for (let at = index; tree.nodes[at].children.length; path.push(at)) {
    at = tree.nodes[at].children[0];
  }
  const list = Viewer.make("ol", "timeline");
  list.setAttribute("aria-label", "Steps of this branch");
  for (const at of path) {
    const node = tree.nodes[at];
    const button = Viewer.make("button", Viewer.tint(node.credit, scale));
    button.type = "button";
    button.append(node.parent < 0 ? "start" : String(node.step));
    if (node.outcome) button.append(Viewer.icon(node.outcome));
    button.title = Viewer.stepName(node);
    button.setAttribute("aria-label", `step ${node.step}: ${Viewer.stepName(node)}`);
    if (at === index) button.setAttribute("aria-current", "step");
    if (node.children.length > 1) button.classList.add("forks");
    button.addEventListener("click", () => select(at));
    list.append(Viewer.make("li", "", [button]));
  }
  return list;
};

// Returns the branches that this step was compared with, itself among them.
Viewer.siblings = function (tree, node, scale, select) {
  if (node.parent < 0) return [];
  const family = tree.nodes[node.parent].children;
  if (family.length < 2) return [];
  const list = Viewer.make("ol", "siblings");
  for (const index of family) {
    const other = tree.nodes[index];
    const button = Viewer.make("button", "sibling");
    button.type = "button";
    const words = [Viewer.make("b", "tool", Viewer.stepName(other))];
    words.push(Viewer.make("span", "said", Viewer.stepText(other)));
    button.append(Viewer.make("span", "words", words));
    if (other.value !== undefined) {
      const text = `value ${Viewer.number(Number(other.value.toFixed(2)))}`;
      button.append(Viewer.make("span", "value", text));
    }
    const chip = Viewer.creditChip(other.credit, scale);
    if (chip) button.append(chip);
    if (index === node.index) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => select(index));
    list.append(Viewer.make("li", "", [button]));
  }
  return [list];
};

// Returns names and values as a list of terms; pairs without a value are left out.
Viewer.facts = function (pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== "");
  if (!known.length) return [];
  const rows = known.map(([name, value]) => {
    const term = Viewer.make("dd", name === "state" ? "hash" : "", String(value));
    return Viewer.make("div", "", [Viewer.make("dt", "", name), term]);
  });
  return [Viewer.make("dl", "facts", rows)];
};

Viewer.rewardFacts = function (tree, node) {
  const count = (value) => (value === undefined ? undefined : Viewer.number(value));
  const pairs = [];
  const isLeaf = Boolean(node.outcome);
  if (node.reward !== undefined && (node.reward || isLeaf)) {
    pairs.push(["reward of this step", count(node.reward)]);
  }
  for (const [name, value] of node.parts || []) pairs.push([`component ${name}`, value]);
  if (node.credit !== undefined) pairs.push(["credit", count(node.credit)]);
  const name = isLeaf ? "episode reward" : "mean reward below";
  if (node.value !== undefined) pairs.push([name, count(node.value)]);
  return Viewer.facts(pairs);
};

// Fills the panel with a step. `act` has select(index), link() and focusTree().
Viewer.detail = function (panel, page, tree, index, act) {
  const node = tree.nodes[index];
  const isStart = node.parent < 0;
  const count = (value) => (value === undefined ? undefined : Viewer.number(value));
  const title = Viewer.make("h2", "", isStart ? "Start" : `Step ${node.step}`);
  const chips = Viewer.make("span", "chips");
  const chip = Viewer.creditChip(node.credit, page.scale);
  if (chip) chips.append(chip);
  if (node.outcome) {
    chips.append(Viewer.make("span", `outcome ${node.outcome}`, [Viewer.icon(node.outcome), node.outcome]));
  }
  const copy = Viewer.make("button", "copy", "Copy link");
  copy.type = "button";
  copy.addEventListener("click", () => act.link(copy));
  const calls = node.calls.map(Viewer.call);
  if (node.more_calls) {
    calls.push(Viewer.make("p", "cut-note", `and ${Viewer.plural(node.more_calls, "more call")}`));
  }
  const seen = Viewer.prose(node.seen, node.seen_cut, page.source, "seen");
  if (node.seen_part) {
    seen.push(Viewer.make("p", "cut-note", "The log keeps no more than this beginning, and the digest of it all."));
  }
  const thought = Viewer.prose(node.thought, 0, page.source, "thought");
  const ended = [["ended", node.reason], ["failed", node.failure]];
  const nothing = !isStart && !calls.length && !node.thought;
  panel.replaceChildren(...[
    Viewer.make("div", "head", [title, chips, copy]),
    Viewer.timeline(tree, index, page.scale, act.select),
    Viewer.section("Ending", Viewer.facts(ended)),
    Viewer.section("Thought", thought),
    Viewer.section(calls.length > 1 ? "Tool calls" : "Tool call", calls),
    nothing ? Viewer.make("p", "cut-note", "The action is empty.") : null,
    ...Viewer.prose("", node.action_cut, page.source),
    Viewer.section(isStart ? "Prompt" : "Observation", seen),
    Viewer.section("Reward and credit", Viewer.rewardFacts(tree, node)),
    Viewer.section("Branches at this fork", Viewer.siblings(tree, node, page.scale, act.select)),
    Viewer.section("Step", Viewer.facts([
      ["sampled tokens", count(node.tokens)],
      ["tool calls", count(node.tool_calls)],
      ["seconds", count(node.seconds)],
      ["steps below", node.below ? count(node.below) : undefined],
      ["weights", node.weights],
      ["node", node.id],
      ["state", node.state],
    ])),
  ].filter(Boolean));
  panel.scrollTop = 0;
};
