// Tests index.html in a real browser: signs up, adds, completes and deletes tasks, signs out, and signs in again.
//
//   CHROMIUM  path of the browser    PAGE  URL of the page    PICTURE  file for a screenshot
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { CHROMIUM, PAGE, PICTURE } = process.env;
const profile = mkdtempSync(join(tmpdir(), "task-api-browser-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: CHROMIUM,
  viewport: { width: 720, height: 480 },
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.setDefaultTimeout(30_000);
  await page.goto(PAGE);

  const fill = async () => {
    await page.getByLabel("E-mail").fill("new@example.com");
    await page.getByLabel("Password").fill("correct horse battery staple");
  };
  const items = () => page.getByRole("listitem");
  const add = async (title) => {
    await page.getByLabel("New task").fill(title);
    await page.getByRole("button", { name: "Add" }).click();
    await items().filter({ hasText: title }).waitFor();
  };

  await fill();
  await page.getByRole("button", { name: "Sign up" }).click();
  await page.getByText("Nothing to do.").waitFor();
  await add("Buy milk");
  await add("Buy bread");
  await add("Call <b>Grace</b> & Ada");
  assert.equal(await items().count(), 3);

  await page.getByRole("checkbox", { name: "Buy bread" }).check();
  await page.getByRole("button", { name: "Delete Buy milk" }).click();
  await items().filter({ hasText: "Buy milk" }).waitFor({ state: "detached" });
  await page.reload();
  await items().first().waitFor();
  assert.equal(await items().count(), 2);
  assert.ok(await page.getByRole("checkbox", { name: "Buy bread" }).isChecked());
  await page.screenshot({ path: PICTURE });

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  assert.equal(await page.evaluate(async () => (await fetch("/api/tasks")).status), 401);

  await fill();
  await page.getByRole("button", { name: "Sign in" }).click();
  await items().first().waitFor();
  assert.equal(await items().count(), 2);
  assert.deepEqual(errors, []);
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
