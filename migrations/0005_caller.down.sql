drop function public.caller(text);
drop function migration_tools.install_caller();
