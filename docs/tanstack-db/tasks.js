// A collection of TanStack DB (0.15) that the task API keeps up to date.
import { createCollection } from "@tanstack/db";

/** `token` returns the bearer, and `everyMs` is the time between two polls. A new task needs a `key`, such as a UUID, and any id below 0. */
export function tasksCollection(url, token, everyMs = 5000) {
  const known = new Set(); // What the API has sent. The collection also shows what it has not yet confirmed.
  let cursor, timer;
  let turn = Promise.resolve();
  const call = async (method, path, headers, body) => {
    const all = { Authorization: `Bearer ${await token()}`, "Content-Type": "application/json", ...headers };
    const answer = await fetch(url + path, { method, headers: all, body: body && JSON.stringify(body) });
    if (answer.ok || answer.status === 410) return answer;
    throw new Error(`${method} ${path} failed with ${answer.status}`); // TanStack DB takes the change back.
  };
  let read;
  const poll = () => (turn = turn.catch(() => undefined).then(read));
  return createCollection({
    id: "tasks",
    getKey: (task) => task.id,
    sync: {
      sync({ begin, write, commit, markReady, truncate }) {
        read = async () => {
          let page;
          do {
            const answer = await call("GET", `/api/tasks/changes${cursor ? `?cursor=${cursor}` : ""}`);
            const isLost = answer.status === 410; // Start over.
            page = isLost ? { tasks: [], removed: [], more: true } : await answer.json();
            begin();
            if (isLost) {
              truncate();
              known.clear();
            }
            for (const task of page.tasks) {
              write({ type: known.has(task.id) ? "update" : "insert", value: task });
              known.add(task.id);
            }
            for (const id of page.removed) if (known.delete(id)) write({ type: "delete", key: id });
            commit();
            cursor = page.cursor;
          } while (page.more);
          markReady();
        };
        const again = () => poll().catch(console.error).finally(() => (timer = setTimeout(again, everyMs)));
        void again();
        return () => clearTimeout(timer);
      },
    },
    onInsert: async ({ transaction }) => {
      for (const { modified } of transaction.mutations) await call("POST", "/api/tasks", { "Idempotency-Key": modified.key }, { title: modified.title });
      await poll();
    },
    onUpdate: async ({ transaction }) => {
      for (const { key, changes } of transaction.mutations) await call("PATCH", `/api/tasks/${key}`, {}, changes);
      await poll();
    },
    onDelete: async ({ transaction }) => {
      for (const { key } of transaction.mutations) await call("DELETE", `/api/tasks/${key}`, {});
      await poll();
    },
  });
}
