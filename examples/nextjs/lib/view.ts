// What the list shows, as it stands in the address.
export const STATUSES = { all: "All", pending: "Open", completed: "Done" } as const;
export const SORTS = { "-created_at": "Newest", created_at: "Oldest", "-updated_at": "Last changed", title: "A to Z" } as const;

export interface View { status: keyof typeof STATUSES; sort: keyof typeof SORTS; q: string; cursor: string }
const FIRST: View = { status: "all", sort: "-created_at", q: "", cursor: "" };

export function readView(parameters: Record<string, string | string[] | undefined>): View {
  const read = (name: keyof View) => [parameters[name]].flat()[0] ?? FIRST[name];
  const [status, sort] = [read("status") as View["status"], read("sort") as View["sort"]];
  return { status: status in STATUSES ? status : FIRST.status, sort: sort in SORTS ? sort : FIRST.sort, q: read("q"), cursor: read("cursor") };
}

/** The address of a view. A changed view begins at its first page. */
export function addressOf(view: View, changes: Partial<View>): string {
  const query = Object.entries({ ...view, cursor: "", ...changes }).filter(([name, value]) => value !== FIRST[name as keyof View]);
  return query.length ? `/?${new URLSearchParams(query)}` : "/";
}
