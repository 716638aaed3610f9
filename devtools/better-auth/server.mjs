// Better Auth without a front end, for tests. It answers /api/auth/; other requests are forwarded to the task API, like a
// front end's rewrite does.
//
//   DATABASE_URL          the owner's URL of the database
//   PORT                  port on 127.0.0.1
//   API_URL               URL of the task API
//   BETTER_AUTH_URL, BETTER_AUTH_SECRET(S), BETTER_AUTH_COOKIE_PREFIX, TRUSTED_ORIGINS, SESSION_EXPIRES_IN (seconds)
//   BETTER_AUTH_DATABASE_URL   instead of DATABASE_URL
//   BETTER_AUTH_TABLES         a module that exports `tables`: Better Auth's options for names, ids and plugins
//   BETTER_AUTH_PACKAGE        the package of another release of Better Auth
//
// Arguments: "migrate" creates Better Auth's tables and exits, "plan" prints what "migrate" would run.
import { createServer, request as httpRequest } from "node:http";
import { pathToFileURL } from "node:url";
import pg from "pg";

// Timestamps without a time zone are in UTC, whatever the process's time zone.
pg.defaults.parseInputDatesAsUTC = true;
pg.types.setTypeParser(pg.types.builtins.TIMESTAMP, (text) => new Date(`${text.replace(" ", "T")}Z`));

const { env } = process;
const betterAuthPackage = env.BETTER_AUTH_PACKAGE ?? "better-auth";
const { betterAuth } = await import(betterAuthPackage);
const { toNodeHandler } = await import(`${betterAuthPackage}/node`);
const { bearer } = await import(`${betterAuthPackage}/plugins`);
const pool = new pg.Pool({ connectionString: env.BETTER_AUTH_DATABASE_URL ?? env.DATABASE_URL });

// The schema specification's names for Better Auth's fields, such as user_id for userId.
const specificationNames = {
  user: { fields: { emailVerified: "email_verified", createdAt: "created_at", updatedAt: "updated_at" } },
  session: {
    fields: {
      userId: "user_id",
      expiresAt: "expires_at",
      ipAddress: "ip_address",
      userAgent: "user_agent",
      createdAt: "created_at",
      updatedAt: "updated_at",
    },
  },
  account: {
    fields: {
      userId: "user_id",
      providerId: "provider",
      accountId: "provider_account_id",
      accessToken: "access_token",
      refreshToken: "refresh_token",
      accessTokenExpiresAt: "expires_at",
      idToken: "id_token",
      refreshTokenExpiresAt: "refresh_token_expires_at",
      createdAt: "created_at",
      updatedAt: "updated_at",
    },
  },
  verification: { fields: { expiresAt: "expires_at", createdAt: "created_at", updatedAt: "updated_at" } },
};

async function usesSpecificationNames() {
  const { rowCount } = await pool.query(
    "select from pg_attribute where attrelid = to_regclass('public.session') and attname = 'user_id' and not attisdropped",
  );
  return rowCount > 0;
}

async function configuredTables() {
  if (env.BETTER_AUTH_TABLES) return (await import(pathToFileURL(env.BETTER_AUTH_TABLES))).tables;
  return (await usesSpecificationNames()) ? specificationNames : {};
}

const tables = await configuredTables();
const options = {
  baseURL: env.BETTER_AUTH_URL ?? `http://127.0.0.1:${env.PORT}`,
  trustedOrigins: (env.TRUSTED_ORIGINS ?? "").split(",").filter(Boolean),
  database: pool,
  emailAndPassword: { enabled: true },
  ...tables,
  user: { ...tables.user, deleteUser: { enabled: true } },
  session: { ...tables.session, expiresIn: Number(env.SESSION_EXPIRES_IN ?? 60 * 60 * 24 * 7) },
  advanced: {
    ...tables.advanced,
    ...(env.BETTER_AUTH_COOKIE_PREFIX && { cookiePrefix: env.BETTER_AUTH_COOKIE_PREFIX }),
  },
  rateLimit: { enabled: false },
  plugins: [bearer(), ...(tables.plugins ?? [])],
  telemetry: { enabled: false },
};

if (process.argv[2]) {
  // Releases before 1.5 have it elsewhere.
  const { getMigrations } = await import(`${betterAuthPackage}/db/migration`).catch(() => import(`${betterAuthPackage}/db`));
  const { runMigrations, compileMigrations } = await getMigrations(options);
  if (process.argv[2] === "migrate") await runMigrations();
  else console.log(await compileMigrations());
  await pool.end();
  process.exit(0);
}

const handleAuth = toNodeHandler(betterAuth(options));
const api = new URL(env.API_URL);

function forward(request, response) {
  const { method, url, headers } = request;
  const onward = httpRequest({ host: api.hostname, port: api.port, method, path: url, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.writeHead(502).end());
  request.pipe(onward);
}

const server = createServer((request, response) => {
  const path = request.url.split("?")[0];
  if (path.startsWith("/api/auth/")) {
    handleAuth(request, response).catch((error) => {
      console.error(error.message);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  } else {
    forward(request, response);
  }
});
server.listen(Number(env.PORT), "127.0.0.1");
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));
