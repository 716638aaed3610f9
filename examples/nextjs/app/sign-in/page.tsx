import type { Metadata } from "next";
import { Mark } from "@/components/parts";
import { SignInForm } from "@/components/sign-in-form";

export const metadata: Metadata = { title: "Sign in" };
const NOTICES = {
  ended: "You were signed out. Sign in to go on.",
  refused: "The task service does not accept this session. It needs the same database and BETTER_AUTH_SECRET.",
};

export default async function SignInPage({ searchParams }: PageProps<"/sign-in">) {
  const parameters = await searchParams;
  const reason = (["ended", "refused"] as const).find((reason) => reason in parameters);
  return (
    <main className="welcome">
      <section className="pitch" aria-hidden="true">
        <p className="brand"><Mark /> Tasks</p>
        <p className="slogan">Everything you meant to&nbsp;do.</p>
        <ul><li data-done><i /> Book the train to Lyon</li><li data-done><i /> Reply to Ada</li><li><i /> Water the lemon tree</li></ul>
      </section>
      <SignInForm isNew={"new" in parameters} notice={reason && NOTICES[reason]} />
    </main>
  );
}
