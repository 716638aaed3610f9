// Tests /docs in a real browser: reads it, pastes a token, makes a call, and checks the answer.
//
//   CHROMIUM    path of the browser    TASKS_URL  URL of the API    TASKS_TOKEN  a session token
//   OPERATIONS  all operations in the order of openapi.yaml, such as "GET /api/tasks", one per line
//   PICTURES    folder for screenshots
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { CHROMIUM, TASKS_URL, TASKS_TOKEN, OPERATIONS, PICTURES } = process.env;
// Milliseconds until Swagger UI has changed its colours.
const FADE = 700;
const FOLDED_TAG = "tasks-by-user";
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const profile = mkdtempSync(join(tmpdir(), "task-api-reference-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: CHROMIUM,
  viewport: { width: 1000, height: 1100 },
  colorScheme: "light",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  // Page errors, console errors such as Content-Security-Policy violations, and requests to other servers.
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => /^https?:/.test(request.url()) && !request.url().startsWith(TASKS_URL) && problems.push(request.url()));

  const contract = await (await fetch(`${TASKS_URL}/openapi.json`)).json();
  await page.goto(`${TASKS_URL}/docs`);
  await page.locator(".opblock").first().waitFor();
  await page.screenshot({ path: join(PICTURES, "light.png"), fullPage: true });
  await accessible(page, "the page");
  await page.evaluate(() => scrollTo(0, 0));
  await themes(page);
  await descriptions(page, contract);
  await operations(page);
  await authorize(page, contract);

  const operation = page.locator("#operations-tasks-createTask");
  await operation.locator("button.opblock-summary-control").click();
  await responseHeaders(page, operation, contract);
  await operation.locator(".opblock-section-request-body .examples-select-element").waitFor();
  const examples = await operation.locator(".opblock-section-request-body .examples-select-element option").allInnerTexts();
  assert.deepEqual(examples, ["Title only", "Title and description"], "examples have the order of openapi.yaml");
  await operation.screenshot({ path: join(PICTURES, "operation.png") });

  await operation.locator("textarea.body-param__text").fill('{"title": "Written in the reference"}');
  await operation.getByRole("button", { name: "Execute" }).click();
  const answer = operation.locator(".live-responses-table");
  await answer.getByText("Written in the reference").first().waitFor();
  assert.match(await answer.locator(".response-col_status").last().innerText(), /201/);
  await accessible(page, "an operation with its answer");
  await operation.getByRole("button", { name: "Execute" }).scrollIntoViewIfNeeded();
  await answer.scrollIntoViewIfNeeded();
  await page.screenshot({ path: join(PICTURES, "call.png") });

  const list = await fetch(`${TASKS_URL}/api/tasks?q=${encodeURIComponent("Written in the reference")}`, { headers: { authorization: `Bearer ${TASKS_TOKEN}` } });
  assert.equal((await list.json()).length, 1, "the call reached the API");
  assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0, "the token is not stored");
  assert.deepEqual(problems, []);
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}

// axe-core finds no violation in either theme. No rule or element is excepted, Swagger UI's own included.
async function accessible(page, what) {
  await page.evaluate(AXE);
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(FADE);
    const { violations } = await page.evaluate(() => window.axe.run(document));
    const found = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 100)}: ${node.failureSummary}`));
    assert.deepEqual(found, [], `axe-core on ${what}, ${colorScheme}`);
  }
}

// The page follows the system's theme, also when it changes.
async function themes(page) {
  const brightness = (selector, property) =>
    page.locator(selector).first().evaluate((element, name) => Math.max(...getComputedStyle(element)[name].match(/\d+/g).slice(0, 3).map(Number)), property);
  const isDark = async (when) => {
    await page.waitForTimeout(FADE);
    assert(await brightness(".info .title", "color") > 128, `the dark theme has light text ${when}`);
    assert(await brightness("html", "backgroundColor") < 64, `the dark theme has a dark background ${when}`);
  };
  assert(await brightness(".info .title", "color") < 128, "the light theme has dark text");
  await page.emulateMedia({ colorScheme: "dark" });
  await isDark("after a change");
  await page.reload();
  await page.locator(".opblock").first().waitFor();
  await isDark("from the beginning");
  await page.screenshot({ path: join(PICTURES, "dark.png"), fullPage: true });
  await page.emulateMedia({ colorScheme: "light" });
}

// In Markdown, a line that begins with "401." is an ordered list.
async function descriptions(page, contract) {
  assert.equal(await page.locator("ol").count(), 0, "no description has an ordered list");
  assert.equal(await page.locator(".info a[href$='openapi.json']").count(), 1, "the page has a link to the contract");
  assert.match(await page.locator(".info").innerText(), new RegExp(contract.info.title));
}

// Operations have the order of openapi.yaml. Those with {user_id} are under their own tag, which is folded until a link or
// a click opens it.
async function operations(page) {
  const order = OPERATIONS.split("\n");
  const isOpen = async (tag) => (await page.locator(`#operations-tag-${tag} .expand-operation`).getAttribute("aria-expanded")) === "true";
  const tags = await page.locator(".opblock-tag").evaluateAll((elements) => elements.map((element) => element.dataset.tag));
  const open = [];
  for (const tag of tags) if (await isOpen(tag)) open.push(tag);
  assert(tags.includes(FOLDED_TAG), `there is a tag ${FOLDED_TAG}`);
  assert.deepEqual(open, tags.filter((tag) => tag !== FOLDED_TAG), `only ${FOLDED_TAG} is folded`);

  await page.locator(`#operations-tag-${FOLDED_TAG} .expand-operation`).click();
  const shown = await page.locator(".opblock-tag-section").evaluateAll((sections) =>
    sections.map((section) =>
      [...section.querySelectorAll(".opblock-summary")].map((summary) => {
        const path = summary.querySelector(".opblock-summary-path").dataset.path;
        return `${summary.querySelector(".opblock-summary-method").textContent} ${path}`;
      })));
  for (const [index, section] of shown.entries()) {
    const tag = tags[index];
    assert.deepEqual(section, order.filter((operation) => section.includes(operation)), `the order of ${tag}`);
    for (const operation of section) assert.equal(operation.includes("{user_id}"), tag === FOLDED_TAG, `${operation} is under ${tag}`);
  }
  assert.deepEqual(shown.flat().toSorted(), order.toSorted(), "all operations are on the page");
  await page.locator(`#operations-tag-${FOLDED_TAG} .expand-operation`).click();

  const other = await page.context().newPage();
  await other.goto(`${TASKS_URL}/docs#/${FOLDED_TAG}/getTaskOfUser`);
  await other.locator(`#operations-${FOLDED_TAG}-getTaskOfUser .opblock-body`).waitFor();
  await other.close();
}

// "Authorize" says where to get a token. The contract also has a cookie, which a script cannot send.
async function authorize(page, contract) {
  assert.deepEqual(contract.security, [{ bearer: [] }, { cookie: [] }]);
  await page.getByRole("button", { name: "Authorize" }).first().click();
  const dialog = page.locator(".modal-ux");
  assert.deepEqual(await dialog.locator(".auth-container h4 code").allInnerTexts(), ["bearer"], "Authorize offers a bearer only");
  for (const place of ["TASKS_TOKEN", "target/dev/env", "set-auth-token", "better-auth.session_token"]) {
    assert(await dialog.getByText(place).count() > 0, `Authorize names ${place}`);
  }
  await accessible(page, "the dialog");
  await dialog.locator("input").first().fill(TASKS_TOKEN);
  await dialog.getByRole("button", { name: "Authorize" }).click();
  await accessible(page, "the dialog with a token");
  await dialog.getByRole("button", { name: "Close" }).last().click();
}

// A response lists only its own headers. The headers that all responses have are listed once, in the description.
async function responseHeaders(page, operation, contract) {
  await operation.locator(".responses-table").first().waitFor();
  const shown = await operation.locator(".response .headers tbody td:first-child").allInnerTexts();
  // Retry-After: of the 429 and of the 503.
  assert.deepEqual(shown, ["ETag", "Location", "Idempotent-Replayed", "WWW-Authenticate", "Retry-After", "Retry-After"], "headers of responses");
  const headers = Object.values(contract.components.responses).map((response) => Object.keys(response.headers));
  const ofAll = headers[0].filter((header) => headers.every((names) => names.includes(header)));
  assert(ofAll.includes("X-Content-Type-Options"), "the contract has the headers of all responses");
  const described = await page.locator(".info td:first-child").allInnerTexts();
  assert.deepEqual(described.toSorted(), ofAll.toSorted(), "the description has the headers of all responses");
}
