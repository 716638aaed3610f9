"use client";

import { useEffect, useRef, useState } from "react";
import { saveTask, type Saved } from "@/app/actions";
import { lost, outcome, tagOf, type Problem, type Task, type TasksApi } from "@/lib/tasks";

interface Props { task: Task; api: TasksApi; onSaved: (task: Task) => void; onProblem: (problem: Problem) => void; onClose: () => void }

/** A dialog to change a task. If somebody has saved it meanwhile, it shows both versions, and the person chooses. */
export function Editor({ task: { id, ...task }, api, onSaved, onProblem, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [title, setTitle] = useState(task.title);
  const [description, setDescription] = useState(task.description ?? "");
  const [tag, setTag] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  const [theirs, setTheirs] = useState<Saved["theirs"]>();
  const [isBusy, setBusy] = useState(false);
  // Closing gives the focus back to the task.
  const finish = (task: Task) => { dialog.current?.close(); onSaved(task); };
  const report = (problem: Problem) => {
    if (![401, 404].includes(problem.status)) return setProblem(problem);
    dialog.current?.close();
    onProblem(problem);
  };
  useEffect(() => {
    let isOpen = true;
    dialog.current?.showModal();
    // The list has no tags. The newest version has one, and is what the person should change.
    void outcome(api.GET("/api/tasks/{id}", { params: { path: { id } } })).then(({ data, problem, response }) => {
      if (!isOpen) return;
      if (problem) return report(problem);
      setTitle(data.title);
      setDescription(data.description ?? "");
      setTag(tagOf(response));
    });
    return () => void (isOpen = false);
    // eslint-disable-next-line react-hooks/exhaustive-deps -- once for each opening
  }, []);

  async function save(tag: string | undefined) {
    if (!tag || isBusy) return;
    setBusy(true);
    setProblem(undefined);
    const change = { title: title.trim(), description: description.trim() || null };
    const saved: Saved = await saveTask(id, tag, change).catch(lost);
    setBusy(false);
    if (saved.task) finish(saved.task);
    if (saved.problem) report(saved.problem);
    setTheirs(saved.theirs);
  }
  const { title: badTitle, description: badDescription } = problem?.fields ?? {};
  return (
    <dialog ref={dialog} aria-labelledby="editor" onClose={onClose}>
      <h2 id="editor">{theirs ? "Changed in the meantime" : "Edit task"}</h2>
      {theirs ? (
        <>
          <p className="muted">This task was saved somewhere else while you were editing. Which version should stay?</p>
          <div className="versions">
            <Version name="Your version" title={title} description={description} />
            <Version name="Saved version" title={theirs.task.title} description={theirs.task.description} />
          </div>
          <p className="problem" role="alert">{problem?.message}</p>
          <div className="actions">
            <button className="secondary" onClick={() => finish(theirs.task)}>Discard mine</button>
            <button className="primary" autoFocus aria-disabled={isBusy} onClick={() => save(theirs.tag)}>Save mine</button>
          </div>
        </>
      ) : (
        <form onSubmit={(event) => { event.preventDefault(); void save(tag); }}>
          <label>Title
            <input value={title} readOnly={!tag} maxLength={200} autoFocus aria-invalid={Boolean(badTitle)} aria-describedby="title-problem"
              onChange={(event) => setTitle(event.target.value)} />
          </label>
          <p className="problem" role="alert" id="title-problem">{badTitle && `The title ${badTitle}.`}</p>
          <label>Description
            <textarea value={description} readOnly={!tag} maxLength={10_000} rows={5} aria-invalid={Boolean(badDescription)}
              aria-describedby="other-problem" onChange={(event) => setDescription(event.target.value)} />
          </label>
          <p className="problem" role="alert" id="other-problem">
            {badDescription ? `The description ${badDescription}.` : !badTitle && problem?.message}
          </p>
          <div className="actions">
            <button type="button" className="secondary" onClick={() => dialog.current?.close()}>Cancel</button>
            <button className="primary" aria-disabled={!tag || isBusy}>Save</button>
          </div>
        </form>
      )}
    </dialog>
  );
}

const Version = ({ name, title, description }: { name: string; title: string; description: string | null }) =>
  <section><h3>{name}</h3><p className="title">{title}</p><p className="description">{description || "No description"}</p></section>;
