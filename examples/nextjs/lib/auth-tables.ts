// Better Auth's fields under the names of the task API's schema specification.
const times = { createdAt: "created_at", updatedAt: "updated_at" };
export const tables = {
  user: { fields: { ...times, emailVerified: "email_verified" } },
  session: { fields: { ...times, userId: "user_id", expiresAt: "expires_at", ipAddress: "ip_address", userAgent: "user_agent" } },
  account: { fields: { ...times, userId: "user_id", providerId: "provider", accountId: "provider_account_id", idToken: "id_token",
    accessToken: "access_token", accessTokenExpiresAt: "expires_at", refreshToken: "refresh_token", refreshTokenExpiresAt: "refresh_token_expires_at" } },
  verification: { fields: { ...times, expiresAt: "expires_at" } },
};
