// Keeps two browsers' copies of a person's tasks equal by docs/rxdb/tasks.js, one of them offline for a while.
//
//   CHROMIUM  path of the browser    FRONT_END  URL to serve the page at, an origin that the API trusts
//   API       URL of the task API    TOKEN      the person's session token    PICTURES  folder for screenshots
//   REPLICATION  path of docs/rxdb/tasks.js
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const { CHROMIUM, FRONT_END, API, TOKEN, PICTURES, REPLICATION } = process.env;
const WINDOW = { width: 380, height: 430 };
/** Largest size of a picture, in bytes: it is committed. */
const MAX_PICTURE = 60_000;
const STYLE = `
  body { margin: 20px; font: 15px/1.4 system-ui, sans-serif; color: #1f2328; background: #fff; }
  header { display: flex; justify-content: space-between; align-items: baseline; }
  h1 { margin: 0 0 8px; font-size: 18px; }
  small, span { color: #59636e; font-size: 13px; }
  ul { margin: 0; padding: 0; list-style: none; }
  li { display: flex; gap: 8px; align-items: baseline; padding: 8px 0; border-top: 1px solid #d1d9e0; }
  li::before { content: "○"; }
  li.done::before { content: "✓"; }`;
const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Copy</title><style>${STYLE}</style>
<body><header><h1></h1><small></small></header><ul></ul><script type="module" src="/page.js"></script></body></html>`;

const bundle = await build({
  entryPoints: ["sync-page.js"], bundle: true, format: "esm", write: false, logLevel: "error",
  alias: { "docs/rxdb/tasks.js": REPLICATION }, nodePaths: [`${import.meta.dirname}/node_modules`],
});
const server = createServer((request, answer) => {
  const isScript = request.url === "/page.js";
  answer.setHeader("Content-Type", isScript ? "text/javascript" : "text/html").end(isScript ? bundle.outputFiles[0].text : PAGE);
});
await new Promise((resolve) => server.listen(new URL(FRONT_END).port, "127.0.0.1", resolve));
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
const step = (what) => console.log(`  sync: ${what}`);

async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
  const answer = await fetch(API + path, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.status === 204 ? undefined : answer.json();
}

/** The API's tasks, in the form and order in which the copies are compared. */
async function list() {
  const found = [];
  for (let page = { more: true }; page.more; ) {
    page = await call("GET", `/api/tasks/changes${page.cursor ? `?cursor=${page.cursor}` : ""}`);
    found.push(...page.tasks);
  }
  return found;
}
const compared = (tasks) => tasks.map(({ title, description, completed }) => JSON.stringify([title, description, completed])).sort();

async function open(name) {
  const context = await browser.newContext({ viewport: WINDOW });
  const page = await context.newPage();
  page.on("pageerror", (error) => assert.fail(error.message));
  const statuses = [];
  page.on("response", (answer) => statuses.push(`${answer.request().method()} ${answer.status()}`));
  await page.goto(`${FRONT_END}/#${new URLSearchParams({ api: API, token: TOKEN, name })}`);
  await page.waitForFunction(() => globalThis.copy);
  const use = (what, ...values) => page.evaluate(([what, values]) => globalThis.copy[what](...values), [what, values]);
  return { page, context, statuses, name, add: (title) => use("add", title), change: (title, change) => use("change", title, change),
    remove: (title) => use("remove", title), all: () => use("all") };
}

/** Takes a picture of both windows beside each other. */
async function picture(name) {
  const path = `${PICTURES}/${name}.png`;
  const windows = await Promise.all([laptop, phone].map(async ({ page, all }) => {
    const titles = (await all()).map(({ title }) => title).sort().join("\n");
    await page.waitForFunction((titles) => [...document.querySelectorAll("li")].map((row) => row.firstChild.textContent).sort().join("\n") === titles, titles);
    return page.screenshot({ type: "png" });
  }));
  const page = await browser.newPage({ viewport: { width: 2 * WINDOW.width + 48, height: WINDOW.height + 32 } });
  const images = windows.map((png) => `<img style="border: 1px solid #d1d9e0" src="data:image/png;base64,${png.toString("base64")}">`);
  await page.setContent(`<body style="margin: 0; padding: 15px; display: flex; gap: 14px; background: #f6f8fa">${images.join("")}`);
  await page.screenshot({ path });
  await page.close();
  const { size } = statSync(path);
  assert.ok(size > 5_000 && size < MAX_PICTURE, `${path} has ${size} bytes`);
}

async function until(what, condition) {
  for (let tries = 0; !(await condition()); tries++) {
    if (tries === 600) {
      for (const { page, name, statuses } of [laptop, phone]) {
        console.log(name, statuses.slice(-20), await page.evaluate(() => [globalThis.copy.errors.slice(-3), globalThis.copy.all()]));
      }
      assert.fail(`never: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
const isEqual = async (...copies) => {
  const expected = compared(await list()).join("\n");
  for (const copy of copies) if (compared(await copy.all()).join("\n") !== expected) return false;
  return true;
};
const task = async (copy, title) => (await copy.all()).filter((task) => task.title === title);

for (const title of ["Bread", "Lyon", "Lemon tree", "Piano", "Rent", "Photos"]) await call("POST", "/api/tasks", { title });
const [laptop, phone] = [await open("Laptop"), await open("Phone")];

step("both browsers get the whole list");
await until("both have the list", () => isEqual(laptop, phone));

step("edits on both sides while one is offline");
await phone.context.setOffline(true);
await phone.add("Passport");
await phone.change("Passport", { description: "The office opens at nine" });
await phone.change("Bread", { description: "Rye" });
await phone.change("Piano", { title: "Piano, by the phone" });
await phone.remove("Rent");
await phone.remove("Lyon");
await phone.change("Photos", { completed: true });
await laptop.add("Umbrella");
await laptop.change("Bread", { title: "Bread and butter" });
await laptop.change("Piano", { title: "Piano, by the laptop" });
await laptop.change("Rent", { title: "Rent, which went up" });
await laptop.remove("Lemon tree");
await until("the laptop's edits are sent", () => isEqual(laptop));
assert.equal(await isEqual(phone), false, "the phone is offline");
await picture("offline");

step("the same list on both, with nobody's edit lost");
await phone.context.setOffline(false);
await until("both are equal", () => isEqual(laptop, phone));
for (const copy of [laptop, phone]) {
  assert.deepEqual(await task(copy, "Bread and butter"), [{ title: "Bread and butter", description: "Rye", completed: false }], "both fields");
  assert.deepEqual(await task(copy, "Passport"), [{ title: "Passport", description: "The office opens at nine", completed: false }]);
  assert.equal((await task(copy, "Umbrella")).length, 1);
  assert.equal((await task(copy, "Photos"))[0].completed, true);
  assert.equal((await task(copy, "Piano, by the laptop")).length, 1, "of one field's two changes, the first to arrive stays");
  assert.equal((await task(copy, "Rent, which went up")).length, 1, "a changed task is not deleted unseen");
  for (const title of ["Lemon tree", "Lyon", "Piano, by the phone"]) assert.equal((await task(copy, title)).length, 0, title);
}
await picture("synced");

step("a change that arrives between reading and writing: 412, and both changes stay");
const { id } = (await list()).find(({ title }) => title === "Photos");
let isFirst = true;
await phone.page.route(`**/api/tasks/${id}`, async (route) => {
  if (route.request().method() === "PATCH" && isFirst) {
    isFirst = false;
    await call("PATCH", `/api/tasks/${id}`, { description: "From Lisbon" });
  }
  await route.continue();
});
await phone.change("Photos", { title: "Photos to print" });
const both = { title: "Photos to print", description: "From Lisbon", completed: true };
await until("both changes are there", async () => JSON.stringify(await task(laptop, both.title)) === JSON.stringify([both]));
assert.ok(phone.statuses.includes("PATCH 412"), "the API refused the first try");
await until("both are equal", () => isEqual(laptop, phone));

step("an addition whose answer is lost, and a reload: added once");
await phone.page.route("**/api/tasks", async (route) => {
  if (route.request().method() === "POST") await route.fetch();
  await route.abort();
});
await phone.add("Tickets");
await until("the API has it", async () => (await list()).some(({ title }) => title === "Tickets"));
await phone.page.unroute("**/api/tasks");
await phone.change("Tickets", { title: "Tickets for two" });
await phone.page.reload();
await phone.page.waitForFunction(() => globalThis.copy);
await until("both are equal", () => isEqual(laptop, phone));
assert.equal((await list()).filter(({ title }) => title.startsWith("Tickets")).length, 1);
assert.equal((await task(laptop, "Tickets for two")).length, 1);

step("410: starts over, and forgets what is gone");
await phone.page.route("**/api/tasks/changes?*", (route) => {
  const isPoll = route.request().url().includes("cursor=");
  return isPoll ? route.fulfill({ status: 410, headers: { "Access-Control-Allow-Origin": FRONT_END } }) : route.continue();
});
await call("DELETE", `/api/tasks/${(await list()).find(({ title }) => title === "Umbrella").id}`);
await until("the phone has forgotten it", async () => (await task(phone, "Umbrella")).length === 0);
await phone.page.unroute("**/api/tasks/changes?*");
await until("both are equal", () => isEqual(laptop, phone));

step("nothing new: 304");
const before = laptop.statuses.length;
await until("a poll finds nothing", () => laptop.statuses.slice(before).includes("GET 304"));

await browser.close();
server.close();
