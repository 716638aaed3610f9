drop function public.purge_expired(text, integer);
