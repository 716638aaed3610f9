import { betterAuth } from "better-auth";
import { jwt } from "better-auth/plugins";
import pg from "pg";
import { tables } from "./auth-tables";

// Columns without a time zone hold UTC, whatever the server's time zone is.
pg.defaults.parseInputDatesAsUTC = true;
pg.types.setTypeParser(pg.types.builtins.TIMESTAMP, (text) => new Date(`${text.replace(" ", "T")}Z`));

export const auth = betterAuth({
  // BETTER_AUTH_URL and BETTER_AUTH_SECRET are read by Better Auth itself.
  database: new pg.Pool({ connectionString: process.env.DATABASE_URL }),
  emailAndPassword: { enabled: true },
  // Only if the task API's migrations made the tables. Drop this, and auth-tables.ts, if Better Auth made its own.
  ...(process.env.AUTH_TABLES === "schema" ? tables : {}),
  // The plugin needs the table jwks (AUTH_MIGRATE=true makes it). Its header would sign a JWT for each call.
  plugins: process.env.TASKS_CREDENTIAL === "jwt" ? [jwt({ disableSettingJwtHeader: true })] : [],
  telemetry: { enabled: false },
});
