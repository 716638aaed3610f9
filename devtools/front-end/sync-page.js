// The page of sync-test.mjs: a list out of docs/rxdb/tasks.js's copy.
import { createRxDatabase } from "rxdb/plugins/core";
import { getRxStorageDexie } from "rxdb/plugins/storage-dexie";
import { collections, newKey, replicateTasks } from "docs/rxdb/tasks.js"; // Resolved by sync-test.mjs.

const { api, token, name } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
document.querySelector("h1").textContent = name;
const showState = () => (document.querySelector("small").textContent = navigator.onLine ? "online" : "offline");
for (const event of ["online", "offline"]) addEventListener(event, showState);
showState();

const database = await createRxDatabase({ name: "tasks", storage: getRxStorageDexie(), multiInstance: false });
await database.addCollections(collections);
const { tasks } = database;
const replication = replicateTasks(database.collections, api, async () => token, 500);
const errors = [];
replication.error$.subscribe((error) => errors.push(JSON.stringify(error.parameters ?? error.message)));

tasks.find({ sort: [{ title: "asc" }] }).$.subscribe((documents) => {
  const rows = documents.map(({ title, description, completed }) => {
    const row = document.createElement("li");
    row.className = completed ? "done" : "";
    row.append(title, Object.assign(document.createElement("span"), { textContent: description ?? "" }));
    return row;
  });
  document.querySelector("ul").replaceChildren(...rows);
});

const find = (title) => tasks.findOne({ selector: { title } }).exec(true);
globalThis.copy = {
  errors,
  all: async () => (await tasks.find().exec()).map(({ title, description, completed }) => ({ title, description, completed })),
  add: (title) => tasks.insert({ key: newKey(), title, description: null, completed: false }).then(() => undefined),
  change: async (title, change) => void (await (await find(title)).incrementalPatch(change)),
  remove: async (title) => void (await (await find(title)).incrementalRemove()),
};
