drop function migration_tools.prepare_auth_tables();
drop function migration_tools.make_better_auth_tables(text);
drop function migration_tools.make_stand_ins(text, text);
drop function migration_tools.find_auth_tables();
drop function migration_tools.refuse_two_spellings(regclass);
drop function migration_tools.is_unused(regclass);
