import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./schema.ts",
  // The owner's URL, without a pooler.
  dbCredentials: { url: process.env.DATABASE_URL_UNPOOLED! },
});
