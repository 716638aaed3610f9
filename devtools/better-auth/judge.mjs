// Lets Better Auth judge many credentials at once, with its memory adapter instead of a database.
//
// Reads JSON from standard input:
//   { options: { baseURL, secret, prefix, requireSignature }, sessions: [{ token, userId }], requests: [[[name, value], ...], ...] }
// and writes a JSON array with the user's id, or null, for each request's headers.
import { text } from "node:stream/consumers";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { bearer } from "better-auth/plugins";

const { options, sessions, requests } = JSON.parse(await text(process.stdin));
const now = new Date();
const expiresAt = new Date(now.getTime() + 3_600_000);
const tables = {
  user: [...new Set(sessions.map(({ userId }) => userId))].map((id) => ({
    id, name: id, email: `${id}@example.com`, emailVerified: true, createdAt: now, updatedAt: now,
  })),
  session: sessions.map(({ token, userId }, index) => ({
    id: `session-${index}`, token, userId, expiresAt, createdAt: now, updatedAt: now,
  })),
  account: [],
  verification: [],
};
const auth = betterAuth({
  baseURL: options.baseURL,
  secret: options.secret,
  database: memoryAdapter(tables),
  session: { expiresIn: 3600, disableSessionRefresh: true },
  advanced: { cookiePrefix: options.prefix },
  rateLimit: { enabled: false },
  plugins: [bearer({ requireSignature: options.requireSignature })],
  telemetry: { enabled: false },
  logger: { disabled: true },
});

const verdicts = [];
for (const headers of requests) {
  const answer = await auth.handler(new Request(`${options.baseURL}/api/auth/get-session`, { headers }));
  if (answer.status !== 200) throw new Error(`Better Auth answers ${answer.status}: ${await answer.text()}`);
  verdicts.push((await answer.json())?.user.id ?? null);
}
process.stdout.write(JSON.stringify(verdicts));
