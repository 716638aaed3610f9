select migration_tools.drop_made_by('0019');
