drop schema migration_tools cascade;
