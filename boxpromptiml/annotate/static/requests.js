// Requests to the page's own server. Addresses are relative: they begin with the page's token.

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** A response that is good; `Refused` for others, TypeError where nobody answers. */
async function ask(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw new Refused(response.status, await response.text());
  return response;
}

export async function askFor(path) {
  return (await ask(path)).json();
}

export async function send(path, body) {
  const isFile = body instanceof Blob;
  return (await ask(path, { method: "POST", body: isFile ? body : JSON.stringify(body) })).json();
}

/** A bitmap of a photograph, reduced, or of a part of it: x0 y0 x1 y1, whole pixels. */
export async function askForPicture(number, part) {
  const response = await ask(`photographs/${number}/picture${part ? `?box=${part.join()}` : ""}`);
  return createImageBitmap(await response.blob());
}

/** A layer: a bitmap, the window where it lies, and score, area and note. */
export async function askForLayer(path) {
  const response = await ask(path);
  const about = JSON.parse(response.headers.get("x-about"));
  return { ...about, bitmap: await createImageBitmap(await response.blob()) };
}

/** Saves records one after the other, each in its latest state, until the server has them all. */
export class Saver {
  #waiting = new Set();
  #busy = false;
  #all = Promise.resolve();

  /** `report(state, text)` is told "saving", "saved" or "failed"; `lost(number, error)`, refusals. */
  constructor(records, report, lost) {
    Object.assign(this, { records, report, lost });
  }

  get isBusy() {
    return this.#busy;
  }

  /** Resolves when the server has everything. */
  get settled() {
    return this.#all;
  }

  save(number) {
    this.#waiting.add(number);
    if (!this.#busy) this.#all = this.#sendAll();
  }

  async #sendAll() {
    this.#busy = true;
    this.report("saving");
    while (this.#waiting.size) {
      const [first] = this.#waiting;
      this.#waiting.delete(first);
      await this.#send(first);
    }
    this.#busy = false;
  }

  async #send(number) {
    const record = this.records.get(number);
    if (!record) return;
    const { revision, verdict, boxes, finished, seconds } = record;
    try {
      const answer = await send(`photographs/${number}`, { revision, verdict, boxes, finished, seconds });
      record.revision = answer.revision;
      if (!this.#waiting.size) this.report("saved");
    } catch (error) {
      if (error instanceof Refused && error.status !== 507) {
        this.lost(number, error);
        return;
      }
      this.report("failed", error instanceof Refused ? error.message : "the server does not answer");
      this.#waiting.add(number);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}
