// A copy of a person's tasks in the browser, which RxDB keeps equal to the task API's.
import { replicateRxCollection } from "rxdb/plugins/replication";

const FIELDS = ["title", "description", "completed"];
const isSame = (a, b) => Boolean(a._deleted) === Boolean(b._deleted) && FIELDS.every((field) => a[field] === b[field]);
const text = (maxLength) => ({ type: "string", maxLength });
const flat = (primaryKey, properties, indexes = []) =>
  ({ schema: { version: 0, type: "object", primaryKey, properties, indexes, required: Object.keys(properties) } });

export const newKey = () => `new-${crypto.randomUUID()}`;
export const collections = {
  // `key` is task-ID, or newKey() in the browser that adds the task.
  tasks: {
    ...flat("key", { key: text(40), title: text(200), description: { type: ["string", "null"] }, completed: { type: "boolean" } }),
    conflictHandler: { isEqual: isSame, resolve: async (conflict) => merge(conflict) },
  },
  // The API's id of each task that was added in this browser. 0: the API may or may not have added it.
  additions: flat("key", { key: text(40), id: { type: "integer", minimum: 0, maximum: 2 ** 31 - 1, multipleOf: 1 }, title: text(200) }, ["id"]),
};

/** Keeps what either side changed. What both sides changed, and what either deleted, stays as the API has it. */
function merge({ assumedMasterState: before, newDocumentState: mine, realMasterState: theirs }) {
  if (mine._deleted || theirs._deleted || !before) return theirs;
  const changed = FIELDS.filter((field) => mine[field] !== before[field] && theirs[field] === before[field]);
  return { ...theirs, ...Object.fromEntries(changed.map((field) => [field, mine[field]])) };
}

/** Replicates until `cancel()` is called on what it returns. `token` returns the bearer, and `everyMs` is the time between two polls. */
export function replicateTasks({ tasks, additions }, url, token, everyMs = 5000) {
  let etag = "";
  let turn = Promise.resolve();
  // One at a time: a pull must not meet a task that a push is adding.
  const inTurn = (work) => (...values) => (turn = turn.catch(() => undefined).then(() => work(...values)));

  async function call(method, path, headers, body) {
    const all = { Authorization: `Bearer ${await token()}`, "Content-Type": "application/json", ...headers };
    const answer = await fetch(url + path, { method, headers: all, body: body && JSON.stringify(body), cache: "no-store" });
    if (answer.ok || [304, 404, 410, 412].includes(answer.status)) return answer;
    throw new Error(`${method} ${path} failed with ${answer.status}`); // RxDB reports it, and tries again.
  }

  const toDocument = (key, { title, description, completed }) => ({ key, title, description, completed, _deleted: false });
  const gone = (key) => ({ key, title: "", description: null, completed: false, _deleted: true });
  const keyOf = async (id) => (await additions.findOne({ selector: { id } }).exec())?.key ?? `task-${id}`;

  /** Adds a new task. All tries send the same title and key, so that the API adds it once. */
  async function add({ key, title, _deleted }) {
    let addition = await additions.findOne(key).exec();
    if (!addition && _deleted) return undefined;
    addition ??= await additions.insert({ key, id: 0, title });
    if (addition.id) return addition;
    const answer = await call("POST", "/api/tasks", { "Idempotency-Key": key }, { title: addition.title });
    const { id } = await answer.json();
    return addition.incrementalPatch({ id });
  }

  /** Sends a change. If the API's version is not the one that was changed, nothing is sent, and that version is returned. */
  async function push({ assumedMasterState, newDocumentState: mine }) {
    const addition = mine.key.startsWith("new-") ? await add(mine) : { id: mine.key.slice("task-".length) };
    if (!addition) return undefined;
    const path = `/api/tasks/${addition.id}`;
    const newest = await call("GET", path);
    const theirs = newest.status === 404 ? gone(mine.key) : toDocument(mine.key, await newest.json());
    const before = assumedMasterState ?? { title: addition.title, description: null, completed: false };
    if (isSame(mine, theirs) || (mine._deleted && theirs._deleted)) return undefined;
    if (!isSame(before, theirs)) return theirs;
    const tag = { "If-Match": newest.headers.get("ETag") };
    const { title, description, completed } = mine;
    const sent = mine._deleted ? await call("DELETE", path, tag) : await call("PATCH", path, tag, { title, description, completed });
    return sent.ok ? undefined : push({ assumedMasterState, newDocumentState: mine }); // 412: somebody was faster.
  }

  async function pull(checkpoint, limit) {
    // A task that the API has added, but whose answer was lost, must not come back under another key.
    for (const task of await tasks.find({ selector: { key: { $regex: "^new-" } } }).exec()) await add(task.toJSON());
    const documents = [];
    let [cursor, isRestart, page] = [checkpoint?.cursor, false];
    do {
      const query = new URLSearchParams({ limit, ...(cursor && { cursor }) });
      const answer = await call("GET", `/api/tasks/changes?${query}`, etag && cursor ? { "If-None-Match": etag } : {});
      if (answer.status === 304) break;
      if (answer.status === 410) {
        [cursor, isRestart, page] = [undefined, true, { more: true }];
        continue;
      }
      etag = answer.headers.get("ETag") ?? "";
      page = await answer.json();
      for (const task of page.tasks) documents.push(toDocument(await keyOf(task.id), task));
      for (const id of page.removed) documents.push(gone(await keyOf(id)));
      cursor = page.cursor;
    } while (page.more);
    const known = new Set(documents.map(({ key }) => key));
    const lost = isRestart ? (await tasks.find().exec()).filter(({ key }) => !known.has(key)) : [];
    return { documents: [...documents, ...lost.map(({ key }) => gone(key))], checkpoint: cursor && { cursor } };
  }

  const replication = replicateRxCollection({
    collection: tasks,
    replicationIdentifier: `tasks-of-${url}`,
    push: { handler: inTurn(async (rows) => (await Promise.all(rows.map(push))).filter(Boolean)), batchSize: 10 },
    pull: { handler: inTurn(pull), batchSize: 100 },
    retryTime: everyMs,
  });
  const timer = setInterval(() => replication.reSync(), everyMs);
  replication.canceled$.subscribe((isCanceled) => isCanceled && clearInterval(timer));
  return replication;
}
