// Zooming and moving the photograph: wheel, two fingers, a drag with the space bar or the middle button.

const WHEEL = { fine: 0.01, pixels: 0.002, lines: 0.06 }; // growth by a wheel's unit; fine is a trackpad's pinch

/** Let a person zoom `view`. `began()` is told that pointers move the photograph and draw nothing, `moved()` that it moved. */
export function listenForZoom(view, began, moved) {
  const { canvas } = view;
  const hands = new Map(); // points of the pointers that may move the photograph
  let isMoving = false;
  let isSpaceDown = false;

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const unit = event.ctrlKey ? "fine" : event.deltaMode ? "lines" : "pixels";
    view.zoom(Math.exp(-event.deltaY * WHEEL[unit]), pointOf(event));
    moved();
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    const grabs = isSpaceDown || event.button === 1;
    if (!grabs && event.pointerType !== "touch") return;
    hands.set(event.pointerId, pointOf(event));
    if (grabs || hands.size > 1) isMoving = true;
    if (!isMoving) return; // one finger draws
    event.preventDefault();
    event.stopImmediatePropagation();
    canvas.setPointerCapture(event.pointerId);
    began();
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!hands.has(event.pointerId)) return;
    const before = grip(hands);
    hands.set(event.pointerId, pointOf(event));
    if (!isMoving) return;
    event.stopImmediatePropagation();
    const after = grip(hands);
    view.zoom(after.width / before.width, before.centre, after.centre);
    moved();
  });

  const release = (event) => {
    hands.delete(event.pointerId);
    if (isMoving) event.stopImmediatePropagation();
    if (!hands.size) isMoving = false; // the last of two fingers still moves, and draws nothing
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);

  const setSpace = (isDown) => {
    isSpaceDown = isDown;
    canvas.classList.toggle("grab", isDown);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.closest("button, label, input, dialog")) return;
    event.preventDefault();
    setSpace(true);
  });
  document.addEventListener("keyup", (event) => event.key === " " && setSpace(false));
  window.addEventListener("blur", () => setSpace(false));
}

const pointOf = (event) => [event.clientX, event.clientY];

/** The middle of all pointers, and how far they are apart: 1 for a single one. */
function grip(hands) {
  const points = [...hands.values()];
  const centre = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const [[x, y], other] = points;
  return { centre, width: other ? Math.max(Math.hypot(other[0] - x, other[1] - y), 1) : 1 };
}
