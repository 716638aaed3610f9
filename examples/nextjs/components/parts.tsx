// Pictures, a row of the list, and what stands in for an empty list.
import Link from "next/link";
import type { ReactNode } from "react";
import type { Task } from "@/lib/tasks";
import { addressOf, type View } from "@/lib/view";

const PATHS = {
  add: "M12 5v14M5 12h14",
  search: "M4.5 11a6.5 6.5 0 1 0 13 0 6.5 6.5 0 1 0-13 0M16 16l4.5 4.5",
  delete: "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 12.5h9l1-12.5M10 11v5M14 11v5",
  next: "M5 12h14M13 6l6 6-6 6",
};
export const Icon = ({ name }: { name: keyof typeof PATHS }) =>
  <svg className="icon" viewBox="0 0 24 24" aria-hidden="true"><path d={PATHS[name]} /></svg>;
export const Mark = () =>
  <svg className="mark" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="9" /><path d="m9.5 16.5 4.5 4.5 8.5-10" /></svg>;
const DAY = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });

interface RowProps { task: Task; onComplete: (task: Task, completed: boolean) => void; onEdit: (task: Task) => void; onDelete: (task: Task, button: HTMLElement) => void }
export function Row({ task, onComplete, onEdit, onDelete }: RowProps) {
  const { id, title, description, completed, created_at } = task;
  const isNew = id < 0; // The API has not confirmed it yet.
  return (
    <li className="task" data-done={completed || undefined} data-new={isNew || undefined}>
      <input type="checkbox" className="tick" id={`task-${id}`} aria-label={`Done: ${title}`} checked={completed} disabled={isNew}
        onChange={(event) => onComplete(task, event.target.checked)} />
      <div className="what">
        <button className="title" disabled={isNew} onClick={() => onEdit(task)}><span className="hidden">Edit </span>{title}</button>
        {description && <p className="description">{description}</p>}
      </div>
      <time dateTime={created_at} suppressHydrationWarning>{DAY.format(new Date(created_at))}</time>
      <button className="quiet" data-delete aria-label={`Delete ${title}`} disabled={isNew}
        onClick={(event) => onDelete(task, event.currentTarget)}><Icon name="delete" /></button>
    </li>
  );
}

const SHEET = "M19 4h34a10 10 0 0 1 10 10v44a10 10 0 0 1-10 10H19A10 10 0 0 1 9 58V14A10 10 0 0 1 19 4ZM20 23l4 4 8-9M20 47l4 4 8-9M41 25h12M41 49h12";
export const Blank = ({ title, children }: { title: string; children: ReactNode }) => (
  <section className="empty" role="status">
    <svg className="picture" viewBox="0 0 72 72" aria-hidden="true"><path d={SHEET} /></svg><h2>{title}</h2><p>{children}</p>
  </section>
);

export function Empty({ view }: { view: View }) {
  if (view.q) return <Blank title={`Nothing matches “${view.q}”`}><Link href={addressOf(view, { q: "" })}>Clear the search</Link></Blank>;
  if (view.status === "pending") return <Blank title="All done">Nothing is left to do. Enjoy the rest of the day.</Blank>;
  if (view.status === "completed") return <Blank title="Nothing done yet">What you tick off appears here.</Blank>;
  return <Blank title="A clear head starts here">Write down the first thing that comes to mind, and press Enter.</Blank>;
}
