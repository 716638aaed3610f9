// Better Auth's options for the tests of its JWTs, for BETTER_AUTH_TABLES.
//
//   BETTER_AUTH_PACKAGE    the package with Better Auth
//   JWT_ALGORITHM          what new keys are for
//   JWT_KIND               "neon" for ids that are uuids, and a secret that the API does not have
const { BETTER_AUTH_PACKAGE: package_, JWT_ALGORITHM: alg, JWT_KIND: kind } = process.env;
const { createAuthEndpoint, sessionMiddleware } = await import(`${package_}/api`);
const { admin, jwt, oidcProvider, signJWT } = await import(`${package_}/plugins`);

// 1.4 signs the cookie cache with the secret, 1.7 with the key of the JWTs.
const options = { jwks: { keyPairConfig: { alg } }, ...(package_ === "better-auth" && { sessionCookieCache: true }) };

// Signs an access token of @better-auth/oauth-provider 1.4.18, as its createJwtAccessToken does.
const accessTokens = {
  id: "access-tokens",
  endpoints: {
    accessToken: createAuthEndpoint("/access-token", { method: "GET", use: [sessionMiddleware] }, async (ctx) => {
      const aud = ctx.context.options.baseURL, iat = Math.floor(Date.now() / 1000);
      const payload = { sub: ctx.context.session.user.id, aud, azp: "client", scope: "openid", iss: aud, iat, exp: iat + 3600 };
      return ctx.json({ token: await signJWT(ctx, { options, payload }) });
    }),
  },
};

// An OAuth client. 1.7 has its OAuth server in a package of its own.
const client = { clientId: "client", clientSecret: "the-secret-of-a-client", redirectUrls: ["https://app.example.com/callback"] };
const oauth = oidcProvider?.({
  loginPage: "/login",
  useJWTPlugin: true,
  requirePKCE: false,
  trustedClients: [{ ...client, name: "Client", type: "web", skipConsent: true, disabled: false, metadata: {} }],
});

export const tables = {
  session: { cookieCache: { enabled: true, strategy: "jwt" } },
  plugins: [admin(), jwt(options), accessTokens, ...(oauth ? [oauth] : [])],
  ...(kind === "neon" && {
    secret: "a secret of Neon's that the API does not have",
    advanced: { database: { generateId: "uuid" } },
  }),
};
