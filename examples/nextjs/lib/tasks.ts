// The client of the task API, on the server and in the browser. Its types are those of openapi.yaml (npm run types).
import { unstable_rethrow } from "next/navigation";
import createClient from "openapi-fetch";
import type { components, paths } from "./openapi";

export type Task = components["schemas"]["Task"];
export type TasksApi = ReturnType<typeof createTasksApi>;
/** What the browser sends: Better Auth's cookie through this host, or, to the API's host, the session's token or a JWT. */
export type Credential = "cookie" | "session" | "jwt";
/** A failed call. `status` is 0 if nothing answered, `fields` has the message of each invalid field. */
export interface Problem { status: number; message: string; fields: Record<string, string>; retryAfter?: number }
type Result<T> = { data: T; response: Response; problem?: never } | { problem: Problem; data?: never; response?: never };

/** Seconds until the next try, if the answer names none. */
const RETRY_S = 5;
const UNREACHABLE: Problem = { status: 0, message: "The task service cannot be reached.", fields: {}, retryAfter: RETRY_S };

export function createTasksApi(baseUrl: string, token?: () => Promise<string>) {
  const client = createClient<paths>({ baseUrl });
  if (token) client.use({ onRequest: async ({ request }) => request.headers.set("Authorization", `Bearer ${await token()}`) });
  return client;
}

/** Waits for a call, and turns each way in which it can fail into a problem. */
export async function outcome<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<Result<T>> {
  try {
    const { data, error, response } = await call;
    if (response.ok) return { data: data as T, response };
    // API Gateway and proxies answer without problem details.
    const { detail, errors = [] } = Object(error) as Partial<components["schemas"]["InvalidProblem"]>;
    const fields = Object.fromEntries(errors.map(({ field, message }) => [field, message]));
    const problem: Problem = { status: response.status, message: detail ?? "The task service does not answer.", fields };
    if (response.status === 429 || response.status >= 500) problem.retryAfter = Number(response.headers.get("Retry-After")) || RETRY_S;
    return { problem };
  } catch {
    return { problem: UNREACHABLE };
  }
}

/** For the `catch` of a server action, to which nothing answered. A redirect of the action goes on. */
export function lost(error: unknown): { problem: Problem } {
  unstable_rethrow(error);
  return { problem: UNREACHABLE };
}

/** The tag of a task's version. A proxy that compresses answers makes it weak, and a weak tag matches nothing. */
export const tagOf = (response: Response) => (response.headers.get("ETag") ?? "").replace(/^W\//, "");
