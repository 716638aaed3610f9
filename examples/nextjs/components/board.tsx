"use client";

import Link from "next/link";
import { useRouter } from "next/navigation";
import { useCallback, useEffect, useOptimistic, useRef, useState, useTransition } from "react";
import { addTask } from "@/app/actions";
import { authClient, browserApi, type Access } from "@/lib/browser";
import { lost, outcome, type Problem, type Task } from "@/lib/tasks";
import { addressOf, STATUSES, type View } from "@/lib/view";
import { Editor } from "./editor";
import { Composer, Toolbar } from "./forms";
import { Blank, Empty, Icon, Mark, Row } from "./parts";
import { useDeletion } from "./use-deletion";

/** How often the API is asked for changes that were made elsewhere, in milliseconds. */
const POLL_MS = 4000;
interface Person { name: string; email: string }
interface Props { user: Person; tasks: Task[]; problem: Problem | undefined; view: View; nextPage: string | undefined; access: Access }

/** The page of a signed-in person: the server's list, with what was changed here since. */
export function Board({ user, tasks, problem, view, nextPage, access }: Props) {
  const router = useRouter();
  const [{ api, renew }] = useState(() => browserApi(access));
  const [saved, setSaved] = useState<Record<number, Task>>({});
  const [message, setMessage] = useState("");
  const [editing, setEditing] = useState<Task>();
  const [, startChange] = useTransition();
  const list = useRef<HTMLUListElement>(null);

  const report = useCallback(({ status, message }: Problem) => {
    if (status === 401) return location.assign("/sign-in?ended");
    setMessage(status === 404 ? "This task is gone. It was deleted somewhere else." : `${message} Nothing was changed.`);
  }, []);
  const deletion = useDeletion(api, report);
  const { pending, undo } = deletion;
  const fail = (problem: Problem, task: Task) => {
    if (problem.status === 404) deletion.forget(task);
    report(problem);
  };
  const newest = tasks.map((task) => [task, saved[task.id] ?? task].reduce((one, other) => (other.updated_at > one.updated_at ? other : one)));
  const [optimistic, show] = useOptimistic(newest, (tasks, change: Task) =>
    tasks.some(({ id }) => id === change.id) ? tasks.map((task) => (task.id === change.id ? change : task)) : [change, ...tasks]);
  const shown = optimistic.filter((task) => !deletion.isHidden(task));
  const keep = (task: Task) => setSaved((saved) => ({ ...saved, [task.id]: task }));

  // Better Auth extends the session, and its cookie, when the browser calls it.
  useEffect(() => void authClient.getSession(), []);
  useEffect(() => {
    let cursor = "latest";
    async function poll() {
      if (document.hidden) return;
      const { data, problem } = await outcome(api.GET("/api/tasks/changes", { params: { query: { cursor } } }));
      if (data?.tasks.length || data?.removed.length || problem?.status === 410) router.refresh();
      cursor = problem?.status === 410 ? "latest" : (data?.cursor ?? cursor);
    }
    const timer = setInterval(poll, POLL_MS);
    void poll();
    return () => clearInterval(timer);
  }, [api, router]);
  useEffect(() => {
    const timer = problem?.retryAfter && setTimeout(() => router.refresh(), problem.retryAfter * 1000);
    return () => clearTimeout(timer);
  }, [problem, router]);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const isTyping = event.target instanceof Element && event.target.matches("input:not([type=checkbox]), textarea");
      if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || isTyping) return;
      event.preventDefault(); // The browser would undo what was typed before, and move the focus there.
      undo();
    };
    if (pending) addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });

  const add = (title: string, key: string) => new Promise<Problem | undefined>((resolve) => startChange(async () => {
    const now = new Date().toISOString();
    show({ id: -Date.now(), user_id: "", title, description: null, completed: false, created_at: now, updated_at: now });
    const { problem } = await addTask(title, key).catch(lost);
    if (problem?.status === 401) report(problem);
    resolve(problem);
  }));
  const complete = (task: Task, completed: boolean) => startChange(async () => {
    show({ ...task, completed });
    const path = { id: task.id };
    const { data, problem } = await outcome(api.PATCH("/api/tasks/{id}/complete", { params: { path }, body: { completed } }));
    if (problem) fail(problem, task);
    else startChange(() => keep(data));
  });

  function remove(task: Task, button: HTMLElement) {
    // The keyboard goes on at the next row, or at the one before the last.
    const buttons = [...(list.current?.querySelectorAll<HTMLElement>("[data-delete]") ?? [])];
    const at = buttons.indexOf(button);
    (buttons[at + 1] ?? buttons[at - 1] ?? document.getElementById("new-task"))?.focus();
    void renew().catch(() => undefined);
    deletion.begin(task);
  }

  async function signOut() {
    await deletion.finish();
    await authClient.signOut();
    location.assign("/sign-in");
  }

  return (
    <>
      <header className="bar">
        <Link className="brand" href="/"><Mark /> Tasks</Link>
        <span className="avatar" aria-hidden="true">{(user.name || user.email).slice(0, 1).toUpperCase()}</span>
        <span className="who">{user.email}</span>
        <button className="quiet" onClick={signOut}>Sign out</button>
      </header>
      <main className="board">
        <h1>{view.q ? `Results for “${view.q}”` : `${STATUSES[view.status]} tasks`}</h1>
        <Composer onAdd={add} />
        <Toolbar view={view} retryAfter={problem?.retryAfter} />
        {problem && <Blank title={problem.message}>{problem.retryAfter ? "Your tasks are safe. This page soon tries again by itself." : <Link href="/">Show all tasks</Link>}</Blank>}
        {!problem && shown.length === 0 && <Empty view={view} />}
        <ul className="tasks" ref={list} aria-label="Tasks" hidden={shown.length === 0}>
          {shown.map((task) => <Row key={task.id} task={task} onComplete={complete} onEdit={setEditing} onDelete={remove} />)}
        </ul>
        <nav className="pages" aria-label="Pages">
          {view.cursor && <Link className="secondary" href={addressOf(view, {})}>First page</Link>}
          {nextPage && <Link className="secondary" href={nextPage}>Next page <Icon name="next" /></Link>}
        </nav>
      </main>
      <div className="toasts" role="status" onFocus={() => deletion.hold(true)} onBlur={() => deletion.hold(false)}
        onMouseEnter={() => deletion.hold(true)} onMouseLeave={() => deletion.hold(false)}>
        {pending && <p className="toast" key={pending.id}><span>Deleted “{pending.title}”</span><button onClick={undo}>Undo</button></p>}
        {message && <p className="toast" data-problem><span>{message}</span><button onClick={() => setMessage("")}>Dismiss</button></p>}
      </div>
      {editing && <Editor key={editing.id} task={editing} api={api} onSaved={keep} onProblem={(problem) => fail(problem, editing)}
        onClose={() => setEditing(undefined)} />}
    </>
  );
}
