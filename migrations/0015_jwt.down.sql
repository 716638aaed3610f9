drop function migration_tools.install_caller();
alter function migration_tools.install_session_caller() rename to install_caller;
drop function migration_tools.install_jwt_caller();
drop function public.caller(text[]);
drop function public.jwt_keys();
drop function migration_tools.jwks_table();
