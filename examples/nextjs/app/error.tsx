"use client";

/** Stands in for a page that failed in this front end, such as when Better Auth's database does not answer. */
export default function ErrorPage({ reset }: { reset: () => void }) {
  return <main className="lost"><h1>Something went wrong</h1><p>Your tasks are safe.</p><button className="primary" onClick={reset}>Try again</button></main>;
}
