// The task API on the server, for server components and server actions.
import { getSessionCookie } from "better-auth/cookies";
import { headers } from "next/headers";
import { redirect } from "next/navigation";
import { auth } from "./auth";
import { createTasksApi, type Credential } from "./tasks";

export const connection = () => ({
  url: process.env.TASKS_API_URL || "http://localhost:9000",
  credential: (process.env.TASKS_CREDENTIAL || "cookie") as Credential,
});

// The signed-in person, and a client that sends a bearer, even if the browser sends the cookie: the API refuses a write by
// cookie without an Origin, and a server has none.
export async function signedIn() {
  const { url, credential } = connection();
  const request = { headers: await headers() };
  // A server component cannot set the cookie of an extended session. The page's own call of Better Auth does that.
  const session = await auth.api.getSession({ ...request, query: { disableRefresh: true } });
  if (!session) redirect(getSessionCookie(request.headers) ? "/sign-in?ended" : "/sign-in");
  const token = credential === "jwt" ? (await auth.api.getToken(request)).token : session.session.token;
  return { user: session.user, token, api: createTasksApi(url, async () => token) };
}
