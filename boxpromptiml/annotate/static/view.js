// Draws the photograph and what lies over it, and finds the photograph's pixels under a pointer.
// Boxes are [x0, y0, x1, y1] in pixels of the upright photograph at its full size.

const BOX = "#f0e442";
const EDGE = "#111214";
const REACH = { mouse: 9, pen: 14, touch: 24 }; // CSS pixels around a corner that take hold of it

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.photograph = null;
  }

  /** Show a picture of a photograph of this full size; null for none. */
  show(picture, width, height) {
    this.photograph = picture && { picture, width, height };
  }

  /** Left and top of the photograph in CSS pixels of the canvas, and its scale. */
  get place() {
    const { width, height } = this.photograph;
    const outer = this.canvas.getBoundingClientRect();
    const scale = Math.min(outer.width / width, outer.height / height);
    return { left: (outer.width - width * scale) / 2, top: (outer.height - height * scale) / 2, scale };
  }

  /** The photograph's pixel under a pointer, cut to the photograph. */
  pixel(event) {
    const { width, height } = this.photograph;
    const outer = this.canvas.getBoundingClientRect();
    const { left, top, scale } = this.place;
    const cut = (value, most) => Math.min(Math.max(value, 0), most);
    return [
      cut((event.clientX - outer.left - left) / scale, width),
      cut((event.clientY - outer.top - top) / scale, height),
    ];
  }

  /** The corner of a box under a pointer: the box's number and the opposite corner; or null. */
  corner(event, boxes) {
    const reach = (REACH[event.pointerType] ?? REACH.mouse) / this.place.scale;
    const [x, y] = this.pixel(event);
    for (let number = boxes.length - 1; number >= 0; number--) {
      const [x0, y0, x1, y1] = boxes[number];
      for (const [cx, ox] of [[x0, x1], [x1, x0]]) {
        for (const [cy, oy] of [[y0, y1], [y1, y0]]) {
          if (Math.hypot(cx - x, cy - y) <= reach) return { number, opposite: [ox, oy] };
        }
      }
    }
    return null;
  }

  /** Draw everything. Layers are {bitmap, window}; `selected` is the number of a box, or null. */
  draw({ boxes, layers, selected }) {
    const outer = this.canvas.getBoundingClientRect();
    const density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(outer.width * density);
    this.canvas.height = Math.round(outer.height * density);
    if (!this.photograph) return;
    const { picture, width, height } = this.photograph;
    const { left, top, scale } = this.place;
    const context = this.context;
    context.setTransform(density, 0, 0, density, 0, 0);
    context.imageSmoothingQuality = "high";
    const at = ([x0, y0, x1, y1]) => [left + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale];
    context.drawImage(picture, ...at([0, 0, width, height]));
    for (const layer of layers) context.drawImage(layer.bitmap, ...at(layer.window));
    boxes.forEach((box, number) => this.#frame(at(box), number === selected));
  }

  #frame([x, y, width, height], isSelected) {
    const context = this.context;
    for (const [colour, thick] of [[EDGE, 5], [BOX, 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = isSelected ? thick + 1.5 : thick;
      context.strokeRect(x, y, width, height);
    }
    for (const cx of [x, x + width]) {
      for (const cy of [y, y + height]) {
        context.beginPath();
        context.arc(cx, cy, isSelected ? 6 : 4.5, 0, 2 * Math.PI);
        context.fillStyle = BOX;
        context.fill();
        context.lineWidth = 1.5;
        context.strokeStyle = EDGE;
        context.stroke();
      }
    }
  }
}
