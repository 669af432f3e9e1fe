// The drawing: cards and edges in one moved and scaled plane. Only cards in sight are in the
// document, so that a tree of thousands of steps moves like one of ten.

Viewer.TINTS = 10;
Viewer.ZOOM = { min: 0.02, max: 2, step: 1.25 };
const MARGIN = 300; // pixels around the visible part in which cards are kept ready

// Returns a new element with a class and text; children may be given instead of text.
Viewer.make = function (name, className = "", content = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (Array.isArray(content)) element.append(...content);
  else if (content) element.textContent = content;
  return element;
};

// Returns one of the page's symbols.
Viewer.icon = function (name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", `icon ${name}`);
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
};

// Returns the class of a credit: p1..p10 above zero, n1..n10 below, z at zero, u for none.
Viewer.tint = function (credit, scale) {
  if (credit === undefined) return "u";
  if (!credit || !scale) return "z";
  const level = Math.ceil((Viewer.TINTS * Math.abs(credit)) / scale - 1e-9);
  return (credit > 0 ? "p" : "n") + Math.min(Math.max(level, 1), Viewer.TINTS);
};

// Returns a number with its sign and two decimals; the minus is a true one.
Viewer.signed = function (value) {
  const text = Math.abs(value).toFixed(2);
  if (text === "0.00") return text;
  return (value > 0 ? "+" : "\u2212") + text;
};

// Returns a credit as a chip: the sign stands in the arrow and in the number, not in colour alone.
Viewer.creditChip = function (credit, scale) {
  if (credit === undefined) return null;
  const arrow = credit > 0 ? "\u25b2" : credit < 0 ? "\u25bc" : "\u25c6";
  const chip = Viewer.make("span", `credit ${Viewer.tint(credit, scale)}`);
  const mark = Viewer.make("span", "arrow", arrow);
  mark.setAttribute("aria-hidden", "true");
  chip.append(mark, Viewer.signed(credit));
  chip.title = `credit ${credit}`;
  return chip;
};

// Returns what a step did, in a few words: the tools it called, or that it called none.
Viewer.stepName = function (node) {
  if (node.parent < 0) return "start";
  return node.calls.map((call) => call[0]).join(", ") || "no tool call";
};

// Returns the step's own words on one line: the arguments of its call, or its thought.
Viewer.stepText = function (node) {
  if (node.parent < 0) return (node.seen || "").slice(-200).split("\n").at(-1);
  const first = node.calls.length ? node.calls[0][1] : node.thought || "";
  const alone = first.includes("\n") ? first : first.replace(/^[\w-]+: /, ""); // a single argument
  return alone.slice(0, 200).replace(/\s+/g, " ");
};

// Makes the drawing in `canvas`, which holds #plane with #edges and #cards. `act` has
// select(index) and toggle(index).
Viewer.drawing = function (canvas, act) {
  const plane = canvas.querySelector("#plane");
  const cards = canvas.querySelector("#cards");
  const [edges, lit] = canvas.querySelectorAll("#edges path");
  const drawn = new Map();
  const view = { x: 0, y: 0, scale: 1 };
  let scene = null;
  let isPlanned = false;
  let covered = null; // the part of the plane whose cards and edges are in the document

  function card(index) {
    const { tree, layout, scale } = scene;
    const node = tree.nodes[index];
    const element = Viewer.make("div", `card ${Viewer.tint(node.credit, scale)}`);
    element.id = `card-${index}`;
    element.dataset.index = index;
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-level", node.level + 1);
    const { x, y } = layout.places[index];
    element.style.transform = `translate(${x}px, ${y}px)`;
    const name = Viewer.make("b", "tool", Viewer.stepName(node));
    const top = Viewer.make("span", "top", [Viewer.make("span", "no", String(node.step)), name]);
    const bottom = Viewer.make("span", "bottom", [Viewer.make("span", "said", Viewer.stepText(node))]);
    const chip = Viewer.creditChip(node.credit, scale);
    if (chip) top.append(chip);
    if (node.outcome) {
      const end = Viewer.make("span", "end", [Viewer.icon(node.outcome)]);
      end.title = node.outcome;
      end.append(Viewer.make("span", "sr", node.outcome));
      (layout.isDown || chip ? bottom : top).append(end);
    }
    element.append(top, bottom);
    if (node.children.length) element.append(fold(node));
    return element;
  }

  // The mark at a card's edge: how many branches it forks into, or how many steps are folded.
  function fold(node) {
    const isFolded = scene.collapsed.has(node.index);
    const many = node.children.length > 1;
    const text = isFolded ? `+${node.below}` : many ? String(node.children.length) : "\u2212";
    const mark = Viewer.make("span", `fold${isFolded ? " folded" : many ? " fork" : ""}`, text);
    mark.title = isFolded ? `show ${node.below} steps` : many
      ? `fork into ${node.children.length} branches; click to fold them` : "fold the steps after this";
    return mark;
  }

  function refresh() {
    isPlanned = false;
    plane.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    canvas.classList.toggle("far", view.scale < 0.45);
    if (!covered || !holds(covered, part(0)) || covered.scale !== view.scale) cover();
    mark();
  }

  // The visible part of the plane and so many pixels around it.
  function part(margin) {
    return {
      left: (-margin - view.x) / view.scale,
      top: (-margin - view.y) / view.scale,
      right: (canvas.clientWidth + margin - view.x) / view.scale,
      bottom: (canvas.clientHeight + margin - view.y) / view.scale,
      scale: view.scale,
    };
  }

  const holds = (outer, inner) =>
    outer.left <= inner.left && outer.right >= inner.right &&
    outer.top <= inner.top && outer.bottom >= inner.bottom;

  // Puts the cards and edges around the visible part into the document, and takes others out.
  function cover() {
    const { layout, selected, tree } = scene;
    covered = part(MARGIN);
    const { width, height } = layout.size;
    const wanted = new Set([selected]);
    const crossing = [];
    for (const index of layout.order) {
      const { x, y } = layout.places[index];
      const isLeft = x + width > covered.left && x < covered.right;
      if (isLeft && y + height > covered.top && y < covered.bottom) wanted.add(index);
      const from = layout.places[Math.max(tree.nodes[index].parent, 0)];
      const reaches = Math.max(y, from.y) + height > covered.top && Math.min(y, from.y) < covered.bottom;
      if (reaches && x + width > covered.left && from.x < covered.right) crossing.push(index);
    }
    edges.setAttribute("d", lines(crossing));
    for (const [index, element] of drawn) {
      if (!wanted.has(index)) element.remove(), drawn.delete(index);
    }
    const fresh = document.createDocumentFragment();
    for (const index of wanted) {
      if (!drawn.has(index)) drawn.set(index, card(index)), fresh.append(drawn.get(index));
    }
    cards.append(fresh);
  }

  function mark() {
    const { tree, found, selected, collapsed } = scene;
    const onPath = new Set(Viewer.path(tree, selected));
    for (const [index, element] of drawn) {
      element.classList.toggle("on-path", onPath.has(index));
      element.classList.toggle("dim", found.size > 0 && !found.has(index));
      element.classList.toggle("found", found.has(index));
      element.setAttribute("aria-selected", index === selected);
      if (tree.nodes[index].children.length) {
        element.setAttribute("aria-expanded", !collapsed.has(index));
      }
    }
    canvas.setAttribute("aria-activedescendant", `card-${selected}`);
  }

  function line(index) {
    const { layout, tree } = scene;
    const from = layout.places[tree.nodes[index].parent];
    const to = layout.places[index];
    const { width, height, along } = layout.size;
    if (layout.isDown) {
      const x = from.x + width / 2;
      return `M${x},${from.y + height}V${to.y}`;
    }
    const [x, y] = [from.x + width, from.y + height / 2];
    const goal = to.y + height / 2;
    const half = along / 2;
    return `M${x},${y}C${x + half},${y} ${to.x - half},${goal} ${to.x},${goal}`;
  }

  const lines = (indices) => indices.filter((index) => index > 0).map(line).join("");

  function plan() {
    if (!isPlanned) isPlanned = true, requestAnimationFrame(refresh);
  }

  // Keeps some of the drawing in sight, however it is moved.
  function clamp() {
    const [width, height] = [scene.layout.width * view.scale, scene.layout.height * view.scale];
    const keep = 80;
    view.x = Math.min(canvas.clientWidth - keep, Math.max(keep - width, view.x));
    view.y = Math.min(canvas.clientHeight - keep, Math.max(keep - height, view.y));
  }

  const drawing = {
    view,
    // Draws a scene {tree, layout, scale, selected, collapsed, found: Set}.
    show(next) {
      scene = next;
      for (const element of drawn.values()) element.remove();
      drawn.clear();
      covered = null;
      lit.setAttribute("d", lines(Viewer.path(scene.tree, scene.selected)));
      cards.classList.toggle("down", scene.layout.isDown);
      refresh();
    },
    select(index) {
      scene.selected = index;
      if (!drawn.has(index)) covered = null;
      lit.setAttribute("d", lines(Viewer.path(scene.tree, index)));
      refresh();
    },
    move(dx, dy) {
      view.x += dx;
      view.y += dy;
      clamp();
      plan();
    },
    zoom(factor, atX = canvas.clientWidth / 2, atY = canvas.clientHeight / 2) {
      const scale = Math.min(Viewer.ZOOM.max, Math.max(Viewer.ZOOM.min, view.scale * factor));
      view.x = atX - ((atX - view.x) * scale) / view.scale;
      view.y = atY - ((atY - view.y) * scale) / view.scale;
      view.scale = scale;
      clamp();
      plan();
    },
    // Shows the whole drawing where it is still readable, else its start.
    fit(smallest = Viewer.ZOOM.min) {
      const { width, height } = scene.layout;
      const [freeX, freeY] = [canvas.clientWidth - 48, canvas.clientHeight - 48];
      view.scale = Math.max(smallest, Math.min(1, freeX / width, freeY / height));
      view.x = Math.max(24, (canvas.clientWidth - width * view.scale) / 2);
      view.y = Math.max(24, (canvas.clientHeight - height * view.scale) / 2);
      plan();
    },
    // Moves as little as needed to bring a step into sight.
    reveal(index, gap = 60) {
      const { places, size } = scene.layout;
      const left = places[index].x * view.scale + view.x;
      const top = places[index].y * view.scale + view.y;
      const right = left + size.width * view.scale;
      const bottom = top + size.height * view.scale;
      const shift = (low, high, room) => {
        const edge = Math.min(gap, Math.max(8, (room - (high - low)) / 2));
        if (low < edge) return edge - low;
        return high > room - edge ? room - edge - high : 0;
      };
      view.x += shift(left, right, canvas.clientWidth);
      view.y += shift(top, bottom, canvas.clientHeight);
      refresh();
    },
  };

  cards.addEventListener("click", (event) => {
    const element = event.target.closest(".card");
    if (!element) return;
    const index = Number(element.dataset.index);
    if (event.target.closest(".fold")) act.toggle(index);
    else act.select(index);
  });
  Viewer.hands(canvas, drawing);
  return drawing;
};
