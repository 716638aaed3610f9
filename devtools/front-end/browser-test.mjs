// Uses examples/nextjs like a person does, in a real browser.
//
//   CHROMIUM  path of the browser        FRONT_END  URL of the front end     CREDENTIAL  cookie, session or jwt
//   API       URL of the task API        PROXY_PORT port of the API's proxy  PICTURES    folder for screenshots
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { Proxy } from "./proxy.mjs";

const { CHROMIUM, FRONT_END, API, PROXY_PORT, CREDENTIAL, PICTURES } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
/** Smallest height of what a thumb has to hit, in pixels. */
const TARGET = 44;
const PASSWORD = "correct horse battery staple";
const DESKTOP = { width: 1120, height: 760 };
const PHONE = { width: 390, height: 780 };

const proxy = new Proxy(API, Number(PROXY_PORT));
await proxy.start();
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** A window of a new browser profile, or of that of another window. */
async function open(path, { context, ...options } = {}) {
  context ??= await browser.newContext({ viewport: DESKTOP, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(FRONT_END + path);
  return page;
}
const errors = [];
process.on("uncaughtException", async (error) => {
  console.error(error);
  const pages = browser.contexts().flatMap((context) => context.pages());
  await Promise.allSettled(pages.map((page, index) => page.screenshot({ path: `${PICTURES}/failure-${index}.png` })));
  process.exit(1);
});
const step = (what) => console.log(`  ${CREDENTIAL}: ${what}`);
const email = (name) => `${name}-${CREDENTIAL}@example.com`;

const rows = (page) => page.getByRole("listitem");
const row = (page, title) => rows(page).filter({ hasText: title });
const tick = (page, title) => page.getByRole("checkbox", { name: `Done: ${title}`, exact: true });
const edit = (page, title) => page.getByRole("button", { name: `Edit ${title}`, exact: true });
const remove = (page, title) => page.getByRole("button", { name: `Delete ${title}`, exact: true });
const dialog = (page) => page.getByRole("dialog");
const heading = (page, name) => page.getByRole("heading", { name });
const isFocused = (locator) => locator.evaluate((element) => element === document.activeElement);

async function until(what, condition) {
  for (let tries = 0; !(await condition()); tries++) {
    assert.ok(tries < 600, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Waits until React answers to events: the server's page already looks finished before that. */
async function ready(page, control) {
  await control.waitFor();
  await until("React has taken over the page", () => control.evaluate((element) => Object.keys(element).some((key) => key.startsWith("__reactProps"))));
}

async function signUp(page, name) {
  await page.goto(`${FRONT_END}/sign-in?new`);
  await ready(page, page.getByLabel("E-mail"));
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("E-mail").fill(email(name.toLowerCase()));
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await ready(page, page.getByLabel("New task"));
}

async function signIn(page, name, password = PASSWORD) {
  await ready(page, page.getByLabel("E-mail"));
  await page.getByLabel("E-mail").fill(email(name.toLowerCase()));
  await page.getByRole("textbox", { name: "Password" }).fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

async function add(page, title) {
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add" }).click();
  await page.locator("li:not([data-new])").filter({ hasText: title }).waitFor();
}

/** Opens the editor, and waits for the newest version. */
async function beginEdit(page, title) {
  await edit(page, title).click();
  await dialog(page).locator("input:not([readonly])").waitFor();
}

async function save(page) {
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await dialog(page).waitFor({ state: "detached" });
}

/** Fails if axe-core finds a fault, or if a target is too small for a thumb, in light or in dark. */
async function assertAccessible(page, what) {
  await page.evaluate(AXE);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate((values) => globalThis.axe.run({ runOnly: { type: "tag", values } }), RULES);
    const found = violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`));
    assert.deepEqual(found, [], `${what}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  const scope = (await dialog(page).count()) ? dialog(page) : page.locator("body");
  const small = await scope.locator("a, button, input, select, textarea").evaluateAll(
    (controls, target) =>
      controls.filter((control) => {
        const { width, height } = control.getBoundingClientRect();
        return width > 0 && (height < target || width < target);
      }).map((control) => control.outerHTML),
    TARGET,
  );
  assert.deepEqual(small, [], `${what}: smaller than ${TARGET} px`);
}

async function pictures(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [device, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize(viewport);
      await page.mouse.move(0, 0);
      await page.screenshot({ path: `${PICTURES}/${name}-${device}-${colorScheme}.png` });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(DESKTOP);
}

step("signing up, a wrong password, signing in");
const page = await open("/");
await heading(page, "Welcome back").waitFor();
await assertAccessible(page, "the sign-in page");
await pictures(page, "sign-in");
await signUp(page, "Ada");
await page.getByText("A clear head starts here").waitFor();
await assertAccessible(page, "the empty list");
await page.getByRole("button", { name: "Sign out" }).click();
await signIn(page, "Ada", "wrong horse battery");
await page.getByRole("alert").filter({ hasText: "Invalid email or password" }).waitFor();
await assertAccessible(page, "a wrong password");
await page.goto(`${FRONT_END}/`);
await heading(page, "Welcome back").waitFor();
await signIn(page, "Ada");
await ready(page, page.getByLabel("New task"));

step("adding: a double click, and a lost answer");
await page.getByLabel("New task").fill("Water the lemon tree");
await page.getByRole("button", { name: "Add" }).dblclick();
await page.locator("li:not([data-new])").filter({ hasText: "Water the lemon tree" }).waitFor();
assert.ok(await isFocused(page.getByLabel("New task")), "the next task can be typed at once");
proxy.intercept = ({ method }) => (method === "POST" ? "lose" : undefined);
await page.getByLabel("New task").fill("Book the train to Lyon");
await page.getByRole("button", { name: "Add" }).click();
await page.getByRole("alert").filter({ hasText: "“Book the train to Lyon” was not added" }).waitFor();
assert.equal(await page.getByLabel("New task").inputValue(), "Book the train to Lyon");
proxy.intercept = () => undefined;
await page.getByRole("button", { name: "Add" }).click();
await page.locator("li:not([data-new])").filter({ hasText: "Book the train to Lyon" }).first().waitFor();
await page.reload();
await ready(page, page.getByLabel("New task"));
assert.equal(await rows(page).count(), 2, "one task for each title");
for (const title of ["Call Grace about the compiler", "Read chapter four, and write down what is not clear", "Buy rye bread"]) await add(page, title);

step("completing, without losing the keyboard's place");
await page.goto(`${FRONT_END}/?status=pending`);
await ready(page, tick(page, "Buy rye bread"));
await tick(page, "Buy rye bread").press("Space");
await until("the API has it", () => proxy.count("PATCH", "/api/tasks/") > 0);
assert.ok(await isFocused(tick(page, "Buy rye bread")), "the focus stays where it was");
await page.getByRole("link", { name: "Done" }).click();
await heading(page, "Done tasks").waitFor();
assert.ok(await tick(page, "Buy rye bread").isChecked());
await page.getByRole("link", { name: "All", exact: true }).click();
await heading(page, "All tasks").waitFor();

step("editing: an empty title, then a good one");
await beginEdit(page, "Call Grace about the compiler");
await page.getByLabel("Title").fill(" ");
await page.getByRole("button", { name: "Save", exact: true }).click();
await page.getByRole("alert").filter({ hasText: "The title must not be empty." }).waitFor();
await assertAccessible(page, "the editor with a problem");
await page.getByLabel("Title").fill("Call Grace about the compiler");
await page.getByLabel("Description").fill("Ask whether the loop over the cards can end early.\nTuesday or Wednesday.");
await save(page);
await row(page, "Tuesday or Wednesday.").waitFor();
assert.ok(await isFocused(edit(page, "Call Grace about the compiler")), "the focus returns to the task");
await pictures(page, "list");
await page.setViewportSize(PHONE);
await assertAccessible(page, "the list on a phone");
await page.setViewportSize(DESKTOP);

step("a conflict with a second window");
const second = await open("/", { context: page.context() });
await ready(second, edit(second, "Water the lemon tree"));
for (const [choice, kept] of [["Discard mine", "Water both trees"], ["Save mine", "Water the lemon tree on Sunday"]]) {
  const before = choice === "Discard mine" ? "Water the lemon tree" : "Water both trees";
  if (choice === "Save mine") await second.reload();
  await ready(second, edit(second, before));
  await beginEdit(page, before);
  await beginEdit(second, before);
  await second.getByLabel("Title").fill(choice === "Discard mine" ? "Water both trees" : "Water all trees");
  await save(second);
  await page.getByLabel("Title").fill("Water the lemon tree on Sunday");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await heading(page, "Changed in the meantime").waitFor();
  await page.getByRole("heading", { name: "Your version" }).waitFor();
  await dialog(page).getByText("Water the lemon tree on Sunday").waitFor();
  await dialog(page).getByText(choice === "Discard mine" ? "Water both trees" : "Water all trees").waitFor();
  await assertAccessible(page, "the conflict");
  if (choice === "Save mine") await pictures(page, "conflict");
  await page.getByRole("button", { name: choice }).click();
  await dialog(page).waitFor({ state: "detached" });
  await edit(page, kept).waitFor();
  await page.reload();
  await ready(page, edit(page, kept));
}

step("a second window sees a change without a reload");
await edit(second, "Water the lemon tree on Sunday").waitFor();
await second.close();

step("searching: a pause in typing, and Retry-After");
const searches = () => proxy.calls.filter(({ method, url }) => method === "GET" && url.includes("q="));
// All letters in one task of the page, so that no pause lies between them, however busy the machine is.
await page.getByRole("searchbox").evaluate((input) => {
  const { set } = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
  for (let length = 1; length <= "TUESDAY".length; length++) {
    set.call(input, "TUESDAY".slice(0, length));
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }
});
await heading(page, "Results for “TUESDAY”").waitFor();
assert.equal(await rows(page).count(), 1, "the description is searched as well");
assert.deepEqual(searches().map(({ url }) => new URL(url, API).searchParams.get("q")), ["TUESDAY"], "one search for the word");
const refusedOnce = (seconds) => {
  let left = 1;
  proxy.intercept = ({ url }) => (url.includes("q=") && left-- > 0 ? { status: 429, headers: { "retry-after": String(seconds) } } : undefined);
};
refusedOnce(1);
await page.getByRole("searchbox").fill("zebra");
await page.getByText("Nothing matches “zebra”").waitFor();
const [refused, again] = searches().slice(-2);
assert.ok(again.at - refused.at >= 1000, "the second try waits for Retry-After");
await assertAccessible(page, "a search without results");
refusedOnce(3);
await page.getByRole("searchbox").fill("bread");
await page.getByText("soon tries again by itself").waitFor();
await assertAccessible(page, "a refused search");
const before = searches().length;
await page.getByRole("searchbox").pressSequentially("s");
await page.getByText("Nothing matches “breads”").or(row(page, "Buy rye bread")).waitFor();
assert.ok(searches()[before].at - searches()[before - 1].at >= 3000, "nothing is sent before Retry-After");
proxy.intercept = () => undefined;
await page.getByRole("searchbox").fill("");
await heading(page, "All tasks").waitFor();

step("deleting: undone, sent after the pause, sent when the page is left");
const deletions = () => proxy.count("DELETE", "/api/tasks/");
await remove(page, "Buy rye bread").click();
await page.getByText("Deleted “Buy rye bread”").waitFor();
assert.equal(await row(page, "Buy rye bread").count(), 0);
await assertAccessible(page, "a deleted task");
await page.getByRole("button", { name: "Undo" }).click();
await row(page, "Buy rye bread").waitFor();
assert.equal(deletions(), 0, "an undone deletion is never sent");
await remove(page, "Buy rye bread").click();
await page.mouse.move(0, 0);
await until("the pause is over", () => deletions() === 1);
await page.reload();
await ready(page, edit(page, "Book the train to Lyon"));
assert.equal(await row(page, "Buy rye bread").count(), 0);
await remove(page, "Book the train to Lyon").click();
await page.getByText("Deleted “Book the train to Lyon”").waitFor();
await page.goto("about:blank");
await until("the deletion was sent by the page that was left", () => deletions() === 2);
await page.goto(`${FRONT_END}/`);
await ready(page, page.getByLabel("New task"));
assert.equal(await row(page, "Book the train to Lyon").count(), 0);

step("the next page");
await page.evaluate(async () => {
  for (let number = 1; number <= 25; number++) {
    const body = JSON.stringify({ title: `Number ${number}` });
    const answer = await fetch("/api/tasks", { method: "POST", headers: { "content-type": "application/json" }, body });
    if (!answer.ok) throw new Error(`the rewrite answers ${answer.status}`);
  }
});
await page.reload();
await ready(page, page.getByRole("link", { name: "Next page" }));
assert.deepEqual([await rows(page).count(), await row(page, "Number 25").count()], [20, 1]);
await page.getByRole("link", { name: "Next page" }).click();
await row(page, "Number 5").waitFor();
assert.equal(await page.getByRole("link", { name: "Next page" }).count(), 0);
await page.getByRole("link", { name: "First page" }).click();
await row(page, "Number 25").waitFor();
await page.getByLabel("Sort by").selectOption("A to Z");
await row(page, "Call Grace").waitFor();
await page.goto(`${FRONT_END}/?cursor=nonsense`);
await page.getByRole("link", { name: "Show all tasks" }).click();
await row(page, "Number 25").waitFor();

step("the API is away, and comes back");
await proxy.stop();
await tick(page, "Number 25").click();
await page.getByText("Nothing was changed.").waitFor();
await until("the tick is taken back", async () => !(await tick(page, "Number 25").isChecked()));
await page.getByLabel("New task").fill("Written while nobody listened");
await page.getByRole("button", { name: "Add" }).click();
await page.getByRole("alert").filter({ hasText: "was not added" }).waitFor();
await page.reload();
await page.getByText("Your tasks are safe.").waitFor();
await assertAccessible(page, "without the API");
await proxy.start();
await row(page, "Number 25").waitFor();

step("signed out elsewhere");
const elsewhere = await open("/sign-in");
await signIn(elsewhere, "Ada");
await ready(elsewhere, elsewhere.getByLabel("New task"));
assert.equal(await elsewhere.evaluate(async () => (await fetch("/api/auth/revoke-other-sessions", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" })).status), 200);
await tick(page, "Number 25").click();
await page.getByText("You were signed out.").waitFor();
await elsewhere.context().close();

step("the whole tour by keyboard");
const keyboard = page.keyboard;
/** Presses Tab until a control has the focus. Fails if it shows no focus ring. */
async function tabTo(locator, key = "Tab") {
  await until(`${key} reaches ${locator}`, async () => {
    if (await locator.count() && await isFocused(locator)) return true;
    await keyboard.press(key);
    return false;
  });
  const outline = await locator.evaluate((element) => {
    const own = getComputedStyle(element);
    return own.outlineStyle !== "none" || getComputedStyle(element.closest("form") ?? element).boxShadow !== "none";
  });
  assert.ok(outline, `${locator} shows no focus`);
}
await page.goto(`${FRONT_END}/sign-in`);
await ready(page, page.getByLabel("E-mail"));
await tabTo(page.getByRole("link", { name: "Create an account" }));
await keyboard.press("Enter");
await page.getByLabel("Name").waitFor();
await tabTo(page.getByLabel("Name"));
for (const text of ["Grace", email("grace"), PASSWORD]) {
  await keyboard.type(text);
  if (text !== PASSWORD) await keyboard.press("Tab");
}
await keyboard.press("Enter");
await ready(page, page.getByLabel("New task"));
await tabTo(page.getByLabel("New task"));
for (const title of ["First", "Second", "Third"]) {
  await keyboard.type(title);
  await keyboard.press("Enter");
  await page.locator("li:not([data-new])").filter({ hasText: title }).waitFor();
}
await tabTo(tick(page, "Second"));
await keyboard.press("Space");
assert.ok(await tick(page, "Second").isChecked());
await tabTo(edit(page, "Second"));
await keyboard.press("Enter");
await dialog(page).locator("input:not([readonly])").waitFor();
await keyboard.press("End");
await keyboard.type(" thoughts");
await keyboard.press("Enter");
await dialog(page).waitFor({ state: "detached" });
assert.ok(await isFocused(edit(page, "Second thoughts")), "the focus returns to the task");
await keyboard.press("Enter");
await keyboard.press("Escape");
await dialog(page).waitFor({ state: "detached" });
await tabTo(remove(page, "Second thoughts"));
await keyboard.press("Enter");
assert.ok(await isFocused(remove(page, "First")), "the focus goes on to the next task");
await keyboard.press("Control+z");
await row(page, "Second thoughts").waitFor();
await keyboard.press("Enter");
await page.getByText("Deleted “First”").waitFor();
await tabTo(page.getByRole("button", { name: "Undo" }));
await keyboard.press("Enter");
await row(page, "First").waitFor();
await tabTo(page.getByRole("searchbox"), "Shift+Tab");
await keyboard.type("third");
await heading(page, "Results for “third”").waitFor();
await tabTo(page.getByRole("link", { name: "Done" }), "Shift+Tab");
await keyboard.press("Enter");
await heading(page, "Results for “third”").waitFor();
await tabTo(page.getByRole("button", { name: "Sign out" }), "Shift+Tab");
await keyboard.press("Enter");
await heading(page, "Welcome back").waitFor();

const own = proxy.calls.filter(({ url }) => url.startsWith("/api/tasks"));
const fromBrowser = own.filter(({ method, url }) => method === "DELETE" || url.endsWith("/complete"));
for (const { method, url, bearer, cookie } of fromBrowser) {
  if (method === "OPTIONS") continue;
  assert.equal(Boolean(bearer), CREDENTIAL !== "cookie", `${method} ${url} carries a bearer`);
  assert.equal(Boolean(cookie?.includes("session_token")), CREDENTIAL === "cookie", `${method} ${url} carries the cookie`);
  if (bearer) assert.equal(bearer.split(".").length === 3, CREDENTIAL === "jwt", "the bearer is a JWT");
}
assert.ok(fromBrowser.length > 0);
assert.deepEqual(errors, []);

step("what it weighs");
const measured = await open("/sign-in");
await signIn(measured, "Ada");
await rows(measured).first().waitFor();
const cold = await open("/", { storageState: await measured.context().storageState() });
await ready(cold, tick(cold, "Number 25"));
const figures = await cold.evaluate(() => {
  const scripts = performance.getEntriesByType("resource").filter(({ initiatorType, name }) => initiatorType === "script" || name.endsWith(".js"));
  const sum = (field) => Math.round(scripts.reduce((sum, script) => sum + script[field], 0) / 1000);
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return { script_kB: sum("encodedBodySize"), decoded_kB: sum("decodedBodySize"), list_painted_ms: Math.round(paint.startTime) };
});
assert.ok(figures.script_kB > 0);
console.log(`  ${CREDENTIAL}: ${JSON.stringify(figures)}`);
await browser.close();
await proxy.stop();
