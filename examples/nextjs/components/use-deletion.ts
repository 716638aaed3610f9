import { useCallback, useEffect, useState } from "react";
import { outcome, type Problem, type Task, type TasksApi } from "@/lib/tasks";

/** How long a deletion can be undone, in milliseconds, before it is sent. */
const UNDO_MS = 5000;

/** Deletes one task at a time, after a pause in which it can be undone, or as soon as the page is left. */
export function useDeletion(api: TasksApi, onProblem: (problem: Problem) => void) {
  const [pending, setPending] = useState<Task>();
  const [gone, setGone] = useState<readonly number[]>([]);
  const [isHeld, setHeld] = useState(false);
  const send = useCallback(async ({ id }: Task, keepalive = false) => {
    setGone((gone) => [...gone, id]);
    setPending((pending) => (pending?.id === id ? undefined : pending));
    const { problem } = await outcome(api.DELETE("/api/tasks/{id}", { params: { path: { id } }, keepalive }));
    if (!problem || problem.status === 404) return;
    setGone((gone) => gone.filter((other) => other !== id));
    onProblem(problem);
  }, [api, onProblem]);
  useEffect(() => {
    if (!pending) return;
    const leave = () => void send(pending, true);
    const timer = isHeld ? undefined : setTimeout(() => void send(pending), UNDO_MS);
    addEventListener("pagehide", leave);
    return () => { clearTimeout(timer); removeEventListener("pagehide", leave); };
  }, [pending, isHeld, send]);

  const finish = async () => void (pending && (await send(pending)));
  return {
    pending,
    isHidden: ({ id }: Task) => id === pending?.id || gone.includes(id),
    /** Begins the pause. A deletion before it is sent now. */
    begin: (task: Task) => { void finish(); setHeld(false); setPending(task); },
    undo: () => setPending(undefined),
    /** Stops the clock while somebody reaches for the button. */
    hold: setHeld,
    /** Hides a task that somebody else has deleted. */
    forget: ({ id }: Task) => setGone((gone) => [...gone, id]),
    finish,
  };
}
