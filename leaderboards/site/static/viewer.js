// The page: what is selected, folded, searched and filtered; keyboard; state in the address.

const READABLE = 0.8; // no smaller until asked for

// Takes the colours that a reader has chosen on the site around the page, if there is one.
Viewer.colours = function () {
  try {
    const known = localStorage.getItem("theme");
    if (known === "light" || known === "dark") document.documentElement.dataset.theme = known;
  } catch { /* no storage: the system's choice stays */ }
};

Viewer.start = function () {
  const page = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const [canvas, panel, status] = [find("canvas"), find("detail"), find("status")];
  const state = { tree: 0, node: 0, show: "all", words: "", collapsed: new Set(), found: [] };
  const linked = new Map();
  const tree = () => {
    const one = page.trees[state.tree];
    if (!linked.has(one)) linked.set(one, Viewer.linked(one));
    return one;
  };
  let layout = null;

  const act = { select, toggle, link };
  const drawing = Viewer.drawing(canvas, act);

  function arrange() {
    layout = Viewer.layout(tree(), Viewer.passing(tree(), state.show), state.collapsed);
    if (!layout.places[state.node]) state.node = nearest(state.node);
    drawing.show({
      tree: tree(), layout, scale: page.scale, selected: state.node,
      collapsed: state.collapsed, found: new Set(state.found),
    });
  }

  // The step itself, or the first one above it that is drawn.
  function nearest(index) {
    return Viewer.path(tree(), index).findLast((above) => layout.places[above]);
  }

  function select(index) {
    state.node = index;
    const hidden = Viewer.path(tree(), index).slice(0, -1).filter((at) => state.collapsed.has(at));
    for (const at of hidden) state.collapsed.delete(at);
    if (hidden.length) arrange();
    if (!layout.places[index]) find("show").value = state.show = "all", arrange();
    drawing.select(index);
    drawing.reveal(index);
    tell();
  }

  function toggle(index) {
    if (!tree().nodes[index].children.length) return;
    if (!state.collapsed.delete(index)) state.collapsed.add(index);
    const before = layout.places[index];
    arrange();
    const after = layout.places[index];
    const { scale } = drawing.view;
    drawing.move((before.x - after.x) * scale, (before.y - after.y) * scale); // it stays in place
    tell();
  }

  // Shows the selected step, and puts the page's state into its address.
  function tell() {
    Viewer.detail(panel, page, tree(), state.node, act);
    const words = new URLSearchParams();
    if (state.tree) words.set("tree", state.tree + 1);
    words.set("node", tree().nodes[state.node].id);
    if (state.show !== "all") words.set("show", state.show);
    if (state.words) words.set("find", state.words);
    history.replaceState(null, "", `#${words}`);
    count();
  }

  function count() {
    const at = state.found.indexOf(state.node) + 1;
    const number = state.found.length;
    find("count").textContent = !state.words ? "" : !number ? "none" : `${at || "-"} / ${number}`;
  }

  function openTree(number, node = 0) {
    Object.assign(state, { tree: number, node, collapsed: new Set() });
    state.found = Viewer.search(tree(), state.words);
    const picker = find("tree");
    picker.value = String(number);
    find("before").disabled = number === 0;
    find("after").disabled = number === page.trees.length - 1;
    const facts = Viewer.facts(tree().facts);
    if (tree().left_out) {
      const text = `${Viewer.plural(tree().left_out, "further step")} in ${page.source}`;
      facts.push(Viewer.make("p", "cut-note", text));
    }
    find("caption").replaceChildren(...facts);
    arrange();
    drawing.fit(READABLE);
    drawing.reveal(state.node, 20);
    tell();
  }

  function search(words) {
    state.words = words;
    state.found = Viewer.search(tree(), words);
    arrange();
    if (state.found.length && !state.found.includes(state.node)) select(state.found[0]);
    else tell();
  }

  function nextFound(by) {
    const { found } = state;
    if (!found.length) return;
    const at = found.indexOf(state.node);
    select(found[(Math.max(at, by < 0 ? 0 : -1) + by + found.length) % found.length]);
  }

  // Copies the page's address; where the browser does not allow it, shows it to be copied.
  async function link(button) {
    const address = String(location);
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      const field = Object.assign(Viewer.make("input", "address"), { value: address, readOnly: true });
      field.setAttribute("aria-label", "Link to this step");
      button.replaceWith(field);
      field.select();
    }
  }

  function readAddress() {
    const words = new URLSearchParams(location.hash.slice(1));
    const number = Math.min(Math.max(Number(words.get("tree") || 1) - 1, 0), page.trees.length - 1);
    state.show = Object.hasOwn(Viewer.FILTERS, words.get("show")) ? words.get("show") : "all";
    state.words = words.get("find") || "";
    find("show").value = state.show;
    find("search").value = state.words;
    const wanted = page.trees[number || 0].nodes.findIndex((node) => node.id === words.get("node"));
    status.textContent = words.has("node") && wanted < 0
      ? `There is no step ${words.get("node").slice(0, 40)} on this page.` : "";
    openTree(number || 0, Math.max(wanted, 0));
  }

  const KEYS = {
    "/": () => find("search").select(),
    Enter: () => panel.focus(),
    " ": () => toggle(state.node),
    n: () => nextFound(1),
    N: () => nextFound(-1),
    Home: () => select(0),
    "+": () => drawing.zoom(Viewer.ZOOM.step),
    "-": () => drawing.zoom(1 / Viewer.ZOOM.step),
    0: () => drawing.fit(),
    "[": () => find("before").click(),
    "]": () => find("after").click(),
    "?": () => find("help").showModal(),
  };
  for (const way of ["up", "down", "left", "right"]) {
    KEYS[`Arrow${way[0].toUpperCase()}${way.slice(1)}`] = () => {
      if (way === "right" && state.collapsed.has(state.node)) toggle(state.node);
      const next = Viewer.neighbour(tree(), layout, state.node, way);
      if (next !== null) select(next);
    };
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
    const isTyping = event.target.closest("input, select");
    if (isTyping) {
      if (event.target.id !== "search") return;
      if (event.key === "Enter") nextFound(event.shiftKey ? -1 : 1), event.preventDefault();
      if (event.key === "Escape") canvas.focus();
      return;
    }
    const inPanel = panel.contains(event.target);
    if (inPanel && event.key === "Escape") canvas.focus();
    if (inPanel && (event.key.startsWith("Arrow") || event.key === "Home")) return; // it scrolls
    if (event.target.closest("button, a, summary") && ["Enter", " "].includes(event.key)) return;
    if (!Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  }

  for (const [number, one] of page.trees.entries()) {
    find("tree").append(new Option(`${number + 1}. ${one.title}`, String(number)));
  }
  find("picker").hidden = page.trees.length < 2;
  find("tree").addEventListener("change", (event) => openTree(Number(event.target.value)));
  find("before").addEventListener("click", () => openTree(state.tree - 1));
  find("after").addEventListener("click", () => openTree(state.tree + 1));
  find("search").addEventListener("input", (event) => search(event.target.value));
  find("show").addEventListener("change", (event) => {
    state.show = event.target.value;
    arrange();
    drawing.fit(READABLE);
    drawing.reveal(state.node, 20);
    tell();
  });
  find("in").addEventListener("click", KEYS["+"]);
  find("out").addEventListener("click", KEYS["-"]);
  find("whole").addEventListener("click", KEYS["0"]);
  find("keys").addEventListener("click", KEYS["?"]);
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", readAddress);
  window.addEventListener("resize", () => drawing.move(0, 0));
  readAddress();
};

Viewer.colours();
Viewer.start();
