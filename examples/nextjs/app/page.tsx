import { redirect } from "next/navigation";
import { Board } from "@/components/board";
import { connection, signedIn } from "@/lib/server";
import { outcome } from "@/lib/tasks";
import { addressOf, readView } from "@/lib/view";

const TASKS_ON_A_PAGE = 20;
export default async function Page({ searchParams }: PageProps<"/">) {
  const view = readView(await searchParams);
  const { user: { name, email }, token, api } = await signedIn();
  const { status, sort, q, cursor } = view;
  const query = { status, sort, limit: TASKS_ON_A_PAGE, ...(q && { q }), ...(cursor && { cursor }) };
  const { data, problem, response } = await outcome(api.GET("/api/tasks", { params: { query } }));
  // Better Auth knows the session and the API does not: the sign-in page says what to check.
  if (problem?.status === 401) redirect("/sign-in?refused");
  const next = response?.headers.get("Link")?.match(/[?&]cursor=([^&>]+)/)?.[1];
  const nextPage = next && addressOf(view, { cursor: next });
  const { url, credential } = connection();
  // Without the cookie, the browser gets the first bearer with the page, so that its first call need not wait for one.
  const access = { url, credential, ...(credential !== "cookie" && { token }) };
  return <Board user={{ name, email }} tasks={data ?? []} problem={problem} view={view} nextPage={nextPage} access={access} />;
}
