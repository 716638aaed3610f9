// Better Auth's tables as its CLI writes them for Drizzle, and the task API's.
//
// drizzle-kit push drops what is missing here, without a question where a table is empty. Copy into your own schema:
// - each line that ends with "task-api": what "migrate up" adds to Better Auth's tables. If "migrate check" notes that row-level security
//   is off for a table, leave out its .enableRLS().
// - everything below "The task API's tables".
import { sql } from "drizzle-orm";
import {
  bigint, boolean, check, customType, foreignKey, index, integer, pgPolicy, pgTable, primaryKey, serial, text, timestamp, uniqueIndex, varchar,
} from "drizzle-orm/pg-core";

export const user = pgTable("user", {
  id: text("id").primaryKey(),
  name: text("name").notNull(),
  email: text("email").notNull().unique(),
  emailVerified: boolean("email_verified").default(false).notNull(),
  image: text("image"),
  createdAt: timestamp("created_at").defaultNow().notNull(),
  updatedAt: timestamp("updated_at").defaultNow().$onUpdate(() => new Date()).notNull(),
}).enableRLS(); // task-api

export const session = pgTable(
  "session",
  {
    id: text("id").primaryKey(),
    expiresAt: timestamp("expires_at").notNull(),
    token: text("token").notNull().unique(),
    createdAt: timestamp("created_at").defaultNow().notNull(),
    updatedAt: timestamp("updated_at").$onUpdate(() => new Date()).notNull(),
    ipAddress: text("ip_address"),
    userAgent: text("user_agent"),
    userId: text("user_id").notNull().references(() => user.id, { onDelete: "cascade" }),
  },
  (table) => [
    index("session_userId_idx").on(table.userId),
    index("idx_session_expires").on(table.expiresAt), // task-api
    uniqueIndex("session_token_hash").using("btree", sql`token_hash(token)`), // task-api
  ],
).enableRLS(); // task-api

export const account = pgTable(
  "account",
  {
    id: text("id").primaryKey(),
    accountId: text("account_id").notNull(),
    providerId: text("provider_id").notNull(),
    userId: text("user_id").notNull().references(() => user.id, { onDelete: "cascade" }),
    accessToken: text("access_token"),
    refreshToken: text("refresh_token"),
    idToken: text("id_token"),
    accessTokenExpiresAt: timestamp("access_token_expires_at"),
    refreshTokenExpiresAt: timestamp("refresh_token_expires_at"),
    scope: text("scope"),
    password: text("password"),
    createdAt: timestamp("created_at").defaultNow().notNull(),
    updatedAt: timestamp("updated_at").$onUpdate(() => new Date()).notNull(),
  },
  (table) => [index("account_userId_idx").on(table.userId)],
).enableRLS(); // task-api

export const verification = pgTable(
  "verification",
  {
    id: text("id").primaryKey(),
    identifier: text("identifier").notNull(),
    value: text("value").notNull(),
    expiresAt: timestamp("expires_at").notNull(),
    createdAt: timestamp("created_at").defaultNow().notNull(),
    updatedAt: timestamp("updated_at").defaultNow().$onUpdate(() => new Date()).notNull(),
  },
  (table) => [index("verification_identifier_idx").on(table.identifier)],
).enableRLS(); // task-api

// The task API's tables.

// The role that the API connects as reads and writes all rows.
const apiPolicy = () => pgPolicy("tasks_api", { to: "tasks_api", using: sql`true`, withCheck: sql`true` });

const xid8 = customType<{ data: string }>({ dataType: () => "xid8" });

export const tasks = pgTable(
  "tasks",
  {
    id: serial("id").primaryKey(),
    userId: text("user_id").notNull(),
    title: varchar("title", { length: 200 }).notNull(),
    description: text("description"),
    completed: boolean("completed").default(false).notNull(),
    createdAt: timestamp("created_at").defaultNow().notNull(),
    updatedAt: timestamp("updated_at").defaultNow().notNull(),
    changed: xid8("changed").default(sql`pg_current_xact_id()`).notNull(),
  },
  (table) => [
    index("idx_tasks_user_changed").on(table.userId, table.changed, table.id),
    index("idx_tasks_user_id").on(table.userId),
    index("idx_tasks_completed").on(table.completed),
    index("idx_tasks_user_completed").on(table.userId, table.completed),
    index("idx_tasks_created_at").on(table.createdAt.desc().nullsFirst()),
    index("idx_tasks_user_list").on(table.userId, table.createdAt.desc().nullsFirst(), table.id.desc().nullsFirst()),
    index("idx_tasks_user_status").on(table.userId, table.completed, table.createdAt.desc().nullsFirst(), table.id.desc().nullsFirst()),
    index("idx_tasks_user_updated").on(table.userId, table.updatedAt.desc().nullsFirst(), table.id.desc().nullsFirst()),
    foreignKey({ name: "fk_tasks_user", columns: [table.userId], foreignColumns: [user.id] }).onDelete("cascade"),
    check("tasks_title_length", sql`char_length((title)::text) >= 1 AND char_length((title)::text) <= 200`),
    apiPolicy(),
  ],
).enableRLS();

const bytea = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });

// What a client named a creation by.
export const idempotencyKeys = pgTable(
  "idempotency_keys",
  {
    userId: text("user_id").notNull(),
    key: varchar("key", { length: 255 }).notNull(),
    requestHash: bytea("request_hash").notNull(),
    taskId: integer("task_id").notNull(),
    createdAt: timestamp("created_at").notNull(),
    madeBy: xid8("made_by").default(sql`pg_current_xact_id()`).notNull(),
    results: integer("results").array(),
  },
  (table) => [
    primaryKey({ name: "idempotency_keys_pkey", columns: [table.userId, table.key] }),
    foreignKey({ name: "idempotency_keys_user_id_fkey", columns: [table.userId], foreignColumns: [user.id] }).onDelete("cascade"),
    index("idx_idempotency_keys_created_at").on(table.createdAt),
    apiPolicy(),
  ],
).enableRLS();

// The ids of deleted tasks.
export const removedTasks = pgTable(
  "removed_tasks",
  {
    userId: text("user_id").notNull(),
    changed: xid8("changed").default(sql`pg_current_xact_id()`).notNull(),
    taskId: integer("task_id").notNull(),
    removedAt: timestamp("removed_at").default(sql`(clock_timestamp() AT TIME ZONE 'utc'::text)`).notNull(),
  },
  (table) => [
    primaryKey({ name: "removed_tasks_pkey", columns: [table.userId, table.changed, table.taskId] }),
    index("idx_removed_tasks_removed_at").on(table.removedAt),
    apiPolicy(),
  ],
).enableRLS();

// Which migrations were applied.
export const sqlxMigrations = pgTable("_sqlx_migrations", {
  version: bigint("version", { mode: "number" }).primaryKey(),
  description: text("description").notNull(),
  installedOn: timestamp("installed_on", { withTimezone: true }).defaultNow().notNull(),
  success: boolean("success").notNull(),
  checksum: bytea("checksum").notNull(),
  executionTime: bigint("execution_time", { mode: "number" }).notNull(),
}).enableRLS();
