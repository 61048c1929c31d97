// The page: what is shown, what a person does, and which keys do it.
import { Saver, askFor, askForLayer, askForPicture, send } from "./requests.js";
import { cut, View } from "./view.js";
import { listenForZoom } from "./zoom.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 30_000; // ms without a sign of the person that count as time spent
const SMALLEST = 4; // CSS pixels; a shorter drag is a click
const STEP = 0.01; // of the shorter side when all is seen: how far an arrow key moves a box
const ZOOM = 1.5; // by a key
const PAN = 0.2; // of what is seen, by a key
const CALM = 150; // ms without zooming before the pixels of what is seen are asked for

const view = new View($("canvas"));
const records = new Map(); // what was said of each photograph, by number
const pictures = new Map(); // promises of pictures, by number
const steps = []; // what can be undone: {number, boxes, verdict, finished}
const masks = new Map(); // layers of the photograph shown, by their box
const queue = []; // boxes whose mask is wanted
let site; // the server's settings and all photographs
let at = 0; // number of the photograph shown
let record = null; // its record; null while it is loaded
let drag = null; // {number of the box, opposite corner, box, before} while a pointer is down
let draft = null; // {box, layer} of the drag
let selected = null; // number of the box that arrow keys move
let detail = null; // the layer of the part that is seen, in the photograph's own pixels
let calm = null; // the timer until it is asked for
let map = null; // the student's layer
let mapIsOn = false;
let boxesAreOn = true;
let seen = null; // when the person last gave a sign

// ---- what is shown ------------------------------------------------------------------------------

function draw() {
  if (!record) return view.draw({ boxes: [], layers: [], selected: null });
  let boxes = boxesAreOn ? record.boxes : [];
  if (drag?.box) boxes = boxes.filter((_, number) => number !== drag.number);
  const shown = boxes.map((box) => masks.get(String(box)));
  const layers = [detail, mapIsOn && map, ...shown, draft?.layer].filter((one) => one?.bitmap);
  if (drag?.box) boxes = [...boxes, drag.box];
  view.draw({ boxes, layers, selected });
}

function render() {
  const one = site.photographs[at];
  const total = site.photographs.length;
  $("name").textContent = one ? one.name : "No photograph yet";
  $("name").title = one ? one.name : "";
  $("place").textContent = one ? `${at + 1} of ${total}` : "";
  document.title = one ? `${one.name} – boxes` : "Boxes";
  $("stage").setAttribute("aria-label", one ? `Photograph ${at + 1} of ${total}, ${one.name}` : "No photograph");
  const decided = site.photographs.filter((each) => each.verdict).length;
  $("progress").setAttribute("aria-valuemax", total);
  $("progress").setAttribute("aria-valuenow", decided);
  $("progress").firstElementChild.style.width = `${(100 * decided) / Math.max(total, 1)}%`;
  const words = { authentic: "Nothing manipulated", skipped: "Unsure, skipped" };
  $("badge").textContent = words[record?.verdict] ?? "";
  $("badge").hidden = !words[record?.verdict];
  $("nothing").classList.toggle("chosen", record?.verdict === "authentic");
  $("unsure").classList.toggle("chosen", record?.verdict === "skipped");
  $("previous").disabled = at === 0;
  $("following").disabled = at >= total - 1;
  $("undo").disabled = !steps.length && !record?.boxes.length;
  $("map").setAttribute("aria-pressed", mapIsOn);
  $("hint").textContent = hint();
  renderBoxes();
  draw();
}

function hint() {
  if (!site.photographs.length) return "Open a photograph, or drop one here. It stays on this machine.";
  if (!record) return "";
  let map_words = mapIsOn ? "The student is looking at the photograph … " : "";
  if (mapIsOn && map) map_words = `Student’s score of the photograph ${map.score.toFixed(2)}, ${percent(map.area)} marked. `;
  if (selected !== null) return "Arrow keys move the box, with Shift its right and lower side; Enter leaves it.";
  if (!record.boxes.length) {
    const nothing = site.saves && !record.verdict ? " Nothing there? Say so below." : "";
    return `${map_words}Drag a box around what looks manipulated.${nothing}`;
  }
  const last = masks.get(String(record.boxes.at(-1)));
  if (!last) return `${map_words}The teacher is looking at the box …`;
  if (last.note) return `${map_words}The teacher found no clear region in the last box: an ellipse stands in. Draw it again?`;
  const go_on = site.saves ? "Good? Next. Not good? Undo, and draw again. " : "";
  return `${map_words}${go_on}Another region? Draw another box.`;
}

function renderBoxes() {
  const items = (record?.boxes ?? []).map((box, number) => {
    const item = document.createElement("li");
    item.classList.toggle("selected", number === selected);
    const mask = masks.get(String(box));
    const pick = button(`Box ${number + 1}`, () => select(number));
    const about = document.createElement("small");
    about.textContent = mask ? (mask.error ?? `mask ${percent(mask.area)}, score ${mask.score.toFixed(2)}`) : "…";
    pick.append(" ", about);
    pick.title = `${sides(box)}; select it to move it with arrow keys`;
    const remove = button("×", () => removeBox(number));
    remove.setAttribute("aria-label", `Remove box ${number + 1}`);
    item.append(pick, remove);
    return item;
  });
  $("boxes").replaceChildren(...items);
}

function button(text, act) {
  const made = document.createElement("button");
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

const percent = (fraction) => (fraction > 0 && fraction < 0.01 ? "below 1 %" : `${Math.round(100 * fraction)} %`);
const sides = ([x0, y0, x1, y1]) => `from ${Math.round(x0)}, ${Math.round(y0)} to ${Math.round(x1)}, ${Math.round(y1)}`;

/** Tell a screen reader. */
function say(text) {
  $("live").textContent = text;
}

/** Tell everybody that something went wrong; an empty text takes it away. */
function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// ---- photographs --------------------------------------------------------------------------------

/** The picture of a photograph, asked for once while it is near. */
function pictureOf(number) {
  if (!pictures.has(number)) {
    for (const old of pictures.keys()) if (Math.abs(old - number) > 2) pictures.delete(old);
    const promise = askForPicture(number);
    promise.catch(() => pictures.delete(number));
    pictures.set(number, promise);
  }
  return pictures.get(number);
}

async function show(number) {
  spend();
  if (drag) endDrag(false);
  [at, record, map, selected, draft, detail] = [number, null, null, null, null, null];
  masks.clear();
  queue.length = 0;
  complain("");
  view.show(null);
  render();
  $("busy").hidden = false;
  try {
    if (!saver.isBusy || !records.has(number)) await refresh(number);
    const picture = await pictureOf(number);
    if (at !== number) return; // the person has moved on
    record = records.get(number);
    view.show(picture, record.width, record.height);
    record.boxes.forEach(wantMask);
    say(`Photograph ${number + 1} of ${site.photographs.length}. ${$("badge").textContent}`);
  } catch (error) {
    if (at === number) complain(error.message);
  }
  $("busy").hidden = true;
  seen = performance.now();
  render();
  if (mapIsOn) showMap();
  if (number + 1 < site.photographs.length) pictureOf(number + 1);
}

/** Ask what is saved of a photograph; time spent on it without a word still counts. */
async function refresh(number) {
  const known = records.get(number);
  const fresh = await askFor(`photographs/${number}`);
  if (known?.revision === fresh.revision) fresh.seconds = Math.max(fresh.seconds, known.seconds);
  records.set(number, fresh);
}

function step(by) {
  const number = at + by;
  if (site.photographs[number]) show(number);
}

/** The nearest photograph without a finished verdict, after this one and from the start; or -1. */
function nextOpen() {
  const order = site.photographs.map((_, number) => (at + 1 + number) % site.photographs.length);
  return order.find((number) => !(site.photographs[number].verdict && site.photographs[number].finished)) ?? -1;
}

async function goOn() {
  const number = nextOpen();
  if (number >= 0) return show(number);
  render();
  await saver.settled; // else the last verdicts would not be counted
  const found = await askFor("summary");
  $("done-counts").textContent =
    `${found.manipulated} manipulated, ${found.authentic} with nothing manipulated, ${found.skipped} skipped.`;
  $("done-seconds").textContent = `Seconds per photograph: ${found.seconds}.`;
  $("done").showModal();
}

// ---- time ---------------------------------------------------------------------------------------

/** Count the time since the last sign of the person, but no long pause and no hidden page. */
function spend() {
  const now = performance.now();
  if (record && seen !== null && !document.hidden) record.seconds += Math.min(now - seen, PAUSE) / 1000;
  seen = document.hidden ? null : now;
}

// ---- what a person says -------------------------------------------------------------------------

/** Change what is said of this photograph, and save it; `keep` leaves the list of steps alone. */
function change(boxes, verdict, finished, keep = false) {
  spend();
  if (!keep) {
    steps.push({ number: at, boxes: record.boxes, verdict: record.verdict, finished: record.finished });
  }
  Object.assign(record, { boxes, verdict, finished });
  Object.assign(site.photographs[at], { verdict, finished });
  complain("");
  for (const box of boxes) wantMask(box);
  if (site.saves) saver.save(at);
  render();
}

function putBox(box, number, keep = false) {
  const rounded = box.map((side) => Math.round(side * 100) / 100);
  const boxes = [...record.boxes];
  boxes[number ?? boxes.length] = rounded;
  change(boxes, "manipulated", false, keep);
}

function removeBox(number) {
  if (!record?.boxes.length) return;
  selected = null;
  const boxes = record.boxes.filter((_, each) => each !== number);
  change(boxes, boxes.length ? "manipulated" : null, false);
  say(`Box removed, ${boxes.length} left`);
  $("stage").focus();
}

function decide(verdict) {
  if (!record || !site.saves) return;
  change([], verdict, true);
  goOn();
}

function next() {
  if (!record || !site.saves) return step(1);
  if (!record.verdict) {
    complain("Draw a box, or say N: nothing manipulated, or U: unsure. The right arrow goes on without a word.");
    return;
  }
  if (!record.finished) change(record.boxes, record.verdict, true);
  goOn();
}

async function undo() {
  const last = steps.pop();
  if (!last) return removeBox((record?.boxes.length ?? 0) - 1); // drawn before the page was opened
  selected = null;
  if (last.number !== at || !record) await show(last.number);
  if (record) change(last.boxes, last.verdict, last.finished, true);
  say("Undone");
}

// ---- layers -------------------------------------------------------------------------------------

let isAsking = false;

function wantMask(box) {
  const key = String(box);
  if (!masks.has(key) && !queue.some((each) => String(each) === key)) queue.push(box);
  askForMasks();
}

/** Ask for one mask at a time: that of the drag in its latest state first. */
async function askForMasks() {
  if (isAsking) return;
  isAsking = true;
  for (;;) {
    const number = at;
    const isNew = drag?.box && isLarge(drag.box) && String(drag.box) !== String(draft?.box);
    const isDraft = Boolean(site.live && isNew);
    const box = isDraft ? drag.box : queue.shift();
    if (!box) break;
    let layer;
    try {
      layer = await askForLayer(`photographs/${number}/mask?box=${box.join()}`);
    } catch (error) {
      layer = { error: error.message };
    }
    if (number !== at) continue;
    if (!isDraft) masks.set(String(box), layer);
    else if (drag) draft = { box, layer };
    if (isDraft) draw();
    else render();
  }
  isAsking = false;
}

async function showMap() {
  const number = at;
  if (map || !record) return;
  try {
    const found = await askForLayer(`photographs/${number}/map`);
    if (number === at) map = found;
  } catch (error) {
    mapIsOn = false;
    if (number === at) complain(error.message);
  }
  render();
}

function toggleMap() {
  mapIsOn = !mapIsOn;
  render();
  if (mapIsOn) showMap();
}

// ---- pointers -----------------------------------------------------------------------------------

function startDrag(event) {
  if (!record || !event.isPrimary || event.button !== 0) return;
  if (drag && event.pointerType !== "pen") return; // a hand that rests beside the pen
  event.preventDefault();
  spend();
  $("stage").focus({ preventScroll: true });
  boxesAreOn = true;
  const corner = view.corner(event, record.boxes);
  drag = { pointer: event.pointerId, number: corner?.number ?? null, from: corner?.opposite ?? view.pixel(event), box: null };
  selected = null;
  $("canvas").setPointerCapture(event.pointerId);
}

function moveDrag(event) {
  spend();
  if (event.pointerId !== drag?.pointer) return;
  const [x, y] = view.pixel(event);
  const [fx, fy] = drag.from;
  drag.box = [Math.min(x, fx), Math.min(y, fy), Math.max(x, fx), Math.max(y, fy)];
  draw();
  askForMasks();
}

function endDrag(isKept) {
  const { box, number } = drag;
  [drag, draft] = [null, null];
  if (isKept && box && isLarge(box)) {
    putBox(box, number);
    say(`Box ${sides(box)}`);
  } else render();
}

function isLarge([x0, y0, x1, y1]) {
  const { scale } = view.place;
  return Math.min(x1 - x0, y1 - y0) * scale >= SMALLEST;
}

// ---- zoom ---------------------------------------------------------------------------------------

function zoom(factor) {
  if (!record) return;
  if (selected !== null) view.bring(record.boxes[selected]);
  view.zoom(factor);
  say(`${view.zoomed.toFixed(1)} times larger than the whole`);
  lookAgain();
}

function fit() {
  view.fit();
  lookAgain();
}

/** Move what is seen by a key. */
function pan(key) {
  const { width, height } = $("canvas").getBoundingClientRect();
  const dx = { ArrowLeft: PAN, ArrowRight: -PAN }[key] ?? 0;
  const dy = { ArrowUp: PAN, ArrowDown: -PAN }[key] ?? 0;
  view.zoom(1, [0, 0], [dx * width, dy * height]);
  lookAgain();
}

/** Draw at another zoom or place; when it is calm, with the photograph's own pixels. */
function lookAgain() {
  if (!record) return;
  spend();
  $("fit").hidden = view.zoomed === 1;
  draw();
  clearTimeout(calm);
  calm = setTimeout(showDetail, CALM);
}

async function showDetail() {
  if (!record || !view.isCoarse) return;
  const [number, part] = [at, view.window];
  if (String(part) === String(detail?.window)) return;
  try {
    const bitmap = await askForPicture(number, part);
    if (number === at) detail = { bitmap, window: part };
  } catch {
    return; // the reduced picture is still there
  }
  draw();
}

// ---- boxes by keys ------------------------------------------------------------------------------

function boxByKeys() {
  if (!record) return;
  const [x0, y0, x1, y1] = view.window; // in the middle of what is seen
  const within = (low, high, part) => low + part * (high - low);
  putBox([within(x0, x1, 0.35), within(y0, y1, 0.35), within(x0, x1, 0.65), within(y0, y1, 0.65)]);
  select(record.boxes.length - 1);
}

function select(number) {
  selected = number;
  boxesAreOn = true;
  if (number !== null) {
    view.bring(record.boxes[number]);
    say(`Box ${number + 1} selected, ${sides(record.boxes[number])}`);
  }
  $("stage").focus();
  render();
}

function nudge(key, isSize) {
  const { width, height } = record;
  const by = Math.max(1, Math.round((STEP * Math.min(width, height)) / view.zoomed));
  const dx = { ArrowLeft: -by, ArrowRight: by }[key] ?? 0;
  const dy = { ArrowUp: -by, ArrowDown: by }[key] ?? 0;
  const [x0, y0, x1, y1] = record.boxes[selected];
  let moved;
  if (isSize) moved = [x0, y0, cut(x1 + dx, x0 + 1, width), cut(y1 + dy, y0 + 1, height)];
  else {
    const [mx, my] = [cut(dx, -x0, width - x1), cut(dy, -y0, height - y1)];
    moved = [x0 + mx, y0 + my, x1 + mx, y1 + my];
  }
  const last = steps.at(-1);
  const isSame = last?.number === at && last.nudged === selected;
  putBox(moved, selected, isSame);
  if (!isSame) steps.at(-1).nudged = selected;
  view.bring(moved);
  lookAgain();
  say(sides(record.boxes[selected]));
}

// ---- keys ---------------------------------------------------------------------------------------

const LETTERS = {
  n: () => decide("authentic"),
  u: () => decide("skipped"),
  b: boxByKeys,
  m: toggleMap,
  p: () => { boxesAreOn = !boxesAreOn; render(); },
  "+": () => zoom(ZOOM),
  "=": () => zoom(ZOOM), // + without Shift
  "-": () => zoom(1 / ZOOM),
  0: fit,
  "?": () => $("help").showModal(),
};

function pressed(event) {
  if (document.querySelector("dialog[open]")) return;
  spend();
  const { key } = event;
  if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "z") return act(event, undo);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key.startsWith("Arrow")) {
    if (selected !== null) return act(event, () => nudge(key, event.shiftKey));
    if (event.shiftKey) return act(event, () => record && pan(key));
    if (key === "ArrowLeft") return act(event, () => step(-1));
    if (key === "ArrowRight") return act(event, () => step(1));
    return;
  }
  const isOnButton = event.target.closest("button, label, input");
  if (key === "Enter" && !isOnButton) return act(event, selected === null ? next : () => select(null));
  if (key === "Escape") return act(event, () => (drag ? endDrag(false) : select(null)));
  if (key === "Backspace") return act(event, undo);
  if (key === "Delete") return act(event, () => removeBox(selected ?? (record?.boxes.length ?? 0) - 1));
  const letter = LETTERS[key.toLowerCase()];
  if (letter && (lettersAct() || key === "?")) act(event, letter);
}

function act(event, what) {
  event.preventDefault();
  if (!event.repeat || event.key.startsWith("Arrow") || "+=-".includes(event.key)) what();
}

const lettersAct = () => $("letters").checked;

// ---- uploads ------------------------------------------------------------------------------------

async function upload(file) {
  if (!file || site.saves) return;
  complain("");
  $("busy").hidden = false;
  try {
    const { number, name } = await send(`uploads?name=${encodeURIComponent(file.name)}`, file);
    site.photographs[number] = { name, verdict: null, finished: false };
    await show(number);
  } catch (error) {
    complain(error.message);
  }
  $("busy").hidden = true;
}

// ---- saving -------------------------------------------------------------------------------------

const saver = new Saver(
  records,
  (state, text) => {
    $("saved").ariaBusy = state === "saving";
    const words = { saving: "Saving", saved: "Saved", failed: "Not saved" };
    if (state !== "saving" || $("saved").className !== "yes") $("saved").textContent = words[state];
    $("saved").className = { saving: $("saved").className, saved: "yes", failed: "no" }[state];
    if (state === "failed") complain(`Not saved yet: ${text}. It is tried again every two seconds.`);
    else if (state === "saved" && $("problem").textContent.startsWith("Not saved yet")) complain("");
  },
  async (number, error) => {
    $("saved").ariaBusy = false;
    records.delete(number);
    if (error.status === 409) {
      if (number === at) await show(number);
      complain(`Somebody else has just saved ${site.photographs[number].name}; theirs was kept.`);
    } else complain(error.message);
  },
);

// ---- start --------------------------------------------------------------------------------------

function listen() {
  const canvas = $("canvas");
  listenForZoom(view, () => drag && endDrag(false), lookAgain);
  canvas.addEventListener("pointerdown", startDrag);
  canvas.addEventListener("pointermove", moveDrag);
  canvas.addEventListener("pointerup", (event) => event.pointerId === drag?.pointer && endDrag(true));
  canvas.addEventListener("pointercancel", (event) => event.pointerId === drag?.pointer && endDrag(false));
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", () => (document.hidden ? spendBeforeHiding() : spend()));
  new ResizeObserver(() => (record ? lookAgain() : draw())).observe($("stage"));
  const acts = {
    previous: () => step(-1), following: () => step(1), ask: LETTERS["?"], undo, map: toggleMap,
    nothing: LETTERS.n, unsure: LETTERS.u, next, larger: LETTERS["+"], smaller: LETTERS["-"], fit,
  };
  for (const [id, what] of Object.entries(acts)) {
    $(id).addEventListener("click", (event) => {
      spend();
      what();
      if (event.detail && id !== "ask") $("stage").focus(); // by a pointer: keys go to the photograph again
    });
  }
  $("file").addEventListener("change", (event) => upload(event.target.files[0]));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    upload(event.dataTransfer.files[0]);
  });
  window.addEventListener("beforeunload", (event) => saver.isBusy && event.preventDefault());
}

/** The page is hidden already when it is told: the time until now counts. */
function spendBeforeHiding() {
  if (record && seen !== null) record.seconds += Math.min(performance.now() - seen, PAUSE) / 1000;
  seen = null;
}

async function start() {
  site = await askFor("state");
  for (const element of document.querySelectorAll(".verdict")) element.hidden = !site.saves;
  $("saved").hidden = !site.saves;
  $("open").hidden = site.saves;
  mapIsOn = !site.saves;
  listen();
  if (!site.photographs.length) return render();
  const open = site.photographs.findIndex((one) => one.verdict && !one.finished);
  at = open >= 0 ? open : site.photographs.length - 1;
  const first = open >= 0 ? open : nextOpen();
  await show(Math.max(first, 0));
  $("stage").focus();
}

start().catch((error) => complain(`The page cannot start: ${error.message}`));
