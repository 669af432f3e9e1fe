// Moves and scales a drawing by wheel, mouse and fingers.
Viewer.hands = function (canvas, drawing) {
  const fingers = new Map();
  let travelled = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      const factor = Math.exp(-event.deltaY / 300);
      drawing.zoom(factor, event.clientX - box.left, event.clientY - box.top);
    } else if (event.shiftKey) drawing.move(-event.deltaY, 0);
    else drawing.move(-event.deltaX, -event.deltaY);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    if (other) {
      const box = canvas.getBoundingClientRect();
      const reach = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]);
      drawing.zoom(reach(now) / Math.max(reach(before), 1), other[1][0] - box.left, other[1][1] - box.top);
    } else drawing.move(now[0] - before[0], now[1] - before[1]);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (travelled > 4) canvas.classList.add("moving");
    fingers.set(event.pointerId, now);
  });
  const lift = (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) canvas.classList.remove("moving");
  };
  for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, lift);
  // A click that ends a drag selects nothing.
  canvas.addEventListener("click", (event) => {
    if (travelled > 4) event.stopPropagation();
    travelled = 0;
  }, true);
};
