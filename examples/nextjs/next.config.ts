import type { NextConfig } from "next";

const api = process.env.TASKS_API_URL ?? "http://localhost:9000";
const toApi = (source: string) => ({ source, destination: api + source });

const config: NextConfig = {
  poweredByHeader: false,
  turbopack: { root: import.meta.dirname },
  // The browser calls this host, with its cookie. Next.js forwards both families of paths to the API.
  rewrites: async () => ["/api/tasks/:path*", "/api/session", "/api/:user/tasks/:path*"].map(toApi),
  headers: async () => [{ source: "/:path*", headers: [
    { key: "Content-Security-Policy", value: "frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'" },
    { key: "Referrer-Policy", value: "same-origin" },
    { key: "X-Content-Type-Options", value: "nosniff" },
  ] }],
};
export default config;
