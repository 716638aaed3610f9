"use client";

import Link from "next/link";
import { useRouter } from "next/navigation";
import { useEffect, useRef, useState, useTransition, type FormEvent } from "react";
import type { Problem } from "@/lib/tasks";
import { addressOf, SORTS, STATUSES, type View } from "@/lib/view";
import { Icon } from "./parts";

/** How long the typing pauses before a search is sent, in milliseconds: no other call costs the database as much. */
const PAUSE_MS = 350;
/** A random key. crypto.randomUUID exists only on https and localhost. */
const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/** Adds tasks. `onAdd` reports why one was not added. */
export function Composer({ onAdd }: { onAdd: (title: string, key: string) => Promise<Problem | undefined> }) {
  const [title, setTitle] = useState("");
  const [error, setError] = useState("");
  const input = useRef<HTMLInputElement>(null);
  // The task that may or may not have been added. With its key, another try cannot add it twice.
  const unsure = useRef<{ title: string; key: string }>(undefined);
  async function submit(event: FormEvent) {
    event.preventDefault();
    input.current?.focus();
    const wanted = title.trim();
    // The field is empty at once, so the second click of a double click adds nothing.
    setTitle("");
    setError("");
    if (!wanted) return;
    const key = unsure.current?.title === wanted ? unsure.current.key : newKey();
    unsure.current = { title: wanted, key };
    const problem = await onAdd(wanted, key);
    if (!problem) return void (unsure.current = undefined);
    setTitle((typed) => typed || wanted);
    setError(problem.fields.title ? `The title ${problem.fields.title}.` : `“${wanted}” was not added. ${problem.message}`);
  }

  return (
    <form className="composer" onSubmit={submit}>
      <input id="new-task" aria-label="New task" ref={input} value={title} onChange={(event) => setTitle(event.target.value)} maxLength={200}
        placeholder="Add a task" autoComplete="off" enterKeyHint="done" aria-invalid={Boolean(error)} aria-describedby="new-task-error" />
      <button className="primary" aria-label="Add"><Icon name="add" /><span>Add</span></button>
      <p className="problem" role="alert" id="new-task-error">{error}</p>
    </form>
  );
}

/** Filter, search and order. No search is sent before `retryAfter`, the seconds that the API's last answer asked for. */
export function Toolbar({ view, retryAfter = 0 }: { view: View; retryAfter: number | undefined }) {
  const router = useRouter();
  const [isSearching, startSearch] = useTransition();
  const input = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    // The field follows the address, such as after Back, but never while somebody types.
    if (input.current && document.activeElement !== input.current) input.current.value = view.q;
  }, [view.q]);
  function search(pause: number) {
    clearTimeout(timer.current);
    const go = () => router.replace(addressOf(view, { q: input.current?.value.trim() ?? "" }), { scroll: false });
    timer.current = setTimeout(() => startSearch(go), Math.max(pause, retryAfter * 1000));
  }

  return (
    <div className="toolbar">
      <nav className="filters" aria-label="Filter">
        {(Object.keys(STATUSES) as View["status"][]).map((status) => (
          <Link key={status} href={addressOf(view, { status })} aria-current={status === view.status && "page"}>{STATUSES[status]}</Link>
        ))}
      </nav>
      <form className="search" role="search" data-busy={isSearching || undefined} onSubmit={(event) => { event.preventDefault(); search(0); }}>
        <Icon name="search" />
        <input type="search" aria-label="Search" placeholder="Search" maxLength={200} autoComplete="off" ref={input} defaultValue={view.q}
          onChange={() => search(PAUSE_MS)} />
      </form>
      <select aria-label="Sort by" value={view.sort} onChange={(event) => router.push(addressOf(view, { sort: event.target.value as View["sort"] }))}>
        {Object.entries(SORTS).map(([sort, name]) => <option key={sort} value={sort}>{name}</option>)}
      </select>
    </div>
  );
}
