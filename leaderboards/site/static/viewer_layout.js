"use strict";
// Where every step of a tree stands: columns by depth, rows by branch. Parents stand before
// their children in the data, and nothing here recurses, so a deep tree is like any other.
const Viewer = {};

Viewer.SIZES = {
  across: { width: 190, height: 52, along: 44, beside: 12 },
  down: { width: 340, height: 56, along: 20, beside: 24 },
};

// Returns the tree with the links that its data leave out.
Viewer.linked = function (tree) {
  const nodes = tree.nodes;
  for (const [index, node] of nodes.entries()) {
    const level = node.parent >= 0 ? nodes[node.parent].level + 1 : 0;
    Object.assign(node, { index, level, children: [], below: 0, calls: node.calls || [] });
    if (node.parent >= 0) nodes[node.parent].children.push(index);
  }
  for (let index = nodes.length - 1; index > 0; index -= 1) {
    nodes[nodes[index].parent].below += nodes[index].below + 1;
  }
  const isChain = nodes.every((node) => node.children.length < 2);
  return Object.assign(tree, { way: isChain ? "down" : "across" });
};

// Returns the indices from the start to a step, both included.
Viewer.path = function (tree, index) {
  const path = [];
  for (let at = index; at >= 0; at = tree.nodes[at].parent) path.push(at);
  return path.reverse();
};

// What the filter "show" asks of a step; its ancestors are shown with it.
Viewer.FILTERS = {
  all: () => true,
  failed: (tree, node) => Boolean(node.outcome) && node.outcome !== "correct",
  correct: (tree, node) => node.outcome === "correct",
  forks: (tree, node) =>
    node.children.length > 1 || (node.parent >= 0 && tree.nodes[node.parent].children.length > 1),
};

// Returns which steps pass the filter, as an array of booleans; the start always does.
Viewer.passing = function (tree, filter) {
  const test = Viewer.FILTERS[filter];
  const passes = tree.nodes.map((node) => test(tree, node));
  for (let index = passes.length - 1; index > 0; index -= 1) {
    if (passes[index]) passes[tree.nodes[index].parent] = true;
  }
  passes[0] = true;
  return passes;
};

// Returns {x, y} by index for what is drawn (null for the rest), the order from top to
// bottom, and the size of it all.
Viewer.layout = function (tree, passes, collapsed) {
  const { nodes, way } = tree;
  const size = Viewer.SIZES[way];
  const isDown = way === "down";
  const columnStep = size.along + (isDown ? size.height : size.width);
  const rowStep = size.beside + (isDown ? size.width : size.height);
  const shown = (node) =>
    collapsed.has(node.index) ? [] : node.children.filter((child) => passes[child]);
  const order = [];
  const todo = [0];
  while (todo.length) {
    const index = todo.pop();
    order.push(index);
    todo.push(...shown(nodes[index]).reverse());
  }
  const rows = new Array(nodes.length).fill(null);
  let leaves = 0;
  for (const index of order) if (!shown(nodes[index]).length) rows[index] = leaves++;
  for (const index of [...order].reverse()) {
    const children = shown(nodes[index]);
    if (children.length) rows[index] = (rows[children[0]] + rows[children.at(-1)]) / 2;
  }
  let depth = 0;
  const places = rows.map((row, index) => {
    if (row === null) return null;
    depth = Math.max(depth, nodes[index].level);
    const along = nodes[index].level * columnStep;
    const beside = row * rowStep;
    return isDown ? { x: beside, y: along } : { x: along, y: beside };
  });
  const along = (depth + 1) * columnStep - size.along;
  const beside = Math.max(leaves, 1) * rowStep - size.beside;
  return {
    places, order, size, isDown,
    width: isDown ? beside : along,
    height: isDown ? along : beside,
  };
};

// Returns the step that an arrow key leads to, or null. "up" and "down" in a tree that grows
// to the right go to the neighbour in the same column, in a chain along it.
Viewer.neighbour = function (tree, layout, index, key) {
  const turned = { up: "left", down: "right", left: "up", right: "down" };
  const way = layout.isDown ? turned[key] : key;
  const node = tree.nodes[index];
  if (way === "left") return node.parent >= 0 ? node.parent : null;
  if (way === "right") {
    const children = node.children.filter((child) => layout.places[child]);
    return children.length ? children[0] : null;
  }
  const column = layout.order.filter((other) => tree.nodes[other].level === node.level);
  const at = column.indexOf(index) + (way === "up" ? -1 : 1);
  return at >= 0 && at < column.length ? column[at] : null;
};

// Returns the indices of the steps that hold the words, in drawing order.
Viewer.search = function (tree, words) {
  const wanted = words.trim().toLowerCase();
  if (!wanted) return [];
  return tree.nodes
    .filter((node) => {
      const texts = [node.id, node.thought, node.seen, node.reason, node.failure, node.state];
      return [...texts, ...node.calls.flat()]
        .some((text) => text && text.toLowerCase().includes(wanted));
    })
    .map((node) => node.index);
};
