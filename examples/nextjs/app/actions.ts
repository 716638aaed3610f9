"use server";

import { refresh } from "next/cache";
import { signedIn } from "@/lib/server";
import { outcome, tagOf, type Problem, type Task } from "@/lib/tasks";

/** `theirs` is the version that somebody else saved meanwhile, with its tag. */
export interface Saved { task?: Task; problem?: Problem; theirs?: { task: Task; tag: string } }

/** Adds a task. All tries have the same `key`, so that only one of them adds it. */
export async function addTask(title: string, key: string): Promise<{ problem: Problem | undefined }> {
  const { api } = await signedIn();
  const { problem } = await outcome(api.POST("/api/tasks", { params: { header: { "Idempotency-Key": key } }, body: { title } }));
  if (!problem) refresh();
  return { problem };
}

/** Saves a change of the version with this tag. If it is no longer the newest, nothing is saved. */
export async function saveTask(id: number, tag: string, change: Pick<Task, "title" | "description">): Promise<Saved> {
  const { api } = await signedIn();
  const header = { "If-Match": tag };
  const saved = await outcome(api.PATCH("/api/tasks/{id}", { params: { path: { id }, header }, body: change }));
  if (saved.data) return { task: saved.data };
  if (saved.problem.status !== 412) return { problem: saved.problem };
  const newest = await outcome(api.GET("/api/tasks/{id}", { params: { path: { id } } }));
  if (newest.problem) return { problem: newest.problem };
  const { title, description } = newest.data;
  // If this is what was to be saved, an earlier try has saved it, and its answer was lost.
  if (title === change.title && description === change.description) return { task: newest.data };
  return { theirs: { task: newest.data, tag: tagOf(newest.response) } };
}
