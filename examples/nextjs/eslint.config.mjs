import nextCoreWebVitals from "eslint-config-next/core-web-vitals";
import nextTypeScript from "eslint-config-next/typescript";

const config = [
  ...nextCoreWebVitals,
  ...nextTypeScript,
  // After signing in or out, the whole page is loaded anew, so that nothing of the person before stays in memory.
  { rules: { "@next/next/no-location-assign-relative-destination": "off" } },
  { ignores: [".next/**", "next-env.d.ts", "lib/openapi.d.ts"] },
];
export default config;
