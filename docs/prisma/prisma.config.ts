import { defineConfig } from "prisma/config";

export default defineConfig({
  schema: "schema.prisma",
  // Without these lines, "prisma db push" drops the task API's tables.
  experimental: { externalTables: true },
  tables: { external: ["public.tasks", "public.idempotency_keys", "public.removed_tasks", "public._sqlx_migrations"] },
});
