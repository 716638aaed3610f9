// Better Auth and the task API in the browser.
import { jwtClient } from "better-auth/client/plugins";
import { createAuthClient } from "better-auth/react";
import { createTasksApi, type Credential } from "./tasks";

export const authClient = createAuthClient({ plugins: [jwtClient()] });

/** How long a bearer is kept, in milliseconds. Better Auth's JWTs end after 15 minutes. */
const BEARER_LIFE_MS = 5 * 60_000;
export interface Access { url: string; credential: Credential; token?: string }

/** A client that begins with the page's token, and what renews the token ahead of a call that cannot wait. */
export function browserApi({ url, credential, token }: Access) {
  const sessionToken = async () => (await authClient.getSession()).data?.session.token;
  const fetchBearer = credential === "jwt" ? async () => (await authClient.token()).data?.token : sessionToken;
  let kept = token ? { bearer: Promise.resolve(token), since: Date.now() } : undefined;
  const bearer = () => {
    // For "none", the API's 401 leads to the sign-in page.
    if (!kept || Date.now() - kept.since > BEARER_LIFE_MS) kept = { bearer: fetchBearer().then((token) => token ?? "none"), since: Date.now() };
    kept.bearer.catch(() => (kept = undefined));
    return kept.bearer;
  };
  if (credential === "cookie") return { api: createTasksApi(""), renew: sessionToken };
  return { api: createTasksApi(url, bearer), renew: bearer };
}
