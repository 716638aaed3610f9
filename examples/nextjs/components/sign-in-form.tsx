"use client";

import Link from "next/link";
import { useState, type FormEvent } from "react";
import { authClient } from "@/lib/browser";

/** Signs in or up by Better Auth's own routes, which limit how often somebody may try. */
export function SignInForm({ isNew, notice }: { isNew: boolean; notice: string | undefined }) {
  const [[isBusy, problem], setState] = useState([false, ""]);
  const [isShown, setShown] = useState(false);
  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (isBusy) return;
    const form = new FormData(event.currentTarget);
    const [name, email, password] = ["name", "email", "password"].map((field) => String(form.get(field))) as [string, string, string];
    setState([true, ""]);
    const call = isNew ? authClient.signUp.email({ name, email, password }) : authClient.signIn.email({ email, password });
    const { error } = await call.catch(() => ({ error: { message: "" } }));
    if (!error) return location.assign("/");
    setState([false, error.message || "The sign-in service cannot be reached. Try again in a moment."]);
  }

  return (
    <section className="entrance">
      <h1>{isNew ? "Create your account" : "Welcome back"}</h1>
      <p className="muted">{isNew ? "It takes one minute." : "Sign in to see your tasks."}</p>
      {notice && <p className="notice" role="status">{notice}</p>}
      <form onSubmit={submit}>
        {isNew && <label>Name <input name="name" autoComplete="name" required maxLength={100} /></label>}
        <label>E-mail <input name="email" type="email" autoComplete="username" required aria-describedby="problem" /></label>
        <label className="password">Password
          <input name="password" type={isShown ? "text" : "password"} required minLength={8} aria-describedby="problem"
            autoComplete={isNew ? "new-password" : "current-password"} />
          <button type="button" className="quiet" onClick={() => setShown(!isShown)}
            aria-label={isShown ? "Hide the password" : "Show the password"}>{isShown ? "Hide" : "Show"}</button>
        </label>
        <p className="problem" role="alert" id="problem">{problem}</p>
        <button className="primary" aria-disabled={isBusy}>{isNew ? "Create account" : "Sign in"}</button>
      </form>
      <p className="muted">{isNew ? <>Already here? <Link href="/sign-in">Sign in</Link></> : <>New here? <Link href="/sign-in?new">Create an account</Link></>}</p>
    </section>
  );
}
