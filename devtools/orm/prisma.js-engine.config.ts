// docs/prisma/prisma.config.ts for a machine without Prisma's native engine, which npm does not have: the same engine as WebAssembly,
// with Prisma's adapter for PostgreSQL.
import { PrismaPg } from "@prisma/adapter-pg";
import { ColumnTypeEnum } from "@prisma/driver-adapter-utils";
import pg from "pg";
import { defineConfig } from "prisma/config";
import documented from "./prisma.config";

// The engine reads PostgreSQL's catalogue, whose types name and "char" the adapter refuses.
const NAME = 19;
const NAMES = 1003;
const CHAR = 18;
const TEXT = 25;
const TEXTS = 1009;
const asText: Record<number, number> = { [NAME]: TEXT, [NAMES]: TEXTS, [CHAR]: TEXT };
const characters = new Set<string>();
const handleRowDescription = pg.Query.prototype.handleRowDescription;
pg.Query.prototype.handleRowDescription = function (message: any) {
  for (const field of message.fields) {
    if (field.dataTypeID === CHAR) characters.add(field.name);
    field.dataTypeID = asText[field.dataTypeID] ?? field.dataTypeID;
  }
  return handleRowDescription.call(this, message);
};

class CatalogueAdapter extends PrismaPg {
  async connect() {
    const adapter = await super.connect();
    const queryRaw = adapter.queryRaw.bind(adapter);
    adapter.queryRaw = async (query) => {
      const result = await queryRaw(query);
      const isCharacter = (index: number) => characters.has(result.columnNames[index]);
      result.columnTypes = result.columnTypes.map((type, index) => (isCharacter(index) ? ColumnTypeEnum.Character : type));
      return result;
    };
    return adapter;
  }
}

export default defineConfig({
  // A test passes another schema, to see what happens without our lines.
  ...(process.env.OTHER_SCHEMA ? { schema: process.env.OTHER_SCHEMA } : documented),
  experimental: { ...documented.experimental, adapter: true },
  engine: "js",
  adapter: async () => new CatalogueAdapter({ connectionString: process.env.DATABASE_URL_UNPOOLED! }),
});
