/** With AUTH_MIGRATE=true, makes the tables that Better Auth lacks (jwks, for its JWTs) before the first request. */
export async function register() {
  if (process.env.NEXT_RUNTIME !== "nodejs" || process.env.AUTH_MIGRATE !== "true") return;
  const [{ auth }, { getMigrations }] = await Promise.all([import("@/lib/auth"), import("better-auth/db/migration")]);
  const { runMigrations } = await getMigrations(auth.options);
  await runMigrations();
}
