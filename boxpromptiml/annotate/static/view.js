// Draws the photograph and what lies over it, and finds the photograph's pixels under a pointer.
// Boxes are [x0, y0, x1, y1] in pixels of the upright photograph at its full size.

const BOX = "#f0e442";
const EDGE = "#111214";
const MOST = 16; // how much larger than the whole photograph in the window it can be shown
const BLOCKY = 3; // device pixels a pixel of the picture; from here on pixels are shown as squares
const REACH = { mouse: 9, pen: 14, touch: 24 }; // CSS pixels around a corner that take hold of it

export const cut = (value, least, most) => Math.min(Math.max(value, least), most);

export class View {
  #zoomed = 1;
  #corner = [0, 0]; // left and top of the photograph in the canvas, where it is larger than that

  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.photograph = null;
  }

  /** Show a picture of a photograph of this full size, all of it; null for none. */
  show(picture, width, height) {
    this.photograph = picture && { picture, width, height };
    this.fit();
  }

  /** Show all of the photograph. */
  fit() {
    this.#zoomed = 1;
    this.#corner = [0, 0];
  }

  /** How much larger than the whole photograph in the window it is shown. */
  get zoomed() {
    return this.#zoomed;
  }

  /** Zoom by a factor, and move what lies under one point of the window to another. */
  zoom(factor, from = this.#middle, to = from) {
    if (!this.photograph) return;
    const outer = this.canvas.getBoundingClientRect();
    const { left, top, scale } = this.place;
    this.#zoomed = cut(this.#zoomed * factor, 1, MOST);
    const grown = this.#scale / scale;
    this.#corner = [
      to[0] - outer.left - grown * (from[0] - outer.left - left),
      to[1] - outer.top - grown * (from[1] - outer.top - top),
    ];
  }

  /** Move the photograph so that the middle of a box is seen. */
  bring([x0, y0, x1, y1]) {
    const [wx0, wy0, wx1, wy1] = this.window;
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    if (x > wx0 && x < wx1 && y > wy0 && y < wy1) return;
    const outer = this.canvas.getBoundingClientRect();
    const { left, top, scale } = this.place;
    this.zoom(1, [outer.left + left + x * scale, outer.top + top + y * scale], this.#middle);
  }

  /** The part of the photograph that is seen, in whole pixels. */
  get window() {
    const { width, height } = this.photograph;
    const outer = this.canvas.getBoundingClientRect();
    const { left, top, scale } = this.place;
    return [
      Math.floor(cut(-left / scale, 0, width)),
      Math.floor(cut(-top / scale, 0, height)),
      Math.ceil(cut((outer.width - left) / scale, 0, width)),
      Math.ceil(cut((outer.height - top) / scale, 0, height)),
    ];
  }

  /** Whether the photograph has more pixels than the picture, and they would be seen. */
  get isCoarse() {
    const { picture, width } = this.photograph;
    return picture.width < width && this.place.scale * window.devicePixelRatio * width > picture.width;
  }

  get #middle() {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  }

  get #scale() {
    const { width, height } = this.photograph;
    const outer = this.canvas.getBoundingClientRect();
    return this.#zoomed * Math.min(outer.width / width, outer.height / height);
  }

  /** Left and top of the photograph in CSS pixels of the canvas, and its scale. */
  get place() {
    const { width, height } = this.photograph;
    const outer = this.canvas.getBoundingClientRect();
    const scale = this.#scale;
    const lay = (at, most, long) => (long > most ? cut(at, most - long, 0) : (most - long) / 2);
    const [left, top] = this.#corner;
    return { left: lay(left, outer.width, width * scale), top: lay(top, outer.height, height * scale), scale };
  }

  /** The photograph's pixel under a pointer, cut to the photograph. */
  pixel(event) {
    const { width, height } = this.photograph;
    const outer = this.canvas.getBoundingClientRect();
    const { left, top, scale } = this.place;
    return [
      cut((event.clientX - outer.left - left) / scale, 0, width),
      cut((event.clientY - outer.top - top) / scale, 0, height),
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
    context.imageSmoothingEnabled = (scale * density * width) / picture.width < BLOCKY;
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
